"""The session in the README, run to the letter on two homes.

Its values (keys, addresses, times, the invite) differ from run to run: of each only its form is
compared. Everything else is compared character by character.
"""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nodes import PATIENCE, Machine, Machines

README = (Path(__file__).parent.parent.parent / "README.md").read_text()
SECTION = "## The first five minutes\n"

KIND = re.compile(r"^  (lan|public|loopback): ")
FORMS = (
    (r"slinv1[a-z2-7]+(\\\.){3}", r"(?P<invite>slinv1[a-z2-7]+)"),
    (r"[A-Z2-7]{7}(\\-[A-Z2-7]{7}){7}", r"[A-Z2-7]{7}(-[A-Z2-7]{7}){7}"),
    (r"\\\([A-Z2-7]{7}\\\)", r"\\([A-Z2-7]{7}\\)"),
    (r"\\\(lan\\ 192\\\.168\\\.1\\\.20\\\)", r"\\((lan|loopback) \\S+\\)"),
    (r"0\\\.04\\ s", r"\\d+\\.\\d+ s"),
    (r"port\\ 24819", r"port \\d+"),
    (r"2026\\-11\\-29\\ 14:05", r"\\d{4}-\\d\\d-\\d\\d \\d\\d:\\d\\d"),
    (r"14:05", r"\\d\\d:\\d\\d"),
    # In the test, the only address is loopback.
    (r"inside\\ this\\ network", r"(inside this network|on this machine)"),
)


def form(line: str) -> re.Pattern[str]:
    """What a line of the README stands for."""
    pattern = re.escape(line)
    for example, stands_for in FORMS:
        pattern = re.sub(example, stands_for, pattern)
    return re.compile(pattern)


@dataclass
class Step:
    """A command and whoever runs it, or None for more output of what runs already."""

    command: str | None
    machine: str
    expected: list[str] = field(default_factory=list)


def steps() -> Iterator[Step]:
    section = README.partition(SECTION)[2].partition("\n## ")[0]
    for language, block in re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL):
        step = Step(None, "alice") if language == "text" else None
        for line in block.splitlines():
            if prompt := re.fullmatch(r"(alice|bob)\$ (.*)", line):
                if step is not None:
                    yield step
                step = Step(prompt[2], prompt[1])
            else:
                assert step is not None, line
                step.expected.append(line)
        assert step is not None
        yield step


class Terminal:
    """A process and the terminal that it believes to run on."""

    def __init__(self, command: str, environ: dict[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
            start_new_session=True,
        )
        os.close(theirs)
        self._rest = b""

    def line(self) -> str | None:
        """The next line, or None when nothing more will come."""
        deadline = time.monotonic() + PATIENCE
        while b"\r\n" not in self._rest:
            ready, _, _ = select.select([self._ours], [], [], deadline - time.monotonic())
            assert ready, f"nothing more came after {self._rest!r}"
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # how Linux tells that the other side is closed
                data = b""
            if not data:
                assert not self._rest
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\r\n")
        return line.decode()

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._ours)


def check(terminal: Terminal, expected: list[str], *, to_the_end: bool) -> str | None:
    """Compare what comes with what is expected; return the invite if there was one."""
    invite = None
    # Which addresses there are depends on the machine, so their lines stand for any number.
    fixed = [line for line in expected if not KIND.match(line) or "not known" in line]
    for wanted in fixed:
        line = terminal.line()
        while line is not None and KIND.match(line) and "not known" not in line:
            line = terminal.line()
        assert line is not None, f"no line like {wanted!r}"
        match = form(wanted).fullmatch(line)
        assert match, f"{line!r} is not like {wanted!r}"
        invite = match.groupdict().get("invite") or invite
    if to_the_end:
        assert terminal.line() is None
    return invite


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_the_session(machines: Machines, tmp_path: Path, terminals: list[Terminal]) -> None:
    program = tmp_path / "bin" / "securelink"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m securelink "$@"\n')
    program.chmod(0o755)
    port = str(free_port())

    def environ(machine: Machine) -> dict[str, str]:
        return machine.environ | {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "TERM": "xterm",
            "NO_COLOR": "1",
            "SECURELINK_SERVER_PORT": port,
            "SECURELINK_SERVER_HOST": "127.0.0.1",
        }

    environs = {name: environ(machines(name)) for name in ("alice", "bob")}
    serving = None
    invite = None
    for step in steps():
        if step.command is None:
            assert serving is not None
            check(serving, step.expected, to_the_end=False)
            continue
        command = step.command
        if "slinv1" in command:
            assert invite is not None
            command = re.sub(r"slinv1\S+", invite, command)
        terminal = Terminal(command, environs[step.machine])
        terminals.append(terminal)
        runs_on = command == "securelink serve"
        invite = check(terminal, step.expected, to_the_end=not runs_on) or invite
        if runs_on:
            serving = terminal


def test_the_session_has_the_main_things() -> None:
    commands = [step.command for step in steps() if step.command]
    assert commands[0] == "securelink serve"
    for word in ("join", "send", "inbox", "invite"):
        assert any(f"securelink {word}" in command for command in commands)
