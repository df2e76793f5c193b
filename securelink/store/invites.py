"""The invites that this node gave out. Of a token only the SHA-256 is kept."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from securelink.errors import UsageError

if TYPE_CHECKING:
    import sqlite3

ENDED_KEPT = 30 * 86_400_000
"""How long after its expiry an invite is kept, in ms, so that the log can tell why it failed."""

_SELECT = "SELECT token_hash, name, uses, uses_left, created_at, expires_at, revoked FROM invites"
_LABEL_SIZE = 8


class StoredInvite(msgspec.Struct, frozen=True):
    """One invite; whether it still holds, only this node decides."""

    token_hash: bytes
    """SHA-256 of the token, 32 bytes."""
    name: str | None
    """What whoever redeems it will be called here; None leaves it to their own word."""
    uses: int
    uses_left: int
    created_at: int
    """ms since 1970."""
    expires_at: int
    """ms since 1970."""
    revoked: bool

    @property
    def label(self) -> str:
        """A short public handle, 8 hexadecimal digits, to list and revoke it by."""
        return self.token_hash.hex()[:_LABEL_SIZE]


def add(
    conn: sqlite3.Connection,
    *,
    token_hash: bytes,
    name: str | None,
    uses: int,
    created_at: int,
    expires_at: int,
) -> None:
    """Keep a new invite."""
    conn.execute(
        "INSERT INTO invites (token_hash, name, uses, uses_left, created_at, expires_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (token_hash, name, uses, uses, created_at, expires_at),
    )


def list_all(conn: sqlite3.Connection) -> list[StoredInvite]:
    """Return all invites, the oldest first, those used up, expired and revoked too."""
    rows = conn.execute(f"{_SELECT} ORDER BY created_at, token_hash")
    return [_invite(row) for row in rows]


def get(conn: sqlite3.Connection, token_hash: bytes) -> StoredInvite | None:
    """Return the invite with that token, or None."""
    row = conn.execute(f"{_SELECT} WHERE token_hash = ?", (token_hash,)).fetchone()
    return None if row is None else _invite(row)


def consume(conn: sqlite3.Connection, token_hash: bytes) -> bool:
    """Use the invite once; return False if no use is left."""
    changed = conn.execute(
        "UPDATE invites SET uses_left = uses_left - 1 WHERE token_hash = ? AND uses_left > 0",
        (token_hash,),
    ).rowcount
    return changed == 1


def revoke(conn: sqlite3.Connection, handle: str | bytes) -> StoredInvite:
    """Revoke an invite and return it; one that is revoked already stays so.

    Args:
        conn: the store.
        handle: the token's whole hash, or its label or the beginning of it, as a person types it.

    Raises:
        UsageError: if no invite, or more than one, is meant.
    """
    prefix = handle.hex() if isinstance(handle, bytes) else handle.strip().lower()
    found = [invite for invite in list_all(conn) if invite.token_hash.hex().startswith(prefix)]
    if not re.fullmatch("[0-9a-f]+", prefix) or not found:
        raise UsageError("there is no such invite", hint="see them with: securelink invite --list")
    if len(found) > 1:
        raise UsageError(
            f"{len(found)} invites begin like that", hint="give more of the invite's label"
        )
    revoke_hash(conn, found[0].token_hash)
    revoked = get(conn, found[0].token_hash)
    assert revoked is not None
    return revoked


def revoke_hash(conn: sqlite3.Connection, token_hash: bytes) -> bool:
    """Revoke the invite with that token, if there is one; return whether it was not yet."""
    changed = conn.execute(
        "UPDATE invites SET revoked = 1 WHERE token_hash = ? AND NOT revoked", (token_hash,)
    ).rowcount
    return changed == 1


def prune(conn: sqlite3.Connection, now: int) -> None:
    """Forget invites that expired long ago."""
    conn.execute("DELETE FROM invites WHERE expires_at < ?", (now - ENDED_KEPT,))


def _invite(row: tuple[Any, ...]) -> StoredInvite:
    token_hash, name, uses, uses_left, created_at, expires_at, revoked = row
    return StoredInvite(token_hash, name, uses, uses_left, created_at, expires_at, bool(revoked))
