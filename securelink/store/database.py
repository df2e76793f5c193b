"""One connection to the store's file, and what its failures mean to a person."""

from __future__ import annotations

import errno
import math
import os
import sqlite3
import stat
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from securelink.errors import StoreBusy, StoreError, StoreFull
from securelink.store import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BUSY_TIMEOUT = 10.0
"""How long, in seconds, to wait while another process writes."""

ONE_WAIT = 0.1
"""How long, in seconds, SQLite waits at a time: between two of these waits `hurry` counts."""

_PRIMARY = 0xFF  # the low byte of an extended result code

_UNWRITABLE = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM})
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def explain(error: sqlite3.Error | OSError, path: Path) -> StoreError:
    """Return the error of ours that *error*, met while using the store at *path*, stands for."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _full(path)
        return StoreError(f"the store {path} can't be opened: {error.strerror}")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    primary = code & _PRIMARY
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(
            f"another process is writing to the store {path}", hint="repeat it in a moment"
        )
    # The WAL's index is a file too, and fails to grow with a code of its own.
    if primary == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE:
        return _full(path)
    if primary in _UNWRITABLE:
        return StoreError(
            f"the store {path} can't be written", hint="check who owns it and its folder"
        )
    if primary in _DAMAGED:
        return StoreError(
            f"the store {path} is damaged, or not a store of securelink",
            hint="put a copy in its place, or move it away to begin with an empty one",
        )
    return StoreError(f"the store {path} failed: {error}")


def _full(path: Path) -> StoreFull:
    return StoreFull(
        f"the disk is full: nothing can be written to the store {path}",
        hint="make room on that disk, then repeat",
    )


class Database:
    """A connection to the store, for one thread.

    Short commands use it as it is; programs with an event loop use `writer.Store`.
    """

    def __init__(
        self, connection: sqlite3.Connection, path: Path, busy_timeout: float = BUSY_TIMEOUT
    ) -> None:
        self.connection = connection
        """For reading; and for writing only inside `transaction`."""
        self.path = path
        self._busy_timeout = busy_timeout
        self._hurried_until = math.inf

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        busy_timeout: float = BUSY_TIMEOUT,
        migrations: Sequence[str] = schema.MIGRATIONS,
    ) -> Database:
        """Open the store at *path*; make it, its folder, and its tables as needed.

        Args:
            path: the file; its folder is made with mode 0700, itself with 0600.
            busy_timeout: how long to wait for another process's write, in seconds.
            migrations: what to bring it up to date with.

        Raises:
            StoreTooNew: if a newer version wrote it; it is left as it was.
            StoreBusy: if another process held the lock that a migration needs.
            StoreFull: if the disk is full.
            StoreError: if it can't be read or written, is damaged, or is no store.
        """
        try:
            _create(path)
            schema.check_before_opening(path, len(migrations))
            connection = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)
            try:
                _enter_wal(connection, busy_timeout)
                connection.execute("PRAGMA synchronous = FULL")
                # macOS: fsync alone leaves the data in the drive's cache.
                connection.execute("PRAGMA fullfsync = ON")
                schema.migrate(connection, path, migrations)
                connection.execute("PRAGMA foreign_keys = ON")
                one_wait = round(min(ONE_WAIT, busy_timeout) * 1000)
                connection.execute(f"PRAGMA busy_timeout = {one_wait}")
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise explain(error, path) from error
        return cls(connection, path, busy_timeout)

    @classmethod
    def open_reader(cls, path: Path) -> Database:
        """Open the store at *path*, which is up to date, for reading only.

        Raises:
            StoreError: if it can't be read.
        """
        try:
            connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None)
            connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise explain(error, path) from error
        return cls(connection, path)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock for the block, then commit; roll back if the block raises.

        It begins IMMEDIATE: a transaction that reads first and writes later fails at once if
        somebody else wrote in between, whatever the timeout.

        Raises:
            StoreBusy: if another process kept the lock for the whole busy timeout.
            StoreFull: if the disk is full.
            StoreError: for every other error of SQLite, inside the block too.
        """
        with self._between(self._begin_to_write, "COMMIT") as connection:
            yield connection

    def hurry(self, seconds: float) -> None:
        """Wait no longer than so many seconds from now for others' writes; from any thread."""
        self._hurried_until = time.monotonic() + seconds

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Read one state of the store for the whole block, whoever writes meanwhile.

        Raises:
            StoreError: for every error of SQLite, inside the block too.
        """
        with self._between(self._begin_to_read, "ROLLBACK") as connection:
            yield connection

    def _begin_to_read(self) -> None:
        self.connection.execute("BEGIN")

    def _begin_to_write(self) -> None:
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                late = time.monotonic() >= min(deadline, self._hurried_until)
                if late or not _is_busy(error):
                    raise
            else:
                return

    @contextmanager
    def _between(self, begin: Callable[[], None], last: str) -> Iterator[sqlite3.Connection]:
        try:
            begin()
            try:
                yield self.connection
                self.connection.execute(last)
            except BaseException:
                # SQLite may have rolled back by itself, such as when the disk is full.
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise explain(error, self.path) from error

    def data_version(self) -> int:
        """Return a number that differs from the last one if another connection has committed."""
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        assert isinstance(version, int)
        return version

    def close(self) -> None:
        """Close the connection; the last one of all processes tidies the WAL away."""
        self.connection.close()


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & _PRIMARY == sqlite3.SQLITE_BUSY


def _enter_wal(connection: sqlite3.Connection, busy_timeout: float) -> None:
    """Switch the file to a write-ahead log, for good: readers and the writer don't wait then.

    The first time this needs the file alone, and fails at once, whatever the busy timeout, when
    another process does it too.
    """
    deadline = time.monotonic() + busy_timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _create(path: Path) -> None:
    """Make the file if there is none, readable for its owner alone; its WAL inherits the mode.

    A file that exists is not opened here: closing a descriptor of it would drop the locks that
    SQLite holds on it for other connections of this process.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise StoreError(f"the store {path} is not a file", hint="move it away") from None
        if mode & 0o077:
            path.chmod(0o600)
    else:
        schema.sync_folder(path.parent)
