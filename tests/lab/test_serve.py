"""`serve --upnp` behind a real router: reached from outside, and cleaned up after."""

from __future__ import annotations

import signal

import pytest
from conftest import Labs
from lab import LAN, PUBLIC
from nodes import until

PORT = 24819


@pytest.mark.parametrize("method", ["pcp", "nat-pmp", "upnp"])
def test_a_peer_outside_joins_and_sends_through_the_router(lab: Labs, method: str) -> None:
    net = lab()
    home, away = net.lan.node("home"), net.wan.node("away")
    serving = home.start("serve", "--json", "--invite", "--upnp", "--method", method)
    ready = serving.event("ready")
    assert all(each["host"] != PUBLIC for each in ready["endpoints"])
    mapping = serving.event("mapping")
    assert (mapping["method"], mapping["external"]) == (method, {"host": PUBLIC, "port": PORT})
    assert mapping["local"] == {"host": LAN, "port": PORT}
    invite = serving.event("invite")
    assert invite["endpoints"][0] == {"kind": "public", "host": PUBLIC, "port": PORT}
    away.join(invite["invite"])
    sent = away.send("hello from outside")
    assert sent.code == 0, sent.err
    assert serving.event("message")["text"] == "hello from outside"
    serving.signal(signal.SIGTERM)
    assert serving.finish().code == 0
    assert not net.entries()
    assert net.wan.reaches(PUBLIC, PORT) != "open"


def test_kill_9_leaves_what_the_next_start_cleans_up(lab: Labs) -> None:
    net = lab()
    home = net.lan.node("home")
    serving = home.start("serve", "--json", "--upnp")
    serving.event("mapping")
    assert len(net.entries()) == 1
    serving.kill()
    assert len(net.entries()) == 1
    again = home.start("serve", "--json", "--port", "24820", "--upnp")
    again.event("mapping")
    until(lambda: {entry.external for entry in net.entries()} == {24820}, "the old entry is gone")


def test_a_rebooted_router_is_asked_again(lab: Labs) -> None:
    net = lab(natpmp=False, pcp=False)
    home = net.lan.node("home")
    serving = home.start("serve", "--json", "--upnp", "--lease", "120")
    serving.event("mapping")
    net.reboot()
    assert not net.entries()


def test_without_a_router_the_server_serves_all_the_same(lab: Labs) -> None:
    net = lab(upnp=False, natpmp=False, pcp=False)
    home = net.lan.node("home")
    serving = home.start("serve", "--json", "--upnp")
    serving.event("ready")
    failed = serving.event("mapping-failed")
    assert failed["verdict"] == "blocked" or failed["verdict"] == "lan-only"
    assert failed["hint"]
    assert home.send("--to", "me", "hello").code == 0


def test_the_public_address_is_asked_for_without_a_mapping(lab: Labs) -> None:
    net = lab()
    serving = net.lan.node("home").start("serve", "--json")
    assert serving.event("public-address")["host"] == PUBLIC
    assert not net.entries()
