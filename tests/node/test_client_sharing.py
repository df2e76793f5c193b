"""A `send` to a peer that is linked to another process of the node, which then delivers."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pipes import a_pipe
from typing import TYPE_CHECKING, Any

import pytest
from parties import (
    BOB,
    HandServer,
    Stopwatch,
    at,
    call,
    introduce,
    put,
    rows,
    running,
    states,
    until,
)
from taking import Taker, file_states, item, put_files

from securelink import outgoing, progressing
from securelink.client import Outcome, Sending, others
from securelink.clock import new_id
from securelink.errors import NoReceipt, SecurelinkError, Unreachable
from securelink.file_messages import Chunk
from securelink.items import StreamItem, TextItem
from securelink.messages import Ready, Text
from securelink.parcel import Parcel
from securelink.store import links

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from parties import ByHand, Parties

    from securelink.directory import KnownPeer
    from securelink.node import Node
    from securelink.service import Service

LARGE = 24 << 20


@dataclass
class Shared:
    """A node that serves, another process of it, and Bob at a port where nobody has called yet."""

    service: Service
    node: Node
    server: HandServer
    bob: KnownPeer


@asynccontextmanager
async def shared(parties: Parties, *, reachable: bool = True) -> AsyncIterator[Shared]:
    async with (
        parties.node() as serving,
        parties.node() as node,
        HandServer() as server,
        running(serving) as (service, _),
    ):
        bob = await introduce(node, BOB.public, "bob", [at(server.port)] if reachable else [])
        yield Shared(service, node, server, bob)


def begin(it: Shared, *items: Any, **options: Any) -> asyncio.Task[list[Outcome]]:
    options = {"choice": "auto", "timeout": 10.0} | options
    sending = Sending(it.node, it.bob, **options)
    return asyncio.create_task(sending.send(items or [TextItem(new_id(), "hello")]))


@asynccontextmanager
async def linked(it: Shared, **options: Any) -> AsyncIterator[ByHand]:
    async with call(it.service.server, **options) as by_hand:
        await by_hand.hear(Ready)
        yield by_hand


async def test_the_link_that_there_is_carries_it(parties: Parties) -> None:
    async with shared(parties) as it, linked(it, standing=True) as by_hand:
        task = begin(it)
        assert await by_hand.receipt_all(1) == ["hello"]
        (outcome,) = await task
        assert outcome.error is None
        assert it.server.calls == [], "nobody was dialled"


async def test_a_named_endpoint_is_dialled_all_the_same(parties: Parties) -> None:
    async with shared(parties) as it, linked(it, standing=True):
        task = begin(it, choice=f"127.0.0.1:{it.server.port}")
        assert await (await it.server.call()).receipt_all(1) == ["hello"]
        assert (await task)[0].error is None


async def test_who_has_only_a_link_without_files_is_dialled_for_files(
    parties: Parties, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(b"a file")
    async with shared(parties) as it, linked(it, standing=True):
        task = begin(it, item(tmp_path / "a"))
        taker = Taker(await it.server.call(), willing=True)
        assert (await task)[0].error is None
        assert taker.data(0) == b"a file"


async def test_files_go_over_a_link_that_takes_them(parties: Parties, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a file")
    async with shared(parties) as it, linked(it, standing=True, takes_files=True) as by_hand:
        task = begin(it, item(tmp_path / "a"))
        taker = Taker(by_hand, willing=True)
        assert (await task)[0].error is None
        assert taker.data(0) == b"a file"
        assert it.server.calls == []


async def test_a_stream_goes_over_a_link_of_its_own(parties: Parties, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a stream")
    with (tmp_path / "a").open("rb") as file:
        async with shared(parties) as it, linked(it, standing=True, takes_files=True):
            task = begin(it, StreamItem("a", file.fileno()))
            taker = Taker(await it.server.call(), willing=True)
            assert (await task)[0].error is None
            assert taker.data(0) == b"a stream"


@pytest.mark.parametrize("handed", [False, True])
async def test_when_that_link_ends_it_is_dialled(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, handed: bool
) -> None:
    monkeypatch.setattr(others, "LOOK_INTERVAL", 0.05)
    async with shared(parties) as it:
        async with linked(it, standing=True) as by_hand:
            if not handed:
                by_hand.link.pause_receiving()
                # As if it were carried off, and no process had noticed yet.
                await it.service.node.store.run(_nobody_drains, it)
            task = begin(it)
            if handed:
                await by_hand.hear(Text)
            else:
                await until(lambda: states(it.node) == ["waiting"])
        assert await (await it.server.call()).receipt_all(1) == ["hello"]
        assert (await task)[0].error is None
        assert states(it.node) == ["delivered"]


def _nobody_drains(_: object, it: Shared) -> None:
    for linked in it.service.registry._linked.values():
        linked.outgoing._drains = False


async def test_a_process_that_is_killed_has_no_link_any_more(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "LOOK_INTERVAL", 0.05)
    async with shared(parties) as it:
        dead = it.service.registry.rows.new(BOB.public.raw, at(1), dialled=False, takes_files=True)
        await it.node.store.run(links.up, dead)
        task = begin(it)
        await until(lambda: states(it.node) == ["waiting"])
        it.service.node._lock.release()
        assert await (await it.server.call()).receipt_all(1) == ["hello"]
        assert (await task)[0].error is None


async def test_a_link_that_carries_nothing_is_not_waited_for(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "SHARE_PATIENCE", 0.2)
    monkeypatch.setattr(others, "LOOK_INTERVAL", 0.05)
    async with shared(parties) as it, linked(it, standing=True) as silent:
        task = begin(it)
        await silent.hear(Text)
        assert await (await it.server.call()).receipt_all(1) == ["hello"]
        assert (await task)[0].error is None


@pytest.mark.parametrize("what", ["text", "file", "lines"])
async def test_a_link_that_comes_up_while_we_dial_carries_it(
    parties: Parties, tmp_path: Path, what: str
) -> None:
    failed = asyncio.Event()
    (tmp_path / "a").write_bytes(b"a file")
    async with shared(parties) as it:
        it.server._server.close()
        with a_pipe() as pipe:
            items = {
                "text": TextItem(new_id(), "hello"),
                "file": item(tmp_path / "a"),
                "lines": pipe.item(),
            }
            pipe.write(b"hello\n")
            task = begin(it, items[what], failed=lambda _: failed.set())
            await failed.wait()
            async with linked(it, standing=True, takes_files=True) as by_hand:
                if what == "file":
                    taker = Taker(by_hand, willing=True)
                else:
                    assert await by_hand.receipt_all(1) == ["hello"]
                pipe.end()
                (outcome,) = await task
        assert (outcome.error, outcome.endpoint) == (None, None)
        if what == "file":
            assert taker.data(0) == b"a file"


async def test_a_link_that_carried_nothing_is_not_counted_on_again(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "SHARE_PATIENCE", 0.2)
    monkeypatch.setattr(others, "LOOK_INTERVAL", 0.05)
    keep, kept = Parcel.keep, []

    async def counted(parcel: Parcel) -> None:
        kept.append(parcel)
        await keep(parcel)

    monkeypatch.setattr(Parcel, "keep", counted)
    failed: list[SecurelinkError] = []
    async with shared(parties) as it, linked(it, standing=True) as silent:
        it.server._server.close()
        task = begin(it, failed=failed.append)
        await silent.hear(Text)
        await until(lambda: len(failed) == 2)
        async with HandServer(port=it.server.port) as server:
            assert await (await server.call()).receipt_all(1) == ["hello"]
            assert (await task)[0].error is None
    assert len(kept) == 1


async def test_lines_that_are_long_in_coming_are_waited_for(parties: Parties) -> None:
    async with shared(parties, reachable=False) as it, linked(it, standing=True) as by_hand:
        with a_pipe() as pipe:
            task = begin(it, pipe.item(), timeout=0.3)
            pipe.write(b"one\n")
            assert await by_hand.receipt_all(1) == ["one"]
            done, _ = await asyncio.wait([task], timeout=1)
            assert not done
            pipe.write(b"two\n")
            assert await by_hand.receipt_all(2) == ["two"]
            pipe.end()
            assert (await task)[0].error is None


async def test_a_large_file_over_another_process_counts_as_progress(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progressing, "INTERVAL", 0.05)
    (tmp_path / "a").write_bytes(bytes(LARGE))
    async with (
        shared(parties, reachable=False) as it,
        linked(it, standing=True, takes_files=True) as by_hand,
    ):
        sending = Sending(it.node, it.bob, choice="auto", timeout=1.5)
        task = asyncio.create_task(sending.send([item(tmp_path / "a")]))
        taker = Taker(by_hand)
        await taker.offer(0)
        # It takes longer than the timeout, and moves all the time.
        for count in range(1, 7):
            await taker.of(Chunk, 40 * count)
            taker.pause()
            await asyncio.sleep(0.4)
            taker.resume()
        parcel = sending.parcel
        assert parcel is not None
        assert parcel.tallies[0].done > 0
        assert not task.done()
        taker.receipt(await taker.offer(0))
        assert (await task)[0].error is None


# ---- the order of the queue


async def test_what_may_wait_keeps_its_place_in_the_queue(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "LOCK_PAUSE", 0.05)
    async with parties.node() as other, parties.node() as node, HandServer() as server:
        bob = await introduce(node, BOB.public, "bob", [at(server.port)])
        # Another process sends what is queued, and is about to go.
        lock = other.drain_lock(BOB.public.raw)
        assert lock is not None
        await put(node, BOB.public, "first")
        sending = Sending(node, bob, choice="auto", timeout=10.0, queue=True)
        task = asyncio.create_task(sending.send([TextItem(new_id(), "second")]))
        by_hand = await server.call()
        await until(lambda: states(node) == ["waiting", "waiting"])
        plain = Sending(node, bob, choice="auto", timeout=10.0)
        now = asyncio.create_task(plain.send([TextItem(new_id(), "in between")]))
        # What may not wait goes at once.
        assert await (await server.call(2)).receipt_all(1) == ["in between"]
        assert (await now)[0].error is None
        assert by_hand.heard_texts() == []
        lock.release(unlink=True)
        assert await by_hand.receipt_all(2) == ["first", "second"]
        (outcome,) = await task
        assert (outcome.error, outcome.queued) == (None, False)


async def test_queued_files_go_in_order_too(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "LOCK_PAUSE", 0.05)
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(name.encode())
    async with parties.node() as other, parties.node() as node, HandServer() as server:
        bob = await introduce(node, BOB.public, "bob", [at(server.port)])
        lock = other.drain_lock(BOB.public.raw)
        assert lock is not None
        await put_files(node, tmp_path / "first", owner=None)
        sending = Sending(node, bob, choice="auto", timeout=10.0, queue=True)
        task = asyncio.create_task(sending.send([item(tmp_path / "second")]))
        taker = Taker(await server.call(), willing=True)
        await until(lambda: file_states(node) == ["waiting", "waiting"])
        lock.release(unlink=True)
        (outcome,) = await task
        assert (outcome.error, outcome.queued) == (None, False)
        assert [taker.data(number) for number in range(2)] == [b"first", b"second"]


# ---- without an address


async def test_queued_for_somebody_who_is_not_there_it_ends_at_once(parties: Parties) -> None:
    async with shared(parties, reachable=False) as it:
        with Stopwatch() as watch:
            (outcome,) = await begin(it, queue=True, timeout=30.0)
        assert watch.seconds < 5
        assert outcome.queued
        assert isinstance(outcome.error, Unreachable)
        assert rows(it.node) == [("hello", "waiting", None)]


async def test_queued_for_somebody_who_is_there_it_is_delivered(parties: Parties) -> None:
    async with shared(parties, reachable=False) as it, linked(it, standing=True) as by_hand:
        task = begin(it, queue=True)
        assert await by_hand.receipt_all(1) == ["hello"]
        (outcome,) = await task
        assert (outcome.error, outcome.queued) == (None, False)


async def test_how_to_get_it_is_told_once(parties: Parties) -> None:
    told: list[SecurelinkError] = []
    async with shared(parties, reachable=False) as it:
        task = begin(it, timeout=None, failed=told.append)
        await until(lambda: len(told) == 1)
        async with linked(it) as by_hand:
            await by_hand.receipt_all(1)
            assert (await task)[0].error is None
    assert [each.hint for each in told] == [
        "on bob: securelink receive, or a send while it serves; or here: --endpoint HOST:PORT"
    ]


async def test_linked_and_silent_until_the_timeout(parties: Parties) -> None:
    async with shared(parties, reachable=False) as it, linked(it, standing=True) as silent:
        task = begin(it, timeout=1.5)
        await silent.hear(Text)
        (outcome,) = await task
        assert isinstance(outcome.error, NoReceipt)
        assert "is linked, and has not taken it in time" in outcome.error.message
        assert rows(it.node) == [("hello", "handed", None)]


async def test_files_of_a_dead_sender_are_given_up(parties: Parties, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a file")
    async with shared(parties, reachable=False) as it:
        task = begin(it, item(tmp_path / "a"), timeout=0.2)
        (outcome,) = await task
        assert isinstance(outcome.error, Unreachable)
        assert file_states(it.node) == ["withdrawn"]
