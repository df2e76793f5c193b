"""What became of one item for one recipient, and the words for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from securelink.errors import (
    ExitCode,
    LinkClosed,
    LinkError,
    LinkTruncated,
    NoReceipt,
    NotAllSent,
    Unreachable,
)

if TYPE_CHECKING:
    from securelink.client.terms import Terms
    from securelink.endpoints import Endpoint
    from securelink.errors import SecurelinkError
    from securelink.items import Tally


class Outcome(msgspec.Struct, frozen=True):
    """What became of one item for one recipient.

    Attributes:
        id: the message's 16 bytes; of a folder that of its group.
        peer: the recipient's name here.
        error: None when it was delivered; else why not, and `NoReceipt` when it is not known.
        endpoint: where it was delivered; None if another process did it, or nobody.
        seconds: from the call to the end.
        tally: what was sent.
        queued: it waits for the next link, as was asked for; `error` says why.
    """

    id: bytes
    peer: str
    error: SecurelinkError | None
    endpoint: Endpoint | None
    seconds: float
    tally: Tally
    queued: bool = False

    @property
    def rest_is_delivered(self) -> bool:
        """Whether all is delivered but what could not be read."""
        tally = self.tally
        return isinstance(self.error, NotAllSent) and not (tally.open or tally.errors)


def outcome_of(
    tally: Tally,
    terms: Terms,
    error: SecurelinkError | None,
    kept: set[int],
    *,
    endpoint: Endpoint | None,
    seconds: float,
) -> Outcome:
    """Return what became of an item.

    Args:
        tally: how far it came.
        terms: by which it was sent.
        error: why the sending ended before all was settled; None if it was.
        kept: the rows that may have left, and have no receipt.
        endpoint: where a link of our own was, if there was one.
        seconds: from the call to the end.
    """
    errors = tally.errors
    own = errors[0] if errors else None
    if tally.open and own is None:
        own = error or LinkError("no receipt came in time")
        if kept & tally.open and not terms.queue:
            own = NoReceipt(
                f"{terms.peer.name} has not confirmed it: {own.message}",
                hint="it is kept, and confirmed by the next link under the same ID",
            )
        elif isinstance(own, LinkClosed | LinkTruncated):
            # Of the link nothing is known, but of the row that it has not left.
            own = Unreachable(own.message, hint=own.hint)
    elif own is None and not tally.complete:
        own = error
    if own is not None and tally.undone > 1:
        own = type(own)(
            f"{tally.undone} of {tally.files or tally.rows} were not delivered: {own.message}",
            hint=own.hint,
        )
    queued = terms.queue and bool(tally.open) and tally.complete and not errors
    missed = tally.left_out.missed
    if missed and (own is None or queued or own.exit_code is ExitCode.UNCONFIRMED):
        # Else it would look as if nothing were left to do.
        message, hint = f"{missed} could not be sent", None
        if own is not None:
            message += f", {'the rest is queued:' if queued else 'and'} {own.message}"
            hint = own.hint
        own, queued = NotAllSent(message, hint=hint), False
    return Outcome(
        tally.id,
        terms.peer.name,
        own,
        endpoint if tally.linked else None,
        seconds,
        tally,
        queued=queued,
    )
