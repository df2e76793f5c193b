"""Files that have begun to arrive: what of them is on the disk, and where their groups land.

Of a file that can go on later there is a row from its first byte until it has landed. Its part,
a file in the receiving folder, is written in order, so the part's size tells how much has come;
only after the machine was restarted does what was last put on the disk count instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import sqlite3

LANDINGS_KEPT = 90 * 86_400_000
"""How long the name of a group is remembered, in ms: as long as the IDs of what is in it
(`inbox.SEEN_KEPT`)."""

_LARGEST = (1 << 63) - 1  # SQLite's integers are signed, a size on the wire is not

_SELECT = (
    "SELECT peer, id, group_id, name, size, mtime, boot, synced, began_at, touched_at FROM partials"
)


class Partial(msgspec.Struct, frozen=True):
    """One file that has begun to arrive."""

    peer: bytes
    """The sender's key, 32 bytes."""
    id: bytes
    """16 bytes, chosen by the sender: unique for one peer only."""
    group: bytes
    """16 bytes, shared by all that the sender gave as one argument."""
    name: str
    """What the sender calls it: components joined by `/`."""
    size: int
    """What it will have, in bytes, by the sender's word."""
    mtime: int
    """ns since 1970, by the sender's word."""
    boot: str
    """The run of the machine in which `synced` was written."""
    synced: int
    """How many bytes were certainly on the disk then."""
    began_at: int
    """ms since 1970."""
    touched_at: int
    """When it began or was last synced, in ms since 1970."""


def begin(
    conn: sqlite3.Connection,
    *,
    peer: bytes,
    message_id: bytes,
    group: bytes,
    name: str,
    size: int,
    mtime: int,
    boot: str,
    now: int,
) -> None:
    """Note that a file begins to arrive, from its first byte on; an earlier row is replaced.

    Args:
        conn: the store.
        peer, message_id, group, name, size, mtime, boot: as in `Partial`.
        now: ms since 1970.
    """
    conn.execute(
        "INSERT OR REPLACE INTO partials"
        " (peer, id, group_id, name, size, mtime, boot, began_at, touched_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (peer, message_id, group, name, min(size, _LARGEST), mtime, boot, now, now),
    )


def synced(
    conn: sqlite3.Connection, peer: bytes, message_id: bytes, offset: int, boot: str, now: int
) -> None:
    """Note that the first *offset* bytes are on the disk, whatever happens to the machine."""
    conn.execute(
        "UPDATE partials SET synced = ?, boot = ?, touched_at = ? WHERE peer = ? AND id = ?",
        (offset, boot, now, peer, message_id),
    )


def get(conn: sqlite3.Connection, peer: bytes, message_id: bytes) -> Partial | None:
    """Return the row of that file of that peer, or None if there is none."""
    row = conn.execute(f"{_SELECT} WHERE peer = ? AND id = ?", (peer, message_id)).fetchone()
    return None if row is None else _partial(row)


def list_all(conn: sqlite3.Connection) -> list[Partial]:
    """Return all rows, the one that began first first."""
    return [_partial(row) for row in conn.execute(f"{_SELECT} ORDER BY began_at, id")]


def forget(conn: sqlite3.Connection, peer: bytes, message_id: bytes) -> bool:
    """Drop the row, as the file has landed or its part is gone; return whether there was one."""
    gone = conn.execute("DELETE FROM partials WHERE peer = ? AND id = ?", (peer, message_id))
    return gone.rowcount == 1


def landing_of(conn: sqlite3.Connection, peer: bytes, group: bytes) -> str | None:
    """Return the name under which that group of that peer lands, None before the first of it."""
    row = conn.execute(
        "SELECT name FROM landings WHERE peer = ? AND group_id = ?", (peer, group)
    ).fetchone()
    return None if row is None else str(row[0])


def land(conn: sqlite3.Connection, peer: bytes, group: bytes, name: str, now: int) -> str:
    """Choose the name under which a group lands; return the one that was chosen first."""
    conn.execute(
        "INSERT INTO landings (peer, group_id, name, made_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (peer, group, name, now),
    )
    chosen = landing_of(conn, peer, group)
    assert chosen is not None
    return chosen


def prune(conn: sqlite3.Connection, now: int) -> None:
    """Drop the landings that no sender can come back to; the rows of parts go with the parts."""
    conn.execute("DELETE FROM landings WHERE made_at < ?", (now - LANDINGS_KEPT,))


def _partial(row: tuple[Any, ...]) -> Partial:
    return Partial(*row)
