"""A link that is meant to last: when it is dialled, how it ends, and who is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from parties import BOB, HandServer, Told, at, introduce, put, states, texts, until

from securelink import events, interfaces, redialling, standing
from securelink.clock import now_ms
from securelink.connect import dial
from securelink.errors import (
    LinkClosed,
    LinkTruncated,
    NotThem,
    PeerRefused,
    StoreFull,
    Unreachable,
)
from securelink.identity import Identity
from securelink.messages import Receipt, Text
from securelink.registry import Registry
from securelink.session import Closing, Ended
from securelink.standing import Standing
from securelink.store import addresses, links, peers, tries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from parties import ByHand, Parties

    from securelink.connect import Connected
    from securelink.endpoints import Endpoint
    from securelink.node import Node

CAROL = Identity.from_private_bytes(bytes([3]) * 32)
FOR_EVER = 3600.0


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again before anybody has to wait."""
    for name in ("FIRST_DELAY", "LONGEST_DELAY", "LONGEST_REFUSED"):
        monkeypatch.setattr(redialling, name, 0.01)


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again after the test, unless something happens."""
    for name in ("FIRST_DELAY", "LONGEST_DELAY", "LONGEST_REFUSED"):
        monkeypatch.setattr(redialling, name, FOR_EVER)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SleeplessClock:
    """A clock that a test can move on; it is looked at all the time."""
    monkeypatch.setattr(standing, "CLOCK_INTERVAL", 0.005)
    return SleeplessClock()


class SleeplessClock:
    """The loop's own clock, but for the time that the machine slept."""

    def __init__(self) -> None:
        self.slept = 0.0
        self._looks = 0
        self._looked = asyncio.Event()

    def __call__(self) -> float:
        self._looks += 1
        self._looked.set()
        return asyncio.get_running_loop().time() + self.slept

    async def looked_at(self, times: int = 2) -> None:
        """Wait until somebody has looked at it so often from now on."""
        until_then = self._looks + times
        while self._looks < until_then:
            self._looked.clear()
            await self._looked.wait()


class Kept:
    """A standing link to bob that runs, and what is told of it."""

    def __init__(self, node: Node, **options: object) -> None:
        self.node = node
        self.told = Told()
        self.failures = Told()
        self.registry = Registry(node, self.told.event)
        link = Standing(node, self.registry, BOB.public, failed=self.failures.event, **options)  # type: ignore[arg-type]
        self._link = link
        self.running: asyncio.Task[None]

    def start(self, first: Connected | None = None) -> None:
        self.running = asyncio.create_task(self._link.run(first))


@asynccontextmanager
async def kept(
    node: Node, *, first: Connected | None = None, **options: object
) -> AsyncIterator[Kept]:
    link = Kept(node, **options)
    link.start(first)
    try:
        yield link
    finally:
        link.running.cancel()
        await asyncio.wait([link.running])
        await link.registry.aclose()
    if not link.running.cancelled():
        link.running.result()


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """A port at which nobody listens, and at which nobody else will."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


async def locate(node: Node, *endpoints: Endpoint) -> None:
    """Somebody names bob's endpoints, and not in the same millisecond as before."""
    before = await node.store.read(addresses.learned_at, BOB.public.raw)
    await until(lambda: now_ms() > before)
    await node.store.run(
        addresses.set_endpoints, BOB.public.raw, addresses.Source.PERSON, endpoints, now_ms()
    )


async def remove(node: Node) -> None:
    await node.store.run(peers.remove, "bob", now_ms())


def linked_rows(node: Node) -> list[tuple[int, int, int]]:
    with contextlib.closing(sqlite3.connect(node.home.store_file)) as conn:
        return conn.execute("SELECT dialled, takes_files, port FROM links").fetchall()


async def goodbye(bob: ByHand) -> None:
    """The node ends the link in order."""
    await bob.hear(Closing)
    await bob.link.aclose()


# ---- a link


