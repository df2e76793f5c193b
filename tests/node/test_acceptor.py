"""Taking in connections: so many at a time, only while there is room, and whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from parties import until

from securelink import acceptor as acceptor_module
from securelink.acceptor import BATCH, Acceptor
from securelink.identity import Identity
from securelink.limits import Limits
from securelink.link import Link
from securelink.session import Session

ME = Identity.from_private_bytes(bytes([1]) * 32)


class House:
    """Lets in whoever comes, and keeps count."""

    def __init__(self, space: int = 10_000) -> None:
        self.links: list[Link] = []
        self.space = space
        self.sheds = 0
        self.together: list[int] = []
        self._opened = 0

    def make(self) -> Link:
        self._opened += 1
        now = asyncio.get_running_loop().time()
        return Link(Session.server(ME, limits=Limits(), now=now), close_timeout=1)

    def accepted(self, link: Link) -> None:
        self.together.append(self._opened - len(self.links))
        self.links.append(link)

    def room(self) -> int:
        return self.space - len(self.links)

    def shed(self) -> None:
        self.sheds += 1


@asynccontextmanager
async def accepting(house: House) -> AsyncIterator[tuple[Acceptor, int]]:
    listening = socket.create_server(("127.0.0.1", 0), backlog=500)
    acceptor = Acceptor([listening], house)
    try:
        yield acceptor, listening.getsockname()[1]
    finally:
        await acceptor.aclose()
        for link in house.links:
            link.abort()
        assert listening.fileno() == -1


@contextlib.contextmanager
def clients(port: int, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)
        ]


async def test_a_burst_is_taken_in_by_batches() -> None:
    house = House()
    async with accepting(house) as (acceptor, port):
        with clients(port, 200):
            acceptor.start()
            await until(lambda: len(house.links) == 200)
            assert max(house.together) == BATCH


async def test_what_was_sent_already_is_read_before_anybody_is_judged() -> None:
    house = House()
    states = []
    accepted = house.accepted

    def judge(link: Link) -> None:
        states.append(link.session.state.name)
        accepted(link)

    house.accepted = judge  # type: ignore[method-assign]
    async with accepting(house) as (acceptor, port):
        with clients(port, 100) as made:
            for each in made:
                each.sendall(b"\xff\xff\xff\xff")
            acceptor.start()
            await until(lambda: len(house.links) == 100)
            assert states == ["FAILED"] * 100


async def test_who_finds_no_room_waits_for_it(caplog: pytest.LogCaptureFixture) -> None:
    house = House(space=10)
    async with accepting(house) as (acceptor, port):
        with clients(port, 30):
            acceptor.start()
            await until(lambda: "no room" in caplog.text)
            assert len(house.links) == 10
            house.space = 25
            await until(lambda: len(house.links) == 25)
            house.space = 50
            await until(lambda: len(house.links) == 30)
    assert caplog.text.count("no room") == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS])
async def test_descriptors_run_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    monkeypatch.setattr(acceptor_module, "PAUSE", 0.001)
    house = House()
    loop = asyncio.get_running_loop()
    accept = loop.sock_accept
    failures = [number] * 5

    async def scarce(sock: socket.socket) -> object:
        if failures:
            code = failures.pop()
            raise OSError(code, os.strerror(code))
        return await accept(sock)

    monkeypatch.setattr(loop, "sock_accept", scarce)
    async with accepting(house) as (acceptor, port):
        with clients(port, 3):
            acceptor.start()
            await until(lambda: len(house.links) == 3)
            assert house.sheds == 5
            (line,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
            assert line.getMessage() == f"nobody can be taken in: {os.strerror(number).lower()}"
    assert "4 more times nobody could be taken in" in caplog.text


async def test_a_client_that_is_gone_already_is_no_trouble(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house = House()
    loop = asyncio.get_running_loop()
    accept = loop.sock_accept
    gone = [ConnectionAbortedError()]

    async def unlucky(sock: socket.socket) -> object:
        if gone:
            raise gone.pop()
        return await accept(sock)

    monkeypatch.setattr(loop, "sock_accept", unlucky)
    async with accepting(house) as (acceptor, port):
        with clients(port, 1):
            acceptor.start()
            await until(lambda: len(house.links) == 1)
    assert house.sheds == 0
    assert not caplog.records


async def test_the_end_in_the_middle_of_a_batch_leaves_nobody_behind() -> None:
    for turns in range(8):
        house = House()
        async with accepting(house) as (acceptor, port):
            with clients(port, 5) as made:
                acceptor.start()
                for _ in range(turns):
                    await asyncio.sleep(0)
                await acceptor.aclose()
                for link in house.links:
                    link.abort()
                for each in made:
                    each.settimeout(0)
                    await until(lambda each=each: closed(each))


def closed(sock: socket.socket) -> bool:
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
