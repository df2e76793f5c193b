"""A server that may have few files open, and somebody who would use them all up."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import Machine, Machines, Serving

from securelink import descriptors

FILES = 256
STRANGERS = 600


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """The other end of all the connections is in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def tight(machines: Machines) -> tuple[Machine, Serving, Machine]:
    """Alice, whose `serve` may have few files open, and bob."""
    alice = machines("alice", SECURELINK_LIMITS_HANDSHAKE_TIMEOUT="60")
    alice.enter = ("sh", "-c", f'ulimit -n {FILES}; exec "$@"', "sh")
    serving = alice.serve("--invite")
    bob = machines("bob")
    bob.join(serving.invite)
    return alice, serving, bob


def test_silent_strangers_shut_nobody_out(tight: tuple[Machine, Serving, Machine]) -> None:
    alice, serving, bob = tight
    with contextlib.ExitStack() as strangers:

        def crowd() -> None:
            for _ in range(STRANGERS // 2):
                sock = strangers.enter_context(socket.socket())
                sock.settimeout(0)
                with contextlib.suppress(BlockingIOError):
                    sock.connect(("127.0.0.1", serving.port))

        crowd()
        first = bob.send("through the crowd")
        crowd()
        second = bob.send("and again")
        for done in (first, second):
            assert done.code == 0, done
            assert done.result["seconds"] < 3
        begun = time.monotonic()
        stopped = serving.stop()
        assert time.monotonic() - begun < 3
    assert len(stopped.err) < 1000, stopped.err
    assert alice.texts() == ["through the crowd", "and again"]


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("hard", "expected"), [(FILES, FILES), (2000, 2000), (descriptors.MOST + 100, descriptors.MOST)]
)
def test_serve_takes_as_many_files_as_it_may(machines: Machines, hard: int, expected: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < hard:
        pytest.skip(f"needs a hard limit of {hard}")
    alice = machines("alice")
    alice.enter = ("sh", "-c", f'ulimit -Sn 200; ulimit -Hn {hard}; exec "$@"', "sh")
    limits = Path(f"/proc/{alice.serve().pid}/limits").read_text()
    (line,) = [each for each in limits.splitlines() if each.startswith("Max open files")]
    assert line.split()[3:5] == [str(expected), str(hard)]