async def test_a_link_carries_mail_both_ways_and_is_written_down(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        await put(node, BOB.public, "to bob")
        async with kept(node) as link:
            bob = await server.call()
            assert await bob.receipt_all(1) == ["to bob"]
            bob.say("from bob")
            await bob.hear(Receipt)
            assert texts(node) == ["from bob"]
            await until(lambda: states(node) == ["delivered"])
            (hello,) = server.hellos
            assert (hello.standing, hello.takes_files) == (True, True)
            assert linked_rows(node) == [(1, 1, server.port)]
            peer = (await node.directory()).by_name("bob")
            assert peer.calls_itself == "bob's own"
            assert peer.last_seen is not None
            assert peer.last_seen > 1
            assert await node.store.read(addresses.learned_at, BOB.public.raw) > 1
            up = await link.told.of(events.LinkUp)
            assert up == [
                events.LinkUp(peer="bob", address=events.Address("127.0.0.1", server.port))
            ]
            link.running.cancel()
            await goodbye(bob)
            assert await bob.ended() is None, "closed, not cut"
            await asyncio.wait([link.running])
            assert linked_rows(node) == []
            assert link.failures == []


async def test_a_link_to_begin_with(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        peer = await introduce(node, BOB.public, "bob", [at(server.port)])

        async def endpoints() -> Sequence[Endpoint]:
            return peer.endpoints

        first = await dial(node, peer.key, "bob", endpoints, node.hello(), deadline=None)
        async with kept(node, first=first) as link:
            bob = await server.call()
            bob.say("hello")
            await bob.hear(Receipt)
            await link.told.of(events.LinkUp)
            assert len(server.calls) == 1


async def test_a_link_to_begin_with_ends_with_a_peer_that_is_gone(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        peer = await introduce(node, BOB.public, "bob", [at(server.port)])

        async def endpoints() -> Sequence[Endpoint]:
            return peer.endpoints

        first = await dial(node, peer.key, "bob", endpoints, node.hello(), deadline=None)
        await remove(node)
        async with kept(node, first=first) as link:
            await asyncio.wait([link.running])
            bob = await server.call()
            assert isinstance(await bob.ended(), LinkTruncated)
            assert link.told == []


# ---- again and again


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("in_order", [True, False])
async def test_a_link_that_ends_is_dialled_again(parties: Parties, *, in_order: bool) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with kept(node) as link:
            bob = await server.call()
            if in_order:
                await bob.link.aclose()
            else:
                bob.link.abort()
            again = await server.call(2)
            again.say("still here")
            await again.hear(Receipt)
            (failure,) = link.failures
            assert type(failure) is (LinkClosed if in_order else LinkTruncated)
            assert "bob" in failure.message
            assert [type(each) for each in link.told] == [
                events.LinkUp,
                events.LinkDown,
                events.LinkUp,
            ]


@pytest.mark.usefixtures("quickly")
async def test_links_that_do_not_hold_are_told_once(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with kept(node) as link:
            for number in (1, 2, 3):
                await (await server.call(number)).link.aclose()
            await server.call(4)
            assert len(link.failures) == 1
            monkeypatch.setattr(standing, "LASTING", 0.0)
            for number in (4, 5):
                await (await server.call(number)).link.aclose()
            await server.call(6)
            assert len(link.failures) == 3


@pytest.mark.usefixtures("quickly")
async def test_nobody_there_is_told_once_and_tried_until_somebody_is(parties: Parties) -> None:
    with deaf_port() as port:
        async with parties.node() as node:
            await introduce(node, BOB.public, "bob", [at(port)])
            await put(node, BOB.public, "waits")
            async with kept(node) as link:
                while (await node.store.read(tries.count, BOB.public.raw)) < 3:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.005)
                (failure,) = link.failures
                assert type(failure) is Unreachable
                assert f"127.0.0.1:{port} (connection refused)" in failure.hint
                found = await node.store.read(tries.get, BOB.public.raw)
                assert found is not None
                assert found.reason == "bob could not be reached"
                async with HandServer(port=port) as server:
                    assert await (await server.call()).receipt_all(1) == ["waits"]
                    found = await node.store.read(tries.get, BOB.public.raw)
                    assert found is not None
                    assert found.reason is None


@pytest.mark.usefixtures("quickly")
async def test_attempts_count_for_what_waits_alone(parties: Parties) -> None:
    with deaf_port() as port:
        async with parties.node() as node:
            await introduce(node, BOB.public, "bob", [at(port)])
            async with kept(node, choice=f"127.0.0.1:{port}") as link:
                await link.failures.of(Unreachable)
                async with HandServer(port=port) as server:
                    await server.call()
            assert await node.store.read(tries.get, BOB.public.raw) is None


@pytest.mark.usefixtures("quickly")
async def test_who_is_turned_away_is_told_once_and_tries_on(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        server.denies = True
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with kept(node) as link:
            await until(lambda: len(server.hellos) >= 3)
            assert [type(each) for each in link.failures] == [PeerRefused]
            server.denies = False
            await server.call()


@pytest.mark.usefixtures("quickly")
async def test_somebody_else_there_is_told_once_and_tried_again(parties: Parties) -> None:
    with deaf_port() as port:
        async with parties.node() as node:
            await introduce(node, BOB.public, "bob", [at(port)])
            async with kept(node) as link:
                async with HandServer(CAROL, port=port):
                    await link.failures.of(NotThem)
                async with HandServer(port=port) as server:
                    await server.call()
            assert len(await link.failures.of(NotThem)) == 1


@pytest.mark.usefixtures("quickly")
async def test_an_endpoint_that_is_not_known_any_more(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [])
        async with kept(node, choice="loopback") as link:
            (failure,) = await link.failures.of(Unreachable)
            assert failure.message == "no loopback endpoint of bob is known"
            await locate(node, at(server.port))
            await server.call()


@pytest.mark.usefixtures("quickly")
async def test_a_disk_that_is_full_when_the_link_is_ready(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = links.up

    def fails(*_: object) -> None:
        raise StoreFull("the disk is full")

    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        monkeypatch.setattr(links, "up", fails)
        async with kept(node) as link:
            bob = await server.call()
            assert isinstance(await bob.ended(), LinkTruncated)
            await link.failures.of(StoreFull)
            monkeypatch.setattr(links, "up", works)
            await link.told.of(events.LinkUp)
            assert len(link.failures) == 1


# ---- what brings the next attempt nearer


@pytest.mark.usefixtures("slowly")
async def test_after_a_sleep_the_link_is_dropped_and_dialled_at_once(
    parties: Parties, clock: SleeplessClock
) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with kept(node, sleepless=clock) as link:
            bob = await server.call()
            # Bob has said that it is ready; here it is kept a moment later.
            await until(lambda: link._link._link is not None)
            await clock.looked_at()
            clock.slept += node.config.limits.heartbeat_timeout - 1
            await clock.looked_at()
            assert link.failures == []
            clock.slept += node.config.limits.heartbeat_timeout + 1
            await server.call(2)
            assert isinstance(await bob.ended(), LinkTruncated)
            (down,) = await link.told.of(events.LinkDown)
            assert down.reason == "this machine was asleep"
            (failure,) = link.failures
            assert failure.message == "the link to bob is lost: this machine was asleep"


@pytest.mark.usefixtures("slowly")
async def test_after_a_sleep_nobody_waits_any_longer(
    parties: Parties, clock: SleeplessClock
) -> None:
    with deaf_port() as port:
        async with parties.node() as node:
            await introduce(node, BOB.public, "bob", [at(port)])
            async with kept(node, sleepless=clock) as link:
                await link.failures.of(Unreachable)
                await clock.looked_at()
                async with HandServer(port=port) as server:
                    clock.slept += 1000
                    await server.call()
                assert len(link.failures) == 1


@pytest.mark.usefixtures("slowly")
async def test_after_a_sleep_the_delays_are_short_again(
    parties: Parties, clock: SleeplessClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deaf_port() as port:
        async with parties.node() as node:
            await introduce(node, BOB.public, "bob", [at(port)])
            await put(node, BOB.public, "waits")
            async with kept(node, sleepless=clock) as link:
                await link.failures.of(Unreachable)
                monkeypatch.setattr(redialling, "FIRST_DELAY", 0.01)
                clock.slept += 1000
                # There is no network yet when it wakes up.
                while (await node.store.read(tries.count, BOB.public.raw)) < 4:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.005)
                assert len(link.failures) == 1


@pytest.mark.usefixtures("slowly")
async def test_another_network_brings_the_next_attempt_nearer(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = ["192.168.1.20"]
    monkeypatch.setattr(standing, "ADDRESSES_INTERVAL", 0.01)
    monkeypatch.setattr(interfaces, "local_addresses", lambda: list(present))
    with deaf_port() as port:
        async with parties.node() as node:
            await introduce(node, BOB.public, "bob", [at(port)])
            async with kept(node) as link:
                await link.failures.of(Unreachable)
                async with HandServer(port=port) as server:
                    present[0] = "10.0.0.7"
                    await server.call()


@pytest.mark.usefixtures("slowly")
async def test_another_address_of_the_peer_brings_it_nearer(parties: Parties) -> None:
    with deaf_port() as port:
        async with parties.node() as node, HandServer() as server:
            await introduce(node, BOB.public, "bob", [at(port)])
            async with kept(node) as link:
                await link.failures.of(Unreachable)
                # What says nothing of where bob is changes nothing.
                await put(node, BOB.public, "waits")
                await locate(node, at(server.port))
                await server.call()
                assert len(link.failures) == 1


@pytest.mark.usefixtures("slowly")
async def test_the_same_address_named_anew_brings_it_nearer(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        server.denies = True
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with kept(node) as link:
            await link.failures.of(PeerRefused)
            server.denies = False
            # As `join` does.
            await locate(node, at(server.port))
            await server.call()


# ---- a peer that is removed


@pytest.mark.usefixtures("slowly")
async def test_ever_new_addresses_set_no_pace(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "NEWS_PAUSE", 0.5)
    loop = asyncio.get_running_loop()
    knocks: list[float] = []

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocks.append(loop.time())
        writer.transport.abort()

    async def learn() -> None:
        while True:
            await locate(node, at(port))

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with parties.node() as node:
        await introduce(node, BOB.public, "bob", [at(port)])
        async with kept(node):
            await until(lambda: len(knocks) == 1)
            learning = asyncio.create_task(learn())
            await until(lambda: len(knocks) == 4)
            learning.cancel()
    listening.close()
    pauses = [after - before for before, after in pairwise(knocks)]
    assert min(pauses[1:]) > 0.4


@pytest.mark.usefixtures("quickly")
async def test_a_removed_peer_ends_it(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with kept(node) as link:
            bob = await server.call()
            await link.told.of(events.LinkUp)
            await remove(node)
            link.registry.keep_only(set(), among=link.registry.linked)
            await goodbye(bob)
            await asyncio.wait([link.running])
            assert link.running.exception() is None
            assert link.failures == []
            assert [each.reason for each in await link.told.of(events.LinkDown)] == ["removed"]


@pytest.mark.usefixtures("slowly")
async def test_a_peer_that_is_removed_while_nobody_answers_ends_it(parties: Parties) -> None:
    with deaf_port() as port:
        async with parties.node() as node:
            await introduce(node, BOB.public, "bob", [at(port)])
            async with kept(node) as link:
                await link.failures.of(Unreachable)
                await remove(node)
                await asyncio.wait([link.running])
                assert link.running.exception() is None


# ---- cancelled


async def test_cancelled_while_it_dials(parties: Parties) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with parties.node() as node:
            await introduce(node, BOB.public, "bob", [at(silent.getsockname()[1])])
            async with kept(node) as link:
                connection, _ = await asyncio.to_thread(silent.accept)
            connection.close()
            assert link.running.cancelled()
            assert link.told == []


async def test_what_was_read_is_receipted_before_the_end(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with kept(node) as link:
            bob = await server.call()
            await link.told.of(events.LinkUp)
            for number in range(50):
                bob.say(f"text {number}")
            while not texts(node):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
            link.running.cancel()
            await bob.hear(Closing)
            await bob.link.aclose()
            await bob.hear(Ended)
            receipts = [each for each in bob.heard if isinstance(each, Receipt)]
            assert len(receipts) == len(texts(node))
            assert not [each for each in bob.heard if isinstance(each, Text)]
