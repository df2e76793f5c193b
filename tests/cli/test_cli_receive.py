"""`receive`: whom it means, and what it can't mean, as far as that goes without a server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from securelink.cli.output import Output
from securelink.cli.receive import _complain
from securelink.cli.screen import ReceivingScreen
from securelink.errors import NotThem
from securelink.events import Address, LinkUp


@pytest.fixture
def receive(node):
    """Run `receive` to its end, which is near."""

    def receive(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "securelink", "receive", *words],
            capture_output=True,
            encoding="utf-8",
            timeout=20,
        )

    return receive


def test_nobody_to_receive_from(receive):
    called = receive()
    assert called.returncode == 2
    assert "there are no peers yet" in called.stderr
    assert "hint: pair first" in called.stderr


def test_several_to_receive_from(receive, node):
    node.peer("alice", "127.0.0.1")
    node.peer("carol", "127.0.0.1")
    called = receive()
    assert called.returncode == 2
    assert "several peers are known: say which with NAME" in called.stderr
    assert "hint: one of: alice, carol" in called.stderr


def test_somebody_unknown(receive, node):
    node.peer("alice", "127.0.0.1")
    called = receive("alise")
    assert called.returncode == 2
    assert "hint: did you mean alice?" in called.stderr


@pytest.mark.parametrize("words", [(), ("--once",), ("--json",)])
def test_oneself(receive, node, call, words):
    node.peer("alice", "127.0.0.1")
    own = call("id", "--json").result["id"]
    for name in ("me", own):
        called = receive(name, *words)
        assert called.returncode == 2
        told = called.stdout + called.stderr
        assert "nothing is received from this machine itself" in told
        assert "`securelink serve` takes what is sent to me" in told
        assert "no peer is called" not in told


@pytest.mark.parametrize("words", [(), ("--once",), ("alice",)])
def test_a_peer_without_an_address(receive, node, words):
    node.peer("alice")
    called = receive(*words)
    assert called.returncode == 2
    assert "no address of alice is known" in called.stderr
    assert "--endpoint HOST:PORT" in called.stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--endpoint", "lan"), "no lan endpoint of alice is known"),
        (("--endpoint", "::1"), "--endpoint: "),
        (("--timeout", "-1"), "--timeout: "),
        (("--timeout", "soon"), "--timeout: expected a number, not 'soon'"),
        (("--conflict", "replace"), "--conflict: expected one of rename, skip, overwrite"),
        (("--folder", "~nobody-here/in"), "--folder: no home folder for '~nobody-here/in'"),
    ],
)
def test_what_receive_can_not_mean(receive, node, words, error):
    node.peer("alice", "127.0.0.1")
    called = receive(*words)
    assert called.returncode == 2
    assert error in called.stderr


@pytest.mark.parametrize("words", [("--once", "--timeout", "0.2"), ("--timeout", "0.2")])
def test_nobody_answers(receive, node, words):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        node.peer("alice")
        endpoint = f"127.0.0.1:{deaf.getsockname()[1]}"
        called = receive("--endpoint", endpoint, *words)
        for_a_script = receive("--json", "--endpoint", endpoint, *words)
    tried = f"hint: tried: {endpoint} (connection refused)"
    assert called.returncode == 3
    assert called.stderr.splitlines() == [
        "alice is not there yet, trying for 0.2 s",
        "securelink: error: alice could not be reached",
        tried,
    ]
    assert for_a_script.returncode == 3
    assert json.loads(for_a_script.stdout)["code"] == "unreachable"
    assert "could not be reached" not in for_a_script.stderr


def test_the_configuration_says_from_whom_and_how_long(receive, node):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        node.peer("alice", "127.0.0.1")
        node.peer("carol")
        endpoint = f"127.0.0.1:{deaf.getsockname()[1]}"
        node.configure(f'[client]\npeer = "carol"\ntimeout = 0.2\nendpoint = "{endpoint}"\n')
        called = receive("--once")
    assert called.returncode == 3
    assert "carol could not be reached" in called.stderr


# ---- what a person sees


def shown(capsys, write, **options) -> str:
    write(Output(environ={"NO_COLOR": "1"}, **options))
    return capsys.readouterr().err


def linked(output: Output) -> None:
    ReceivingScreen(output).event(LinkUp(peer="alice", address=Address("192.168.1.20", 24819)))


def refused(output: Output) -> None:
    _complain(output, NotThem("whoever answers is not alice", hint="pair again"))


def test_a_link_is_a_line(capsys):
    assert shown(capsys, linked) == "receiving from alice (lan 192.168.1.20)\n"
    assert shown(capsys, linked, quiet=True) == ""


def test_a_link_is_an_event_for_a_script(capsys):
    linked(Output(json=True))
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "event": "link-up",
        "peer": "alice",
        "address": {"host": "192.168.1.20", "port": 24819},
    }


def test_no_link_is_a_line_or_a_warning(capsys):
    line = "whoever answers is not alice; trying again\n"
    assert shown(capsys, refused) == f"{line}hint: pair again\n"
    assert shown(capsys, refused, quiet=True) == f"securelink: warning: {line}"
    assert shown(capsys, refused, json=True) == f"securelink: warning: {line}hint: pair again\n"
