"""How the rows of a parcel end: read from the store, said to a person, and brought about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.answers import Settled
from securelink.errors import Cancelled, NoReceipt, PeerRefused, Skipped, Unreachable
from securelink.messages import RefusalCode
from securelink.store import outbox, tries
from securelink.store.outbox import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from securelink.errors import SecurelinkError

BATCH = 500
"""Rows that are looked up at a time."""


def states(conn: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, tuple[State, str | None]]:
    """Return the state of each of the rows, and the reason for it."""
    found: dict[int, tuple[State, str | None]] = {}
    for start in range(0, len(seqs), BATCH):
        found |= outbox.states(conn, seqs[start : start + BATCH])
    # A row that is forgotten has ended long ago; how, nobody here knows any more.
    return {seq: found.get(seq, (State.UNCONFIRMED, outbox.FORGOTTEN)) for seq in seqs}


def settled(conn: sqlite3.Connection, seqs: Sequence[int]) -> list[Settled]:
    """Return those of the rows that have come to an end, or were refused for now."""
    return [
        Settled(seq, state, None, reason)
        for seq, (state, reason) in states(conn, seqs).items()
        if state is not State.HANDED and (state, reason) != (State.WAITING, None)
    ]


def error_of(end: Settled, peer: str, label: str) -> SecurelinkError:
    """Return the error for a row that was not delivered, or is not taken for now.

    Args:
        end: how it ended.
        peer: the recipient's name.
        label: what the row is called; empty for a text.
    """
    what = label or "it"
    match end.state:
        case State.UNCONFIRMED:
            return NoReceipt(
                f"{peer} has not confirmed it: {end.reason}",
                hint="it may have arrived; with the same --id it can be sent again safely",
            )
        case State.REFUSED if end.code == RefusalCode.EXISTS:
            return Skipped(f"{peer} has another {what} already: it was left as it is")
        case State.REFUSED if end.code == RefusalCode.NOT_ALLOWED and label:
            return PeerRefused(f"{peer} takes no files from this node")
        case State.REFUSED:
            return PeerRefused(f"{peer} refused {what}: {end.reason}", reason=end.reason or "")
        case State.WAITING:
            return PeerRefused(
                f"{peer} refused {what}: {end.reason}",
                reason=end.reason or "",
                hint="try again later",
            )
    if end.error is not None:
        return end.error
    if end.reason == outbox.CANCELLED:
        return Cancelled(f"{peer} does not get {what}: {end.reason}")
    return Unreachable(f"{peer}: {end.reason or 'withdrawn'}")


def let_go(
    conn: sqlite3.Connection,
    seqs: Iterable[int],
    owner: str,
    now: int,
    *,
    queue: bool,
    in_vain: tuple[bytes, str] | None = None,
) -> set[int]:
    """Withdraw the rows that have not left, or leave them queued; return those that may have left.

    What may have left is confirmed by the next link, whichever process makes it.

    Args:
        conn: the store.
        seqs: the rows.
        owner: this process.
        now: ms since 1970.
        queue: leave them queued.
        in_vain: whose peer could not be reached for them, and why.
    """
    if in_vain is not None:
        tries.note_failure(conn, *in_vain, now)
    handed = set()
    for seq in seqs:
        row = outbox.get(conn, seq)
        if row is None:
            continue
        # Another process may have taken it over, under the same ID: then it is theirs.
        if row.owner in {None, owner}:
            if not queue:
                outbox.withdraw(conn, seq, now)
            outbox.release(conn, seq)
        if row.state is State.HANDED:
            handed.add(seq)
    return handed
