"""What was queued and will never be delivered: told to a person, as nobody waits for it.

A notice is written in the transaction in which its row ends. `serve` and `receive` tell of them by
following their sequence; the rows themselves are in the outbox for as long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

KEPT = 30 * 86_400_000
"""How long a notice is kept, in ms: as long as the rows of `outbox` are (`REFUSED_KEPT`)."""

BATCH = 256
"""Notices read at a time."""


class Notice(msgspec.Struct, frozen=True):
    """One message or file that was not delivered."""

    seq: int
    """Growing in this store, and never given twice."""
    at: int
    """When its row ended, in ms since 1970."""
    peer: bytes
    """The recipient's key, 32 bytes."""
    id: bytes
    """16 bytes."""
    kind: str
    """As in the outbox: `text`, `file`, `folder`."""
    name: str | None
    """A file's, None for a text."""
    state: str
    """How the row ended, a value of `outbox.State`."""
    reason: str | None
    """One line for a person."""


def add(conn: sqlite3.Connection, seqs: Collection[int], now: int) -> None:
    """Write a notice for each of those rows of the outbox that is queued, as it has just ended."""
    conn.executemany(
        "INSERT INTO notices (at, peer, id, kind, name, state, reason)"
        " SELECT ?, peer, id, kind, name, state, reason"
        " FROM outbox LEFT JOIN outbox_files USING (seq) WHERE outbox.seq = ? AND owner IS NULL",
        ((now, seq) for seq in seqs),
    )


def after(conn: sqlite3.Connection, seq: int, *, limit: int = BATCH) -> list[Notice]:
    """Return the notices that follow *seq*, in order, *limit* at most."""
    rows = conn.execute(
        "SELECT seq, at, peer, id, kind, name, state, reason FROM notices"
        " WHERE seq > ? ORDER BY seq LIMIT ?",
        (seq, limit),
    )
    return [Notice(*row) for row in rows]


def newest_seq(conn: sqlite3.Connection) -> int:
    """Return the highest `seq` ever given, 0 if none was."""
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'notices'").fetchone()
    return 0 if row is None else int(row[0])


def prune(conn: sqlite3.Connection, now: int) -> None:
    """Drop those that are past their time; *now* is in ms since 1970."""
    conn.execute("DELETE FROM notices WHERE at < ?", (now - KEPT,))
