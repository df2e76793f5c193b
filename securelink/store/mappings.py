"""The ports that routers were asked to map for this node, so that none outlives its use.

A row is written before the router is asked, so that a crash at any moment leaves no mapping that
nobody knows of. Whether an owner still lives is told by its lock, not by this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from securelink.events import Address
from securelink.nat.terms import Method, Protocol

if TYPE_CHECKING:
    import sqlite3

ENDED_KEPT = 86_400_000
"""How long after the end of its lease a row is kept, in ms: a router's clock may be slow."""

LEFT = ""
"""The owner of a mapping that was left to its lease on purpose."""


class StoredMapping(msgspec.Struct, frozen=True):
    """One mapping, asked for or granted."""

    owner: str
    """The process that keeps it, as in the outbox; `LEFT` if nobody does."""
    method: Method
    gateway: str
    """The router's IPv4 address."""
    protocol: Protocol
    external: Address
    """Its host is empty until the router has told it."""
    local: Address
    lease: int
    """Seconds from `made_at`; 0: it has no end."""
    nonce: bytes
    """12 bytes; only PCP needs them."""
    description: str
    """As the router keeps it, or as it was asked to."""
    made_at: int
    """ms since 1970: when it was last asked for."""

    def good_until(self) -> int | None:
        """Return when the lease ends, in ms since 1970; None: never."""
        return self.made_at + self.lease * 1000 if self.lease else None


def record(conn: sqlite3.Connection, mapping: StoredMapping) -> None:
    """Keep a mapping, in place of what its owner had at that router's port."""
    conn.execute(
        "INSERT OR REPLACE INTO mappings (owner, method, gateway, protocol, external_host,"
        " external_port, local_host, local_port, lease, nonce, description, made_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *_key(mapping)[:4],
            mapping.external.host,
            mapping.external.port,
            mapping.local.host,
            mapping.local.port,
            mapping.lease,
            mapping.nonce,
            mapping.description,
            mapping.made_at,
        ),
    )


def replace(conn: sqlite3.Connection, old: StoredMapping, new: StoredMapping) -> None:
    """Keep *new* in place of *old*."""
    forget(conn, old)
    record(conn, new)


def forget(conn: sqlite3.Connection, mapping: StoredMapping) -> None:
    """Drop the row, if it is there."""
    conn.execute(
        "DELETE FROM mappings WHERE owner = ? AND method = ? AND gateway = ? AND protocol = ?"
        " AND external_port = ?",
        _key(mapping),
    )


def list_all(conn: sqlite3.Connection) -> list[StoredMapping]:
    """Return all mappings, the oldest first."""
    rows = conn.execute(
        "SELECT owner, method, gateway, protocol, external_host, external_port, local_host,"
        " local_port, lease, nonce, description, made_at FROM mappings ORDER BY made_at, rowid"
    )
    return [_mapping(row) for row in rows]


def prune(conn: sqlite3.Connection, now: int) -> None:
    """Forget what has ended by itself; what has no end stays until it is removed."""
    conn.execute(
        "DELETE FROM mappings WHERE lease > 0 AND made_at + lease * 1000 < ?", (now - ENDED_KEPT,)
    )


def _key(mapping: StoredMapping) -> tuple[Any, ...]:
    return (
        mapping.owner,
        str(mapping.method),
        mapping.gateway,
        str(mapping.protocol),
        mapping.external.port,
    )


def _mapping(row: tuple[Any, ...]) -> StoredMapping:
    owner, method, gateway, protocol, external_host, external_port, *rest = row
    local_host, local_port, lease, nonce, description, made_at = rest
    return StoredMapping(
        owner,
        Method(method),
        gateway,
        Protocol(protocol),
        Address(external_host, external_port),
        Address(local_host, local_port),
        lease,
        nonce,
        description,
        made_at,
    )
