"""Messages received, texts and files: each (peer, ID) enters once, in the order of `seq`, and is
remembered.

`seq` only ever grows, deleted rows included, so a reader that remembers the last one it told
misses nothing and needs to compare nothing else.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

SEEN_KEPT = 90 * 86_400_000
"""How long a message's ID is remembered, in ms; longer than any outbox keeps trying (60 days)."""

BATCH_MESSAGES = 1000
BATCH_SIZE = 4 << 20
"""Bounds of one batch of `after`, in messages and in characters, each of 4 bytes at most: an inbox
may hold more than there is memory."""

_LARGEST = (1 << 63) - 1  # SQLite's integers are signed, `sent_at` on the wire is not

_SELECT = (
    "SELECT inbox.seq, inbox.id, inbox.peer, inbox.peer_name, inbox.sent_at, inbox.received_at,"
    " inbox.text, inbox.read, files.kind, files.name, files.path, files.size, files.sha256"
    " FROM inbox LEFT JOIN inbox_files AS files ON files.seq = inbox.seq"
)
_SELECT_SEQ = "SELECT inbox.seq FROM inbox"


Kind: TypeAlias = Literal["text", "file", "folder"]


class InboxFile(msgspec.Struct, frozen=True):
    """The file or folder that a message is."""

    name: str
    """What the sender calls it: components joined by `/`."""
    path: str
    """Where it was put, absolute; odd bytes of file names as `os.fsdecode` has them."""
    size: int
    """In bytes; 0 for a folder."""
    sha256: bytes | None
    """32 bytes, of the whole content; None if it was not taken."""


class InboxMessage(msgspec.Struct, frozen=True):
    """One message as it stands in the inbox."""

    seq: int
    """Its place in the inbox; unique and growing in this store."""
    id: bytes
    """16 bytes, chosen by the sender: unique for one peer only."""
    peer: bytes
    """The sender's key, 32 bytes."""
    peer_name: str
    """What the peer was called here when the message came; `following.named` gives its name now."""
    sent_at: int
    """ms since 1970 by the sender's clock, which may say anything; of a file, when it came."""
    received_at: int
    """ms since 1970 by this node's clock."""
    text: str
    """Empty for a file."""
    read: bool
    """Whether a person has been shown it."""
    kind: Kind = "text"
    file: InboxFile | None = None
    """None for a text."""


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
    if not mark_seen(conn, peer, message_id, received_at):
        return None
    return conn.execute(
        "INSERT INTO inbox (id, peer, peer_name, sent_at, received_at, text)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (message_id, peer, peer_name, min(sent_at, _LARGEST), received_at, text),
    ).lastrowid


def receive_file(
    conn: sqlite3.Connection,
    *,
    peer: bytes,
    peer_name: str,
    message_id: bytes,
    name: str,
    path: str,
    size: int,
    sha256: bytes | None,
    received_at: int,
    kind: Literal["file", "folder"],
) -> int | None:
    """Take in a file that lies whole at *path*; it may be receipted once this is committed.

    Args:
        conn: the store.
        peer: the sender's key, 32 bytes.
        peer_name: what it is called here.
        message_id: 16 bytes.
        name: what the sender calls it.
        path: where it lies, absolute.
        size: in bytes.
        sha256: 32 bytes, of the whole content, if it is known.
        received_at: ms since 1970.
        kind: what it is.

    Returns:
        Its `seq`, or None if it was taken in before: then only the receipt is owed.
    """
    seq = receive(
        conn,
        peer=peer,
        peer_name=peer_name,
        message_id=message_id,
        sent_at=received_at,
        text="",
        received_at=received_at,
    )
    if seq is not None:
        conn.execute(
            "INSERT INTO inbox_files (seq, kind, size, sha256, name, path)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (seq, kind, size, sha256, name, os.fsencode(path)),
        )
    return seq


def mark_seen(conn: sqlite3.Connection, peer: bytes, message_id: bytes, now: int) -> bool:
    """Remember an ID, as of something that is owed a receipt and is in no inbox; True if new."""
    new = conn.execute(
        "INSERT INTO seen (peer, id, seen_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (peer, message_id, now),
    ).rowcount
    return new == 1


def was_seen(conn: sqlite3.Connection, peer: bytes, message_id: bytes) -> bool:
    """Tell whether that ID of that peer was taken in before."""
    row = conn.execute(
        "SELECT 1 FROM seen WHERE peer = ? AND id = ?", (peer, message_id)
    ).fetchone()
    return row is not None


