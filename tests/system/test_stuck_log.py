"""Nobody reads what a server logs or tells, and the pipe is full."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import PATIENCE, Machines, until

from securelink.store import serving


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A named pipe, and a descriptor that keeps it open and never reads."""
    path = tmp_path / "log"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield path, descriptor
    os.close(descriptor)


def test_a_log_that_nobody_reads_holds_up_nobody(
    machines: Machines, stuck: tuple[Path, int]
) -> None:
    path, descriptor = stuck
    alice = machines("alice")
    alice.enter = ("sh", "-c", f'exec "$@" 2>"{path}"', "sh")
    server = alice.serve("--invite", "-vv")
    bob = machines("bob")
    bob.join(server.invite)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, bytes(512))
    assert not select.select([], [descriptor], [], 0)[1]
    # Each of them is worth a line.
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as junk:
            junk.sendall(b"\xff" * 4)
            with contextlib.suppress(ConnectionResetError):
                assert junk.recv(1) == b""
    done = bob.send("nobody reads the log")
    assert done.code == 0, done
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 3
    assert alice.texts() == ["nobody reads the log"]
    until(lambda: not server.running, "the end")


def test_events_that_nobody_reads_hold_up_nobody(
    machines: Machines, stuck: tuple[Path, int]
) -> None:
    path, _ = stuck
    alice, bob = machines("alice"), machines("bob")
    alice.enter = ("sh", "-c", f'exec "$@" >"{path}"', "sh")
    server = alice.begin_to_serve()
    until(lambda: alice.read(serving.get) is not None, "where it listens is written down")
    bob.join(alice.invite())
    long = "x" * 100_000
    for _ in range(2):
        assert bob.send(long).code == 0
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 3
    assert alice.texts() == [long, long]
