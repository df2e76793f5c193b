"""Messages of the inbox by what a person types: the beginning of an ID, a sender's name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from securelink.errors import UsageError

if TYPE_CHECKING:
    import sqlite3

_DIGITS = 32


def message_id(conn: sqlite3.Connection, typed: str) -> bytes:
    """Return the ID, 16 bytes, of the message in the inbox that *typed* is the beginning of.

    Raises:
        UsageError: if no message's ID begins like that, or several messages' do.
    """
    hint = "see them with: securelink inbox --verbose"
    prefix = typed.strip().lower().replace("-", "")
    if not re.fullmatch(f"[0-9a-f]{{1,{_DIGITS}}}", prefix):
        raise UsageError("that is not the ID of a message", hint=hint)
    first, last = (bytes.fromhex(prefix.ljust(_DIGITS, digit)) for digit in "0f")
    rows = conn.execute(
        "SELECT DISTINCT id FROM inbox WHERE id BETWEEN ? AND ? LIMIT 2", (first, last)
    ).fetchall()
    if not rows:
        raise UsageError(f"no message has the ID {typed.strip()}", hint=hint)
    if len(rows) > 1:
        raise UsageError(
            f"several messages' IDs begin with {typed.strip()}", hint="give more of it"
        )
    found: bytes = rows[0][0]
    return found


def senders_called(conn: sqlite3.Connection, name: str) -> list[bytes]:
    """Return the keys, 32 bytes each, whose messages the inbox shows under *name*."""
    rows = conn.execute(
        "SELECT DISTINCT inbox.peer FROM inbox LEFT JOIN peers ON peers.key = inbox.peer"
        " WHERE coalesce(peers.name, inbox.peer_name) = ?",
        (name,),
    )
    return [key for (key,) in rows]
