"""Forgetting: what nobody owes or waits for any more, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.store import addresses, inbox, invites, links, mappings, notices, outbox, partials

if TYPE_CHECKING:
    import sqlite3


def prune(conn: sqlite3.Connection, now: int) -> None:
    """Drop everything that is past its time; *now* is in ms since 1970."""
    inbox.prune_seen(conn, now - inbox.SEEN_KEPT)
    outbox.prune(conn, now)
    invites.prune(conn, now)
    addresses.prune(conn, now)
    mappings.prune(conn, now)
    partials.prune(conn, now)
    notices.prune(conn, now)


def bury(conn: sqlite3.Connection, owner: str, now: int) -> None:
    """Settle the rows of a process that is dead, and strike out its links."""
    outbox.bury_owner(conn, owner, now)
    links.bury_owner(conn, owner)
