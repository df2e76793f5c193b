"""The store's own time, by which what is queued expires.

It only goes on, and by a day at most between two looks at the machine's clock: so neither a clock
that is set wrong for a while nor a machine that was off for weeks takes messages out of the queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

MOST_AT_ONCE = 86_400_000
"""How far one look takes it on at most, in ms."""

LEAST_AT_ONCE = 60_000
"""What has passed is written down from so much on, in ms: a short command need not write at all."""


def age(conn: sqlite3.Connection) -> int:
    """Return how old the store is by its own time, in ms, as of the last look."""
    row = conn.execute("SELECT age FROM aging").fetchone()
    return 0 if row is None else int(row[0])


def present(conn: sqlite3.Connection, now: int) -> int:
    """Return how old the store is at *now*, in ms since 1970, for a person; nothing is written."""
    row = conn.execute("SELECT age, observed_at FROM aging").fetchone()
    return 0 if row is None else _grown(int(row[0]), int(row[1]), now)


def due(conn: sqlite3.Connection, now: int) -> int:
    """Return what `observe` would return at *now*, in ms since 1970; nothing is written."""
    return _look(conn, now)[0]


def observe(conn: sqlite3.Connection, now: int) -> int:
    """Take the store's time on to *now*, in ms since 1970, and return its age in ms."""
    grown, is_written = _look(conn, now)
    if is_written:
        conn.execute(
            "INSERT OR REPLACE INTO aging (one, age, observed_at) VALUES (1, ?, ?)", (grown, now)
        )
    return grown


def _look(conn: sqlite3.Connection, now: int) -> tuple[int, bool]:
    """How old the store is at *now*, and whether that is to be written down."""
    row = conn.execute("SELECT age, observed_at FROM aging").fetchone()
    if row is None:
        return 0, True
    before, observed_at = map(int, row)
    if 0 <= now - observed_at < LEAST_AT_ONCE:
        # It counts at a later look.
        return before, False
    return _grown(before, observed_at, now), True


def _grown(age: int, observed_at: int, now: int) -> int:
    return age + min(max(now - observed_at, 0), MOST_AT_ONCE)
