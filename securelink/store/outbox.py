"""Messages that still owe a receipt: one row each, from before its first byte leaves.

Texts are put here; files by `outbox_files`, into the same table, and what becomes of a row is
told here for both. Only the queues are apart.

A row is *owned* by the `send` that made it while that process lives, and delivered by it alone; or
*queued* for whichever process has a link to its peer: because it has no owner, or because its
owner, who has no address of the peer, *shares* it. `TRANSITIONS` is the whole of what can happen
to it.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from securelink.errors import UsageError
from securelink.store import aging, notices, tries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Iterator, Sequence

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

CANCELLED = "it was cancelled"
"""The reason that a row has which a person has taken out of the outbox."""

FORGOTTEN = "no record of it is left"
"""The reason to give for a row that was pruned: how it ended, nobody here knows any more."""


class State(enum.StrEnum):
    """How far a message is."""

    WAITING = "waiting"
    """No byte of it has left, or the peer said that it did not keep it."""
    HANDED = "handed"
    """It may have left, so it may be on the peer's disk."""
    DELIVERED = "delivered"
    """The receipt is here: it is on the peer's disk."""
    REFUSED = "refused"
    """The peer will never take it."""
    WITHDRAWN = "withdrawn"
    """Given up here."""
    EXPIRED = "expired"
    """It has never left, and has waited for as long as it was to."""
    UNCONFIRMED = "unconfirmed"
    """It may have left, and no receipt is waited for any more: nobody here knows."""


TRANSITIONS: dict[State, frozenset[State]] = {
    # `hand`; `delivered`, for a copy on another link; `refused`; `withdraw`, `cancel`,
    # `cancel_peer` and the deadline; `prune` and `hand`, when its life is over; if it was handed
    # over before, these four as below
    State.WAITING: frozenset(
        {
            State.HANDED,
            State.DELIVERED,
            State.REFUSED,
            State.WITHDRAWN,
            State.EXPIRED,
            State.UNCONFIRMED,
        }
    ),
    # `delivered`; `refused` for good or for now; `take_back`; `cancel` and `cancel_peer`; `prune`
    # and `hand`, when its life is over; `prune`, when it was handed over too long ago
    State.HANDED: frozenset({State.DELIVERED, State.REFUSED, State.WAITING, State.UNCONFIRMED}),
    State.DELIVERED: frozenset(),
    # `put` tries again under the same ID; a late receipt is the truth, whatever was given up
    State.REFUSED: frozenset({State.WAITING, State.DELIVERED}),
    State.WITHDRAWN: frozenset({State.WAITING, State.DELIVERED}),
    State.EXPIRED: frozenset({State.WAITING, State.DELIVERED}),
    State.UNCONFIRMED: frozenset({State.WAITING, State.DELIVERED}),
}

_SELECT = (
    "SELECT seq, id, peer, text, sent_at, state, owner, shared, deadline, reason, handed_at"
    " FROM outbox"
)
_STATES = "SELECT seq, state, reason FROM outbox"
QUEUED = "(owner IS NULL OR shared) AND state IN ('waiting', 'handed')"
"""A condition in SQL: the row waits for any process with a link, whatever its kind."""

