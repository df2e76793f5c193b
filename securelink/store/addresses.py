"""Where peers can be reached, by who said so. Peers of the configuration have addresses here too.

A list that comes from one source replaces that source's earlier list alone.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from securelink.announced import AnnouncedEndpoint
from securelink.endpoints import Endpoint, Kind

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

UNUSED_KEPT = 90 * 86_400_000
"""How long an announced endpoint is kept without being of use, in ms."""


class Source(enum.StrEnum):
    """Who named an endpoint, the most trusted first."""

    PERSON = "person"
    INVITE = "invite"
    ANNOUNCED = "announced"


def set_endpoints(
    conn: sqlite3.Connection, key: bytes, source: Source, endpoints: Sequence[Endpoint], now: int
) -> None:
    """Replace what *source* said about the peer; when an endpoint was last used is kept."""
    used = {
        (host, port): last_used
        for host, port, last_used in conn.execute(
            "SELECT host, port, last_used FROM endpoints WHERE peer = ? AND source = ?",
            (key, source),
        )
    }
    conn.execute("DELETE FROM endpoints WHERE peer = ? AND source = ?", (key, source))
    conn.executemany(
        "INSERT INTO endpoints (peer, source, position, kind, host, port, set_at, last_used, met)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (key, source, position, e.kind, e.host, e.port, now, used.get((e.host, e.port)), met)
            for position, e in enumerate(endpoints)
            for met in [e.met if isinstance(e, AnnouncedEndpoint) else None]
        ),
    )


def endpoints(conn: sqlite3.Connection, key: bytes) -> list[Endpoint]:
    """Return where the peer can be reached: a person's word, the invite's, its own; each once."""
    rows = conn.execute(
        "SELECT source, kind, host, port, met FROM endpoints WHERE peer = ? ORDER BY"
        " CASE source WHEN 'person' THEN 0 WHEN 'invite' THEN 1 ELSE 2 END, position",
        (key,),
    )
    return list(dict.fromkeys(_endpoint(*row) for row in rows))


def used_endpoint(conn: sqlite3.Connection, key: bytes, endpoint: Endpoint, now: int) -> None:
    """Note that the peer proved its key at *endpoint*."""
    conn.execute(
        "UPDATE endpoints SET last_used = ? WHERE peer = ? AND host = ? AND port = ?",
        (now, key, endpoint.host, endpoint.port),
    )


def learned_at(conn: sqlite3.Connection, key: bytes) -> int:
    """Return when something was last learned of where the peer is, in ms since 1970; 0 if never.

    That is when somebody named an endpoint, or when the peer proved its key at one.
    """
    (at,) = conn.execute(
        "SELECT ifnull(max(max(set_at, ifnull(last_used, set_at))), 0) FROM endpoints"
        " WHERE peer = ?",
        (key,),
    ).fetchone()
    return int(at)


def forget(conn: sqlite3.Connection, key: bytes) -> None:
    """Drop all endpoints of a peer that is being removed."""
    conn.execute("DELETE FROM endpoints WHERE peer = ?", (key,))


def prune(conn: sqlite3.Connection, now: int) -> None:
    """Drop announced endpoints that were neither used nor announced again for long."""
    conn.execute(
        "DELETE FROM endpoints WHERE source = 'announced'"
        " AND max(set_at, ifnull(last_used, set_at)) < ?",
        (now - UNUSED_KEPT,),
    )


def _endpoint(source: str, kind: str, host: str, port: int, met: str | None) -> Endpoint:
    if source != Source.ANNOUNCED:
        return Endpoint(Kind(kind), host, port)
    return AnnouncedEndpoint(Kind(kind), host, port, Kind.PUBLIC if met is None else Kind(met))
