"""What a running `serve` of this node says about itself, for the node's other processes.

The row may outlive a killed process: whether one runs is told by its lock, not by this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from securelink.endpoints import Endpoint

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence


class Serving(msgspec.Struct, frozen=True):
    """The process that serves, and where it can be reached."""

    pid: int
    port: int
    endpoints: tuple[Endpoint, ...]
    started_at: int
    """ms since 1970."""


def record(
    conn: sqlite3.Connection,
    *,
    pid: int,
    port: int,
    endpoints: Sequence[Endpoint],
    started_at: int,
) -> None:
    """Write down the process that serves, in place of an earlier one or of its own last word."""
    conn.execute(
        "INSERT OR REPLACE INTO serving (one, pid, port, endpoints, started_at)"
        " VALUES (1, ?, ?, ?, ?)",
        (pid, port, msgspec.json.encode(endpoints).decode(), started_at),
    )


def clear(conn: sqlite3.Connection, pid: int) -> None:
    """Strike out the process *pid*, unless another took its place."""
    conn.execute("DELETE FROM serving WHERE pid = ?", (pid,))


def get(conn: sqlite3.Connection) -> Serving | None:
    """Return the process that serves or that was the last to, None if it ended in order."""
    row = conn.execute("SELECT pid, port, endpoints, started_at FROM serving").fetchone()
    if row is None:
        return None
    pid, port, endpoints, started_at = row
    return Serving(pid, port, msgspec.json.decode(endpoints, type=tuple[Endpoint, ...]), started_at)
