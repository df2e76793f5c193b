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
    PeerRefused,
    Skipped,
    Unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securelink.client.terms import Terms
    from securelink.endpoints import Endpoint
    from securelink.errors import SecurelinkError
    from securelink.items import Tally


MOST_REASONS = 3
"""So many are told of one item."""


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
    errors = _errors(tally, terms.peer.name, kept)
    put_off = [*tally.put_off.values()]
    own = errors[0] if errors else None
    if tally.open and own is None and put_off:
        # It goes again by itself.
        own = type(put_off[0])(put_off[0].message)
    elif tally.open and own is None:
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
        reasons = _reasons(errors or put_off or [own])
        if errors and tally.open and error is not None:
            reasons.append(error.message)
        hints = (each.hint for each in errors or [own] if each.hint)
        own = type(own)(
            f"{tally.undone} of {tally.files or tally.rows} were not delivered:"
            f" {'; '.join(reasons)}",
            hint=next(hints, None),
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


def _errors(tally: Tally, peer: str, kept: set[int]) -> list[SecurelinkError]:
    """Return what has gone wrong, what stands for all of it first.

    What was not taken at first may have gone once more, and is not known to be refused then.
    """
    errors = tally.failed.copy()
    for seq, refused in tally.refused.items():
        if seq in kept:
            errors.append(
                NoReceipt(
                    f"{refused.message}; it went again since, and {peer} has not answered",
                    hint="it is kept, and confirmed by the next link under the same ID",
                )
            )
        else:
            errors.append(refused)
    # What was skipped lies there, in a way; and what may have arrived is no failure yet.
    return sorted(errors, key=lambda each: (isinstance(each, NoReceipt), isinstance(each, Skipped)))


def _reasons(errors: Sequence[SecurelinkError]) -> list[str]:
    """Return each reason once, with the first that it holds for and how many more there are."""
    alike: dict[tuple[type, str], list[SecurelinkError]] = {}
    for each in errors:
        reason = each.reason if isinstance(each, PeerRefused) else ""
        alike.setdefault((type(each), reason), []).append(each)
    if len(alike) == 1:
        # How many they are is said already.
        return [errors[0].message]
    told = [_with_count(group) for group in alike.values()]
    if len(told) > MOST_REASONS:
        told[MOST_REASONS:] = [f"{len(told) - MOST_REASONS} other reasons"]
    return told


def _with_count(alike: Sequence[SecurelinkError]) -> str:
    more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
    return alike[0].message + more
