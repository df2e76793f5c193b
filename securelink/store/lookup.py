"""Messages and partial files by what a person types: the beginning of an ID, a name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from securelink.errors import UsageError

if TYPE_CHECKING:
    import sqlite3

_DIGITS = 32


def message(conn: sqlite3.Connection, typed: str, peer: bytes | None = None) -> tuple[bytes, bytes]:
    """Return the sender's key and the ID of the message that *typed* is the beginning of.

    Args:
        conn: the store.
        typed: a message's ID, or enough of its beginning.
        peer: only messages from this key; None for everybody's.

    Raises:
        UsageError: if no message's ID begins like that, or several messages' do.
    """
    query = "SELECT DISTINCT peer, id FROM inbox"
    return _the_one(conn, query, typed, peer, "message", "securelink inbox --verbose")


def partial(conn: sqlite3.Connection, typed: str, peer: bytes | None = None) -> tuple[bytes, bytes]:
    """Return the sender's key and the ID of the partial file that *typed* is the beginning of.

    Args:
        conn: the store.
        typed: a file's ID, or enough of its beginning.
        peer: only files from this key; None for everybody's.

    Raises:
        UsageError: if no partial file's ID begins like that, or several files' do.
    """
    query = "SELECT peer, id FROM partials"
    see = "securelink inbox --partial --verbose"
    return _the_one(conn, query, typed, peer, "partial file", see)


def senders_called(conn: sqlite3.Connection, name: str) -> list[bytes]:
    """Return the keys, 32 bytes each, of those who were called *name* when they wrote to us."""
    rows = conn.execute("SELECT DISTINCT peer FROM inbox WHERE peer_name = ?", (name,))
    return [key for (key,) in rows]


def _the_one(
    conn: sqlite3.Connection, query: str, typed: str, peer: bytes | None, what: str, see: str
) -> tuple[bytes, bytes]:
    hint = f"see them with: {see}"
    prefix = typed.strip().lower().replace("-", "")
    if not re.fullmatch(f"[0-9a-f]{{1,{_DIGITS}}}", prefix):
        raise UsageError(f"that is not the ID of a {what}", hint=hint)
    first, last = (bytes.fromhex(prefix.ljust(_DIGITS, digit)) for digit in "0f")
    rows: list[tuple[bytes, bytes]] = conn.execute(
        f"{query} WHERE id BETWEEN ? AND ? AND ifnull(peer = ?, 1) ORDER BY id LIMIT 3",
        (first, last, peer),
    ).fetchall()
    if not rows:
        raise UsageError(f"no {what} has the ID {typed.strip()}", hint=hint)
    if len({message_id for _, message_id in rows}) > 1:
        raise UsageError(f"several {what}s' IDs begin with {typed.strip()}", hint="give more of it")
    if len(rows) > 1:
        raise UsageError(
            f"{what}s of several peers have the ID {typed.strip()}",
            hint="say whose is meant with --from NAME",
        )
    return rows[0]
