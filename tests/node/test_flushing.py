"""What is queued, tried now: its rows stay any process's, and whoever asked hears what became."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from parties import (
    BOB,
    HandServer,
    at,
    call,
    introduce,
    put,
    put_many,
    rows,
    running,
    states,
    until,
)
from taking import Taker, behind_its_back, file_rows, file_states, item, owners, put_files

from securelink import outgoing
from securelink.client import Outcome, Sending
from securelink.clock import new_id
from securelink.directory import KnownPeer
from securelink.errors import (
    Cancelled,
    ExitCode,
    NoReceipt,
    PeerRefused,
    SourceChanged,
    Unreachable,
)
from securelink.file_messages import Chunk, Offer
from securelink.items import QueuedItem, TextItem, queued_items
from securelink.messages import Ready, Receipt, RefusalCode, Text
from securelink.store import notices, outbox, outbox_list, tries

if TYPE_CHECKING:
    from pathlib import Path

    from parties import Parties

    from securelink.node import Node

NOWHERE = KnownPeer("bob", BOB.public, (at(1),))
LARGE = 24 << 20


def bob_at(server: HandServer) -> KnownPeer:
    return KnownPeer("bob", BOB.public, (at(server.port),))


async def queued(node: Node) -> list[QueuedItem]:
    return queued_items(await node.store.read(outbox_list.queued, BOB.public.raw))


async def begin(node: Node, peer: KnownPeer, **options: Any) -> asyncio.Task[list[Outcome]]:
    """Flush what is queued for Bob."""
    options = {"choice": "auto", "timeout": 5, "queue": True} | options
    return asyncio.create_task(Sending(node, peer, **options).send(await queued(node)))


def make(folder: Path, name: str, data: bytes = b"content") -> Path:
    path = folder / "source" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def cancel(node: Node) -> None:
    """What `outbox --cancel` does to all there is, in another process."""
    with closing(sqlite3.connect(node.home.store_file, isolation_level=None)) as conn:
        conn.execute("BEGIN IMMEDIATE")
        outbox.cancel(conn, [seq for (seq,) in conn.execute("SELECT seq FROM outbox")], 1)
        conn.execute("COMMIT")


# ---- the items


async def test_each_text_and_each_argument_is_an_item(parties: Parties, tmp_path: Path) -> None:
    make(tmp_path, "photos/b")
    make(tmp_path, "photos/c")
    async with parties.node() as node:
        await put(node, BOB.public, "first")
        await put_files(node, tmp_path / "source" / "photos", owner=None)
        await put_files(node, make(tmp_path, "a"), owner=None)
        await put(node, BOB.public, "second")
        first, photos, single, second = await queued(node)
        assert [each.excerpt for each in (first, second)] == ["first", "second"]
        assert (photos.name, len(photos.rows), photos.id) == ("photos", 3, photos.rows[0].group)
        assert (single.name, len(single.rows), single.id) == ("a", 1, single.rows[0].id)


# ---- delivered


async def test_it_goes_over_a_link_of_its_own(parties: Parties, tmp_path: Path) -> None:
    make(tmp_path, "photos/b")
    make(tmp_path, "photos/c")
    async with parties.node() as node, HandServer() as server:
        await put_many(node, BOB.public, ["one", "two"])
        await put_files(node, tmp_path / "source" / "photos", owner=None)
        await put_files(node, make(tmp_path, "a", b"a file"), owner=None)
        task = await begin(node, bob_at(server))
        by_hand = await server.call()
        taker = Taker(by_hand, willing=True)
        assert await by_hand.receipt_all(2) == ["one", "two"]
        one, two, photos, single = await task
        assert [each.error for each in (one, two, photos, single)] == [None] * 4
        assert [each.endpoint for each in (one, two, photos, single)] == [at(server.port)] * 4
        assert (photos.tally.files, photos.tally.files_done, photos.tally.total) == (2, 2, 14)
        assert (single.tally.done, single.tally.total) == (6, 6)
        assert sorted(taker.names()) == ["a", "photos", "photos/b", "photos/c"]
        assert set(states(node)) == {"delivered"}


async def test_all_the_time_it_is_any_process_s(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node, HandServer() as server:
        await put(node, BOB.public, "hello")
        task = await begin(node, bob_at(server))
        (text,) = await (by_hand := await server.call()).hear(Text)
        # Killed now, it takes nothing with it.
        assert rows(node) == [("hello", "handed", None)]
        by_hand.receipt(text)
        assert (await task)[0].error is None


@pytest.mark.parametrize("has_files", [False, True])
async def test_the_link_of_another_process_carries_it(
    parties: Parties, tmp_path: Path, has_files: bool
) -> None:
    async with (
        parties.node() as serving,
        parties.node() as node,
        HandServer() as server,
        running(serving) as (service, _),
    ):
        bob = await introduce(node, BOB.public, "bob", [at(server.port)])
        async with call(service.server, standing=True, takes_files=True) as by_hand:
            await by_hand.hear(Ready)
            by_hand.link.pause_receiving()
            await put(node, BOB.public, "hello")
            if has_files:
                await put_files(node, make(tmp_path, "a"), owner=None)
            taker = Taker(by_hand, willing=True)
            task = await begin(node, bob)
            by_hand.link.resume_receiving()
            await by_hand.receipt_all(1)
            outcomes = await task
        assert [each.error for each in outcomes] == [None] * len(outcomes)
        assert [each.endpoint for each in outcomes] == [None] * len(outcomes)
        assert server.calls == [], "nobody was dialled"
        assert taker.names() == ["a"] * has_files


async def test_while_it_is_dialled_another_process_may_deliver_it(parties: Parties) -> None:
    async with parties.node() as node:
        await put(node, BOB.public, "hello")
        task = await begin(node, NOWHERE, timeout=None)
        await asyncio.sleep(0)
        behind_its_back(node, "UPDATE outbox SET state = 'delivered', text = ''")
        (outcome,) = await task
        assert (outcome.error, outcome.endpoint) == (None, None)


async def test_what_another_process_is_sending_is_left_to_it(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[object] = []
    choose = outgoing._choose_rows
    monkeypatch.setattr(
        outgoing, "_choose_rows", lambda *args, **kwargs: looks.append(1) or choose(*args, **kwargs)
    )
    async with parties.node() as node, parties.node() as other, HandServer() as server:
        lock = other.drain_lock(BOB.public.raw)
        assert lock is not None
        await put(node, BOB.public, "hello")
        await put_files(node, make(tmp_path, "a"), owner=None)
        task = await begin(node, bob_at(server))
        by_hand = await server.call()
        taker = Taker(by_hand, willing=True)
        await until(lambda: len(looks) == 1)
        await node.store.run(lambda _: None)
        # What the first look has chosen has left before the second one.
        await until(lambda: len(looks) == 2)
        assert states(node) == ["waiting", "waiting"]
        behind_its_back(node, "UPDATE outbox SET state = 'delivered', text = ''")
        assert [each.error for each in await task] == [None, None]
        assert taker.names() == []
        lock.release(unlink=True)


# ---- not delivered


async def test_nobody_there(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node:
        await put(node, BOB.public, "hello")
        await put_files(node, make(tmp_path, "a"), owner=None)
        for count in (1, 2):
            outcomes = await (await begin(node, NOWHERE, timeout=0.3))
            assert [each.queued for each in outcomes] == [True, True]
            assert all(isinstance(each.error, Unreachable) for each in outcomes)
            assert (states(node), owners(node)) == (["waiting", "waiting"], [None, None])
            known = await node.store.read(tries.get, BOB.public.raw)
            assert known is not None
            assert (known.count, known.reason) == (count, "bob could not be reached")


async def test_once_the_peer_is_reached_no_reason_is_left(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await put(node, BOB.public, "hello")
        await (await begin(node, NOWHERE, timeout=0.1))
        task = await begin(node, bob_at(server))
        await (await server.call()).receipt_all(1)
        await task
        known = await node.store.read(tries.get, BOB.public.raw)
        assert known is not None
        assert (known.count, known.reason) == (1, None)


@pytest.mark.parametrize("queue", [True, False])
async def test_a_new_send_counts_its_attempt_if_it_queues(parties: Parties, queue: bool) -> None:
    async with parties.node() as node:
        sending = Sending(node, NOWHERE, choice="auto", timeout=0.1, queue=queue, life=1000)
        await sending.send([TextItem(new_id(), "hello")])
        assert await node.store.read(tries.count, BOB.public.raw) == int(queue)
        (lives_until,) = await node.store.read(
            lambda conn: conn.execute("SELECT lives_until FROM outbox").fetchone()
        )
        assert lives_until == (1000 if queue else None)


async def test_a_link_that_ends_before_the_receipt_is_no_attempt_in_vain(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await put(node, BOB.public, "hello")
        task = await begin(node, bob_at(server), timeout=1.5)
        first = await server.call()
        await first.hear(Text)
        server._server.close()
        first.link.abort()
        (outcome,) = await task
        assert outcome.queued
        assert (states(node), owners(node)) == (["handed"], [None])
        assert await node.store.read(tries.count, BOB.public.raw) == 0


async def test_a_call_that_is_cancelled_leaves_it_queued(parties: Parties) -> None:
    async with parties.node() as node:
        await put(node, BOB.public, "hello")
        task = await begin(node, NOWHERE, timeout=None)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert rows(node) == [("hello", "waiting", None)]


async def test_what_is_refused_does_not_hold_up_the_rest(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await put_many(node, BOB.public, ["no", "yes"])
        task = await begin(node, bob_at(server))
        by_hand = await server.call()
        await by_hand.refuse(1, RefusalCode.TOO_LONG, permanent=True)
        (_, yes) = await by_hand.hear(Text, 2)
        by_hand.link.send(Receipt(yes.id))
        no, yes = await task
        assert isinstance(no.error, PeerRefused)
        assert not no.queued
        assert yes.error is None
        assert states(node) == ["refused", "delivered"]


async def test_a_file_that_has_changed_is_told_and_not_begun_anew(
    parties: Parties, tmp_path: Path
) -> None:
    path = make(tmp_path, "a")
    async with parties.node() as node, HandServer() as server:
        await put_files(node, path, owner=None)
        path.write_bytes(b"something else")
        task = await begin(node, bob_at(server))
        taker = Taker(await server.call(), willing=True)
        (outcome,) = await task
        assert isinstance(outcome.error, SourceChanged)
        assert not outcome.queued
        assert (taker.names(), file_states(node)) == ([], ["withdrawn"])
        (notice,) = await node.store.read(notices.after, 0)
        assert (notice.state, notice.name) == ("withdrawn", "a")
        assert "has changed" in str(notice.reason)


# ---- cancelled meanwhile, by another process


@pytest.mark.parametrize("own", [True, False])
async def test_cancelled_while_it_is_dialled(parties: Parties, tmp_path: Path, own: bool) -> None:
    path = make(tmp_path, "a")
    async with parties.node() as node:
        if own:
            sending = Sending(node, NOWHERE, choice="auto", timeout=None)
            task = asyncio.create_task(sending.send([TextItem(new_id(), "hello"), item(path)]))
        else:
            await put(node, BOB.public, "hello")
            await put_files(node, path, owner=None)
            task = await begin(node, NOWHERE, timeout=None)
        await until(lambda: len(states(node)) == 2)
        cancel(node)
        for outcome in await task:
            assert isinstance(outcome.error, Cancelled)
            assert not outcome.queued
            assert outcome.error.exit_code is ExitCode.ERROR
        assert states(node) == ["withdrawn", "withdrawn"]


@pytest.mark.parametrize("own", [True, False])
async def test_cancelled_when_it_has_left(parties: Parties, own: bool) -> None:
    async with parties.node() as node, HandServer() as server:
        if own:
            sending = Sending(node, bob_at(server), choice="auto", timeout=5)
            task = asyncio.create_task(sending.send([TextItem(new_id(), "hello")]))
        else:
            await put(node, BOB.public, "hello")
            task = await begin(node, bob_at(server))
        await (await server.call()).hear(Text)
        cancel(node)
        (outcome,) = await task
        assert isinstance(outcome.error, NoReceipt)
        assert outcome.error.message == "bob has not confirmed it: it was cancelled"
        assert states(node) == ["unconfirmed"]


@pytest.mark.parametrize("own", [True, False])
async def test_of_a_file_that_is_cancelled_no_more_goes(
    parties: Parties, tmp_path: Path, own: bool
) -> None:
    path = make(tmp_path, "a", bytes(LARGE))
    async with parties.node() as node, HandServer() as server:
        if own:
            sending = Sending(node, bob_at(server), choice="auto", timeout=5)
            task = asyncio.create_task(sending.send([item(path)]))
        else:
            await put_files(node, path, owner=None)
            task = await begin(node, bob_at(server))
        taker = Taker(await server.call(), willing=True)
        await taker.of(Offer)
        await taker.of(Chunk)
        taker.pause()
        cancel(node)
        (outcome,) = await task
        assert isinstance(outcome.error, Cancelled)
        assert [row[1:] for row in file_rows(node)] == [("withdrawn", outbox.CANCELLED)]
