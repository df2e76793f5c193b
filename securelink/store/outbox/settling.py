"""How a row comes to its end: by the peer's answer, by whoever sent it, or by a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.store import notices
from securelink.store.outbox.rows import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

CANCELLED = "it was cancelled"
"""The reason that a row has which a person has taken out of the outbox."""

_BURY_LASTING = "UPDATE outbox SET owner = NULL WHERE state = 'waiting' AND lives_until IS NOT NULL"
_BURY_WAITING = (
    "UPDATE outbox SET state = 'withdrawn', owner = NULL, ended_at = ?,"
    " reason = 'the process that sent it died' WHERE state = 'waiting'"
)
_BURY_HANDED = "UPDATE outbox SET owner = NULL WHERE state = 'handed'"
_IS_LIVE = "SELECT 1 FROM outbox WHERE seq = ? AND state IN ('waiting', 'handed')"
_OWNED = "owner = ? AND state IN ('waiting', 'handed')"  # in the words of the index outbox_owned
_ADD_TRIES = (
    "UPDATE outbox SET hands = hands + max(0, ifnull("
    "(SELECT count FROM tries WHERE tries.peer = outbox.peer), 0) - tries_before) WHERE seq = ?"
)
_CANCEL = (
    "UPDATE outbox SET reason = ?, ended_at = ?,"
    " state = CASE WHEN handed_at IS NULL THEN 'withdrawn' ELSE 'unconfirmed' END"
    " WHERE state IN ('waiting', 'handed')"
)


def delivered(conn: sqlite3.Connection, *, peer: bytes, message_id: bytes, now: int) -> int | None:
    """Take a receipt; return the row's `seq`, or None if there is no such row or it had one."""
    changed = conn.execute(
        "UPDATE outbox SET state = 'delivered', text = '', reason = NULL, ended_at = ?"
        " WHERE peer = ? AND id = ? AND state <> 'delivered'",
        (now, peer, message_id),
    ).rowcount
    if not changed:
        return None
    seq, kind = _seq_and_kind(conn, peer, message_id)
    if kind != "text":
        conn.execute("UPDATE outbox_files SET path = x'' WHERE seq = ?", (seq,))
    return seq


def refused(
    conn: sqlite3.Connection,
    *,
    peer: bytes,
    message_id: bytes,
    permanent: bool,
    reason: str,
    now: int,
) -> int | None:
    """Take a refusal; return the row's `seq`, or None if no live row has that ID.

    Permanent, it ends the row; else the row waits again.
    """
    state, ended_at = (State.REFUSED, now) if permanent else (State.WAITING, None)
    changed = conn.execute(
        "UPDATE outbox SET state = ?, reason = ?, ended_at = ?"
        " WHERE peer = ? AND id = ? AND state IN ('waiting', 'handed')",
        (state, reason, ended_at, peer, message_id),
    ).rowcount
    if not changed:
        return None
    seq, _ = _seq_and_kind(conn, peer, message_id)
    if permanent:
        add_tries(conn, [seq])
        notices.add(conn, [seq], now)
    return seq


def withdraw(conn: sqlite3.Connection, seq: int, now: int, reason: str | None = None) -> bool:
    """Give a row up, unless it was handed to a link before: whoever commits first wins.

    Args:
        conn: the store.
        seq: the row.
        now: ms since 1970.
        reason: why, in place of why the peer would not take it for now.

    Returns:
        Whether it is now withdrawn by this call. If not, it may have left.
    """
    changed = conn.execute(
        "UPDATE outbox SET state = 'withdrawn', ended_at = ?, reason = ifnull(?, reason)"
        " WHERE seq = ? AND state = 'waiting'",
        (now, reason, seq),
    ).rowcount
    return changed == 1


def owners(conn: sqlite3.Connection) -> list[str]:
    """Return the owners of rows that are still on their way.

    It costs the same however many rows each of them has.
    """
    rows = conn.execute(
        # SELECT DISTINCT would read every row of an owner to find the next one.
        "WITH RECURSIVE found (owner) AS ("
        " SELECT min(owner) FROM outbox"
        " WHERE owner IS NOT NULL AND state IN ('waiting', 'handed')"
        " UNION ALL SELECT (SELECT min(owner) FROM outbox"
        " WHERE owner > found.owner AND state IN ('waiting', 'handed'))"
        " FROM found WHERE owner IS NOT NULL"
        ") SELECT owner FROM found WHERE owner IS NOT NULL"
    )
    return [owner for (owner,) in rows]


def bury_owner(conn: sqlite3.Connection, owner: str, now: int) -> tuple[int, int]:
    """Settle the rows of a process that is dead: what may have left, or was to wait in the queue,
    is queued; the rest is given up.

    Returns:
        How many rows are now queued, and how many withdrawn.
    """
    lasting = conn.execute(f"{_BURY_LASTING} AND {_OWNED}", (owner,)).rowcount
    withdrawn = conn.execute(f"{_BURY_WAITING} AND {_OWNED}", (now, owner)).rowcount
    handed = conn.execute(f"{_BURY_HANDED} AND {_OWNED}", (owner,)).rowcount
    return handed + lasting, withdrawn


def cancel_peer(conn: sqlite3.Connection, peer: bytes, now: int) -> int:
    """Give up every row for a peer that is being removed and return how many there were.

    What was ever handed over may be on the peer's disk, whatever it said when its disk was full.
    """
    return conn.execute(f"{_CANCEL} AND peer = ?", ("the peer was removed", now, peer)).rowcount


def cancel(conn: sqlite3.Connection, seqs: Iterable[int], now: int) -> None:
    """Give up those of the rows that have not ended, whoever has them; that process notices it.

    None of them is sent from the commit on. What was ever handed over ends as unconfirmed.
    """
    live = [seq for seq in seqs if conn.execute(_IS_LIVE, (seq,)).fetchone()]
    add_tries(conn, live)
    conn.executemany(f"{_CANCEL} AND seq = ?", ((CANCELLED, now, seq) for seq in live))


def add_tries(conn: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Count the attempts to reach its peer for a row that ends: later ones are not for it."""
    conn.executemany(_ADD_TRIES, ((seq,) for seq in seqs))


def _seq_and_kind(conn: sqlite3.Connection, peer: bytes, message_id: bytes) -> tuple[int, str]:
    seq, kind = conn.execute(
        "SELECT seq, kind FROM outbox WHERE peer = ? AND id = ?", (peer, message_id)
    ).fetchone()
    return seq, kind
