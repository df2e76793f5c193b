"""Receiving from one peer's server: for as long as it takes, or for ever; and what is told."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from parties import (
    BOB,
    HandServer,
    Stopwatch,
    Told,
    at,
    introduce,
    put_many,
    states,
    texts,
    until,
)

from securelink import events, fetching, redialling
from securelink.clock import new_id, now_ms
from securelink.endpoints import Endpoint, Kind
from securelink.errors import (
    NotAllTaken,
    NotThem,
    PeerRefused,
    StoreBusy,
    StoreFull,
    UnknownPeer,
    Unreachable,
    UsageError,
)
from securelink.file_messages import Offer
from securelink.identity import Identity
from securelink.incoming import Arriving
from securelink.locks import FileLock
from securelink.messages import Announce, Receipt, Refused, Text
from securelink.receiver import Receiver
from securelink.registry import Registry
from securelink.server import Server
from securelink.session import Closing
from securelink.store import inbox, peers, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from typing import Any

    from parties import ByHand, Parties

    from securelink.node import Node

CAROL = Identity.from_private_bytes(bytes([3]) * 32)
PUBLIC = Endpoint(Kind.PUBLIC, "home.example.org", 24819)
LAN = Endpoint(Kind.LAN, "192.168.1.20", 24819)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again before anybody has to wait."""
    for name in ("FIRST_DELAY", "LONGEST_DELAY", "LONGEST_REFUSED"):
        monkeypatch.setattr(redialling, name, 0.01)


class Run:
    """A receiver at work, and what it tells."""

    def __init__(
        self, told: Told, failures: Told, not_yet: list[None], task: asyncio.Task[None]
    ) -> None:
        self.told = told
        self.failures = failures
        self.not_yet = not_yet
        self.task = task

    async def texts(self, count: int) -> list[str]:
        return [message.text for message in await self.told.of(events.Message, count)]


@asynccontextmanager
async def receiving(
    node: Node,
    work: Callable[[Receiver], Coroutine[Any, Any, None]] = Receiver.stay,
    told: Told | None = None,
    **options: Any,
) -> AsyncIterator[Run]:
    """A receiver from bob; an error that nobody has asked for is raised at the end."""
    told = told if told is not None else Told()
    failures = Told()
    not_yet: list[None] = []
    options |= {"failed": failures.event, "not_yet": lambda: not_yet.append(None)}
    peer = (await node.directory()).by_name("bob")
    async with await Receiver.open(node, peer, told, **options) as made:
        task = asyncio.create_task(work(made))
        try:
            yield Run(told, failures, not_yet, task)
        finally:
            task.cancel()
            await asyncio.wait([task])


async def end_of(run: Run) -> BaseException | None:
    await asyncio.wait([run.task])
    return run.task.exception()


async def goodbye(bob: ByHand) -> None:
    """The node ends the link in order."""
    await bob.hear(Closing)
    await bob.link.aclose()


# ---- where to


async def test_a_peer_without_an_address(parties: Parties) -> None:
    async with parties.node() as node:
        peer = await introduce(node, BOB.public, "bob", [])
        with pytest.raises(UsageError, match="no address of bob is known") as raised:
            await Receiver.open(node, peer, Told())
        assert "--endpoint HOST:PORT" in str(raised.value.hint)
        with pytest.raises(UsageError, match="no lan endpoint of bob is known"):
            await Receiver.open(node, peer, Told(), choice="lan")
        assert node.store._writer._callbacks == {}


async def test_an_address_by_hand(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [])
        async with receiving(node, choice=f"127.0.0.1:{server.port}"):
            await server.call()


# ---- a link that stays


