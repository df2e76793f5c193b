"""One text for one recipient: what the caller is told is the truth, whatever happens."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from parties import (
    BOB,
    QUICK,
    ByHand,
    HandServer,
    Stopwatch,
    at,
    call,
    introduce,
    put,
    rows,
    running,
    states,
    texts,
    until,
)

from securelink import connect
from securelink.choice import choose
from securelink.client import Outcome, Sending, own, terms
from securelink.clock import new_id
from securelink.directory import ME, KnownPeer
from securelink.endpoints import Endpoint, Kind
from securelink.errors import (
    ExitCode,
    NoReceipt,
    NotThem,
    PeerRefused,
    StoreBusy,
    Unreachable,
    UsageError,
)
from securelink.identity import Identity
from securelink.items import TextItem
from securelink.messages import Receipt, RefusalCode, Text
from securelink.store import addresses, outbox, peers

if TYPE_CHECKING:
    from parties import Parties

    from securelink.node import Node

LOOPBACK = at(1)
LAN = Endpoint(Kind.LAN, "192.168.1.20", 2)
PUBLIC = Endpoint(Kind.PUBLIC, "home.example", 3)


async def send(
    node: Node,
    peer: KnownPeer,
    text: str = "hello",
    *,
    choice: str = "auto",
    timeout: float | None = 5,  # noqa: ASYNC109 - named as what it is passed on to
    message_id: bytes | None = None,
) -> Outcome:
    sending = Sending(node, peer, choice=choice, timeout=timeout)
    (outcome,) = await sending.send([TextItem(message_id or new_id(), text)])
    return outcome


def me(node: Node) -> KnownPeer:
    return KnownPeer(ME, node.identity.public)


# ---- which endpoints


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", (LOOPBACK, LAN, PUBLIC)),
        ("loopback", (LOOPBACK,)),
        ("lan", (LAN,)),
        ("public", (PUBLIC,)),
        ("192.0.2.1:7", (Endpoint(Kind.PUBLIC, "192.0.2.1", 7),)),
        ("10.0.0.1:7", (Endpoint(Kind.LAN, "10.0.0.1", 7),)),
        ("localhost:7", (Endpoint(Kind.LOOPBACK, "localhost", 7),)),
    ],
)
def test_choose(choice: str, expected: tuple[Endpoint, ...]) -> None:
    peer = KnownPeer("bob", BOB.public, (LOOPBACK, LAN, PUBLIC))
    assert choose(peer, choice) == expected


def test_choose_what_there_is_not() -> None:
    with pytest.raises(UsageError, match="no public endpoint of bob") as some:
        choose(KnownPeer("bob", BOB.public, (LAN,)), "public")
    assert some.value.hint == "known: 192.168.1.20:2 (lan)"
    with pytest.raises(UsageError) as none:
        choose(KnownPeer("bob", BOB.public), "lan")
    assert none.value.hint == "none at all is known"
    with pytest.raises(UsageError):
        choose(KnownPeer("bob", BOB.public), "192.0.2.1")


# ---- delivered


async def test_delivered(parties: Parties) -> None:
    async with parties.node("bob") as node, parties.node() as other, running(other) as (service, _):
        await introduce(other, node.identity.public, "bob")
        endpoint = at(service.server.port)
        alice = await introduce(node, other.identity.public, "alice", [endpoint])
        message_id = new_id()
        outcome = await send(node, alice, "hällo\n", message_id=message_id)
        assert (outcome.id, outcome.peer, outcome.error) == (message_id, "alice", None)
        assert outcome.endpoint == endpoint
        assert 0 < outcome.seconds < 2
        assert texts(other) == ["hällo\n"]
        assert [row[:2] for row in rows(node)] == [("", "delivered")]
        seen = await node.store.read(peers.by_key, other.identity.public.raw)
        assert seen is not None
        assert (seen.calls_itself, seen.last_seen is not None) == ("alice", True)
        with closing(sqlite3.connect(node.home.store_file)) as conn:
            (used,) = conn.execute("SELECT last_used FROM endpoints").fetchone()
        assert used is not None


async def test_the_row_is_owned_while_it_is_sent(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        sending = asyncio.create_task(send(node, bob))
        by_hand = await server.call()
        (text,) = await by_hand.hear(Text)
        assert rows(node) == [("hello", "handed", node.owner)]
        by_hand.receipt(text)
        assert (await sending).error is None


async def test_to_this_node_itself(parties: Parties) -> None:
    async with parties.node() as serving, parties.node() as node:
        outcome = await send(node, me(node), timeout=0.3)
        assert isinstance(outcome.error, Unreachable)
        assert outcome.error.hint == (
            "start one: securelink serve; or, with an invite: securelink join INVITE"
        )
        async with running(serving) as (service, tell):
            for choice in ("auto", "loopback"):
                outcome = await send(node, me(node), choice=choice)
                assert outcome.error is None
                assert outcome.endpoint == at(service.server.port)
            from securelink import events

            assert [each.peer for each in await tell.of(events.Message, 2)] == ["me", "me"]


async def test_who_has_peers_is_told_of_serve_alone(parties: Parties) -> None:
    async with parties.node() as node:
        await introduce(node, BOB.public, "bob")
        outcome = await send(node, me(node), timeout=0.3)
        assert isinstance(outcome.error, Unreachable)
        assert outcome.error.hint == "start one: securelink serve"


async def test_a_serve_that_starts_later_is_found(parties: Parties) -> None:
    async with parties.node() as serving, parties.node() as node:
        sending = asyncio.create_task(send(node, me(node), timeout=10))
        await until(lambda: states(node) == ["waiting"])
        async with running(serving):
            assert (await sending).error is None


async def test_what_was_queued_before_goes_first(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        await put(node, BOB.public, "queued")
        sending = asyncio.create_task(send(node, bob, "own"))
        by_hand = await server.call()
        assert await by_hand.receipt_all(2) == ["queued", "own"]
        assert (await sending).error is None
        assert states(node) == ["delivered", "delivered"]


async def test_bookkeeping_that_fails_does_not_change_the_truth(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise StoreBusy("another process is writing")

    monkeypatch.setattr(addresses, "used_endpoint", fails)
    async with parties.node() as node, HandServer() as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        sending = asyncio.create_task(send(node, bob))
        await (await server.call()).receipt_all(1)
        outcome = await sending
        assert outcome.error is None
        assert outcome.endpoint == at(server.port)


# ---- not delivered


async def test_nobody_there_in_time(parties: Parties) -> None:
    async with parties.node() as node:
        with Stopwatch() as watch:
            outcome = await send(node, KnownPeer("bob", BOB.public, (at(1),)), timeout=0.5)
        assert watch.seconds < 3
        assert isinstance(outcome.error, Unreachable)
        assert outcome.endpoint is None
        assert states(node) == ["withdrawn"]


async def test_somebody_else(parties: Parties) -> None:
    async with parties.node() as node:
        async with HandServer(Identity.generate()) as server:
            bob = KnownPeer("bob", BOB.public, (at(server.port),))
            outcome = await send(node, bob, timeout=1.5)
        assert isinstance(outcome.error, NotThem)
        assert states(node) == ["withdrawn"]


async def test_denied(parties: Parties) -> None:
    async with parties.node("bob") as node, parties.node() as other:
        async with running(other) as (service, _):
            alice = KnownPeer("alice", other.identity.public, (at(service.server.port),))
            with Stopwatch() as watch:
                outcome = await send(node, alice, timeout=10)
            assert watch.seconds < 2
        assert isinstance(outcome.error, PeerRefused)
        assert states(node) == ["withdrawn"]


@pytest.mark.parametrize(
    ("permanent", "state", "hint"),
    [(True, "refused", None), (False, "withdrawn", "try again later")],
)
async def test_refused(parties: Parties, permanent: bool, state: str, hint: str | None) -> None:
    async with parties.node() as node, HandServer() as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        sending = asyncio.create_task(send(node, bob))
        by_hand = await server.call()
        await by_hand.refuse(1, RefusalCode.DISK_FULL, permanent=permanent)
        outcome = await sending
        assert isinstance(outcome.error, PeerRefused)
        assert outcome.error.message == "bob refused it: its disk is full"
        assert outcome.error.hint == hint
        assert outcome.error.exit_code is ExitCode.REFUSED
        assert states(node) == [state]


async def test_no_receipt_in_time_is_kept_for_the_next_link(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "GRACE", 0.2)
    async with parties.node() as node, HandServer() as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        message_id = new_id()
        with Stopwatch() as watch:
            outcome = await send(node, bob, timeout=1.5, message_id=message_id)
        assert watch.seconds < 5
        assert isinstance(outcome.error, NoReceipt)
        assert rows(node) == [("hello", "handed", None)]

        sending = asyncio.create_task(send(node, bob, "another"))
        by_hand = await server.call(2)
        assert await by_hand.receipt_all(2) == ["hello", "another"]
        assert by_hand.heard_texts()[0].id == message_id
        assert (await sending).error is None
        assert states(node) == ["delivered", "delivered"]


async def test_a_link_that_ends_before_the_receipt_is_followed_by_another(
    parties: Parties,
) -> None:
    async with parties.node() as node, HandServer() as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        sending = asyncio.create_task(send(node, bob))
        first = await server.call(1)
        (text,) = await first.hear(Text)
        first.link.abort()
        second = await server.call(2)
        assert await second.receipt_all(1) == ["hello"]
        assert second.heard_texts() == [text]
        assert (await sending).error is None


async def test_a_server_that_hangs_up_each_time_is_not_dialled_in_a_loop(
    parties: Parties,
) -> None:
    async def hang_up() -> None:
        number = 1
        while True:
            (await server.call(number)).link.abort()
            number += 1

    async with parties.node() as node, HandServer() as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        hanging_up = asyncio.create_task(hang_up())
        outcome = await send(node, bob, timeout=1)
        hanging_up.cancel()
        await asyncio.wait([hanging_up])
        assert outcome.error is not None
        assert len(server.calls) < 12


# ---- again under the same ID


async def test_an_id_again_is_delivered_once(parties: Parties) -> None:
    async with parties.node() as node:
        message_id = new_id()
        async with HandServer() as server:
            bob = KnownPeer("bob", BOB.public, (at(server.port),))
            sending = asyncio.create_task(send(node, bob, message_id=message_id))
            await (await server.call()).receipt_all(1)
            assert (await sending).error is None
        # Nobody is there any more, and nobody has to be.
        outcome = await send(node, bob, message_id=message_id, timeout=0.5)
        assert (outcome.error, outcome.endpoint) == (None, None)
        other = await send(node, bob, "another text", message_id=message_id)
        assert isinstance(other.error, UsageError)
        assert states(node) == ["delivered"]


async def test_an_id_that_was_withdrawn_goes_again(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        message_id = new_id()
        nowhere = KnownPeer("bob", BOB.public, (at(1),))
        assert (await send(node, nowhere, message_id=message_id, timeout=0.2)).error is not None
        assert states(node) == ["withdrawn"]
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        sending = asyncio.create_task(send(node, bob, message_id=message_id))
        await (await server.call()).receipt_all(1)
        assert (await sending).error is None


async def test_two_processes_with_one_id_do_not_disturb_each_other(parties: Parties) -> None:
    async with parties.node() as node, parties.node() as other, HandServer() as server:
        message_id = new_id()
        nowhere = KnownPeer("bob", BOB.public, (at(1),))
        first = asyncio.create_task(send(node, nowhere, message_id=message_id, timeout=0.5))
        await until(lambda: states(node) == ["waiting"])
        second = asyncio.create_task(send(other, nowhere, message_id=message_id, timeout=None))
        await until(lambda: rows(node)[0][2] == other.owner)
        assert isinstance((await first).error, Unreachable)
        # The second one still tries.
        assert rows(node) == [("hello", "waiting", other.owner)]
        second.cancel()
        await asyncio.wait([second])
        assert states(node) == ["withdrawn"]
        assert server.calls == []


# ---- by another process


async def deliver_elsewhere(node: Node) -> None:
    """What another process does when the receipt comes in over its link."""
    with closing(sqlite3.connect(node.home.store_file, isolation_level=None)) as conn:
        (message_id,) = conn.execute("SELECT id FROM outbox").fetchone()
        outbox.delivered(conn, peer=BOB.public.raw, message_id=message_id, now=1)


async def test_without_an_address_whoever_has_the_link_delivers_it(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as serving,
        parties.node(knows={"bob": BOB.public}) as node,
        running(serving) as (service, _),
    ):
        bob = (await node.directory()).by_name("bob")
        sending = asyncio.create_task(send(node, bob))
        await until(lambda: states(node) == ["waiting"])
        assert rows(node)[0][2] == node.owner
        async with call(service.server) as by_hand:
            assert await by_hand.receipt_all(1) == ["hello"]
            outcome = await sending
        assert (outcome.error, outcome.endpoint) == (None, None)


async def test_without_an_address_and_without_a_link(parties: Parties) -> None:
    async with parties.node() as node:
        with Stopwatch() as watch:
            outcome = await send(node, KnownPeer("bob", BOB.public), timeout=0.3)
        assert watch.seconds < 3
        assert isinstance(outcome.error, Unreachable)
        assert "no address of it is known" in outcome.error.message
        assert states(node) == ["withdrawn"]


async def test_without_an_address_refused_for_now(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as serving,
        parties.node(knows={"bob": BOB.public}) as node,
        running(serving) as (service, _),
        call(service.server) as by_hand,
    ):
        bob = (await node.directory()).by_name("bob")
        sending = asyncio.create_task(send(node, bob))
        await by_hand.refuse(1, RefusalCode.QUOTA)
        outcome = await sending
        assert isinstance(outcome.error, PeerRefused)
        assert outcome.error.message == "bob refused it: its quota is used up"
        assert outcome.error.hint == "try again later"
        assert states(node) == ["withdrawn"]


async def test_delivered_by_another_process_while_we_dial(parties: Parties) -> None:
    async with parties.node() as node:
        bob = KnownPeer("bob", BOB.public, (at(1),))
        tried = asyncio.Event()
        sending = Sending(node, bob, choice="auto", timeout=None, failed=lambda _: tried.set())
        task = asyncio.create_task(sending.send([TextItem(new_id(), "hello")]))
        await tried.wait()
        await deliver_elsewhere(node)
        (outcome,) = await task
        assert (outcome.error, outcome.endpoint) == (None, None)


async def test_delivered_by_another_process_over_another_link(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        sending = asyncio.create_task(send(node, bob, timeout=None))
        by_hand = await server.call()
        await by_hand.hear(Text)
        await deliver_elsewhere(node)
        outcome = await sending
        assert (outcome.error, outcome.endpoint) == (None, None)


@pytest.mark.parametrize("linked", [False, True])
async def test_a_peer_that_is_removed_meanwhile(parties: Parties, linked: bool) -> None:
    async with parties.node() as node, HandServer() as server:
        bob = await introduce(node, BOB.public, "bob", [at(server.port if linked else 1)])
        sending = asyncio.create_task(send(node, bob, timeout=None))
        if linked:
            await (await server.call()).hear(Text)
        else:
            await until(lambda: states(node) == ["waiting"])
        await node.store.run(peers.remove, "bob", 1)
        with Stopwatch() as watch:
            outcome = await sending
        assert watch.seconds < 3
        # Bob was handed it, receipt or not: that it never left would be a lie.
        assert isinstance(outcome.error, NoReceipt if linked else Unreachable)
        assert "the peer was removed" in outcome.error.message
        assert states(node) == ["unconfirmed" if linked else "withdrawn"]


# ---- cancelled


async def test_cancelled_before_it_has_left(parties: Parties) -> None:
    async with parties.node() as node:
        bob = KnownPeer("bob", BOB.public, (at(1),))
        sending = asyncio.create_task(send(node, bob, timeout=None))
        await until(lambda: states(node) == ["waiting"])
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert states(node) == ["withdrawn"]


async def test_cancelled_while_the_row_is_put(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_row = outbox.put
    loop = asyncio.get_running_loop()
    reached = asyncio.Event()
    go_on = threading.Event()

    def slow(conn: sqlite3.Connection, **row: object) -> int:
        loop.call_soon_threadsafe(reached.set)
        assert go_on.wait(10)
        return put_row(conn, **row)

    monkeypatch.setattr(outbox, "put", slow)
    async with parties.node() as node:
        sending = asyncio.create_task(send(node, KnownPeer("bob", BOB.public, (at(1),))))
        await reached.wait()
        sending.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert states(node) == ["withdrawn"]


async def test_a_row_that_cannot_be_put(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> int:
        raise StoreBusy("another process is writing")

    monkeypatch.setattr(outbox, "put", fails)
    async with parties.node() as node:
        outcome = await send(node, KnownPeer("bob", BOB.public, (at(1),)))
        assert isinstance(outcome.error, StoreBusy)


async def test_cancelled_after_it_may_have_left(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        sending = asyncio.create_task(send(node, bob, timeout=None))
        by_hand = await server.call()
        await by_hand.hear(Text)
        sending.cancel()
        with Stopwatch() as watch, pytest.raises(asyncio.CancelledError):
            await sending
        assert watch.seconds < QUICK.close_timeout + 1
        assert rows(node) == [("hello", "handed", None)]
        lock = node.drain_lock(BOB.public.raw)
        assert lock is not None
        lock.release(unlink=True)


async def test_a_receipt_during_the_goodbye_counts(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        sending = asyncio.create_task(send(node, bob, timeout=None))
        by_hand = await server.call()
        (text,) = await by_hand.hear(Text)
        sending.cancel()
        await asyncio.sleep(0)
        by_hand.receipt(text)
        await by_hand.link.aclose()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert states(node) == ["delivered"]


# ---- what waits for us


async def say(by_hand: ByHand, *texts: str) -> None:
    for text in texts:
        by_hand.say(text)


async def outcome_and_received(
    node: Node, server: HandServer, *texts: str
) -> tuple[Outcome, int, float]:
    bob = KnownPeer("bob", BOB.public, (at(server.port),))
    sending = Sending(node, bob, choice="auto", timeout=5)
    task = asyncio.create_task(sending.send([TextItem(new_id(), "hello")]))
    by_hand = await server.call()
    await by_hand.receipt_all(1)
    with Stopwatch() as watch:
        for text in texts:
            by_hand.say(text)
            await by_hand.hear(Receipt, texts.index(text) + 1)
        leaving = asyncio.create_task(leave(by_hand))
        (outcome,) = await task
    await leaving
    return outcome, sending.received, watch.seconds


async def leave(by_hand: ByHand) -> None:
    from securelink.session import Closing

    await by_hand.hear(Closing)
    await by_hand.link.aclose()


@pytest.fixture
def long_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lingers needlessly is caught, however slow this machine is."""
    monkeypatch.setattr(own, "LINGER", 10.0)


