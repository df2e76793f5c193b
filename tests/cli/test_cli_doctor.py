"""`securelink doctor`, as far as no router is needed: tests/lab has real ones."""

from __future__ import annotations

import socket

import pytest

from securelink.errors import NoGateway
from securelink.nat.route import Gateway

RUNGS = [
    *("identity", "port", "listening", "lan-address", "gateway"),
    *("pcp", "nat-pmp", "upnp", "external-address", "mapping", "stun", "ipv6"),
]


@pytest.fixture(autouse=True)
def looked(monkeypatch):
    """No router is ever asked from here; how it was looked for is noted."""
    asked = []

    def find(**chosen):
        asked.append(chosen)
        raise NoGateway("no IPv4 gateway found", hint="choose a network with --interface")

    monkeypatch.setattr("securelink.nat.route.find", find)
    monkeypatch.setattr(
        "securelink.interfaces.local_addresses", lambda: ["192.0.2.7", "2001:db9::7"]
    )
    return asked


@pytest.fixture
def port(node):
    """A free port, configured."""
    with socket.create_server(("", 0)) as taken:
        number = taken.getsockname()[1]
    node.configure(f"[server]\nport = {number}\n")
    return number


def test_the_shape_of_its_answer(call, port, looked):
    done = call("doctor", "--json")
    told = done.result
    assert done.status == 7
    assert set(told) == {"verdict", "reason", "sentence", "hint", "rungs"}
    assert (told["verdict"], told["reason"]) == ("lan-only", "no-gateway")
    assert [each["name"] for each in told["rungs"]] == RUNGS
    assert all(set(each) == {"name", "result", "seconds", "evidence"} for each in told["rungs"])
    found = {each["name"]: (each["result"], each["evidence"]) for each in told["rungs"]}
    assert found["port"] == ("ok", f"{port}, free")
    assert found["listening"] == ("absent", "serve is not running")
    assert found["lan-address"][1].startswith("192.0.2.7")
    assert found["gateway"] == ("failed", "no IPv4 gateway found")
    assert found["upnp"] == ("skipped", "no router to ask")
    assert found["ipv6"] == ("ok", "2001:db9::7, global")
    assert len(looked) == 1


@pytest.mark.usefixtures("port")
def test_what_a_person_reads(call):
    done = call("doctor")
    *rungs, verdict, step = done.out.splitlines()
    assert (done.status, done.err) == (7, "")
    assert [line[6:22].strip() for line in rungs] == [
        *("identity", "port", "listening", "LAN address", "gateway", "PCP", "NAT-PMP", "UPnP"),
        *("external address", "mapping", "STUN", "IPv6"),
    ]
    assert verdict == "lan-only: No IPv4 gateway found."
    assert step == "next: Choose a network with --interface, or name the router with --gateway."
    assert call("doctor", "-q").out.splitlines() == [verdict, step]


@pytest.mark.usefixtures("port")
def test_on_a_terminal_no_word_is_cut(call_on_terminal, node):
    lines = call_on_terminal("doctor").out.splitlines()
    # The path of the configuration has no place to be broken at; it stands below its rung.
    assert [line for line in lines if len(line) > 80] == [
        line for line in lines if str(node.home) in line
    ]
    below = next(line for line in lines if str(node.home) in line)
    assert below == f"{'':33}{node.home / 'config.toml'}"


def test_a_public_address_needs_no_router(call, port, monkeypatch):
    monkeypatch.setattr("securelink.nat.route.find", lambda **_: Gateway("1.2.3.1", "1.2.3.4"))
    done = call("doctor", "--json")
    found = {each["name"]: each["result"] for each in done.result["rungs"]}
    assert (done.status, done.result["reason"]) == (0, "own-address")
    assert (found["pcp"], found["mapping"]) == ("skipped", "skipped")


def test_a_port_that_another_program_has(call, port, monkeypatch):
    monkeypatch.setattr("securelink.nat.route.find", lambda **_: Gateway("1.2.3.1", "1.2.3.4"))
    with socket.create_server(("", port)):
        done = call("doctor", "--json")
    (found,) = (each for each in done.result["rungs"] if each["name"] == "port")
    assert found["result"] == "failed"
    assert "in use" in found["evidence"]
    assert "--port" in done.result["hint"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--lease", "x"], "--lease: expected a whole number, not 'x'"),
        (["--gateway", "0.0.0.0"], "--gateway: expected the router's IPv4 address"),
        (["--method", "igd"], "--method: expected one of auto, pcp, nat-pmp, upnp"),
    ],
)
def test_what_can_t_mean_anything_is_found_first(call, looked, words, error):
    done = call("doctor", *words, "--json")
    assert (done.status, error in done.result["error"]) == (2, True), done.result
    assert looked == []


def test_no_port_is_known_before_serve_runs(call, node, looked):
    node.configure("[server]\nport = 0\n")
    done = call("doctor", "--json")
    assert (done.status, done.result["code"], looked) == (2, "usage", [])