async def test_what_comes_is_told_and_what_waits_is_sent(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        await put_many(node, BOB.public, ["one", "two"])
        async with receiving(node) as run:
            bob = await server.call()
            assert await bob.receipt_all(2) == ["one", "two"]
            bob.say("three")
            assert await run.texts(1) == ["three"]
            (hello,) = server.hellos
            assert (hello.standing, hello.takes_files) == (True, True)
            # What another process queues goes at once.
            await put_many(node, BOB.public, ["four"])
            assert await bob.receipt_all(3) == ["four"]
        # Its own cursor says how far it has told.
        assert await node.store.read(inbox.cursor, "receive") == 1
        assert await node.store.read(inbox.cursor, "serve") is None


@pytest.mark.usefixtures("quickly")
async def test_it_stays_while_the_server_comes_and_goes(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node) as run:
            for number in (1, 2, 3):
                bob = await server.call(number)
                bob.say(f"link {number}")
                await run.texts(number)
                await bob.link.aclose()
            await server.call(4)
            assert not run.task.done()


async def test_the_end_is_in_order(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node) as run:
            bob = await server.call()
            await run.told.of(events.LinkUp)
            saying = asyncio.create_task(goodbye(bob))
        await saying
        assert await bob.ended() is None
        assert [each.reason for each in await run.told.of(events.LinkDown)] == ["closed"]
        assert run.failures == []


async def test_a_removed_peer_ends_it(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node) as run:
            bob = await server.call()
            await run.told.of(events.LinkUp)
            await node.store.run(peers.remove, "bob", now_ms())
            await goodbye(bob)
            error = await end_of(run)
        assert isinstance(error, UnknownPeer)
        assert error.message == "bob was removed"


async def test_a_store_that_fails_ends_it(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StoreBusy("another process holds it")

    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node) as run:
            await server.call()
            monkeypatch.setattr(inbox, "after", fails)
            await put_many(node, BOB.public, ["so that somebody looks"])
            assert isinstance(await end_of(run), StoreBusy)


# ---- patience for a first link


@pytest.mark.parametrize("work", [Receiver.stay, Receiver.take_what_waits])
async def test_nobody_there_in_time(parties: Parties, work: Any) -> None:
    async with parties.node() as node, HandServer() as server:
        port = server.port
    async with parties.node() as node:
        await introduce(node, BOB.public, "bob", [at(port)])
        async with receiving(node, work, patience=0.3) as run:
            assert isinstance(await end_of(run), Unreachable)
            assert len(run.not_yet) == 1, "told once, however often it is tried"
            assert run.failures == [], "why, is raised"


@pytest.mark.parametrize("work", [Receiver.stay, Receiver.take_what_waits])
async def test_somebody_else_there(parties: Parties, work: Any) -> None:
    async with parties.node() as node, HandServer(CAROL) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, work, patience=1.5) as run:
            assert isinstance(await end_of(run), NotThem)


@pytest.mark.parametrize("work", [Receiver.stay, Receiver.take_what_waits])
async def test_turned_away(parties: Parties, work: Any) -> None:
    async with parties.node() as node, HandServer() as server:
        server.denies = True
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, work, patience=20) as run:
            assert isinstance(await end_of(run), PeerRefused), "final, and at once"


@pytest.mark.parametrize("work", [Receiver.stay, Receiver.take_what_waits])
async def test_cut_before_the_link_is_ready(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, work: Any
) -> None:
    async with parties.node() as node, HandServer() as server:
        monkeypatch.setattr("parties.Link.admit", lambda link, *_: link.abort())
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, work, patience=1.5) as run:
            error = await end_of(run)
        assert type(error) is Unreachable
        assert "broke off before the link was ready" in error.message


