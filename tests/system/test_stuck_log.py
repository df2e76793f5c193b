"""Nobody reads what a server logs, and the pipe is full."""

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
    serving = alice.serve("--invite", "-vv")
    bob = machines("bob")
    bob.join(serving.invite)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(descriptor, bytes(512))
    assert not select.select([], [descriptor], [], 0)[1]
    # Each of them is worth a line.
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", serving.port), PATIENCE) as junk:
            junk.sendall(b"\xff" * 4)
            with contextlib.suppress(ConnectionResetError):
                assert junk.recv(1) == b""
    done = bob.send("nobody reads the log")
    assert done.code == 0, done
    begun = time.monotonic()
    serving.stop()
    assert time.monotonic() - begun < 3
    assert alice.texts() == ["nobody reads the log"]
    until(lambda: not serving.running, "the end")
