"""The queue: rows that wait for any process with a link to their peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.store.outbox.rows import SELECT, row_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from securelink.store.outbox.rows import OutboxRow

QUEUED = "(owner IS NULL OR shared) AND state IN ('waiting', 'handed')"
"""A condition in SQL: the row waits for any process with a link, whatever its kind."""

_QUEUED = f"kind = 'text' AND {QUEUED}"


def queued(conn: sqlite3.Connection, peer: bytes) -> Iterator[OutboxRow]:
    """Yield the texts that wait for any process with a link to *peer*, in order.

    They are read one by one: all of them together may not fit into memory.
    """
    rows = conn.execute(f"{SELECT} WHERE peer = ? AND {_QUEUED} ORDER BY seq", (peer,))
    yield from map(row_of, rows)


def count_queued(conn: sqlite3.Connection, peer: bytes, *, unowned: bool = False) -> int:
    """Return how many rows `queued` would yield; or how many of them nobody waits for."""
    return count_where(conn, peer, _QUEUED, unowned=unowned)


def count_where(conn: sqlite3.Connection, peer: bytes, condition: str, *, unowned: bool) -> int:
    """Count a peer's rows of a queue, which *condition* says in SQL."""
    if unowned:
        condition += " AND owner IS NULL"
    (count,) = conn.execute(
        f"SELECT count(*) FROM outbox WHERE peer = ? AND {condition}",  # noqa: S608 - constants
        (peer,),
    ).fetchone()
    return int(count)


def peers_with_queued(conn: sqlite3.Connection) -> list[bytes]:
    """Return the keys of the peers that have queued texts."""
    return peers_where(conn, _QUEUED)


def peers_where(conn: sqlite3.Connection, condition: str) -> list[bytes]:
    """Return the keys of the peers that have rows of a queue, which *condition* says in SQL.

    It costs the same however long the queues are.
    """
    rows = conn.execute(
        # SELECT DISTINCT would read every row of a peer to find the next one.
        f"WITH RECURSIVE found (peer) AS ( SELECT min(peer) FROM outbox WHERE {condition}"  # noqa: S608 - constants
        f" UNION ALL SELECT (SELECT min(peer) FROM outbox WHERE peer > found.peer AND {condition})"
        " FROM found WHERE peer IS NOT NULL"
        ") SELECT peer FROM found WHERE peer IS NOT NULL"
    )
    return [peer for (peer,) in rows]
