"""The two threads behind `writer.Store`, each with a connection of its own.

The writing one takes whatever jobs wait and runs them in one transaction, so that a thousand
messages cost one fsync; between batches it asks SQLite whether another process has committed. The
reading one never needs a lock: so reads go on while another process holds the write lock and the
writing thread waits for it.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from securelink.errors import StoreError
from securelink.store.database import Database, explain

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from pathlib import Path

POLL_INTERVAL = 0.1
"""How often, in seconds, to look for other processes' commits."""

LARGEST_BATCH = 1024
"""How many jobs share a transaction; more would keep other processes waiting."""


@dataclass(slots=True, eq=False)
class Job:
    """A function to run on a connection, and whom to tell what came of it."""

    function: Callable[[sqlite3.Connection], object]
    future: asyncio.Future[Any]
    result: object = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell; in the event loop."""
        if self.future.done():  # its caller was cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Worker(threading.Thread):
    """A daemon thread that alone uses one connection, and settles its jobs batch by batch.

    It is a daemon because a process must be able to end while a lock or a disk makes it wait.
    """

    _patience: float | None = None
    """How long, in seconds, to wait for jobs before working without any; None for ever."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name=f"store {type(self).__name__.lower()}", daemon=True)
        self.opened: asyncio.Future[None] = loop.create_future()
        """Done when jobs can run; or the StoreError for which they never will."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when the connection is closed."""
        self._path = path
        self._loop = loop
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.start()

    def submit(self, job: Job) -> None:
        """Queue a job; from the event loop, and not after `stop`."""
        self._jobs.put(job)

    def stop(self) -> None:
        """Have the thread end after the jobs that are queued."""
        self._jobs.put(None)

    def run(self) -> None:
        """Open, work until `stop`, close."""
        try:
            database = self._open(self._path)
        except StoreError as error:
            self._tell(_settle, self.opened, error)
            return
        self._tell(_settle, self.opened)
        try:
            going = True
            while going:
                jobs, going = self._next()
                self._work(database, jobs)
        finally:
            database.close()
            self._tell(_settle, self.ended)

    def _open(self, path: Path) -> Database:
        raise NotImplementedError

    def _work(self, database: Database, jobs: Sequence[Job]) -> None:
        """Run the jobs, if there are any, and have them settled in the event loop."""
        raise NotImplementedError

    def _next(self) -> tuple[list[Job], bool]:
        """Return the jobs that wait, and whether more can follow."""
        jobs: list[Job] = []
        try:
            job = self._jobs.get(timeout=self._patience)
            while job is not None:
                jobs.append(job)
                if len(jobs) == LARGEST_BATCH:
                    return jobs, True
                job = self._jobs.get_nowait()
        except queue.Empty:
            return jobs, True
        return jobs, False

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed: nobody is left to work for
            self.stop()


class Reader(Worker):
    """Runs jobs that only read, each on one state of the store."""

    def _open(self, path: Path) -> Database:
        return Database.open_reader(path)

    def _work(self, database: Database, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                with database.snapshot() as connection:
                    job.result = job.function(connection)
            except BaseException as error:  # noqa: BLE001 - it is the caller's, who gets it
                job.error = error
        self._tell(_settle_all, jobs)


class Writer(Worker):
    """Runs jobs that write, many in one transaction, and notices what other processes write."""

    _patience = POLL_INTERVAL

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.commits = 0
        """Transactions committed."""
        self._data_version = 0
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._database: Database | None = None
        super().__init__(path, loop)

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have *callback* called in the event loop after commits; return what ends it."""
        key = object()
        self._callbacks[key] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(key, None)

        return unsubscribe

    def hurry(self, seconds: float) -> None:
        """Wait no longer than so many seconds from now for other processes; once it is open."""
        assert self._database is not None
        self._database.hurry(seconds)

    def _open(self, path: Path) -> Database:
        database = self._database = Database.open(path)
        self._data_version = database.data_version()
        return database

    def _work(self, database: Database, jobs: Sequence[Job]) -> None:
        changed = self._commit(database, jobs) if jobs else False
        if self._others_committed(database) or changed:
            self._tell(self._announce, jobs)
        elif jobs:
            self._tell(_settle_all, jobs)

    def _commit(self, database: Database, jobs: Sequence[Job]) -> bool:
        """Run the jobs in one transaction, and return whether it changed anything."""
        before = database.connection.total_changes
        try:
            with database.transaction() as connection:
                for job in jobs:
                    self._attempt(connection, job)
        except StoreError as error:
            for job in jobs:
                # One exception each: raising one adds to its traceback.
                job.error = job.error or type(error)(error.message, hint=error.hint)
            return False
        self.commits += 1
        return database.connection.total_changes != before

    def _attempt(self, connection: sqlite3.Connection, job: Job) -> None:
        """Run a job; if it fails, undo what it alone did."""
        connection.execute("SAVEPOINT job")
        try:
            job.result = job.function(connection)
        except BaseException as error:
            if isinstance(error, sqlite3.Error):
                # On a full disk SQLite may undo the whole transaction, so everybody's job.
                if not connection.in_transaction:
                    raise
                job.error = explain(error, self._path)
            else:
                job.error = error
            connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")

    def _others_committed(self, database: Database) -> bool:
        try:
            version = database.data_version()
        except sqlite3.Error:  # the next job meets it too, and can tell somebody
            return False
        changed = version != self._data_version
        self._data_version = version
        return changed

    def _announce(self, jobs: Sequence[Job]) -> None:
        _settle_all(jobs)
        for callback in tuple(self._callbacks.values()):
            callback()


def _settle_all(jobs: Sequence[Job]) -> None:
    for job in jobs:
        job.settle()


def _settle(future: asyncio.Future[None], error: StoreError | None = None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(None)
