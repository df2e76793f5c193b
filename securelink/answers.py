"""What the peer answers to what we send, and what that makes of the rows: texts and files alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from securelink.clock import now_ms
from securelink.messages import Receipt, RefusalCode, Refused
from securelink.store import outbox
from securelink.store.outbox import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from securelink.errors import SecurelinkError
    from securelink.link import Link

REASONS = {
    RefusalCode.TOO_LONG: "too long",
    RefusalCode.NOT_ALLOWED: "it takes no files from this node",
    RefusalCode.DISK_FULL: "its disk is full",
    RefusalCode.QUOTA: "its quota is used up",
    RefusalCode.BUSY: "it can't store it at present",
    RefusalCode.TOO_LARGE: "the file is larger than it takes",
    RefusalCode.EXISTS: "it has another file of that name",
    RefusalCode.BAD_NAME: "it cannot have a file of that name",
}


class Settled(msgspec.Struct, frozen=True):
    """What became of an own row: the state it has now, over which link, and why if not well.

    Without a link another process has settled it, or it could not be read.
    """

    seq: int
    state: State
    link: Link | None
    reason: str | None = None
    code: int | None = None
    """The `RefusalCode`, if it was refused on this link."""
    error: SecurelinkError | None = None
    """What was wrong on this side, such as a file that has changed."""


class Recorded(msgspec.Struct, frozen=True):
    """What one answer made of its row, which `seq` names; None if it changed nothing."""

    seq: int | None
    state: State
    reason: str | None = None
    code: int | None = None

    def settled(self, link: Link) -> Settled | None:
        """The same for whoever waits for the row."""
        if self.seq is None:
            return None
        return Settled(self.seq, self.state, link, self.reason, self.code)


def reason_of(code: int) -> str:
    """What a refusal's code says to a person."""
    try:
        return REASONS[RefusalCode(code)]
    except ValueError:
        return f"reason {code}"


def record(
    conn: sqlite3.Connection, peer: bytes, answers: Sequence[Receipt | Refused]
) -> list[Recorded]:
    """Write receipts and refusals of a peer down; runs in a transaction."""
    now = now_ms()
    recorded: list[Recorded] = []
    for answer in answers:
        if isinstance(answer, Refused):
            reason = reason_of(answer.code)
            seq = outbox.refused(
                conn,
                peer=peer,
                message_id=answer.id,
                permanent=answer.permanent,
                reason=reason,
                now=now,
            )
            state = State.REFUSED if answer.permanent else State.WAITING
            recorded.append(Recorded(seq, state, reason, answer.code))
        else:
            seq = outbox.delivered(conn, peer=peer, message_id=answer.id, now=now)
            recorded.append(Recorded(seq, State.DELIVERED))
    return recorded
