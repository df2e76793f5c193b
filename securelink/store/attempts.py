"""Earlier attempts at sending a file, and many rows of files written at once, for `outbox_files`.

A row stands in the way of nobody: only what has ended without a receipt, or what is queued, can be
taken over. Its path is emptied once nothing can be an attempt at the same any more, which keeps
the index of the paths as small as what is unfinished.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from securelink.store import tries
from securelink.store.outbox import marks

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from securelink.store.file_terms import NewFile

CHANGED = "the file has changed since"
"""The reason to give for a row that an attempt with new content has replaced."""

_SELECT = (
    "SELECT path, name, outbox.seq, size, mtime, inode, mode, began"
    " FROM outbox_files CROSS JOIN outbox USING (seq)"  # so from the paths on, not from the peer
)
_WITHDRAW = (
    "UPDATE outbox SET state = 'withdrawn', ended_at = ?, reason = ? WHERE state = 'waiting'"
)
_EMPTY_PATHS = (
    "UPDATE outbox_files SET path = x'' WHERE seq IN"
    " (SELECT seq FROM outbox WHERE ended_at IS NOT NULL"
)
_REGROUP = "UPDATE outbox_files SET group_id = ?"
# No text has an empty digest: none can pass for a file under its ID.
_INSERT = (
    "INSERT INTO outbox"
    " (seq, id, kind, peer, sent_at, owner, shared, deadline, lives_until, tries_before,"
    " state, digest, text)"
)
_AS_NEW = ("waiting", b"", "")
_INSERT_FILE = "INSERT INTO outbox_files (seq, group_id, name, path, size, mtime, inode, mode)"

_INODES = 1 << 64  # the kernel's are unsigned, SQLite's integers are not


class Attempt(NamedTuple):
    """An earlier attempt at a file, which may be taken over."""

    seq: int
    size: int | None
    mtime: int
    inode: int
    mode: int
    began: bool

    def is_of(self, file: NewFile) -> bool:
        """Whether the file is still the same."""
        is_now = (file.size, file.mtime, _signed(file.inode))
        return (self.size, self.mtime, self.inode) == is_now


class Terms(msgspec.Struct, frozen=True):
    """On which terms rows are put, as `outbox_files.put` has them."""

    peer: bytes
    sent_at: int
    owner: str | None
    shared: bool
    deadline: int | None
    lives_until: int | None


def earlier(
    conn: sqlite3.Connection, peer: bytes, files: Sequence[NewFile]
) -> dict[tuple[bytes, str], list[Attempt]]:
    """Return the earlier attempts at each path under each name, the newest first."""
    paths = {file.path for file in files}
    rows = conn.execute(
        f"{_SELECT} WHERE path IN ({marks(paths)}) AND path <> x'' AND peer = ?"
        " AND (owner IS NULL OR state NOT IN ('waiting', 'handed')) ORDER BY outbox.seq DESC",
        (*paths, peer),
    )
    found: dict[tuple[bytes, str], list[Attempt]] = {}
    for path, name, seq, size, mtime, inode, mode, began in rows:
        attempt = Attempt(seq, size, mtime, inode, mode, bool(began))
        found.setdefault((path, name), []).append(attempt)
    return found


def supersede(conn: sqlite3.Connection, seqs: Sequence[int], now: int) -> None:
    """Give up attempts at what the files no longer are, and look at them no more."""
    among = f"seq IN ({marks(seqs)})"
    conn.execute(f"{_WITHDRAW} AND {among}", (now, CHANGED, *seqs))
    # What was handed over is still queued, and needs its path: the next link confirms or drops it.
    conn.execute(f"{_EMPTY_PATHS} AND {among})", seqs)


def regroup(
    conn: sqlite3.Connection, taken: Sequence[tuple[Attempt, NewFile]], group: bytes
) -> None:
    """Bring rows that were taken over into a group, with the modes that the files have now."""
    seqs = [attempt.seq for attempt, _ in taken]
    conn.execute(f"{_REGROUP} WHERE seq IN ({marks(seqs)})", (group, *seqs))
    conn.executemany(
        "UPDATE outbox_files SET mode = ? WHERE seq = ?",
        [(file.mode, attempt.seq) for attempt, file in taken if file.mode != attempt.mode],
    )


def newest_seq(conn: sqlite3.Connection) -> int:
    """Return the highest `seq` ever given in the outbox, 0 if none was."""
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    return 0 if row is None else int(row[0])


def insert(
    conn: sqlite3.Connection,
    files: Sequence[tuple[int, bytes, NewFile]],
    group: bytes,
    terms: Terms,
) -> None:
    """Make rows for files, each given with its `seq` and its ID."""
    # Plain values: Python's module takes microseconds to see what an enum or a bool is.
    same = (
        terms.peer,
        terms.sent_at,
        terms.owner,
        int(terms.shared),
        terms.deadline,
        terms.lives_until,
        tries.count(conn, terms.peer),
        *_AS_NEW,
    )
    _insert(conn, _INSERT, [(seq, made, file.kind.value, *same) for seq, made, file in files])
    _insert(conn, _INSERT_FILE, [(seq, group, *_columns(file)) for seq, _, file in files])


def unsigned(inode: int) -> int:
    """Return an inode's number as the kernel has it, from what is stored."""
    return inode % _INODES


def _signed(inode: int) -> int:
    return inode - _INODES if inode >= _INODES // 2 else inode


def _columns(file: NewFile) -> tuple[object, ...]:
    inode = _signed(file.inode)
    return file.name, file.path, file.size, file.mtime, inode, file.mode


def _insert(conn: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows in one statement: one by one they take twice as long."""
    if rows:
        values = ", ".join([f"({marks(rows[0])})"] * len(rows))
        conn.execute(f"{into} VALUES {values}", [*chain.from_iterable(rows)])
