"""A node behind a real router: what `serve` does there, and what others can do then."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from hosts import Host
from lab import INTERNET, LAN, LAN2, PUBLIC, ROUTER, STUN_PORT, Entry, Lab, Labs
from nodes import Machine, Serving, until

from securelink.endpoints import Endpoint, Kind
from securelink.invite import Invite
from securelink.store import addresses

PORT = 24819
ENTRY = Entry("tcp", PORT, LAN, PORT)
METHODS = ["pcp", "nat-pmp", "upnp"]
THREE = {Entry("tcp", port, LAN, port) for port in range(PORT, PORT + 3)}


def begin(node: Machine, *words: str, port: int = PORT, **settings: Any) -> Serving:
    """Serve in the network, with an invite."""
    return node.serve("--invite", *words, host="0.0.0.0", port=port, **settings)


def mapped(serving: Serving) -> dict[str, Any]:
    """Wait for a mapping, and see that it is what was asked for."""
    event = serving.event("mapping")
    assert event["protocol"] == "tcp"
    assert event["local"] == {"host": LAN, "port": serving.port}
    return event


def public_invite(serving: Serving) -> str:
    """The invite that has the public address, with the token of the first."""
    event = serving.event("invite")
    assert event["endpoints"][0]["kind"] == "public"
    invite = event["invite"]
    assert isinstance(invite, str)
    return invite


def deliver(peer: Machine, text: str) -> None:
    """Send to alice; it must arrive."""
    done = peer.send("--to", "alice", text)
    assert done.code == 0, done


@pytest.mark.parametrize("method", ["auto", *METHODS])
def test_a_peer_in_the_internet_joins_and_sends(lab: Labs, method: str) -> None:
    home = lab()
    alice, bob = home.lan.node("alice"), home.wan.node("bob")
    serving = begin(alice, "--upnp", "--method", method)
    event = mapped(serving)
    assert event["method"] == {"auto": "pcp"}.get(method, method)
    assert event["external"] == {"host": PUBLIC, "port": PORT}
    assert home.entries() == {ENTRY}
    bob.join(public_invite(serving))
    deliver(bob, "through the router")
    assert alice.texts() == ["through the router"]
    assert serving.event("link-up")["address"]["host"] == INTERNET

    serving.stop()
    assert home.entries() == set()
    assert home.wan.reaches(PUBLIC, PORT) == "refused"
    assert bob.send("--to", "alice", "--timeout", "2", "too late").code == 3


def test_the_routers_port_can_be_another(lab: Labs) -> None:
    home = lab()
    alice, bob = home.lan.node("alice"), home.wan.node("bob")
    serving = begin(alice, "--upnp", "--external-port", "5555")
    assert mapped(serving)["external"] == {"host": PUBLIC, "port": 5555}
    assert home.entries() == {Entry("tcp", 5555, LAN, PORT)}
    bob.join(public_invite(serving))
    deliver(bob, "through another port")


def test_the_configuration_can_ask_for_it(lab: Labs) -> None:
    home = lab()
    alice = home.lan.node("alice")
    alice.configure(
        '[server]\nupnp = true\n[nat]\nmethod = "nat-pmp"\nexternal_port = 5555\nlease = 60\n'
    )
    assert mapped(begin(alice))["method"] == "nat-pmp"
    assert home.entries() == {Entry("tcp", 5555, LAN, PORT)}


def test_nobody_waits_for_the_router(lab: Labs) -> None:
    home = lab(upnp=False, natpmp=False, pcp=False, second=True)
    home.lan2.keep_silent()  # which is listened to for 8 s
    alice, carol = home.lan.node("alice"), home.lan2.node("carol")
    serving = begin(alice, "--upnp")
    carol.join(serving.invite)
    deliver(carol, "before the router has answered")
    assert not [each for each in serving.events if each["event"].startswith("mapping")]
    assert serving.event("mapping-failed")["reason"] == "no-answer"


def test_invites_and_peers_get_the_public_address(lab: Labs) -> None:
    home = lab(second=True)
    alice, carol = home.lan.node("alice"), home.lan2.node("carol")
    serving = begin(alice)
    carol.join(serving.invite)
    serving.stop()
    outside = Endpoint(Kind.PUBLIC, PUBLIC, PORT)

    def known() -> list[Endpoint]:
        return carol.read(addresses.endpoints, carol.key_of("alice").raw)

    assert outside not in known()
    serving = begin(alice, "--upnp")
    first = Invite.parse(serving.invite)
    mapped(serving)
    later = Invite.parse(public_invite(serving))
    assert (later.token, later.expires) == (first.token, first.expires)
    assert later.endpoints == (outside, *first.endpoints)
    # Another process of the node knows it too, and has nothing to warn of.
    made = alice.run("invite", "--json")
    assert outside in Invite.parse(made.result["invite"]).endpoints
    assert "works inside" not in made.err
    deliver(carol, "hello")
    assert outside in known()


def begin_each(home: Lab, *words: str) -> dict[str, Serving]:
    """Three nodes on one computer, each with a port that is mapped by another method."""
    serving = {
        method: begin(home.lan.node(method), "--upnp", "--method", method, *words, port=port)
        for port, method in enumerate(METHODS, PORT)
    }
    for method, each in serving.items():
        assert mapped(each)["method"] == method
    assert home.entries() == THREE
    return serving


def test_short_leases_are_renewed(lab: Labs) -> None:
    home = lab()
    begin_each(home, "--lease", "3")
    end = time.monotonic() + 4
    until(lambda: time.monotonic() > end, "more than a lease has passed")
    # At each renewal by PCP, miniupnpd removes an entry and adds it again.
    until(lambda: home.entries() == THREE, "still mapped", timeout=2)
    assert {home.wan.reaches(PUBLIC, port) for port in range(PORT, PORT + 3)} == {"open"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_removes_the_mapping(lab: Labs, number: signal.Signals) -> None:
    home = lab()
    serving = begin_each(home)
    for each in serving.values():
        each.signal(number)
    for each in serving.values():
        assert each.finish(timeout=5).code == 0
    assert home.entries() == set()


def test_what_killed_processes_left_is_removed_by_their_next_start(lab: Labs) -> None:
    home = lab(second=True)
    serving = begin_each(home)
    stranger = map_by_hand(home, home.lan2, LAN2, 4000)
    for each in serving.values():
        each.kill()
    left = home.entries()
    assert left == THREE | {stranger}
    for port, method in enumerate(METHODS, PORT):
        other = port + 10
        (machine,) = (each for each in home.lan.machines if each.name == method)
        again = begin(machine, "--upnp", port=other)
        mapped(again)
        here = Entry("tcp", other, LAN, other)
        left -= {Entry("tcp", port, LAN, port)}
        until(lambda: home.entries() == left | {here}, "the stale mapping is gone")  # noqa: B023
        again.stop()
    assert home.entries() == {stranger}


def test_what_killed_processes_left_is_removed_by_any_start(lab: Labs) -> None:
    home = lab()
    alice = home.lan.node("alice")
    serving = begin(alice, "--upnp")
    mapped(serving)
    serving.kill()
    again = begin(alice)
    again.event("public-address")
    until(lambda: home.entries() == set(), "the stale mapping is gone", timeout=5)


def map_by_hand(home: Lab, host: Host, address: str, port: int) -> Entry:
    """An entry that some other program makes, with UPnP."""
    description = f"http://{ROUTER}:{home.control_port}/rootDesc.xml"
    words = ["upnpc", "-u", description, "-e", "Console", "-a", address]
    host.run([*words, str(port), str(port), "tcp", "3600"], check=True)
    return Entry("tcp", port, address, port)


@pytest.mark.parametrize("method", METHODS)
def test_another_host_has_the_port(lab: Labs, method: str) -> None:
    home = lab(second=True)
    theirs = map_by_hand(home, home.lan2, LAN2, PORT)
    alice, bob = home.lan.node("alice"), home.wan.node("bob")
    serving = begin(alice, "--upnp", "--method", method)
    external = mapped(serving)["external"]
    assert external["host"] == PUBLIC
    assert external["port"] != PORT
    assert home.entries() == {theirs, Entry("tcp", external["port"], LAN, PORT)}
    bob.join(public_invite(serving))
    deliver(bob, "beside the console")
    serving.stop()
    assert home.entries() == {theirs}


@pytest.mark.parametrize("method", METHODS)
def test_another_process_has_the_port(lab: Labs, method: str) -> None:
    home = lab()
    first = begin(home.lan.node("alice"), "--upnp", "--method", method)
    mapped(first)
    words = ["--upnp", "--method", method, "--external-port", str(PORT)]
    second = begin(home.lan.node("carol"), *words, port=PORT + 1)
    external = mapped(second)["external"]
    assert external["port"] != PORT
    assert home.entries() == {ENTRY, Entry("tcp", external["port"], LAN, PORT + 1)}
    second.stop()
    assert home.entries() == {ENTRY}
    first.stop()
    assert home.entries() == set()


def test_the_router_restarts(lab: Labs) -> None:
    home = lab()
    serving = begin_each(home, "--lease", "4")
    alice = begin(home.lan.node("alice"), "--upnp", "--lease", "4", port=PORT + 3)
    mapped(alice)
    bob = home.wan.node("bob")
    bob.join(public_invite(alice))
    home.reboot()
    assert home.entries() == set()
    last = {Entry("tcp", PORT + 3, LAN, PORT + 3)}
    until(lambda: home.entries() == THREE | last, "mapped again")
    deliver(bob, "after the restart")
    for each in [alice, *serving.values()]:
        each.stop()
    assert home.entries() == set()


@pytest.mark.parametrize("method", METHODS)
def test_the_provider_gives_the_router_another_address(lab: Labs, method: str) -> None:
    home = lab()
    serving = begin(home.lan.node("alice"), "--upnp", "--method", method, "--lease", "4")
    mapped(serving)
    public_invite(serving)
    home.router.setup(f"address delete {PUBLIC}/24 dev wan\naddress add 1.2.3.7/24 dev wan")
    assert serving.event("mapping-lost")["reason"]
    assert serving.event("public-address")["host"] == "1.2.3.7"
    assert mapped(serving)["external"] == {"host": "1.2.3.7", "port": PORT}
    bob = home.wan.node("bob")
    bob.join(serving.event("invite", endpoints=at_home_and("1.2.3.7"))["invite"])
    deliver(bob, "to the new address")


def at_home_and(public: str) -> list[dict[str, Any]]:
    """The endpoints of an invite that has a public address."""
    return [
        {"kind": "public", "host": public, "port": PORT},
        {"kind": "lan", "host": LAN, "port": PORT},
    ]


def test_somebody_deletes_the_entries(lab: Labs) -> None:
    home = lab()
    begin_each(home, "--lease", "4")
    for port in range(PORT, PORT + 3):
        home.delete_entry(port)
    until(lambda: home.entries() == THREE, "mapped again")
    assert {home.wan.reaches(PUBLIC, port) for port in range(PORT, PORT + 3)} == {"open"}


STUN: dict[str, Any] = {"SECURELINK_NAT_STUN": f"{INTERNET}:{STUN_PORT}"}

FAILURES: dict[str, tuple[dict[str, Any], list[str], tuple[str, str]]] = {
    "nothing answers": (
        {"upnp": False, "natpmp": False, "pcp": False},
        [],
        ("lan-only", "no-answer"),
    ),
    "no default route": ({"default_route": False}, [], ("lan-only", "no-gateway")),
    "refused": ({"deny": True}, ["--method", "upnp"], ("lan-only", "refused")),
    "only another method": (
        {"natpmp": False, "pcp": False},
        ["--method", "nat-pmp"],
        ("lan-only", "no-answer"),
    ),
    "cgnat": ({"provider": "cgnat"}, [], ("blocked", "no-public-address")),
    "cgnat, stun": (
        {"provider": "cgnat", "stun": True},
        [],
        ("blocked", "no-public-address"),
    ),
    "double nat": ({"provider": "double"}, [], ("blocked", "no-public-address")),
    "another address outside": (
        {"provider": "squatter", "stun": True},
        [],
        ("blocked", "address-differs"),
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_without_a_mapping_it_serves_the_network(lab: Labs, case: str) -> None:
    options, words, verdict = FAILURES[case]
    home = lab(second=True, **options)
    settings: dict[str, Any] = STUN if home.variant.stun else {}
    # Without a default route it isn't known which of the addresses others use.
    near = home.lan2 if home.variant.default_route else home.lan
    alice, carol = home.lan.node("alice"), near.node("carol")
    serving = begin(alice, "--upnp", *words, **settings)
    event = serving.event("mapping-failed")
    assert (event["verdict"], event["reason"]) == verdict
    assert event["sentence"].endswith(".")
    assert event["hint"]
    carol.join(serving.invite)
    deliver(carol, "from the next room")
    assert alice.texts() == ["from the next room"]
    serving.stop()
    assert home.entries() == set()


@pytest.mark.parametrize(
    ("options", "method"),
    [({"natpmp": False, "pcp": False}, "upnp"), ({"upnp": False, "pcp": False}, "nat-pmp")],
    ids=["upnp", "nat-pmp"],
)
def test_the_method_that_the_router_knows_is_found(
    lab: Labs, options: dict[str, bool], method: str
) -> None:
    home = lab(**options)
    assert mapped(begin(home.lan.node("alice"), "--upnp"))["method"] == method
    assert home.entries() == {ENTRY}


def test_a_gateway_can_be_named(lab: Labs) -> None:
    home = lab(default_route=False)
    serving = begin(home.lan.node("alice"), "--upnp", "--gateway", ROUTER)
    mapped(serving)
    assert home.entries() == {ENTRY}


def test_a_router_that_lies_is_believed_but_not_called_reachable(lab: Labs) -> None:
    home = lab(provider="cgnat", claims=PUBLIC, stun=True)
    alice, bob = home.lan.node("alice"), home.wan.node("bob")
    serving = begin(alice, "--upnp", **STUN)
    assert mapped(serving)["external"] == {"host": PUBLIC, "port": PORT}
    assert bob.run("join", "--timeout", "2", public_invite(serving)).code == 3
    assert not any("reachable" in line for line in serving.stderr_lines)


def test_the_public_address_without_a_mapping(lab: Labs) -> None:
    home = lab()
    serving = begin(home.lan.node("alice"))
    event = serving.event("public-address")
    assert (event["host"], event["kind"]) == (PUBLIC, "public")
    assert home.entries() == set()
    serving.stop()
    kinds = {event["event"] for event in serving.events}
    assert "mapping" not in kinds


def test_no_public_address_without_a_mapping(lab: Labs) -> None:
    home = lab(upnp=False, natpmp=False, pcp=False)
    serving = begin(home.lan.node("alice"))
    assert serving.event("public-address-unknown")["sentence"]


def test_the_router_is_left_alone_when_told_so(lab: Labs) -> None:
    home = lab()
    serving = begin(home.lan.node("alice"), SECURELINK_NAT_PUBLIC_ADDRESS="false")
    serving.stop()
    assert [event["event"] for event in serving.events] == ["ready"]
    assert "request received" not in home.told()["miniupnpd"]
    assert "HTTP REQUEST" not in home.told()["miniupnpd"]
