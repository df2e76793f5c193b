"""What a person sees on a terminal of 80 columns, behind a real router."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab import INTERNET, LAN, PUBLIC, ROUTER, Labs
from nodes import PATIENCE, Machine, until
from terminals import Terminal

from securelink.endpoints import Endpoint, Kind
from securelink.invite import Invite

PORT = 24819
AT_HOME = Endpoint(Kind.LAN, LAN, PORT)
OUTSIDE = Endpoint(Kind.PUBLIC, PUBLIC, PORT)


class Run:
    """A command whose outputs are a terminal."""

    def __init__(self, machine: Machine, *words: str) -> None:
        self.terminal = Terminal()
        self.process = subprocess.Popen(
            [*machine.enter, sys.executable, "-m", "securelink", *words],
            env=machine.environ | {"TERM": "xterm"},
            stdin=self.terminal.slave,
            stdout=self.terminal.slave,
            stderr=self.terminal.slave,
        )

    def invite(self) -> Invite:
        """Wait for the invite on the first screen."""
        return Invite.parse(self.terminal.shows(r"^securelink join (slinv1\w+)$")[1])

    def stop(self) -> list[str]:
        """Press Ctrl-C, wait for the end, and return the lines on the screen."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(PATIENCE) == 0, self.terminal.lines
        return self.terminal.wait(lambda lines: lines if lines[-1] == "" else None, "a clean end")

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.terminal.close()


@pytest.fixture
def on_terminal() -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(machine: Machine, *words: str) -> Run:
        runs.append(Run(machine, *words))
        return runs[-1]

    yield start
    for run in runs:
        run.close()


def test_the_first_invite_has_what_the_router_forwards(lab: Labs, on_terminal) -> None:
    net = lab()
    run = on_terminal(net.lan.node("alice"), "serve", "--upnp")
    assert run.invite().endpoints == (OUTSIDE, AT_HOME)
    lines = run.stop()
    assert "  public:   not known yet, the router is being asked" in lines
    assert not any("this invite works" in line for line in lines)
    (invited,) = [at for at, line in enumerate(lines) if line.startswith("securelink join")]
    # What is in it is explained above it.
    assert lines.index(f"the router forwards {OUTSIDE} to this machine (PCP)") < invited
    assert net.entries() == set()


def test_without_a_router_it_says_so_and_what_the_invite_is_good_for(
    lab: Labs, on_terminal
) -> None:
    net = lab(upnp=False, natpmp=False, pcp=False)
    run = on_terminal(net.lan.node("alice"), "serve", "--upnp")
    assert run.invite().endpoints == (AT_HOME,)
    run.terminal.shows(f"^No router answered UPnP, NAT-PMP or PCP on {ROUTER}.$")
    run.terminal.shows(f"^Enable one of them in the router, or forward TCP {PORT} to {AT_HOME}")
    run.terminal.shows("^this invite works inside this network only: no public address is in it$")
    run.stop()


def test_the_first_invite_waits_for_5_s_at_most(lab: Labs, on_terminal) -> None:
    net = lab(upnp=False, natpmp=False, pcp=False, second=True)
    net.lan2.keep_silent()
    run = on_terminal(net.lan.node("alice"), "serve", "--upnp")
    run.terminal.shows("the router is being asked$")
    began = time.monotonic()
    assert run.invite().endpoints == (AT_HOME,)
    assert 4 < time.monotonic() - began < 7
    # It would be listened to for longer: the invite has not waited for that.
    lines = run.stop()
    assert not any("No router" in line for line in lines)


def test_ctrl_c_while_a_device_keeps_silent(lab: Labs, on_terminal) -> None:
    net = lab(upnp=False, natpmp=False, pcp=False, second=True)
    net.lan2.keep_silent()
    run = on_terminal(net.lan.node("alice"), "forward-port", "--verbose")
    run.terminal.shows("^asking the router for TCP")
    until(lambda: "ESTAB" in net.lan2.run(["ss", "-tnH"], check=True).stdout, "it is asked")
    began = time.monotonic()
    lines = run.stop()
    assert time.monotonic() - began < 1
    assert lines == [f"asking the router for TCP {PORT}", ""]


def test_without_a_mapping_the_router_is_compared_with_stun(lab: Labs, on_terminal) -> None:
    net = lab(provider="squatter", stun=True)
    alice = net.lan.node("alice", SECURELINK_NAT_STUN=INTERNET)
    run = on_terminal(alice, "serve")
    run.terminal.shows(rf"^the public address is {PUBLIC} \(by STUN\)$")
    run.terminal.shows(rf"^Router says {net.router_wan}, the internet sees {PUBLIC}: a second NAT")
    run.stop()


def test_the_page_shows_what_the_doctor_says(lab: Labs) -> None:
    """docs/nat.md, but for times, addresses and whose it is."""
    page = Path(__file__).parents[2] / "docs" / "nat.md"
    (shown,) = re.findall(r"\$ securelink doctor\n(.*?)```", page.read_text(), re.DOTALL)
    for there, here in {"192.168.1.20": LAN, "192.168.1.1": ROUTER, "203.0.113.7": PUBLIC}.items():
        shown = shown.replace(there, here)
    done = lab().lan.node("alice").run("doctor")
    assert done.code == 0

    def same(text: str) -> list[str]:
        text = re.sub(r"\([A-Z2-7]{7}\)", "(ID)", text)
        return re.sub(r" +\d+(\.\d+)? s  ", " TIME ", text).splitlines()

    assert same(done.out) == same(shown)


def test_the_doctor_cuts_no_word(lab: Labs, on_terminal) -> None:
    run = on_terminal(lab().lan.node("alice"), "doctor")
    assert run.process.wait(PATIENCE) == 0
    lines = run.terminal.wait(lambda lines: lines if lines[-1] == "" else None, "its end")
    assert all(len(line) <= 80 for line in lines), lines
    assert lines[-4:-1] == [
        f"mapped: The router forwards TCP {PUBLIC}:{PORT} to this computer when asked, not",
        "verified from the internet.",
        "next: Have it kept open: securelink serve --upnp.",
    ]