async def test_removed_while_nobody_answers(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        port = server.port
    async with parties.node() as node:
        await introduce(node, BOB.public, "bob", [at(port)])
        async with receiving(node, Receiver.take_what_waits) as run:
            await run.failures.of(Unreachable)
            await node.store.run(peers.remove, "bob", now_ms())
            assert isinstance(await end_of(run), UnknownPeer)


async def test_the_first_link_is_kept(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, patience=1) as run:
            bob = await server.call()
            bob.say("hello")
            await run.texts(1)
            # Patience was for the first link alone.
            done, _ = await asyncio.wait([run.task], timeout=1.2)
            assert not done
            assert len(server.calls) == 1


# ---- what waits, and the end


async def test_nothing_waits(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        with Stopwatch() as watch:
            async with receiving(node, Receiver.take_what_waits) as run:
                await goodbye(await server.call())
                assert await end_of(run) is None
        assert watch.seconds < fetching.QUIET
        (hello,) = server.hellos
        assert (hello.standing, hello.takes_files) == (False, True)


class Slow(Told):
    """A reader of events who takes a while."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[events.Event] = []

    async def written(self) -> bool:
        mark = len(self)
        await asyncio.sleep(0.05)
        self.seen = [*self[:mark]]
        return True


async def test_all_that_waits_is_taken_and_told_before_the_end(parties: Parties) -> None:
    async with parties.node() as node, HandServer(waiting=40) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        told = Slow()
        async with receiving(node, Receiver.take_what_waits, told) as run:
            bob = await server.call()
            for number in range(40):
                bob.say(f"text {number}")
            await goodbye(bob)
            assert await end_of(run) is None
            expected = [f"text {number}" for number in range(40)]
            assert texts(node) == expected
            assert [each.text for each in told.seen if isinstance(each, events.Message)] == expected
            assert await node.store.read(inbox.cursor, "receive") == 40
        assert len([each for each in bob.heard if isinstance(each, Receipt)]) == 40
        assert len(server.calls) == 1, "there is nothing to ask"
        assert await bob.ended() is None


class Blocked(Told):
    """A reader of events who has stopped reading."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = asyncio.Event()

    async def written(self) -> bool:
        return await self.reads.wait()


async def test_the_end_waits_for_a_reader_who_has_stopped(parties: Parties) -> None:
    async with parties.node() as node, HandServer(waiting=1) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        told = Blocked()
        async with receiving(node, Receiver.take_what_waits, told) as run:
            bob = await server.call()
            bob.say("hello")
            await goodbye(bob)
            done, _ = await asyncio.wait([run.task], timeout=0.3)
            assert not done
            assert await node.store.read(inbox.cursor, "receive") == 0
            told.reads.set()
            assert await end_of(run) is None
            assert await node.store.read(inbox.cursor, "receive") == 1


async def test_a_file_on_its_way_is_waited_for(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_its_way = [Arriving(peer="bob", name="a", size=9, received=1, resumed=0, is_compared=False)]
    monkeypatch.setattr(Registry, "incoming", lambda _: on_its_way)
    monkeypatch.setattr(fetching, "QUIET", 0.05)
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits) as run:
            bob = await server.call()
            done, _ = await asyncio.wait([run.task], timeout=0.3)
            assert not done
            on_its_way.clear()
            await goodbye(bob)
            assert await end_of(run) is None


class Offering:
    """A sender of files that offers one, and sends nothing of it."""

    def __init__(self, offer: Offer) -> None:
        self._offers = [offer]

    def next(self) -> Offer | None:
        return self._offers.pop() if self._offers else None


@pytest.mark.parametrize("asks", [False, True], ids=["at once", "after an answer"])
async def test_a_file_that_does_not_go_on_is_not_waited_for_in_vain(
    parties: Parties, asks: bool
) -> None:
    file_id = new_id()
    offer = Offer(
        id=file_id,
        group=file_id,
        number=0,
        name="a.bin",
        size=5 << 20,
        mtime=1,
        mode=0o600,
        ask=asks,
    )
    async with parties.node() as node, HandServer(waiting=1) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits, patience=1.5) as run:
            bob = await server.call()
            bob.link.take_files(lambda _: None)
            bob.link.send_files(Offering(offer))
            bob.link.more_of_files()
            await goodbye(bob)
            error = await end_of(run)
        assert isinstance(error, Unreachable)
        assert error.message == "bob has begun to send, and does not go on"


# ---- less comes than was said to wait


async def test_what_the_server_has_no_more_is_not_waited_for(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "QUIET", 0.2)
    async with parties.node() as node, HandServer(waiting=2) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits) as run:
            bob = await server.call()
            bob.say("one of two")
            await bob.hear(Receipt)
            # The other one is withdrawn.
            server.waiting = 0
            await goodbye(bob)
            await goodbye(await server.call(2))
            assert await end_of(run) is None
            assert texts(node) == ["one of two"]
        assert len(server.calls) == 2


