"""The peers whose keys this node has pinned, and how a key becomes one.

Whoever joins writes the row as *pending* before the proof of its own key leaves, so that no crash
can make the other side know us and not the other way round. A pending peer is nobody's recipient:
it is returned only by functions that are asked for it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

from securelink import names
from securelink.errors import UnknownPeer, UsageError
from securelink.store import addresses, invites, outbox, outbox_list, tries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

_SELECT = "SELECT key, name, calls_itself, paired_at, last_seen, invite, pending FROM peers"


class Peer(msgspec.Struct, frozen=True):
    """A pinned key under a name of our choosing."""

    key: bytes
    """32 bytes."""
    name: str
    """The local name, fixed at pairing."""
    calls_itself: str
    """What the peer called itself last; empty while it has said nothing."""
    paired_at: int
    """ms since 1970; while pending, when joining began."""
    last_seen: int | None
    """ms since 1970."""
    invite: bytes | None
    """The hash of the token that it was enrolled with; None if it was we who joined."""
    pending: bool


class Verdict(enum.StrEnum):
    """What became of a key that asked to be let in."""

    KNOWN = "known"
    ENROLLED = "enrolled"
    NO_INVITE = "not paired, and brought no invite"
    UNKNOWN_INVITE = "unknown invite"
    USED = "invite used up"
    EXPIRED = "invite expired"
    REVOKED = "invite revoked"


class Enrolment(msgspec.Struct, frozen=True):
    """A verdict, and the peer if it was let in; the verdict is for our log alone."""

    verdict: Verdict
    peer: Peer | None


class Removed(msgspec.Struct, frozen=True):
    """A peer that is no more, and what went with it."""

    peer: Peer
    cancelled: int
    """Texts and files of the outbox that were given up."""
    invite_revoked: bool
    """Whether the invite that it came with still stood until now."""


def list_all(conn: sqlite3.Connection, *, pending: bool = False) -> list[Peer]:
    """Return all peers by name; with *pending*, also those whose joining is not finished."""
    rows = conn.execute(f"{_SELECT} WHERE pending <= ? ORDER BY name", (pending,))
    return [_peer(row) for row in rows]


def keys(conn: sqlite3.Connection) -> set[bytes]:
    """Return the keys of all peers."""
    return {key for (key,) in conn.execute("SELECT key FROM peers WHERE NOT pending")}


def by_name(conn: sqlite3.Connection, name: str, *, pending: bool = False) -> Peer | None:
    """Return the peer of that name; a pending one only if asked."""
    row = conn.execute(f"{_SELECT} WHERE name = ? AND pending <= ?", (name, pending)).fetchone()
    return None if row is None else _peer(row)


def by_key(conn: sqlite3.Connection, key: bytes, *, pending: bool = False) -> Peer | None:
    """Return the peer with that key; a pending one only if asked."""
    row = conn.execute(f"{_SELECT} WHERE key = ? AND pending <= ?", (key, pending)).fetchone()
    return None if row is None else _peer(row)


def add_pending(
    conn: sqlite3.Connection, *, key: bytes, name_wanted: str, taken: Collection[str], now: int
) -> Peer:
    """Begin to join the node with that key; repeated, it changes nothing but a pending name.

    Args:
        conn: the store.
        key: the other node's, 32 bytes.
        name_wanted: what it is to be called; cleaned, and made free.
        taken: further names in use, such as the configuration's.
        now: ms since 1970.

    Returns:
        The peer: pending, or as it is if it was paired before.
    """
    present = by_key(conn, key, pending=True)
    if present is not None and not present.pending:
        return present
    conn.execute("DELETE FROM peers WHERE key = ?", (key,))
    return _insert(conn, key, name_wanted, "", taken, now, pending=True)


def confirm(conn: sqlite3.Connection, key: bytes, *, calls_itself: str, now: int) -> Peer:
    """Note that the node with that key let us in: it is a peer from now on.

    Raises:
        UnknownPeer: if the pending peer was removed meanwhile.
    """
    conn.execute(
        "UPDATE peers SET pending = 0, paired_at = ? WHERE key = ? AND pending", (now, key)
    )
    touch(conn, key, now, calls_itself)
    peer = by_key(conn, key)
    if peer is None:
        raise UnknownPeer("the peer was removed while joining it", hint="repeat the join")
    return peer


def drop_pending(conn: sqlite3.Connection, key: bytes) -> None:
    """Forget a node that refused to let us in; one that is paired stays."""
    if conn.execute("DELETE FROM peers WHERE key = ? AND pending", (key,)).rowcount:
        addresses.forget(conn, key)


def enrol(
    conn: sqlite3.Connection,
    *,
    key: bytes,
    calls_itself: str,
    token_hash: bytes | None,
    taken: Collection[str],
    now: int,
) -> Enrolment:
    """Decide, in the caller's transaction, whether a key that was just proven is let in.

    A known key wins over any token, which then is not used up: so a join can be repeated after
    any crash with the same result. Otherwise a valid token is used once, and the key is a peer.

    Args:
        conn: the store.
        key: the other node's, 32 bytes.
        calls_itself: its own word for its name.
        token_hash: SHA-256 of the token it brought, None for none.
        taken: further names in use, such as the configuration's.
        now: ms since 1970.
    """
    known = by_key(conn, key)
    if known is not None:
        touch(conn, key, now, calls_itself)
        return Enrolment(Verdict.KNOWN, by_key(conn, key))
    if token_hash is None:
        return Enrolment(Verdict.NO_INVITE, None)
    invite = invites.get(conn, token_hash)
    if invite is None:
        return Enrolment(Verdict.UNKNOWN_INVITE, None)
    if invite.revoked:
        return Enrolment(Verdict.REVOKED, None)
    if invite.expires_at <= now:
        return Enrolment(Verdict.EXPIRED, None)
    if not invites.consume(conn, token_hash):
        return Enrolment(Verdict.USED, None)
    # Both sides may be joining each other at once: then the row is there, pending.
    conn.execute("DELETE FROM peers WHERE key = ?", (key,))
    wanted = invite.name or calls_itself
    peer = _insert(conn, key, wanted, calls_itself, taken, now, invite=token_hash)
    return Enrolment(Verdict.ENROLLED, peer)


def rename(conn: sqlite3.Connection, old: str, new: str, taken: Collection[str]) -> Peer:
    """Give a peer another local name.

    Raises:
        UnknownPeer: if no peer is called *old*.
        UsageError: if *new* can't be a name, or is another peer's.
    """
    peer = _require(conn, old)
    names.check(new)
    if new != old and (new in taken or by_name(conn, new, pending=True)):
        raise UsageError(f"another peer is called {new} already", hint="choose another name")
    conn.execute("UPDATE peers SET name = ? WHERE key = ?", (new, peer.key))
    return _require(conn, new)


def touch(conn: sqlite3.Connection, key: bytes, now: int, calls_itself: str | None = None) -> bool:
    """Note that the peer was here just now, and what it calls itself if it said so.

    Returns:
        Whether there is such a peer; one of the configuration is `touch_contact`'s.
    """
    changed = conn.execute(
        "UPDATE peers SET last_seen = ?, calls_itself = ifnull(?, calls_itself) WHERE key = ?",
        (now, calls_itself, key),
    ).rowcount
    return changed == 1


def touch_contact(
    conn: sqlite3.Connection, key: bytes, now: int, calls_itself: str | None = None
) -> None:
    """Do the same for a peer that stands in the configuration alone."""
    conn.execute(
        "INSERT INTO contacts (peer, last_seen, calls_itself) VALUES (?, ?, ifnull(?, ''))"
        " ON CONFLICT (peer) DO UPDATE SET last_seen = excluded.last_seen,"
        " calls_itself = ifnull(?, calls_itself)",
        (key, now, calls_itself, calls_itself),
    )


def contact(conn: sqlite3.Connection, key: bytes) -> tuple[int, str] | None:
    """Return when a peer of the configuration was last here, and what it calls itself."""
    row = conn.execute(
        "SELECT last_seen, calls_itself FROM contacts WHERE peer = ?", (key,)
    ).fetchone()
    return None if row is None else (int(row[0]), str(row[1]))


def remove(conn: sqlite3.Connection, name: str, now: int) -> Removed:
    """Remove a peer: it is let in no more, nor with the invite that it came with.

    What it sent stays in the inbox, and its message IDs stay known.

    Raises:
        UnknownPeer: if no peer is called *name*.
    """
    peer = _require(conn, name)
    cancelled = outbox_list.count_open(conn, peer.key)
    outbox.cancel_peer(conn, peer.key, now)
    revoked = peer.invite is not None and invites.revoke_hash(conn, peer.invite)
    addresses.forget(conn, peer.key)
    tries.forget(conn, peer.key)
    conn.execute("DELETE FROM peers WHERE key = ?", (peer.key,))
    return Removed(peer, cancelled, revoked)


def _require(conn: sqlite3.Connection, name: str) -> Peer:
    peer = by_name(conn, name, pending=True)
    if peer is None:
        raise UnknownPeer(f"no peer is called {name}", hint="see them with: securelink peers")
    return peer


def _insert(
    conn: sqlite3.Connection,
    key: bytes,
    name_wanted: str,
    calls_itself: str,
    taken: Collection[str],
    now: int,
    *,
    invite: bytes | None = None,
    pending: bool = False,
) -> Peer:
    used = {peer.name for peer in list_all(conn, pending=True)} | set(taken)
    name = names.free(names.clean(name_wanted), used)
    last_seen = None if pending else now
    conn.execute(
        "INSERT INTO peers (key, name, calls_itself, paired_at, last_seen, invite, pending)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key, name, calls_itself, now, last_seen, invite, pending),
    )
    return Peer(key, name, calls_itself, now, last_seen, invite, pending)


def _peer(row: tuple[Any, ...]) -> Peer:
    key, name, calls_itself, paired_at, last_seen, invite, pending = row
    return Peer(key, name, calls_itself, paired_at, last_seen, invite, bool(pending))
