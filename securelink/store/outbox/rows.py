"""What a row of the outbox is, and one read by its number."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

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

SELECT = (
    "SELECT seq, id, peer, text, sent_at, state, owner, shared, deadline, reason, handed_at"
    " FROM outbox"
)
"""What `row_of` is to be given, in SQL."""

_STATES = "SELECT seq, state, reason FROM outbox"


class OutboxRow(msgspec.Struct, frozen=True):
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


def get(conn: sqlite3.Connection, seq: int) -> OutboxRow | None:
    """Return the row, or None if it was pruned."""
    row = conn.execute(f"{SELECT} WHERE seq = ?", (seq,)).fetchone()
    return None if row is None else row_of(row)


def states(conn: sqlite3.Connection, seqs: Collection[int]) -> dict[int, tuple[State, str | None]]:
    """Return the state of each of those rows that was not pruned, and the reason for it."""
    rows = conn.execute(f"{_STATES} WHERE seq IN ({marks(seqs)})", tuple(seqs))
    return {seq: (State(state), reason) for seq, state, reason in rows}


def marks(values: Collection[object]) -> str:
    """Return the marks that stand for as many values in a statement."""
    return ", ".join("?" * len(values))


def row_of(row: tuple[Any, ...]) -> OutboxRow:
    """Make one of what `SELECT` gives."""
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
