"""How often a peer was dialled in vain for what is queued for it, and why the last time.

A row of the outbox remembers the count at the time when it was put, so what has been tried since
is the difference; nothing is written for each of ten thousand rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import sqlite3


class Tries(msgspec.Struct, frozen=True):
    """The attempts to reach one peer."""

    count: int
    """How many were in vain, since it is a peer."""
    tried_at: int
    """When the last one ended, in ms since 1970."""
    reason: str | None
    """Why it was in vain; None if the peer was reached since."""


def note_failure(conn: sqlite3.Connection, peer: bytes, reason: str, now: int) -> None:
    """Count one more attempt in vain.

    Args:
        conn: the store.
        peer: its key, 32 bytes.
        reason: one line for a person.
        now: ms since 1970.
    """
    conn.execute(
        "INSERT INTO tries (peer, count, tried_at, reason) VALUES (?, 1, ?, ?)"
        " ON CONFLICT (peer) DO UPDATE"
        " SET count = count + 1, tried_at = excluded.tried_at, reason = excluded.reason",
        (peer, now, reason),
    )


def note_success(conn: sqlite3.Connection, peer: bytes) -> None:
    """Note that the peer was reached: the last failure explains nothing any more."""
    conn.execute("UPDATE tries SET reason = NULL WHERE peer = ? AND reason IS NOT NULL", (peer,))


def get(conn: sqlite3.Connection, peer: bytes) -> Tries | None:
    """Return the attempts to reach the peer, None if none was in vain."""
    row = conn.execute(
        "SELECT count, tried_at, reason FROM tries WHERE peer = ?", (peer,)
    ).fetchone()
    return None if row is None else Tries(*row)


def count(conn: sqlite3.Connection, peer: bytes) -> int:
    """Return how many attempts to reach the peer were in vain."""
    found = get(conn, peer)
    return 0 if found is None else found.count


def forget(conn: sqlite3.Connection, peer: bytes) -> None:
    """Drop the count of a peer that is being removed."""
    conn.execute("DELETE FROM tries WHERE peer = ?", (peer,))
