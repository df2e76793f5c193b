"""`forward-port` and `doctor` behind a real router."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from hosts import Host
from lab import INTERNET, LAN, LAN2, PUBLIC, ROUTER, Entry, Lab, Labs
from nodes import Done, Machine, until

PORT = 24819
OURS = Entry("tcp", 4000, LAN, 4000)


def upnpc(net: Lab, host: Host, *words: str) -> None:
    """Ask the router as another program on that computer would."""
    description = f"http://{ROUTER}:{net.control_port}/rootDesc.xml"
    host.run(["upnpc", "-u", description, *words], check=True)


def failed(done: Done) -> dict[str, Any]:
    """The failure with which a command has ended, as JSON."""
    *_, last = done.results
    assert (last["status"], last["exit"]) == ("failed", done.code)
    return last


# ---- forward-port


@pytest.mark.parametrize("method", ["pcp", "nat-pmp", "upnp"])
def test_a_port_is_open_until_ctrl_c(lab: Labs, method: str) -> None:
    net = lab()
    opened = net.lan.node("home").start("forward-port", "4000", "--json", "--method", method)
    mapping = opened.event("mapping")
    assert (mapping["method"], mapping["protocol"]) == (method, "tcp")
    assert mapping["external"] == {"host": PUBLIC, "port": 4000}
    assert mapping["local"] == {"host": LAN, "port": 4000}
    assert mapping["good_until"].endswith("Z")
    assert net.entries() == {OURS}
    opened.signal(signal.SIGINT)
    assert opened.finish().code == 0
    assert net.entries() == set()


def test_what_a_person_reads(lab: Labs) -> None:
    net = lab()
    opened = net.lan.node("home").start("forward-port", "--protocol", "udp", "--lease", "600")
    opened.stderr("open until Ctrl-C; --once leaves it for 10 min\n")
    assert net.entries() == {Entry("udp", PORT, LAN, PORT)}
    opened.signal(signal.SIGTERM)
    done = opened.finish()
    assert done.code == 0
    assert done.out == f"UDP {PUBLIC}:{PORT} -> {LAN}:{PORT} (PCP, lease 10 min)\n"
    assert done.err.endswith("\nclosed\n")
    assert "reachable" not in done.out + done.err
    assert net.entries() == set()


def test_the_port_of_a_running_serve_is_the_default(lab: Labs) -> None:
    net = lab()
    home = net.lan.node("home")
    home.start("serve", "--json", "--port", "4000").event("ready")
    assert home.run("forward-port", "--once").code == 0
    assert net.entries() == {OURS}


def test_once_leaves_the_port_open_until_it_is_removed(lab: Labs) -> None:
    net = lab()
    home = net.lan.node("home")
    done = home.run("forward-port", "4000", "--once", "--lease", "600", "--external-port", "5000")
    assert done.code == 0
    assert done.err.startswith("open for 10 min; securelink forward-port --remove 5000 closes it\n")
    left = Entry("tcp", 5000, LAN, 4000)
    assert net.entries() == {left}
    # Neither the next start nor a look removes what was left on purpose.
    assert home.run("forward-port", "4001", "--once").code == 0
    assert home.run("doctor").code == 0
    assert net.entries() == {left, Entry("tcp", 4001, LAN, 4001)}

    removed = home.run("forward-port", "--remove", "5000", "--json")
    assert removed.result["status"] == "removed"
    assert (removed.result["external_port"], removed.result["method"]) == (5000, "pcp")
    assert net.entries() == {Entry("tcp", 4001, LAN, 4001)}


@pytest.mark.parametrize("method", ["pcp", "nat-pmp", "upnp"])
def test_list_and_remove_tell_ours_from_others(lab: Labs, method: str) -> None:
    net = lab(second=True)
    home = net.lan.node("home")
    upnpc(net, net.lan, "-e", "a game", "-a", LAN, "6001", "6001", "tcp", "600")
    upnpc(net, net.lan2, "-e", "a camera", "-a", LAN2, "6002", "6002", "udp", "600")
    others = {Entry("tcp", 6001, LAN, 6001), Entry("udp", 6002, LAN2, 6002)}
    assert home.run("forward-port", "4000", "--once", "--method", method).code == 0
    assert net.entries() == {OURS, *others}

    listed = home.run("forward-port", "--list", "--json").results
    assert {each["external_port"]: each["ours"] for each in listed} == {
        4000: True,
        6001: False,
        6002: False,
    }
    ours, game, camera = sorted(listed, key=lambda each: each["external_port"])
    assert ours["local"] == {"host": LAN, "port": 4000}
    assert 0 < ours["lease"] <= 3600
    assert (game["description"], camera["description"]) == ("a game", "a camera")
    assert (camera["protocol"], camera["enabled"]) == ("udp", True)
    words = [line.split() for line in home.run("forward-port", "--list").out.splitlines()]
    assert [line[:3] for line in words if "ours" in line] == [["tcp", "4000", f"{LAN}:4000"]]

    stranger = home.run("forward-port", "--remove", "6001", "--json")
    assert (failed(stranger)["code"], stranger.code) == ("usage", 2)
    assert net.entries() == {OURS, *others}
    assert home.run("forward-port", "--remove", "--all").code == 0
    assert net.entries() == others
    again = home.run("forward-port", "--remove", "--all")
    assert (again.code, again.out, again.err) == (0, "", "nothing to remove\n")


def test_a_router_that_can_t_list(lab: Labs) -> None:
    net = lab(upnp=False)
    home = net.lan.node("home")
    assert home.run("forward-port", "4000", "--once").code == 0
    done = home.run("forward-port", "--list", "--json")
    assert (done.result["external_port"], done.result["ours"]) == (4000, True)
    assert "can't list" in done.err


def test_what_a_living_process_keeps_is_not_removed(lab: Labs) -> None:
    net = lab()
    home = net.lan.node("home")
    opened = home.start("forward-port", "4000", "--json")
    opened.event("mapping")
    refused = home.run("forward-port", "--remove", "4000", "--json")
    assert (failed(refused)["code"], refused.code) == ("already-running", 1)
    done = home.run("forward-port", "--remove", "--all")
    assert (done.code, "TCP 4000 (PCP) stays" in done.err) == (0, True)
    assert net.entries() == {OURS}
    # Both want the same port: the last to leave closes it.
    second = home.start("forward-port", "4000", "--json")
    second.event("mapping")
    opened.signal(signal.SIGINT)
    assert opened.finish().code == 0
    assert net.entries() == {OURS}
    second.signal(signal.SIGINT)
    assert second.finish().code == 0
    assert net.entries() == set()


def test_the_next_start_removes_what_a_killed_one_left(lab: Labs) -> None:
    net = lab()
    home = net.lan.node("home")
    opened = home.start("forward-port", "4000", "--json")
    opened.event("mapping")
    opened.kill()
    assert net.entries() == {OURS}
    other = home.start("forward-port", "4001", "--json")
    other.event("mapping")
    until(lambda: net.entries() == {Entry("tcp", 4001, LAN, 4001)}, "the old one is removed")


def test_what_a_killed_one_left_by_a_method_that_is_not_asked_now(lab: Labs) -> None:
    net = lab()
    home = net.lan.node("home")
    opened = home.start("forward-port", "4000", "--json", "--method", "pcp")
    opened.event("mapping")
    opened.kill()
    other = home.start("forward-port", "4001", "--json", "--method", "upnp")
    other.event("mapping")
    assert net.entries() == {Entry("tcp", 4001, LAN, 4001)}


@pytest.mark.parametrize("method", ["auto", "pcp", "nat-pmp", "upnp"])
def test_a_port_that_another_computer_has(lab: Labs, method: str) -> None:
    net = lab(second=True)
    home = net.lan.node("home")
    upnpc(net, net.lan2, "-e", "a camera", "-a", LAN2, "4000", "4000", "tcp", "600")
    camera = Entry("tcp", 4000, LAN2, 4000)
    refused = home.run("forward-port", "4000", "--method", method, "--json")
    assert (refused.code, failed(refused)["code"]) == (7, "port-taken")
    assert refused.results[-2]["event"] == "mapping-failed"
    assert refused.results[-2]["reason"] == "port-taken"
    if method in ("auto", "upnp"):  # the others don't tell
        assert f"belongs to {LAN2} (a camera)" in refused.results[-2]["sentence"]
    assert "--any-port" in failed(refused)["hint"]
    assert net.entries() == {camera}

    opened = home.start("forward-port", "4000", "--method", method, "--any-port", "--json")
    mapping = opened.event("mapping")
    assert mapping["external"]["port"] != 4000
    ours = Entry("tcp", mapping["external"]["port"], LAN, 4000)
    assert net.entries() == {camera, ours}
    opened.signal(signal.SIGTERM)
    assert opened.finish().code == 0
    assert net.entries() == {camera}


@pytest.mark.parametrize(
    ("variant", "reason", "code"),
    [
        ({"upnp": False, "natpmp": False, "pcp": False}, "no-answer", "router-silent"),
        ({"natpmp": False, "pcp": False, "deny": True}, "refused", "mapping-refused"),
        ({"provider": "cgnat"}, "no-public-address", "no-usable-address"),
        ({"default_route": False}, "no-gateway", "no-gateway"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_why_no_port_can_be_opened(
    lab: Labs, variant: dict[str, Any], reason: str, code: str
) -> None:
    net = lab(**variant)
    home = net.lan.node("home")
    done = home.run("forward-port", "--json")
    assert done.code == 7
    (event,) = (each for each in done.results if each.get("event") == "mapping-failed")
    assert event["reason"] == reason
    told = failed(done)
    assert told["code"] == code
    assert told["hint"]
    plain = home.run("forward-port", "--once")
    assert (plain.code, plain.out) == (7, "")
    assert plain.err == f"securelink: error: {told['error']}\nhint: {told['hint']}\n"
    assert net.entries() == set()


def test_ctrl_c_while_the_router_is_looked_for(lab: Labs) -> None:
    net = lab(upnp=False, natpmp=False, pcp=False)
    opened = net.lan.node("home").start("forward-port", "--verbose")
    opened.stderr("asking the router")
    opened.signal(signal.SIGINT)
    done = opened.finish()
    assert (done.code, done.out) == (0, "")


# ---- doctor


def doctor(home: Machine, *words: str) -> tuple[Done, dict[str, str]]:
    """What it says as JSON, with the results of its rungs; a person reads the same verdict."""
    done = home.run("doctor", "--json", *words)
    told = done.result
    assert done.code == (0 if told["verdict"] == "mapped" else 7)
    assert "reachable" not in done.out
    assert told["hint"]
    return done, {rung["name"]: rung["result"] for rung in told["rungs"]}


@pytest.mark.parametrize(
    ("variant", "reason", "rungs"),
    [
        ({}, "mapped", {"pcp": "ok", "nat-pmp": "ok", "upnp": "ok", "external-address": "ok"}),
        ({"natpmp": False, "pcp": False}, "mapped", {"pcp": "absent", "upnp": "ok"}),
        ({"upnp": False, "pcp": False}, "mapped", {"pcp": "absent", "nat-pmp": "ok"}),
        ({"upnp": False, "natpmp": False}, "mapped", {"pcp": "ok", "external-address": "absent"}),
        (
            {"natpmp": False, "pcp": False, "deny": True},
            "refused",
            {"external-address": "ok", "mapping": "failed"},
        ),
        (
            {"upnp": False, "natpmp": False, "pcp": False},
            "no-answer",
            {"gateway": "ok", "upnp": "absent", "mapping": "skipped"},
        ),
        ({"default_route": False}, "no-gateway", {"gateway": "failed", "upnp": "skipped"}),
        ({"provider": "cgnat"}, "no-public-address", {"upnp": "ok", "external-address": "failed"}),
        ({"provider": "double"}, "no-public-address", {"external-address": "failed"}),
        (
            {"provider": "cgnat", "upnp": False, "natpmp": False},
            "router-failed",
            {"external-address": "absent", "mapping": "failed"},
        ),
        (
            {"provider": "cgnat", "stun": True},
            "no-public-address",
            {"external-address": "failed", "mapping": "skipped", "stun": "ok"},
        ),
        (
            {"provider": "cgnat", "claims": PUBLIC, "stun": True},
            "mapped",
            {"external-address": "ok", "mapping": "ok", "stun": "ok"},
        ),
        ({"stun": True}, "mapped", {"stun": "ok"}),
        (
            {"provider": "squatter", "stun": True},
            "address-differs",
            {"mapping": "ok", "stun": "failed"},
        ),
    ],
    ids=[
        "normal",
        "upnp",
        "nat-pmp",
        "pcp",
        "deny",
        "none",
        "no-route",
        "cgnat",
        "double",
        "cgnat-pcp",
        "cgnat-stun",
        "cgnat-lies",
        "stun",
        "squatter",
    ],
)
def test_the_doctor_is_right(
    lab: Labs, variant: dict[str, Any], reason: str, rungs: dict[str, str]
) -> None:
    net = lab(**variant)
    stun = {"SECURELINK_NAT_STUN": INTERNET} if net.variant.stun else {}
    done, found = doctor(net.lan.node("home", **stun))
    assert done.result["reason"] == reason
    assert found.items() >= rungs.items()
    common = {"identity": "ok", "port": "ok", "listening": "absent", "ipv6": "absent"}
    assert found.items() >= common.items()
    if reason == "mapped":
        assert f"TCP {PUBLIC}:{PORT}" in done.result["sentence"]
        assert "is mapped" not in done.result["sentence"], "it has been removed"
        assert "serve --upnp" in done.result["hint"]
    assert net.entries() == set()


def test_the_doctor_names_whoever_has_the_port(lab: Labs) -> None:
    net = lab(second=True)
    upnpc(net, net.lan2, "-e", "a camera", "-a", LAN2, str(PORT), str(PORT), "tcp", "600")
    done, found = doctor(net.lan.node("home"))
    assert (done.result["verdict"], done.result["reason"]) == ("mapped", "other-port")
    assert f"Port {PORT} belongs to {LAN2} (a camera)" in done.result["sentence"]
    assert found["mapping"] == "ok"
    assert net.entries() == {Entry("tcp", PORT, LAN2, PORT)}


def test_the_doctor_asks_for_the_configured_port_of_the_router(lab: Labs) -> None:
    net = lab()
    done, _ = doctor(net.lan.node("home"), "--external-port", "5555")
    assert f"TCP {PUBLIC}:5555" in done.result["sentence"]


@pytest.mark.parametrize("again", [False, True], ids=["mapped anew", "not running"])
def test_the_doctor_after_a_crash(lab: Labs, *, again: bool) -> None:
    net = lab()
    home = net.lan.node("home")
    killed = home.start("serve", "--json", "--upnp", "--external-port", "5555")
    killed.event("mapping")
    killed.kill()
    if again:
        home.start("serve", "--json", "--upnp").event("mapping")
    done, found = doctor(home)
    assert (done.result["reason"], found["mapping"]) == ("mapped", "ok")
    assert f"TCP {PUBLIC}:{PORT}" in done.result["sentence"]
    # What the dead one left is nobody's wish, and not taken for what is kept open.
    assert net.entries() == ({Entry("tcp", PORT, LAN, PORT)} if again else set())


def test_the_doctor_of_a_router_that_was_restarted(lab: Labs) -> None:
    net = lab()
    home = net.lan.node("home")
    home.start("serve", "--json", "--upnp").event("mapping")
    net.reboot()
    done, found = doctor(home)
    assert (done.result["verdict"], found["mapping"]) == ("lan-only", "failed")


def test_a_router_that_hangs_holds_up_nobody_at_the_end(lab: Labs) -> None:
    net = lab()
    home = net.lan.node("home")
    opened = home.start("forward-port", "4000")
    opened.stderr("open until Ctrl-C")
    net.hang()
    opened.signal(signal.SIGINT)
    done = opened.finish(timeout=5)
    assert done.code == 0
    assert "the router did not close TCP 4000: the next start tries again" in done.err
    assert net.entries() == {OURS}
    net.go_on()
    assert home.run("forward-port", "4001", "--once").code == 0
    assert net.entries() == {Entry("tcp", 4001, LAN, 4001)}


def test_the_doctor_of_a_router_that_is_stuck(lab: Labs) -> None:
    net = lab(deny=True)
    done, found = doctor(net.lan.node("home"))
    # It looks for a port that is allowed, and may answer UPnP in time, or not.
    assert done.result["reason"] in ("refused", "ignored")
    assert (found["external-address"], found["mapping"]) == ("ok", "failed")


def test_what_a_person_reads_of_the_doctor(lab: Labs) -> None:
    net = lab(natpmp=False, pcp=False)
    done = net.lan.node("home").run("doctor")
    *rungs, verdict, step = done.out.splitlines()
    assert [line[:4].strip() for line in rungs] == [
        *("ok", "ok", "no", "ok", "ok", "no", "no", "ok", "ok", "ok", "-", "no")
    ]
    assert all(" s  " in line for line in rungs)
    assert verdict.startswith("mapped: The router forwards TCP")
    assert step == "next: Have it kept open: securelink serve --upnp."
    quiet = net.lan.node("home").run("doctor", "-q")
    assert quiet.out.splitlines() == [verdict, step]


@pytest.mark.parametrize("method", ["pcp", "nat-pmp", "upnp"])
def test_what_serve_has_open_is_read(lab: Labs, method: str) -> None:
    net = lab()
    home = net.lan.node("home")
    serving = home.start("serve", "--json", "--upnp", "--method", method)
    serving.event("mapping")
    ours = Entry("tcp", PORT, LAN, PORT)
    done, found = doctor(home)
    assert (done.result["reason"], found["mapping"], found["listening"]) == ("mapped", "ok", "ok")
    assert f"TCP {PUBLIC}:{PORT} is mapped" in done.result["sentence"]
    assert net.entries() == {ours}
    net.delete_entry(PORT)
    done, found = doctor(home)
    assert (done.result["verdict"], found["mapping"]) == ("lan-only", "failed")
    assert net.entries() == set(), "a look makes nothing anew"


def test_a_port_that_another_program_listens_on(lab: Labs) -> None:
    net = lab()
    home = net.lan.node("home")
    other = net.lan.node("other")
    other.start("serve", "--json").event("ready")
    done, found = doctor(home)
    assert (done.result["verdict"], found["port"]) == ("mapped", "failed")
    assert "--port" in done.result["hint"]


def test_a_serve_that_only_this_machine_can_reach(lab: Labs) -> None:
    net = lab()
    home = net.lan.node("home")
    home.start("serve", "--json", "--host", "127.0.0.1").event("ready")
    done, found = doctor(home)
    assert (found["port"], found["listening"]) == ("ok", "failed")
    assert "[server] host" in done.result["hint"]
