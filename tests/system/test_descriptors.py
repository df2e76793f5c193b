"""A server that may have few files open, and somebody who would use them all up."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from holding import held_link
from nodes import Machine, Machines, Serving, until
from trees import make_file, same

from securelink import descriptors
from securelink.clock import new_id
from securelink.file_messages import Offer

FILES = 256
STRANGERS = 600
OFFERS = 256


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


class Offers:
    """A sender that offers many files, and sends nothing of them."""

    def __init__(self) -> None:
        self._numbers = iter(range(OFFERS))

    def next(self) -> Offer | None:
        number = next(self._numbers, None)
        if number is None:
            return None
        file_id = new_id()
        return Offer(
            id=file_id,
            group=file_id,
            number=number,
            name=f"{number}.bin",
            size=5 << 20,
            mtime=1,
            mode=0o600,
        )


def test_files_that_are_only_offered_shut_nobody_out(
    machines: Machines, tight: tuple[Machine, Serving, Machine], tmp_path: Path
) -> None:
    alice, serving, bob = tight
    carol = machines("carol")
    carol.join(alice.invite())

    async def offer_everywhere() -> None:
        async with contextlib.AsyncExitStack() as links:
            for _ in range(8):
                held = await links.enter_async_context(
                    held_link(bob, bob.key_of("alice"), serving.port)
                )
                held.connected.link.send_files(Offers())
                held.connected.link.more_of_files()
                await asyncio.to_thread(serving.event, "link-up", peer="bob")
            folder = alice.folder / "files" / ".partial"
            await asyncio.to_thread(until, lambda: len(list(folder.glob("*"))) >= 64, "offers")
            assert (await asyncio.to_thread(carol.send, "hello")).code == 0
            done = await asyncio.to_thread(
                carol.send, "--file", str(make_file(tmp_path / "file.bin", 5_000_000))
            )
            assert done.code == 0, done

    asyncio.run(offer_everywhere())
    assert alice.texts()[0] == "hello"
    assert same(tmp_path / "file.bin", alice.received("carol") / "file.bin")


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
