"""Forgetting: what nobody owes or waits for any more, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.store import addresses, inbox, invites, mappings, notices, outbox, partials

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