async def test_what_comes_when_it_is_asked_again_is_taken(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "QUIET", 0.2)
    async with parties.node() as node, HandServer(waiting=2) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits) as run:
            bob = await server.call()
            bob.say("one")
            await bob.hear(Receipt)
            server.waiting = 1
            await goodbye(bob)
            again = await server.call(2)
            again.say("two")
            await goodbye(again)
            assert await end_of(run) is None
            assert texts(node) == ["one", "two"]


async def test_a_slow_server_gets_longer_each_time(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "QUIET", 0.1)
    async with parties.node() as node, HandServer(waiting=1) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits) as run:
            number = 1
            while True:
                bob = await server.call(number)
                # Of each link it needs the first half second.
                hearing = asyncio.create_task(bob.hear(Closing))
                done, _ = await asyncio.wait([hearing], timeout=0.5)
                if not done:
                    break
                await bob.link.aclose()
                number += 1
            assert number == 4, "0.1, 0.2, 0.4 and 0.8 s"
            bob.say("at last")
            await hearing
            await bob.link.aclose()
            assert await end_of(run) is None
            assert texts(node) == ["at last"]


@pytest.mark.parametrize("patience", [None, 0.9])
async def test_a_server_that_gives_nothing_is_given_up(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, patience: float | None
) -> None:
    monkeypatch.setattr(fetching, "QUIET", 0.1)
    monkeypatch.setattr(fetching, "STALLED", 0.7)
    async with parties.node() as node, HandServer(waiting=3) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])

        async def close_all() -> None:
            number = 1
            while True:
                bob = await server.call(number)
                if number == 1:
                    bob.say("one of three")
                    server.waiting = 2
                await goodbye(bob)
                number += 1

        closing = asyncio.create_task(close_all())
        with Stopwatch() as watch:
            async with receiving(node, Receiver.take_what_waits, patience=patience) as run:
                error = await end_of(run)
        closing.cancel()
        assert isinstance(error, NotAllTaken)
        assert error.exit_code == 1
        assert error.message == "2 of what bob has for this node did not come"
        assert watch.seconds < 3
        # The one that gave something; 0.1, 0.2 and 0.4 s, what is left, and a last question.
        assert len(server.calls) in {5, 6}
        assert [each.text for each in run.told if isinstance(each, events.Message)] == [
            "one of three"
        ]


async def test_a_server_that_has_less_each_time_is_not_given_up(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "QUIET", 0.1)
    async with parties.node() as node, HandServer(waiting=20) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits, patience=0.3) as run:
            # All goes to another process of this node.
            for number in range(1, 21):
                bob = await server.call(number)
                server.waiting -= 1
                await goodbye(bob)
            await goodbye(await server.call(21))
            assert await end_of(run) is None


async def test_a_server_that_is_gone_when_it_is_asked_again(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "QUIET", 0.1)
    async with parties.node() as node, HandServer(waiting=1) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits, patience=0.5) as run:
            bob = await server.call()
            server._server.close()
            await goodbye(bob)
            assert isinstance(await end_of(run), Unreachable)


async def test_a_long_text_on_a_slow_line_is_waited_for(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "QUIET", 0.3)
    async with parties.node() as node, HandServer(waiting=1) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits, patience=5) as run:
            bob = await server.call()
            session, transport = bob.link.session, bob.link._transport
            assert transport is not None
            session.send(Text(new_id(), 1, "x" * 600_000))
            sealed = bytes(session.data_to_send(asyncio.get_running_loop().time(), 1 << 20))
            for start in range(0, len(sealed), 66_000):
                transport.write(sealed[start : start + 66_000])
                # In all longer than it is quiet.
                await asyncio.sleep(0.1)
            await goodbye(bob)
            assert await end_of(run) is None
            assert [len(each) for each in texts(node)] == [600_000]
        assert len(server.calls) == 1


