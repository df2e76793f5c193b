"""What ends by time: deadlines, lives and the patience for a receipt; and what is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.store import aging, notices
from securelink.store.outbox.rows import State
from securelink.store.outbox.settling import add_tries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

DAY = 86_400_000

ENDED_KEPT = DAY
"""How long a delivered or withdrawn row is kept for whoever waits for it, in ms."""

HANDED_KEPT = 60 * DAY
"""How long a row may owe a receipt after it was first handed over, in ms: less than the receiver
remembers its ID (`inbox.SEEN_KEPT`), so that it can't arrive twice."""

LIFE = 30 * DAY
"""How long what is queued may wait, in ms of the store's own time, if nobody has said so."""

LONGEST_LIFE = HANDED_KEPT
"""How long it may wait at most."""

REFUSED_KEPT = 30 * DAY
"""How long a refused, expired or unconfirmed row is kept for a person to find, in ms."""

UNFINISHED_KEPT = 30 * DAY
"""How long the row of a withdrawn file is kept, so that a later attempt goes on under its ID, in
ms."""

_LIFE_IS_OVER = "SELECT seq FROM outbox WHERE lives_until <= ? AND state IN ('waiting', 'handed')"
_OWES_FOR_TOO_LONG = (
    "SELECT seq FROM outbox WHERE (state = 'handed' OR state = 'waiting' AND owner IS NULL)"
    " AND handed_at < ? AND ended_at IS NULL"
)
_UNCONFIRMED = (
    "UPDATE outbox SET state = 'unconfirmed', reason = 'no receipt ever came', ended_at = ?"
    " WHERE seq = ?"
)
_TOO_OLD = (
    "UPDATE outbox SET reason = 'it has waited for too long', ended_at = ?,"
    " state = CASE WHEN handed_at IS NULL THEN 'expired' ELSE 'unconfirmed' END WHERE seq = ?"
)
_WITHDRAW_OVERDUE = (
    "UPDATE outbox SET state = 'withdrawn', reason = 'not handed over in time', ended_at = ?"
    " WHERE state = 'waiting' AND deadline <= ?"
)

_KEPT = tuple(
    (state, kind, kept)
    for kind, withdrawn_kept in (
        ("text", ENDED_KEPT),
        ("file", UNFINISHED_KEPT),
        ("folder", UNFINISHED_KEPT),
        ("stream", ENDED_KEPT),
    )
    for state, kept in (
        (State.DELIVERED, ENDED_KEPT),
        (State.WITHDRAWN, withdrawn_kept),
        (State.REFUSED, REFUSED_KEPT),
        (State.EXPIRED, REFUSED_KEPT),
        (State.UNCONFIRMED, REFUSED_KEPT),
    )
)


def prune(conn: sqlite3.Connection, now: int) -> None:
    """End what its deadline or its age has overtaken, and forget rows that ended long ago."""
    conn.execute(_WITHDRAW_OVERDUE, (now, now))
    too_old = _seqs(conn, _LIFE_IS_OVER, (aging.observe(conn, now),))
    _end_too_old(conn, too_old, now)
    owing = _seqs(conn, _OWES_FOR_TOO_LONG, (now - HANDED_KEPT,))
    add_tries(conn, owing)
    conn.executemany(_UNCONFIRMED, ((now, seq) for seq in owing))
    notices.add(conn, owing, now)
    conn.executemany(
        "DELETE FROM outbox WHERE state = ? AND kind = ? AND ended_at < ?",
        ((state, kind, now - kept) for state, kind, kept in _KEPT),
    )


def has_expired(conn: sqlite3.Connection, now: int) -> bool:
    """Whether the life of a row is over, so that `prune` would end it; nothing is written.

    It costs the same however many rows there are.
    """
    (found,) = conn.execute(f"SELECT EXISTS ({_LIFE_IS_OVER})", (aging.due(conn, now),)).fetchone()
    return bool(found)


def end_overdue(conn: sqlite3.Connection, seq: int, age: int, now: int) -> None:
    """End a row whose deadline has passed, or whose life is over at this *age* of the store."""
    conn.execute(f"{_WITHDRAW_OVERDUE} AND seq = ?", (now, now, seq))
    _end_too_old(conn, _seqs(conn, f"{_LIFE_IS_OVER} AND seq = ?", (age, seq)), now)


def _end_too_old(conn: sqlite3.Connection, seqs: Sequence[int], now: int) -> None:
    add_tries(conn, seqs)
    conn.executemany(_TOO_OLD, ((now, seq) for seq in seqs))
    notices.add(conn, seqs, now)


def _seqs(conn: sqlite3.Connection, statement: str, values: tuple[int, ...]) -> list[int]:
    return sorted(seq for (seq,) in conn.execute(statement, values))
