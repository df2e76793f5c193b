from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from store_child import HOLD_WRITE_LOCK, child

from securelink.errors import StoreBusy, StoreError, StoreFull, StoreTooNew, UsageError
from securelink.store import inbox, workers
from securelink.store.database import Database
from securelink.store.writer import Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path

PEER = b"p" * 32


def receive(conn: sqlite3.Connection, number: int, size: int = 2) -> int | None:
    return inbox.receive(
        conn,
        peer=PEER,
        peer_name="bob",
        message_id=number.to_bytes(16, "big"),
        sent_at=1,
        text="x" * size,
        received_at=1,
    )


def run(main: Callable[[], Coroutine[object, object, None]]) -> None:
    errors: list[dict[str, object]] = []

    async def limited() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, error: errors.append(error))
        async with asyncio.timeout(30):
            await main()

    asyncio.run(limited())
    assert errors == []


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    store = await Store.open(path)
    try:
        yield store
    finally:
        await store.aclose()


def store_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("store ")]


class Pause:
    """A job that stops the thread that runs it until it may go on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        self.go_on = threading.Event()

    def __call__(self, _conn: sqlite3.Connection) -> None:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self.go_on.wait(30)


async def behind(pause: Pause, store: Store, *calls: Awaitable[object]) -> list[object]:
    """Run the calls so that they share one transaction; return what came of each."""
    blocker = asyncio.create_task(store.run(pause))
    await pause.reached.wait()
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0)  # they are queued now
    pause.go_on.set()
    await blocker
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_run_and_read(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            assert await store.run(receive, 1) == 1
            assert await store.run(receive, number=1) is None
            (message,) = await store.read(inbox.after, 0)
            assert message.seq == 1

    run(main)
    database = Database.open(path)
    assert inbox.newest_seq(database.connection) == 1
    database.close()


def test_many_senders_share_commits(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:

            async def sender(number: int) -> None:
                for turn in range(10):
                    assert await store.run(receive, number * 10 + turn) is not None

            await asyncio.gather(*(sender(number) for number in range(64)))
            assert 0 < store.commits < 640 / 4
            assert len(await store.read(inbox.after, 0)) == 640

            before = store.commits
            await asyncio.gather(*(store.run(receive, 1000 + number) for number in range(64)))
            assert 0 < store.commits - before < 16

    run(main)


def test_results_keep_the_order_of_calls(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            count = 2 * workers.LARGEST_BATCH + 1
            jobs = (store.run(receive, number) for number in range(count))
            outcomes = await behind(Pause(), store, *jobs)
            assert outcomes == list(range(1, count + 1))
            assert store.commits == 4

    run(main)


def test_failing_job_fails_alone(path: Path) -> None:
    def change_and_fail(conn: sqlite3.Connection, error: BaseException) -> None:
        receive(conn, 100)
        raise error

    def change_and_break(conn: sqlite3.Connection) -> None:
        receive(conn, 101)
        conn.execute("SELECT * FROM nowhere")

    async def main() -> None:
        async with opened(path) as store:
            usage = UsageError("no")
            outcomes = await behind(
                Pause(),
                store,
                store.run(receive, 1),
                store.run(change_and_fail, usage),
                store.run(receive, 2),
                store.run(change_and_break),
                store.run(change_and_fail, ZeroDivisionError()),
                store.run(receive, 3),
            )
            assert outcomes[0] == 1
            assert outcomes[1] is usage
            assert outcomes[2] == 2
            assert type(outcomes[3]) is StoreError
            assert "nowhere" in str(outcomes[3])
            assert isinstance(outcomes[4], ZeroDivisionError)
            assert outcomes[5] == 3
            assert store.commits == 2
            messages = await store.read(inbox.after, 0)
            assert [int.from_bytes(message.id, "big") for message in messages] == [1, 2, 3]

    run(main)


def test_failing_reads(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            with pytest.raises(StoreError, match="can't be written"):
                await store.read(receive, 1)
            with pytest.raises(UsageError):
                await store.read(fail)
            assert await store.read(inbox.newest_seq) == 0

    def fail(_conn: sqlite3.Connection) -> None:
        raise UsageError("no")

    run(main)


def test_full_disk_fails_the_jobs_that_need_room(path: Path) -> None:
    def limit(conn: sqlite3.Connection, pages: int) -> None:
        (now,) = conn.execute("PRAGMA page_count").fetchone()
        conn.execute(f"PRAGMA max_page_count = {now + pages}")

    async def main() -> None:
        async with opened(path) as store:
            await store.run(limit, 3)
            outcomes = await behind(
                Pause(),
                store,
                store.run(receive, 1),
                store.run(receive, 2, 100_000),
                store.run(receive, 3),
            )
            assert type(outcomes[1]) is StoreFull
            stored = {message.id[-1] for message in await store.read(inbox.after, 0)}
            # Whether SQLite undoes the one or all of them: what is reported is what happened.
            for number in (1, 3):
                assert (number in stored) is isinstance(outcomes[number - 1], int)
                assert (number in stored) is not isinstance(outcomes[number - 1], StoreFull)
            await store.run(limit, 1000)
            assert await store.run(receive, 2, 100_000) is not None

    run(main)


def test_transaction_undone_by_sqlite_fails_all_its_jobs(path: Path) -> None:
    # What SQLite does by itself when the disk fills up at a bad moment.
    def undo_and_fail(conn: sqlite3.Connection) -> None:
        conn.execute("ROLLBACK")
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    def undo_and_hide(conn: sqlite3.Connection) -> None:
        conn.execute("ROLLBACK")

    async def main() -> None:
        async with opened(path) as store:
            first, usage, cause, last = await behind(
                Pause(),
                store,
                store.run(receive, 1),
                store.run(fail),
                store.run(undo_and_fail),
                store.run(receive, 2),
            )
            assert type(usage) is UsageError
            for outcome in (first, cause, last):
                assert type(outcome) is StoreFull
            assert first is not last
            outcomes = await behind(Pause(), store, store.run(receive, 1), store.run(undo_and_hide))
            assert {type(outcome) for outcome in outcomes} == {StoreError}
            assert await store.read(inbox.newest_seq) == 0
            assert await store.run(receive, 1) == 1

    def fail(_conn: sqlite3.Connection) -> None:
        raise UsageError("no")

    run(main)


def test_busy_store_fails_the_batch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Database, "open", functools.partial(Database.open, busy_timeout=0.02))

    async def main() -> None:
        async with opened(path) as store:
            with child(path, HOLD_WRITE_LOCK) as other:
                await asyncio.to_thread(other.expect, "held")
                outcomes = await asyncio.gather(
                    *(store.run(receive, number) for number in range(3)), return_exceptions=True
                )
                assert {type(outcome) for outcome in outcomes} == {StoreBusy}
                assert await store.read(inbox.newest_seq) == 0
                other.go_on()
                await asyncio.to_thread(other.expect, "free")
                assert await store.run(receive, 1) == 1

    run(main)


def test_loop_stays_free_while_another_process_holds_the_lock(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.run(receive, 1)
            with child(path, HOLD_WRITE_LOCK) as other:
                await asyncio.to_thread(other.expect, "held")
                writes = [asyncio.create_task(store.run(receive, n)) for n in range(2, 66)]
                longest = 0.0
                end = time.monotonic() + 3
                while (before := time.monotonic()) < end:
                    await asyncio.sleep(0.01)
                    assert await store.read(inbox.newest_seq) == 1
                    longest = max(longest, time.monotonic() - before)
                assert longest < 1
                assert not any(write.done() for write in writes)
                other.go_on()
                await asyncio.gather(*writes)
            assert await store.read(inbox.newest_seq) == 65

    run(main)


def test_open_while_another_process_holds_the_lock(path: Path) -> None:
    async def main() -> None:
        with child(path, HOLD_WRITE_LOCK) as other:
            await asyncio.to_thread(other.expect, "held")
            async with opened(path) as store:
                assert await store.read(inbox.newest_seq) == 0
                other.go_on()

    run(main)


def test_own_commits_are_told(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            told: list[str] = []
            first = store.on_change(lambda: told.append("first"))
            second = store.on_change(lambda: told.append("second"))
            await store.run(receive, 1)
            assert told == ["first", "second"]
            first()
            first()
            await store.run(receive, 2)
            assert told == ["first", "second", "second"]
            second()
            await store.run(receive, 3)
            assert told == ["first", "second", "second"]

    run(main)


def test_what_changes_nothing_is_not_told(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            await store.run(receive, 1)
            told: list[None] = []
            store.on_change(lambda: told.append(None))
            await store.run(receive, 1)
            await store.read(inbox.newest_seq)
            # The poll after this batch has happened too, before the result comes.
            await store.run(inbox.mark_read, [])
            assert told == []

    run(main)


def test_other_processes_commits_are_told(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            changed = asyncio.Event()
            store.on_change(changed.set)
            with child(path, HOLD_WRITE_LOCK) as other:
                await asyncio.to_thread(other.expect, "held")
                assert not changed.is_set()
                other.go_on()
                await asyncio.to_thread(other.expect, "free")
                committed = time.monotonic()
                await changed.wait()
                assert time.monotonic() - committed < 10 * workers.POLL_INTERVAL
                assert await store.read(inbox.cursor, "serve") == 7
                changed.clear()
                # Told once; a batch of ours in between does not hide the next one.
                await store.run(inbox.mark_read, [])
                assert not changed.is_set()

    run(main)


def test_other_processes_commit_before_a_batch_of_ours(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            told: list[None] = []
            store.on_change(lambda: told.append(None))
            pause = Pause()
            paused = asyncio.create_task(store.run(pause))
            await pause.reached.wait()
            # The thread stands between its polls; the lock is ours, so let it go first.
            pause.go_on.set()
            await paused
            assert told == []
            other = Database.open(path)
            with other.transaction() as conn:
                inbox.raise_cursor(conn, "serve", 1)
            other.close()
            await store.run(inbox.mark_read, [])
            assert told == [None]

    run(main)


def test_cancelled_callers(path: Path) -> None:
    async def main() -> None:
        async with opened(path) as store:
            pause = Pause()
            blocker = asyncio.create_task(store.run(pause))
            await pause.reached.wait()
            cancelled = asyncio.create_task(store.run(receive, 1))
            other = asyncio.create_task(store.run(receive, 2))
            await asyncio.sleep(0)
            cancelled.cancel()
            pause.go_on.set()
            assert await other == 2
            await blocker
            assert cancelled.cancelled()

    run(main)


def test_close_finishes_what_waits(path: Path) -> None:
    async def main() -> None:
        store = await Store.open(path)
        pause = Pause()
        blocker = asyncio.create_task(store.run(pause))
        await pause.reached.wait()
        jobs = [asyncio.create_task(store.run(receive, number)) for number in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(store.aclose())
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="the store is closed"):
            await store.run(receive, 9)
        with pytest.raises(StoreError, match="the store is closed"):
            await store.read(inbox.newest_seq)
        pause.go_on.set()
        assert await asyncio.gather(*jobs) == [1, 2, 3]
        await closing
        await blocker
        assert store_threads() == []
        await store.aclose()

    run(main)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_close_interrupted_and_repeated(path: Path) -> None:
    async def main() -> None:
        store = await Store.open(path)
        pause = Pause()
        blocker = asyncio.create_task(store.run(pause))
        await pause.reached.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await store.aclose()
        pause.go_on.set()
        await blocker
        await store.aclose()
        assert store_threads() == []

    run(main)


def test_loop_that_ended_without_closing(path: Path) -> None:
    async def main() -> None:
        store = await Store.open(path)
        await store.run(receive, 1)

    run(main)
    threads = {thread.name: thread for thread in store_threads()}
    writer, reader = threads["store writer"], threads["store reader"]
    assert isinstance(reader, workers.Reader)
    other = Database.open(path)
    with other.transaction() as conn:
        inbox.raise_cursor(conn, "serve", 1)
    other.close()
    # It notices the commit, and that nobody is left to be told.
    writer.join(10)
    assert not writer.is_alive()
    reader.stop()
    reader.join(10)
    assert not reader.is_alive()


def test_store_that_cannot_be_opened(path: Path) -> None:
    newer = tuple(f"CREATE TABLE t{number} (x);" for number in range(50))
    Database.open(path, migrations=newer).close()

    async def main() -> None:
        with pytest.raises(StoreTooNew):
            await Store.open(path)

    run(main)
    for thread in store_threads():
        thread.join(10)
    assert store_threads() == []


def test_opening_interrupted(path: Path) -> None:
    Database.open(path).close()

    async def main() -> None:
        opening = asyncio.create_task(Store.open(path))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        for thread in store_threads():
            await asyncio.to_thread(thread.join, 10)
        assert store_threads() == []

    run(main)


def test_killed_while_writing(path: Path) -> None:
    code = """
async def main():
    store = await Store.open(path)

    async def sender(first):
        for number in range(first, 1 << 30, 8):
            await store.run(
                inbox.receive,
                peer=b"p" * 32,
                peer_name="bob",
                message_id=number.to_bytes(16, "big"),
                sent_at=1,
                text="x",
                received_at=1,
            )
            os.write(1, b"%d\\n" % number)

    await asyncio.gather(*(sender(first) for first in range(8)))

asyncio.run(main())
"""
    acknowledged: set[int] = set()
    for least in (1, 40, 200):
        database = Database.open(path)
        with database.transaction() as conn:
            inbox.delete_before(conn, 2)
            inbox.prune_seen(conn, 2)
        database.close()
        acknowledged.clear()
        with child(path, code) as other:
            while len(acknowledged) < least:
                acknowledged.add(int(other.stdout.readline()))
            other.process.kill()
            rest = other.stdout.read().splitlines(keepends=True)
            acknowledged.update(int(line) for line in rest if line.endswith("\n"))
        database = Database.open(path)
        rows = inbox.after(database.connection, 0)
        stored = [int.from_bytes(message.id, "big") for message in rows]
        assert len(stored) == len(set(stored))
        assert acknowledged <= set(stored)
        assert database.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()
