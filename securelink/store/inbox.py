"""Messages received: each (peer, ID) enters once, in the order of `seq`, and is remembered.

`seq` only ever grows, deleted rows included, so a reader that remembers the last one it told
misses nothing and needs to compare nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

SEEN_KEPT = 90 * 86_400_000
"""How long a message's ID is remembered, in ms; longer than any outbox keeps trying (60 days)."""

_LARGEST = (1 << 63) - 1  # SQLite's integers are signed, `sent_at` on the wire is not

_SELECT = (
    "SELECT inbox.seq, inbox.id, inbox.peer, coalesce(peers.name, inbox.peer_name),"
    " inbox.sent_at, inbox.received_at, inbox.text, inbox.read"
    " FROM inbox LEFT JOIN peers ON peers.key = inbox.peer"
)


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """One message as it stands in the inbox."""

    seq: int
    """Its place in the inbox; unique and growing in this store."""
    id: bytes
    """16 bytes, chosen by the sender: unique for one peer only."""
    peer: bytes
    """The sender's key, 32 bytes."""
    peer_name: str
    """The peer's present local name, or the last one known if the peer is gone."""
    sent_at: int
    """ms since 1970 by the sender's clock, which may say anything."""
    received_at: int
    """ms since 1970 by this node's clock."""
    text: str
    read: bool
    """Whether a person has been shown it."""


def receive(
    conn: sqlite3.Connection,
    *,
    peer: bytes,
    peer_name: str,
    message_id: bytes,
    sent_at: int,
    text: str,
    received_at: int,
) -> int | None:
    """Take a message in; it may be receipted once this is committed.

    Returns:
        Its `seq`, or None if the message was taken in before: then only the receipt is owed.
    """
    new = conn.execute(
        "INSERT INTO seen (peer, id, seen_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (peer, message_id, received_at),
    ).rowcount
    if not new:
        return None
    return conn.execute(
        "INSERT INTO inbox (id, peer, peer_name, sent_at, received_at, text)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (message_id, peer, peer_name, min(sent_at, _LARGEST), received_at, text),
    ).lastrowid


def after(conn: sqlite3.Connection, seq: int, limit: int = 64) -> list[InboxMessage]:
    """Return at most *limit* messages that follow *seq*, in order; each may be 1 MiB."""
    rows = conn.execute(f"{_SELECT} WHERE inbox.seq > ? ORDER BY inbox.seq LIMIT ?", (seq, limit))
    return [_message(row) for row in rows]


def search(
    conn: sqlite3.Connection,
    *,
    peer: bytes | None = None,
    since: int | None = None,
    unread: bool = False,
    limit: int = 20,
) -> list[InboxMessage]:
    """Return the newest messages that fit, oldest first.

    Args:
        conn: the store.
        peer: only messages from this key.
        since: only messages received then or later, in ms since 1970.
        unread: only messages that no person was shown.
        limit: how many at most; 0 for all.
    """
    conditions: list[str] = []
    values: list[object] = []
    if peer is not None:
        conditions.append("inbox.peer = ?")
        values.append(peer)
    if since is not None:
        conditions.append("inbox.received_at >= ?")
        values.append(since)
    if unread:
        conditions.append("NOT inbox.read")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = conn.execute(
        f"{_SELECT} {where} ORDER BY inbox.seq DESC LIMIT ?", (*values, limit or -1)
    ).fetchall()
    return [_message(row) for row in reversed(rows)]


def get(conn: sqlite3.Connection, message_id: bytes) -> InboxMessage | None:
    """Return the message with that ID; of several peers' the first, so that none can hide it."""
    row = conn.execute(
        f"{_SELECT} WHERE inbox.id = ? ORDER BY inbox.seq LIMIT 1", (message_id,)
    ).fetchone()
    return None if row is None else _message(row)


def mark_read(conn: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Note that a person was shown these messages."""
    conn.executemany("UPDATE inbox SET read = 1 WHERE seq = ?", ((seq,) for seq in seqs))


def delete(conn: sqlite3.Connection, message_ids: Iterable[bytes]) -> int:
    """Delete the messages with these IDs and return how many there were."""
    return sum(
        conn.execute("DELETE FROM inbox WHERE id = ?", (message_id,)).rowcount
        for message_id in message_ids
    )


def delete_before(conn: sqlite3.Connection, received_at: int) -> int:
    """Delete the messages received before then and return how many there were."""
    return conn.execute("DELETE FROM inbox WHERE received_at < ?", (received_at,)).rowcount


def newest_seq(conn: sqlite3.Connection) -> int:
    """Return the highest `seq` ever given, 0 if none was; deleted messages count."""
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'inbox'").fetchone()
    return 0 if row is None else int(row[0])


def prune_seen(conn: sqlite3.Connection, before: int) -> int:
    """Forget the IDs of messages received before then; see `SEEN_KEPT`."""
    return conn.execute("DELETE FROM seen WHERE seen_at < ?", (before,)).rowcount


def cursor(conn: sqlite3.Connection, command: str) -> int | None:
    """Return the last `seq` that *command* (`serve`, `receive`) has told, None before the first."""
    row = conn.execute("SELECT seq FROM cursors WHERE command = ?", (command,)).fetchone()
    return None if row is None else int(row[0])


def raise_cursor(conn: sqlite3.Connection, command: str, seq: int) -> None:
    """Note that *command* has told everything up to *seq*; a lower one than before is ignored."""
    conn.execute(
        "INSERT INTO cursors (command, seq) VALUES (?, ?)"
        " ON CONFLICT (command) DO UPDATE SET seq = max(seq, excluded.seq)",
        (command, seq),
    )


def _message(row: tuple[Any, ...]) -> InboxMessage:
    seq, message_id, peer, peer_name, sent_at, received_at, text, read = row
    return InboxMessage(seq, message_id, peer, peer_name, sent_at, received_at, text, bool(read))