def after(
    conn: sqlite3.Connection,
    seq: int,
    *,
    limit: int = BATCH_MESSAGES,
    peer: bytes | None = None,
    since: int | None = None,
    unread: bool = False,
) -> list[InboxMessage]:
    """Return the next batch of the messages that follow *seq* and fit, in order.

    A batch ends with the message that reaches `BATCH_SIZE`; it is empty only if nothing follows.

    Args:
        conn: the store.
        seq: a place in the inbox; 0 stands before the first message.
        limit: how many at most.
        peer: only messages from this key.
        since: only messages received then or later, in ms since 1970.
        unread: only messages that no person was shown.
    """
    conditions, values = _conditions(peer, since, unread=unread)
    rows = conn.execute(
        f"{_SELECT} WHERE inbox.seq > ? {conditions} ORDER BY inbox.seq LIMIT ?",
        (seq, *values, limit),
    )
    batch: list[InboxMessage] = []
    size = 0
    for row in rows:
        batch.append(_message(row))
        size += len(batch[-1].text)
        if size >= BATCH_SIZE:
            break
    return batch


def before_newest(
    conn: sqlite3.Connection,
    count: int,
    *,
    peer: bytes | None = None,
    since: int | None = None,
    unread: bool = False,
) -> int | None:
    """Return the `seq` that the newest *count* messages follow, among those that fit as in `after`.

    Returns:
        None if no more than *count* fit: they follow 0.
    """
    conditions, values = _conditions(peer, since, unread=unread)
    row = conn.execute(
        f"{_SELECT_SEQ} WHERE 1 {conditions} ORDER BY seq DESC LIMIT 1 OFFSET ?",
        (*values, count),
    ).fetchone()
    return None if row is None else int(row[0])


def get(conn: sqlite3.Connection, peer: bytes, message_id: bytes) -> InboxMessage | None:
    """Return the message with that ID from the peer with that key."""
    row = conn.execute(
        f"{_SELECT} WHERE inbox.id = ? AND inbox.peer = ? ORDER BY inbox.seq LIMIT 1",
        (message_id, peer),
    ).fetchone()
    return None if row is None else _message(row)


def count_unread(conn: sqlite3.Connection) -> dict[bytes, int]:
    """Return how many messages of each peer no person was shown; peers without any are left out."""
    return dict(conn.execute("SELECT peer, count(*) FROM inbox WHERE NOT read GROUP BY peer"))


def mark_read(conn: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Note that a person was shown these messages."""
    conn.executemany("UPDATE inbox SET read = 1 WHERE seq = ?", ((seq,) for seq in seqs))


def delete(conn: sqlite3.Connection, messages: Iterable[tuple[bytes, bytes]]) -> int:
    """Delete messages, each given by its sender's key and its ID; return how many there were."""
    return sum(
        conn.execute("DELETE FROM inbox WHERE peer = ? AND id = ?", message).rowcount
        for message in messages
    )


def delete_before(conn: sqlite3.Connection, received_at: int, peer: bytes | None = None) -> int:
    """Delete the messages received before then, only those of *peer* unless it is None.

    Returns how many there were.
    """
    return conn.execute(
        "DELETE FROM inbox WHERE received_at < ? AND (? IS NULL OR peer = ?)",
        (received_at, peer, peer),
    ).rowcount


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


def _conditions(peer: bytes | None, since: int | None, *, unread: bool) -> tuple[str, list[object]]:
    conditions = ""
    values: list[object] = []
    if peer is not None:
        conditions += " AND inbox.peer = ?"
        values.append(peer)
    if since is not None:
        conditions += " AND inbox.received_at >= ?"
        values.append(since)
    if unread:
        conditions += " AND NOT inbox.read"
    return conditions, values


def _message(row: tuple[Any, ...]) -> InboxMessage:
    seq, message_id, peer, peer_name, sent_at, received_at, text, read = row[:8]
    kind, name, path, size, sha256 = row[8:]
    return InboxMessage(
        seq=seq,
        id=message_id,
        peer=peer,
        peer_name=peer_name,
        sent_at=sent_at,
        received_at=received_at,
        text=text,
        read=bool(read),
        kind=kind or "text",
        file=None if kind is None else InboxFile(name, os.fsdecode(path), size, sha256),
    )
