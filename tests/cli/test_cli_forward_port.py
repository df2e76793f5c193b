"""`securelink forward-port`, as far as no router is needed: tests/lab has real ones."""

from __future__ import annotations

import pytest

from securelink.errors import NoGateway
from securelink.events import Address
from securelink.nat.route import Gateway
from securelink.nat.terms import Method, Protocol
from securelink.store import mappings
from securelink.store.mappings import LEFT, StoredMapping

NOWHERE = Gateway("127.0.0.1", "127.0.0.1", port=9)


@pytest.fixture(autouse=True)
def looked(monkeypatch):
    """No router is ever asked from here; which were looked for is noted."""
    asked = []

    def find(**chosen):
        asked.append(chosen)
        raise NoGateway("no IPv4 gateway found", hint="choose a network with --interface")

    monkeypatch.setattr("securelink.nat.route.find", find)
    return asked


def left_at(port: int, *, owner: str = LEFT, gateway: str = "192.0.2.1") -> StoredMapping:
    """A mapping as it is written down."""
    return StoredMapping(
        owner,
        Method.PCP,
        gateway,
        Protocol.TCP,
        Address("1.2.3.4", port),
        Address("192.0.2.7", port),
        0,
        bytes(12),
        "securelink 00000000",
        1,
    )


def written(node) -> list[StoredMapping]:
    with node.store() as conn:
        return mappings.list_all(conn)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--lease", "0"], "--lease: expected 1 to 604800 seconds, not 0"),
        (["--external-port", "65536"], "--external-port: expected a port, 1 to 65535"),
        (["--method", "igd"], "--method: expected one of auto, pcp, nat-pmp, upnp"),
        (["--gateway", "fritz.box"], "--gateway: expected the router's IPv4 address"),
        (["--interface", "eth 0"], "--interface: expected the name of a network interface"),
        (["70000"], "PORT: expected 1 to 65535, not 70000"),
        (["0"], "PORT: expected 1 to 65535, not 0"),
        (["--protocol", "sctp"], "--protocol: expected one of 'tcp', 'udp', not 'sctp'"),
        (["--list", "4000"], "--list stands alone: it opens no port"),
        (["--list", "--remove", "--all"], "--list stands alone: it opens no port"),
        (["--list", "--once"], "--list stands alone: it opens no port"),
        (["--remove", "--all", "--any-port"], "--remove stands alone: it opens no port"),
        (["--remove", "--all", "--lease", "60"], "--remove stands alone: it opens no port"),
        (["--remove", "4000", "--method", "pcp"], "--remove stands alone: it opens no port"),
        (["--remove"], "--remove takes a PORT or --all"),
        (["--remove", "4000", "--all"], "--remove takes a PORT or --all"),
        (["--all"], "--remove takes a PORT or --all"),
    ],
)
def test_what_can_t_mean_anything_is_found_before_anything_is_asked(call, looked, words, error):
    done = call("forward-port", *words, "--json")
    assert (done.status, done.result["exit"]) == (2, 2)
    assert error in done.result["error"]
    assert looked == []


def test_no_port_is_known_before_serve_runs(call, node, looked):
    node.configure("[server]\nport = 0\n")
    done = call("forward-port", "--json")
    assert (done.status, done.result["code"], looked) == (2, "usage", [])
    assert call("forward-port", "4000").status == 7
    assert looked


def test_without_a_gateway(call, looked):
    done = call("forward-port", "--interface", "eth7", "--json")
    event, failure = done.results
    assert (event["event"], event["reason"]) == ("mapping-failed", "no-gateway")
    assert (done.status, failure["exit"], failure["code"]) == (7, 7, "no-gateway")
    assert looked[0] == {"gateway": "", "interface": "eth7"}

    shown = call("forward-port", "--once")
    assert (shown.status, shown.out) == (7, "")
    assert shown.err.splitlines()[0] == "securelink: error: No IPv4 gateway found"
    assert call("forward-port", "--list").status == 7


def test_nothing_to_remove(call, looked):
    done = call("forward-port", "--remove", "--all")
    assert (done.status, done.out, done.err) == (0, "", "nothing to remove\n")
    other = call("forward-port", "--remove", "4000", "--json")
    assert (other.status, other.result["error"]) == (2, "this node has opened no port 4000")
    assert looked == []


def test_what_can_t_be_removed_stays_written_down(call, node, monkeypatch):
    call("id")
    row = left_at(4000)
    with node.store() as conn:
        mappings.record(conn, row)
    assert call("forward-port", "--remove", "4000").status == 7
    assert written(node) == [row]

    # The present router is another one.
    monkeypatch.setattr("securelink.nat.route.find", lambda **_: NOWHERE)
    done = call("forward-port", "--remove", "4000", "--json")
    assert (done.status, done.result["status"], done.result["exit"]) == (7, "failed", 7)
    assert done.result["error"] == "TCP 4000 (PCP) is on another router: 192.0.2.1"
    assert (done.result["external_port"], done.result["protocol"]) == (4000, "tcp")
    assert written(node) == [row]
    shown = call("forward-port", "--remove", "--all")
    assert (shown.status, shown.out) == (7, "")
    assert "is on another router" in shown.err


def test_another_protocol_is_left(call, node):
    with node.store() as conn:
        mappings.record(conn, left_at(4000))
    done = call("forward-port", "--remove", "4000", "--protocol", "udp", "--json")
    assert (done.status, done.result["code"]) == (2, "usage")