async def test_a_long_text_that_does_not_go_on_is_not_waited_for(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "QUIET", 0.1)
    async with parties.node() as node, HandServer(waiting=1) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])

        async def begin_each_time() -> None:
            number = 1
            while True:
                bob = await server.call(number)
                session, transport = bob.link.session, bob.link._transport
                assert transport is not None
                session.send(Text(new_id(), 1, "x" * 600_000))
                sealed = bytes(session.data_to_send(asyncio.get_running_loop().time(), 1 << 20))
                transport.write(sealed[:200_000])
                number += 1

        beginning = asyncio.create_task(begin_each_time())
        async with receiving(node, Receiver.take_what_waits, patience=0.5) as run:
            error = await end_of(run)
        beginning.cancel()
        assert isinstance(error, NotAllTaken)
        assert error.message == "1 of what bob has for this node did not come"


class Locking(Told):
    """Another process writes to the store for a second, from the first link on."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def event(self, event: events.Event, /) -> None:
        super().event(event)
        if len(self) == 1:
            conn = sqlite3.connect(self._node.home.store_file, isolation_level=None)
            conn.execute("BEGIN IMMEDIATE")
            asyncio.get_running_loop().call_later(1, conn.close)


async def test_a_server_whose_store_is_busy(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "QUIET", 0.2)
    async with parties.node("bob") as serving_node, parties.node() as node:
        await introduce(serving_node, node.identity.public, "alice")
        await put_many(serving_node, node.identity.public, ["one", "two"])
        server = await Server.open(serving_node, Locking(serving_node).event)
        try:
            await server.start()
            await introduce(node, serving_node.identity.public, "bob", [at(server.port)])
            async with receiving(node, Receiver.take_what_waits, patience=20) as run:
                assert await end_of(run) is None
                assert texts(node) == ["one", "two"]
            await until(lambda: states(serving_node) == ["delivered", "delivered"])
        finally:
            await server.aclose()


async def test_what_was_refused_for_now_and_comes_again_stands_for_nothing_else(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreFull("the disk is full")

    async with parties.node() as node, HandServer(waiting=2) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits) as run:
            bob = await server.call()
            with monkeypatch.context() as patch:
                patch.setattr(inbox, "receive", full)
                first = bob.say("one")
                await bob.hear(Refused)
            bob.say("one", first)
            await bob.hear(Receipt)
            # It had been taken for both.
            hearing = asyncio.create_task(bob.hear(Closing))
            done, _ = await asyncio.wait([hearing], timeout=0.5)
            assert not done
            bob.say("two")
            await hearing
            await bob.link.aclose()
            assert await end_of(run) is None
            assert texts(node) == ["one", "two"]


async def test_what_is_refused_for_now_is_not_waited_for_and_not_forgotten(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StoreFull("the disk is full")

    async with parties.node() as node, HandServer(waiting=1) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        with Stopwatch() as watch:
            async with receiving(node, Receiver.take_what_waits) as run:
                bob = await server.call()
                monkeypatch.setattr(inbox, "receive", full)
                bob.say("hello")
                await bob.hear(Refused)
                await goodbye(bob)
                assert isinstance(await end_of(run), NotAllTaken)
        assert watch.seconds < fetching.QUIET


async def test_a_link_that_is_cut_on_the_way_is_made_anew(parties: Parties) -> None:
    async with parties.node() as node, HandServer(waiting=2) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits, patience=10) as run:
            bob = await server.call()
            bob.say("one")
            await bob.hear(Receipt)
            server.waiting = 1
            bob.link.abort()
            again = await server.call(2)
            again.say("two")
            await goodbye(again)
            assert await end_of(run) is None
            assert texts(node) == ["one", "two"]


async def test_progress_gives_it_more_time(parties: Parties) -> None:
    async with parties.node() as node, HandServer(waiting=2) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits, patience=2) as run:
            for number in (1, 2, 3):
                bob = await server.call(number)
                # A slow server; together it is longer than the patience.
                await asyncio.sleep(0.8)
                bob.say(f"text {number}")
                await bob.hear(Receipt)
                server.waiting = 2 if number < 3 else 0
                bob.link.abort()
            await goodbye(await server.call(4))
            assert await end_of(run) is None


async def test_links_without_progress_come_to_an_end(parties: Parties) -> None:
    async with parties.node() as node, HandServer(waiting=1) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])

        async def cut_all() -> None:
            number = 1
            while True:
                (await server.call(number)).link.abort()
                number += 1

        cutting = asyncio.create_task(cut_all())
        async with receiving(node, Receiver.take_what_waits, patience=1.5) as run:
            error = await end_of(run)
        cutting.cancel()
        assert type(error) is Unreachable
        assert error.message.startswith("the link to bob is lost")
        assert len(server.calls) > 1


async def test_what_other_processes_took_is_told_too(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])

        async def once() -> list[str]:
            async with receiving(node, Receiver.take_what_waits) as run:
                count = len(server.calls) + 1
                await goodbye(await server.call(count))
                assert await end_of(run) is None
            return [each.text for each in run.told if isinstance(each, events.Message)]

        assert await once() == []
        for text in ("by serve", "by send"):
            await node.store.run(
                inbox.receive,
                peer=BOB.public.raw,
                peer_name="bob",
                message_id=os.urandom(16),
                sent_at=1,
                text=text,
                received_at=2,
            )
        assert await once() == ["by serve", "by send"]
        assert await once() == []


class Gone(Told):
    """A reader of events who has gone."""

    async def written(self) -> bool:
        return False


async def test_what_nobody_reads_does_not_count_as_told(parties: Parties) -> None:
    async with parties.node() as node, HandServer(waiting=1) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node, Receiver.take_what_waits, Gone()) as run:
            bob = await server.call()
            bob.say("hello")
            await goodbye(bob)
            assert await end_of(run) is None
            assert [each.text for each in run.told if isinstance(each, events.Message)] == ["hello"]
        assert await node.store.read(inbox.cursor, "receive") == 0


# ---- a `serve` of the same node


def served_at(*endpoints: Endpoint) -> Callable[[sqlite3.Connection], None]:
    def write(conn: sqlite3.Connection) -> None:
        serving.record(conn, pid=1, port=24819, endpoints=endpoints, started_at=1)

    return write


async def test_a_serve_beside_it_is_announced(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        # The row of a process that was killed says nothing.
        await node.store.run(served_at(LAN))
        async with receiving(node):
            bob = await server.call()
            lock = FileLock.acquire(node.home.serve_lock)
            assert lock is not None
            await node.store.run(served_at(PUBLIC, LAN))
            (first,) = await bob.hear(Announce)
            assert first.endpoints == (PUBLIC, LAN)
            await node.store.run(served_at(LAN))
            assert [each.endpoints for each in await bob.hear(Announce, 2)][1:] == [(LAN,)]
        async with receiving(node):
            bob = await server.call(2)
            assert [each.endpoints for each in await bob.hear(Announce)] == [(LAN,)]
        lock.release()


async def test_an_address_that_was_announced_is_dialled_next(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server, HandServer() as elsewhere:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        async with receiving(node):
            bob = await server.call()
            bob.link.send(Announce((at(elsewhere.port),)))

            def announced() -> bool:
                query = "SELECT count(*) FROM endpoints WHERE source = 'announced'"
                conn = sqlite3.connect(node.home.store_file)
                try:
                    return bool(conn.execute(query).fetchone()[0])
                finally:
                    conn.close()

            await until(announced)
            server._server.close()
            bob.link.abort()
            await elsewhere.call()
