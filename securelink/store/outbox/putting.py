"""Putting a text into the outbox, handing rows to a link, and whose a row is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from securelink.errors import UsageError
from securelink.store import aging, tries
from securelink.store.outbox.pruning import end_overdue
from securelink.store.outbox.rows import State, marks

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable

_PUT_AGAIN = (
    "UPDATE outbox SET owner = ?, shared = ?, deadline = ?, lives_until = ?, reason = NULL,"
    " ended_at = NULL,"
    " tries_before = ifnull((SELECT count FROM tries WHERE tries.peer = outbox.peer), 0),"
    " state = CASE state WHEN 'handed' THEN 'handed' ELSE 'waiting' END"
)
_INSERT = (
    "INSERT INTO outbox (id, peer, text, digest, sent_at, state, owner, shared, deadline,"
    " lives_until, tries_before) VALUES (?, ?, ?, ?, ?, 'waiting', ?, ?, ?, ?, ?)"
)
_HAND = (
    "UPDATE outbox SET state = 'handed', handed_at = coalesce(handed_at, ?), hands = hands + 1"
    " WHERE seq = ? AND ifnull(lives_until > ?, 1)"
    " AND (state = 'handed' OR state = 'waiting' AND ifnull(deadline > ?, 1))"
)


def put(
    conn: sqlite3.Connection,
    *,
    message_id: bytes,
    peer: bytes,
    text: str,
    sent_at: int,
    owner: str | None = None,
    shared: bool = False,
    deadline: int | None = None,
    life: int | None = None,
) -> int:
    """Put a message into the outbox and return its `seq`.

    The same ID and text again return the same row: delivered, it stays so; else it now belongs to
    *owner*, and goes again if it had been refused or withdrawn. So a script can repeat safely.

    Args:
        conn: the store.
        message_id: 16 bytes.
        peer: the recipient's key, 32 bytes.
        text: what to send.
        sent_at: ms since 1970.
        owner: the process that delivers it; None for whichever has a link.
        shared: the owner only waits for whichever has a link.
        deadline: when it may no longer be handed over for the first time, in ms since 1970.
        life: for how long it may wait, in ms of the store's own time; None for as long as it takes.

    Raises:
        UsageError: if that ID was used for another text to this peer.
    """
    digest = hashlib.sha256(text.encode()).digest()
    row = conn.execute(
        "SELECT seq, digest, state FROM outbox WHERE peer = ? AND id = ?", (peer, message_id)
    ).fetchone()
    if row is None:
        seq = conn.execute(
            _INSERT,
            (
                message_id,
                peer,
                text,
                digest,
                sent_at,
                owner,
                shared,
                deadline,
                end_of_life(conn, life),
                tries.count(conn, peer),
            ),
        ).lastrowid
        assert seq is not None
        return seq
    seq, old_digest, state = row
    if old_digest != digest:
        raise UsageError(
            "this ID was used before, for another text", hint="take a new ID for a new text"
        )
    if state != State.DELIVERED:
        put_again(conn, [seq], owner=owner, shared=shared, deadline=deadline, life=life)
    return int(seq)


def put_again(
    conn: sqlite3.Connection,
    seqs: Collection[int],
    *,
    owner: str | None,
    shared: bool,
    deadline: int | None,
    life: int | None = None,
) -> None:
    """Have rows, of which none is delivered, belong to *owner*; what was given up goes again."""
    conn.execute(
        f"{_PUT_AGAIN} WHERE seq IN ({marks(seqs)})",
        (owner, shared, deadline, end_of_life(conn, life), *seqs),
    )


def end_of_life(conn: sqlite3.Connection, life: int | None) -> int | None:
    """Return when what is put now expires, in ms of the store's own time; None for never."""
    return None if life is None else aging.age(conn) + life


def hand(conn: sqlite3.Connection, seqs: Iterable[int], now: int) -> list[int]:
    """Mark rows as about to leave; only those returned, once committed, may be sealed.

    Handed rows are returned too: their link died, and they go again. What was delivered, refused
    or withdrawn meanwhile is not, and a row whose life is over or whose deadline has passed ends.
    """
    handed = []
    age = aging.observe(conn, now)
    for seq in seqs:
        changed = conn.execute(_HAND, (now, seq, age, now)).rowcount
        if changed:
            handed.append(seq)
        else:
            end_overdue(conn, seq, age, now)
    return handed


def take_back(conn: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Let rows wait again that were handed, and of which nothing that completes them has left."""
    conn.executemany(
        "UPDATE outbox SET state = 'waiting' WHERE seq = ? AND state = 'handed'",
        ((seq,) for seq in seqs),
    )


def release(conn: sqlite3.Connection, seq: int) -> None:
    """Let go of a row: it is queued, for whichever process next has a link to its peer."""
    conn.execute("UPDATE outbox SET owner = NULL WHERE seq = ?", (seq,))


def share(conn: sqlite3.Connection, seqs: Iterable[int], owner: str, deadline: int | None) -> None:
    """Have whichever process has a link deliver the rows of an owner who has none.

    Args:
        deadline: as for `put`; it counts for texts alone.
    """
    conn.executemany(
        "UPDATE outbox SET shared = 1, deadline = CASE kind WHEN 'text' THEN ? END"
        " WHERE seq = ? AND owner = ? AND state IN ('waiting', 'handed')",
        ((deadline, seq, owner) for seq in seqs),
    )


def keep(conn: sqlite3.Connection, seqs: Iterable[int], owner: str) -> None:
    """Have the owner of shared rows deliver them alone from now on."""
    conn.executemany(
        "UPDATE outbox SET shared = 0, deadline = NULL WHERE seq = ? AND owner = ?",
        ((seq, owner) for seq in seqs),
    )
