"""What both sides see of a file on its way, on terminals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import PATIENCE, Machine, Machines
from proxy import Action, Fault, Proxy
from terminals import Terminal

SIZE = 40_000_000


class Run:
    """A command whose standard error is a terminal."""

    def __init__(self, machine: Machine, *words: str) -> None:
        self.terminal = Terminal()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "securelink", *words],
            env=machine.environ | {"TERM": "xterm"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.terminal.slave,
        )

    def finish(self) -> list[str]:
        """Wait for its end; return what is left on the screen."""
        assert self.process.wait(PATIENCE) == 0, self.terminal.lines
        return self.terminal.wait(lambda lines: lines if lines[-1] == "" else None, "a clean end")

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
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


@pytest.fixture
def serving_and_sending(
    machines: Machines, proxy: Callable[..., Proxy], on_terminal: Callable[..., Run]
) -> Callable[..., tuple[Run, Run, Proxy]]:
    """Starts both sides with a proxy between them that holds back what comes after 10 MB."""

    def start(*words: str) -> tuple[Run, Run, Proxy]:
        alice, serving, bob = machines.pair()
        between = proxy(serving.port)
        between.up = Fault(Action.HOLD, after=10_000_000)
        serving.stop()
        words_of_alice = ("serve", "--json", "--host", "127.0.0.1", "--port", str(serving.port))
        receiving = on_terminal(alice, *words_of_alice)
        assert receiving.process.stdout is not None
        assert b'"ready"' in receiving.process.stdout.readline()
        endpoint = f"127.0.0.1:{between.port}"
        return receiving, on_terminal(bob, "send", "--endpoint", endpoint, *words), between

    return start


def test_a_file_that_stalls_and_goes_on(
    serving_and_sending: Callable[..., tuple[Run, Run, Proxy]], tmp_path: Path
) -> None:
    (tmp_path / "big.bin").write_bytes(os.urandom(SIZE))
    receiving, sending, between = serving_and_sending("--file", str(tmp_path / "big.bin"))

    sending.terminal.shows(r"^big\.bin  \d\d% \d\d MB of 40 MB  ")
    receiving.terminal.shows(r"^bob: big\.bin  2\d% [\d.]+ MB of 40 MB")
    sending.terminal.shows(r"% \d\d MB of 40 MB  stalled for 3 s$")
    receiving.terminal.shows(r"  stalled for \d s$")
    between.release()
    left = sending.finish()

    assert left[0].startswith(f"delivered {tmp_path}/big.bin (40 MB) to alice (")
    assert left[1:] == [""]
    receiving.process.send_signal(signal.SIGTERM)
    assert receiving.finish() == ["stopped", ""]
    for run in (sending, receiving):
        assert run.terminal.drawn
        assert not run.terminal.overflowed
        assert not any("100%" in line for line in run.terminal.drawn)


def test_a_stream_and_the_lines_of_events(
    serving_and_sending: Callable[..., tuple[Run, Run, Proxy]],
) -> None:
    receiving, sending, _ = serving_and_sending("--file", "-", "--name", "log")
    assert sending.process.stdin is not None
    sending.process.stdin.write(bytes(2_000_000))
    sending.process.stdin.flush()

    sending.terminal.shows(r"^log  2\.0 MB")
    receiving.terminal.shows(r"^bob: log  2\.0 MB")
    sending.terminal.shows(r"^log  2\.0 MB  stalled for 3 s$")
    sending.process.stdin.close()

    (delivered, nothing) = sending.finish()
    assert (delivered.startswith("delivered log (2.0 MB) to alice"), nothing) == (True, "")


def test_what_an_interrupted_one_says_stands_alone(
    serving_and_sending: Callable[..., tuple[Run, Run, Proxy]], tmp_path: Path
) -> None:
    (tmp_path / "big.bin").write_bytes(os.urandom(SIZE))
    _, sending, _ = serving_and_sending("--file", str(tmp_path / "big.bin"))
    sending.terminal.shows(r"^big\.bin  \d\d% \d\d MB of 40 MB  ")
    sending.process.send_signal(signal.SIGINT)
    assert sending.process.wait(PATIENCE) == 130
    said = "interrupted: nothing delivered to alice; the same command goes on where it stopped"
    left = sending.terminal.wait(lambda lines: lines if lines[-1] == "" else None, "a clean end")
    assert "".join(left) == said


def test_nothing_of_it_in_a_pipe(machines: Machines, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(bytes(SIZE))
    alice, serving, bob = machines.pair()
    done = bob.run("send", "--file", str(tmp_path / "big.bin"), TERM="xterm")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(f"delivered {tmp_path}/big.bin")
    assert done.err.count("\n") == 1
    assert not {"\r", "\x1b"} & set(serving.stop().err)
    assert (alice.folder / "files" / "bob" / "big.bin").stat().st_size == SIZE