@pytest.mark.usefixtures("long_linger")
async def test_nothing_waits(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        outcome, received, seconds = await outcome_and_received(node, server)
        assert (outcome.error, received) == (None, 0)
        assert seconds < own.LINGER / 2


@pytest.mark.usefixtures("long_linger")
async def test_waiting_texts_are_taken(parties: Parties) -> None:
    async with parties.node() as node, HandServer(waiting=3) as server:
        outcome, received, seconds = await outcome_and_received(node, server, "a", "b", "c")
        assert (outcome.error, received) == (None, 3)
        assert seconds < own.LINGER / 2
        assert texts(node) == ["a", "b", "c"]


async def test_texts_that_do_not_come_are_waited_for_a_second_at_most(parties: Parties) -> None:
    async with parties.node() as node, HandServer(waiting=3) as server:
        outcome, received, seconds = await outcome_and_received(node, server, "a")
        assert (outcome.error, received) == (None, 1)
        assert own.LINGER * 0.8 < seconds < own.LINGER + 3


@pytest.mark.usefixtures("long_linger")
async def test_a_link_that_ends_while_texts_are_waited_for(parties: Parties) -> None:
    async with parties.node() as node, HandServer(waiting=3) as server:
        bob = KnownPeer("bob", BOB.public, (at(server.port),))
        sending = asyncio.create_task(send(node, bob))
        by_hand = await server.call()
        await by_hand.receipt_all(1)
        await until(lambda: states(node) == ["delivered"])
        by_hand.link.abort()
        with Stopwatch() as watch:
            assert (await sending).error is None
        assert watch.seconds < own.LINGER / 2


async def test_failed_attempts_are_told(parties: Parties) -> None:
    heard: list[object] = []
    async with parties.node() as node:
        bob = KnownPeer("bob", BOB.public, (at(1),))
        sending = Sending(node, bob, choice="auto", timeout=0.5, failed=heard.append)
        await sending.send([TextItem(new_id(), "hello")])
    assert heard
    assert all(isinstance(each, Unreachable) for each in heard)
    assert connect.FIRST_DELAY < 0.5
