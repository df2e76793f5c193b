"""Opening a node, and what an opening that fails leaves behind."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from parties import BOB, Stopwatch, put, rows, states

from securelink import node as node_module
from securelink.clock import now_ms
from securelink.config import Config
from securelink.errors import StoreBusy
from securelink.locks import is_held
from securelink.node import Node
from securelink.store import outbox, upkeep

if TYPE_CHECKING:
    import sqlite3

    from parties import Parties


def store_threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("store ")]


async def test_an_opening_that_fails_leaves_neither_thread_nor_lock(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StoreBusy("another process is writing")

    async with parties.node():
        pass
    monkeypatch.setattr(upkeep, "prune", fails)
    with pytest.raises(StoreBusy):
        await Node.open(parties.home("alice"), Config())
    assert store_threads() == []
    assert list(parties.home("alice").locks.iterdir()) == []


async def test_the_same_identity_and_another_owner_each_time(parties: Parties) -> None:
    async with parties.node() as one, parties.node() as other:
        assert one.identity.public == other.identity.public
        assert one.owner != other.owner
        for each in (one, other):
            assert is_held(each.home.locks / f"{each.owner}.owner")
    assert list(one.home.locks.iterdir()) == []


async def test_opening_settles_what_dead_processes_left(parties: Parties) -> None:
    async with parties.node() as node, parties.node() as alive:
        await put(node, BOB.public, "never left", owner="dead-1")
        seq = await put(node, BOB.public, "may have left", owner="dead-2")
        await node.store.run(outbox.hand, [seq], now_ms())
        await put(node, BOB.public, "alive", owner=alive.owner)
        # It needs no serve: whoever opens the node next does it.
        async with parties.node():
            assert next(row[1:] for row in rows(node))[0] == "withdrawn"
            assert rows(node)[1] == ("may have left", "handed", None)
            assert rows(node)[2] == ("alive", "waiting", alive.owner)
        assert len(states(node)) == 3


async def test_drain_locks_are_one_for_each_peer(parties: Parties) -> None:
    async with parties.node() as one, parties.node() as other:
        lock = one.drain_lock(bytes(32))
        assert lock is not None
        assert one.drain_lock(bytes(32)) is None
        assert other.drain_lock(bytes(32)) is None
        another = other.drain_lock(b"\1" * 32)
        assert another is not None
        lock.release(unlink=True)
        again = other.drain_lock(bytes(32))
        assert again is not None
        for each in (another, again):
            each.release(unlink=True)


async def test_closing_waits_for_a_stuck_store_only_so_long(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "CLOSE_TIMEOUT", 0.2)
    go_on = threading.Event()

    def stuck(_: sqlite3.Connection) -> None:
        go_on.wait(10)

    with Stopwatch() as watch:
        async with parties.node() as node:
            job = asyncio.create_task(node.store.run(stuck))
            await asyncio.sleep(0)
    assert watch.seconds < 2
    assert not is_held(node.home.locks / f"{node.owner}.owner")
    go_on.set()
    await job
    await node.store.aclose()
