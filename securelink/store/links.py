"""Which process of this node is linked to which peer, and by which way, for the others to see.

A row is true only as long as its owner's lock is held: a process that is killed strikes out
nothing. A `send` doesn't strike its row out either, as its lock ends with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from securelink.endpoints import Endpoint, Kind

if TYPE_CHECKING:
    import sqlite3

_SELECT = "SELECT owner, number, peer, dialled, takes_files, kind, host, port, since FROM links"


class LinkRow(msgspec.Struct, frozen=True):
    """One link."""

    owner: str
    """The process that has it, as in the outbox."""
    number: int
    """Unique in that process."""
    peer: bytes
    """The other side's key, 32 bytes."""
    dialled: bool
    """It was this node that dialled."""
    takes_files: bool
    """Files may be sent over it to the peer."""
    endpoint: Endpoint
    """The peer's: where it was dialled, or where it comes from."""
    since: int
    """ms since 1970."""


def up(conn: sqlite3.Connection, link: LinkRow) -> None:
    """Write a link down that is ready."""
    endpoint = link.endpoint
    conn.execute(
        "INSERT OR REPLACE INTO links"
        " (owner, number, peer, dialled, takes_files, kind, host, port, since)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            link.owner,
            link.number,
            link.peer,
            link.dialled,
            link.takes_files,
            endpoint.kind,
            endpoint.host,
            endpoint.port,
            link.since,
        ),
    )


def down(conn: sqlite3.Connection, owner: str, number: int) -> bool:
    """Strike a link out; return whether it stood there."""
    struck = conn.execute("DELETE FROM links WHERE owner = ? AND number = ?", (owner, number))
    return struck.rowcount == 1


def list_all(conn: sqlite3.Connection) -> list[LinkRow]:
    """Return all links, also those of dead processes, oldest first."""
    return [_link(row) for row in conn.execute(f"{_SELECT} ORDER BY since, number")]


def of_peer(conn: sqlite3.Connection, peer: bytes) -> list[LinkRow]:
    """Return the links to one peer, also those of dead processes, oldest first."""
    rows = conn.execute(f"{_SELECT} WHERE peer = ? ORDER BY since, number", (peer,))
    return [_link(row) for row in rows]


def owners(conn: sqlite3.Connection) -> list[str]:
    """Return the processes that have written links down."""
    return [owner for (owner,) in conn.execute("SELECT DISTINCT owner FROM links")]


def bury_owner(conn: sqlite3.Connection, owner: str) -> None:
    """Strike out the links of a process that is dead."""
    conn.execute("DELETE FROM links WHERE owner = ?", (owner,))


def _link(row: tuple[Any, ...]) -> LinkRow:
    owner, number, peer, dialled, takes_files, kind, host, port, since = row
    endpoint = Endpoint(Kind(kind), host, port)
    return LinkRow(owner, number, peer, bool(dialled), bool(takes_files), endpoint, since)