_QUEUED = f"kind = 'text' AND {QUEUED}"
_PUT_AGAIN = (
    "UPDATE outbox SET owner = ?, shared = ?, deadline = ?, lives_until = ?, reason = NULL,"
    " ended_at = NULL,"
    " tries_before = ifnull((SELECT count FROM tries WHERE tries.peer = outbox.peer), 0),"
    " state = CASE state WHEN 'handed' THEN 'handed' ELSE 'waiting' END"
)
_BURY_LASTING = "UPDATE outbox SET owner = NULL WHERE state = 'waiting' AND lives_until IS NOT NULL"
_BURY_WAITING = (
    "UPDATE outbox SET state = 'withdrawn', owner = NULL, ended_at = ?,"
    " reason = 'the process that sent it died' WHERE state = 'waiting'"
)
_BURY_HANDED = "UPDATE outbox SET owner = NULL WHERE state = 'handed'"
_IS_LIVE = "SELECT 1 FROM outbox WHERE seq = ? AND state IN ('waiting', 'handed')"
_OWNED = "owner = ? AND state IN ('waiting', 'handed')"  # in the words of the index outbox_owned
_LIFE_IS_OVER = "SELECT seq FROM outbox WHERE lives_until <= ? AND state IN ('waiting', 'handed')"
_OWES_FOR_TOO_LONG = (
    "SELECT seq FROM outbox WHERE (state = 'handed' OR state = 'waiting' AND owner IS NULL)"
    " AND handed_at < ? AND ended_at IS NULL"
)
_ADD_TRIES = (
    "UPDATE outbox SET hands = hands + max(0, ifnull("
    "(SELECT count FROM tries WHERE tries.peer = outbox.peer), 0) - tries_before) WHERE seq = ?"
)
_UNCONFIRMED = (
    "UPDATE outbox SET state = 'unconfirmed', reason = 'no receipt ever came', ended_at = ?"
    " WHERE seq = ?"
)
_TOO_OLD = (
    "UPDATE outbox SET reason = 'it has waited for too long', ended_at = ?,"
    " state = CASE WHEN handed_at IS NULL THEN 'expired' ELSE 'unconfirmed' END WHERE seq = ?"
)
_CANCEL = (
    "UPDATE outbox SET reason = ?, ended_at = ?,"
    " state = CASE WHEN handed_at IS NULL THEN 'withdrawn' ELSE 'unconfirmed' END"
    " WHERE state IN ('waiting', 'handed')"
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


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One message on its way."""

    seq: int
    """Its place in the queue; unique and growing in this store."""
    id: bytes
    """16 bytes, the message's for life."""
    peer: bytes
    """The recipient's key, 32 bytes."""
    text: str
    """Empty once it is delivered, and for a file."""
    sent_at: int
    """When it was first put, in ms since 1970."""
    state: State
    owner: str | None
    """The process that delivers it, or waits for another to do so; None if it waits for nobody."""
    shared: bool
    """Whichever process has a link may deliver it, although it has an owner."""
    deadline: int | None
    """When it may no longer be handed to a link for the first time, in ms since 1970."""
    reason: str | None
    """Why it was refused or withdrawn, or why the peer would not take it for now."""
    handed_at: int | None
    """When it first was handed to a link, in ms since 1970."""


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
            conn.execute(f"{_WITHDRAW_OVERDUE} AND seq = ?", (now, now, seq))
            _end_too_old(conn, _seqs(conn, f"{_LIFE_IS_OVER} AND seq = ?", (age, seq)), now)
    return handed


def take_back(conn: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Let rows wait again that were handed, and of which nothing that completes them has left."""
    conn.executemany(
        "UPDATE outbox SET state = 'waiting' WHERE seq = ? AND state = 'handed'",
        ((seq,) for seq in seqs),
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
        _add_tries(conn, [seq])
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


def release(conn: sqlite3.Connection, seq: int) -> None:
    """Let go of a row: it is queued, for whichever process next has a link to its peer."""
    conn.execute("UPDATE outbox SET owner = NULL WHERE seq = ?", (seq,))


def keep(conn: sqlite3.Connection, seqs: Iterable[int], owner: str) -> None:
    """Have the owner of shared rows deliver them alone from now on."""
    conn.executemany(
        "UPDATE outbox SET shared = 0, deadline = NULL WHERE seq = ? AND owner = ?",
        ((seq, owner) for seq in seqs),
    )


def queued(conn: sqlite3.Connection, peer: bytes) -> Iterator[OutboxRow]:
    """Yield the texts that wait for any process with a link to *peer*, in order.

    They are read one by one: all of them together may not fit into memory.
    """
    rows = conn.execute(f"{_SELECT} WHERE peer = ? AND {_QUEUED} ORDER BY seq", (peer,))
    yield from map(_row, rows)


def count_queued(conn: sqlite3.Connection, peer: bytes, *, unowned: bool = False) -> int:
    """Return how many rows `queued` would yield; or how many of them nobody waits for."""
    return count_where(conn, peer, _QUEUED, unowned=unowned)


def count_where(conn: sqlite3.Connection, peer: bytes, condition: str, *, unowned: bool) -> int:
    """Count a peer's rows of a queue, which *condition* says in SQL."""
    if unowned:
        condition += " AND owner IS NULL"
    (count,) = conn.execute(
        f"SELECT count(*) FROM outbox WHERE peer = ? AND {condition}",  # noqa: S608 - constants
        (peer,),
    ).fetchone()
    return int(count)


def peers_with_queued(conn: sqlite3.Connection) -> list[bytes]:
    """Return the keys of the peers that have queued texts."""
    return peers_where(conn, _QUEUED)


def peers_where(conn: sqlite3.Connection, condition: str) -> list[bytes]:
    """Return the keys of the peers that have rows of a queue, which *condition* says in SQL.

    It costs the same however long the queues are.
    """
    rows = conn.execute(
        # SELECT DISTINCT would read every row of a peer to find the next one.
        f"WITH RECURSIVE found (peer) AS ( SELECT min(peer) FROM outbox WHERE {condition}"  # noqa: S608 - constants
        f" UNION ALL SELECT (SELECT min(peer) FROM outbox WHERE peer > found.peer AND {condition})"
        " FROM found WHERE peer IS NOT NULL"
        ") SELECT peer FROM found WHERE peer IS NOT NULL"
    )
    return [peer for (peer,) in rows]


def get(conn: sqlite3.Connection, seq: int) -> OutboxRow | None:
    """Return the row, or None if it was pruned."""
    row = conn.execute(f"{_SELECT} WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else _row(row)


def states(conn: sqlite3.Connection, seqs: Collection[int]) -> dict[int, tuple[State, str | None]]:
    """Return the state of each of those rows that was not pruned, and the reason for it."""
    rows = conn.execute(f"{_STATES} WHERE seq IN ({marks(seqs)})", tuple(seqs))
    return {seq: (State(state), reason) for seq, state, reason in rows}


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
    _add_tries(conn, live)
    conn.executemany(f"{_CANCEL} AND seq = ?", ((CANCELLED, now, seq) for seq in live))


def prune(conn: sqlite3.Connection, now: int) -> None:
    """End what its deadline or its age has overtaken, and forget rows that ended long ago."""
    conn.execute(_WITHDRAW_OVERDUE, (now, now))
    too_old = _seqs(conn, _LIFE_IS_OVER, (aging.observe(conn, now),))
    _end_too_old(conn, too_old, now)
    owing = _seqs(conn, _OWES_FOR_TOO_LONG, (now - HANDED_KEPT,))
    _add_tries(conn, owing)
    conn.executemany(_UNCONFIRMED, ((now, seq) for seq in owing))
    notices.add(conn, owing, now)
    conn.executemany(
        "DELETE FROM outbox WHERE state = ? AND kind = ? AND ended_at < ?",
        ((state, kind, now - kept) for state, kind, kept in _KEPT),
    )


def _end_too_old(conn: sqlite3.Connection, seqs: Sequence[int], now: int) -> None:
    _add_tries(conn, seqs)
    conn.executemany(_TOO_OLD, ((now, seq) for seq in seqs))
    notices.add(conn, seqs, now)


def _add_tries(conn: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Count the attempts to reach its peer for a row that ends: later ones are not for it."""
    conn.executemany(_ADD_TRIES, ((seq,) for seq in seqs))


def marks(values: Collection[object]) -> str:
    """Return the marks that stand for as many values in a statement."""
    return ", ".join("?" * len(values))


def _seqs(conn: sqlite3.Connection, statement: str, values: tuple[int, ...]) -> list[int]:
    return sorted(seq for (seq,) in conn.execute(statement, values))


def _seq_and_kind(conn: sqlite3.Connection, peer: bytes, message_id: bytes) -> tuple[int, str]:
    seq, kind = conn.execute(
        "SELECT seq, kind FROM outbox WHERE peer = ? AND id = ?", (peer, message_id)
    ).fetchone()
    return seq, kind


def _row(row: tuple[Any, ...]) -> OutboxRow:
    seq, message_id, peer, text, sent_at, state, owner, shared, deadline, reason, handed_at = row
    return OutboxRow(
        seq,
        message_id,
        peer,
        text,
        sent_at,
        State(state),
        owner,
        bool(shared),
        deadline,
        reason,
        handed_at,
    )
