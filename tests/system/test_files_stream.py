"""Standard input sent as a file: of unknown length, and never taken for whole when it is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from nodes import PATIENCE, Machine, Machines, Process, until
from proxy import CuttingProxy
from trees import MIB, digest_file, make_file, names


class Feed:
    """The writing end of a process's standard input."""

    def __init__(self, writing: int) -> None:
        self._file = open(writing, "wb", buffering=0)  # noqa: SIM115 - `close` does it
        self._thread = threading.Thread(target=lambda: None)

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def begin(self, size: int) -> None:
        """Write so many bytes in a thread; whoever reads may go away before the end."""
        self._thread = threading.Thread(target=self._write, args=[size], daemon=True)
        self._thread.start()

    def _write(self, left: int) -> None:
        with suppress(BrokenPipeError):
            while left:
                left -= self._file.write(bytes(min(left, 65536)))

    def close(self) -> None:
        """Come to the end."""
        if self._thread.ident is not None:
            self._thread.join(PATIENCE)
        self._file.close()


@contextmanager
def streaming(machine: Machine, *words: str) -> Iterator[tuple[Process, Feed]]:
    """A `send --file -`, and what writes to it."""
    reading, writing = os.pipe()
    process = machine.start("send", "--json", *words, "--file", "-", stdin=reading)
    os.close(reading)
    feed = Feed(writing)
    try:
        yield process, feed
    finally:
        process.clean_up()
        feed.close()


def test_a_stream_lands_whole(machines: Machines, tmp_path) -> None:
    alice, serving, bob = machines.pair()
    for size in (0, 1, 65512, 3 * MIB + 5, 20 * MIB):
        file = make_file(tmp_path / f"{size}", size)
        with file.open("rb") as stdin:
            process = bob.start(
                "send", "--json", "--file", "-", "--name", f"{size}.bin", stdin=stdin.fileno()
            )
            done = process.finish()
        assert done.code == 0, done
        assert done.result["bytes"] == size
        event = serving.event("file")
        assert (event["name"], event["size"]) == (f"{size}.bin", size)
        assert digest_file(alice.received("bob") / f"{size}.bin") == digest_file(file)
    assert alice.parts() == []


def test_a_stream_goes_on_its_way_before_its_end(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    with streaming(bob, "--name", "log") as (process, feed):
        feed.write(b"first\n")
        until(lambda: [part.stat().st_size for part in alice.parts()] == [6], "the first line")
        feed.write(b"second\n")
        until(lambda: [part.stat().st_size for part in alice.parts()] == [13], "the second line")
        assert names(alice.received("bob")) == []
        feed.close()
        assert process.finish().code == 0
    assert serving.event("file")["name"] == "log"
    assert (alice.received("bob") / "log").read_bytes() == b"first\nsecond\n"


def test_a_stream_without_a_name_gets_one(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    with streaming(bob) as (process, feed):
        feed.write(b"something")
        feed.close()
        assert process.finish().code == 0
    name = serving.event("file")["name"]
    assert (alice.received("bob") / name).read_bytes() == b"something"


def test_a_stream_whose_link_is_cut_never_looks_whole(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    proxy = CuttingProxy(serving.port, [2 * MIB])
    try:
        with streaming(bob, "--endpoint", f"127.0.0.1:{proxy.port}", "--name", "a") as (
            process,
            feed,
        ):
            feed.begin(8 * MIB)
            done = process.finish()
    finally:
        proxy.close()
    assert done.code == 6, done
    assert done.result["status"] != "delivered"
    until(lambda: not alice.parts(), "the part of a stream is dropped")
    assert names(alice.received("bob")) == []
    assert bob.send("goes on").code == 0
    serving.event("message", text="goes on")
    assert names(alice.received("bob")) == []


@pytest.mark.parametrize("number", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_a_sender_of_a_stream_that_is_ended_leaves_nothing(machines: Machines, number: str) -> None:
    alice, _, bob = machines.pair()
    with streaming(bob, "--name", "a") as (process, feed):
        feed.begin(MIB)
        until(lambda: sum(part.stat().st_size for part in alice.parts()) == MIB, "1 MiB")
        process.signal(signal.Signals[number])
        done = process.finish()
    assert done.code == {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}[number], done
    until(lambda: not alice.parts(), "the part of a stream is dropped")
    assert names(alice.received("bob")) == []


def test_a_receiver_that_is_killed_keeps_nothing_of_a_stream(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    with streaming(bob, "--name", "a") as (process, feed):
        feed.begin(MIB)
        until(lambda: sum(part.stat().st_size for part in alice.parts()) == MIB, "1 MiB")
        serving.kill()
        feed.begin(8 * MIB)
        assert process.finish().code == 6
    alice.serve(port=serving.port)
    until(lambda: not alice.parts(), "the part of a stream is dropped")
    assert names(alice.received("bob")) == []


def test_what_a_stream_cannot_have_is_refused(machines: Machines, tmp_path) -> None:
    alice, _, bob = machines.pair()
    other = machines("carol")
    bob.join(other.serve("--invite").invite)
    file = make_file(tmp_path / "a", 10)
    for words in (
        ("--to", "alice", "--to", "carol"),
        ("--to", "alice", "--queue"),
    ):
        done = bob.run("send", "--file", "-", *words)
        assert done.code == 2, (words, done)
    done = bob.run("send", "--to", "alice", "--file", str(file), "-")
    assert done.code == 2, done
    assert names(alice.received("bob")) == []
    assert bob.states() == []


def test_lines_go_as_they_come(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    lines = subprocess.Popen(
        [sys.executable, "-c", "import sys; [print(l, end='', flush=True) for l in sys.stdin]"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert lines.stdin is not None
    assert lines.stdout is not None
    try:
        process = bob.start("send", "--json", "--lines", stdin=lines.stdout.fileno())
        for line in ("first", "sécond", "third"):
            lines.stdin.write(line + "\n")
            lines.stdin.flush()
            assert serving.event("message")["text"] == line
    finally:
        lines.stdin.close()
        lines.stdout.close()
        lines.wait()
    done = process.finish()
    assert done.code == 0, done
    assert alice.texts() == ["first", "sécond", "third"]
