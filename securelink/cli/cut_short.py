"""What a person is told whose `send` was interrupted: what arrived, what did not, and what next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.items import FilesItem, StreamItem, TextItem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securelink.client import Remains
    from securelink.items import Item

MOST_NAMED = 3
"""Items that are named one by one."""


def sentence(
    peer: str,
    remains: Sequence[Remains],
    label: Callable[[Item], str],
    *,
    alone: bool,
    queue: bool,
) -> str:
    """Return one line on all that one recipient was to get.

    Args:
        peer: the recipient's name.
        remains: how each item stands; nothing, if not even the first was put.
        label: what a person has called it.
        alone: there is no other recipient.
        queue: what was put and is not delivered waits for the next link.
    """
    if remains and all(each.whole for each in remains):
        if missed := sum(each.missed for each in remains):
            return f"all else was delivered to {peer}, but {missed} could not be sent"
        return f"all of it was delivered to {peer}"
    clauses = []
    delivered = _counted(remains, lambda each: each.delivered, with_total=True)
    unconfirmed = _counted(remains, lambda each: each.unconfirmed)
    queued = _counted(remains, lambda each: each.queued)
    if delivered or not unconfirmed:
        rest = ", the rest not" if delivered and any(each.total is None for each in remains) else ""
        clauses.append(f"{delivered or 'nothing'} delivered to {peer}{rest}")
    if unconfirmed:
        confirmed = "" if _stream(remains) else ": the next link brings the receipt"
        clauses.append(f"{unconfirmed} may have arrived at {peer}{confirmed}")
    if queued:
        stay = "stays" if sum(each.queued for each in remains) == 1 else "stay"
        clauses.append(f"{queued} {stay} in the queue")
    clauses += _next(peer, remains, label, alone=alone, queue=queue)
    return "; ".join(clauses)


def _counted(
    remains: Sequence[Remains], count: Callable[[Remains], int], *, with_total: bool = False
) -> str:
    """Say how many it is of each kind; nothing, if it is none."""
    said = []
    for unit in dict.fromkeys(each.unit for each in remains):
        of_it = [each for each in remains if each.unit == unit]
        number = sum(map(count, of_it))
        totals = [each.total for each in of_it if each.total is not None]
        total = sum(totals) if with_total and len(totals) == len(of_it) else number
        if number and isinstance(of_it[0].item, TextItem):
            said.append("the text")
        elif number:
            of = f" of {total}" if number != total else ""
            said.append(f"{number}{of} {unit}{'' if total == 1 else 's'}")
    return " and ".join(said)


def _next(
    peer: str,
    remains: Sequence[Remains],
    label: Callable[[Item], str],
    *,
    alone: bool,
    queue: bool,
) -> list[str]:
    """Say how to have the rest delivered, where that is possible."""
    if (stream := _stream(remains)) is not None:
        again = "a stream cannot go on, send it again from its beginning"
        return [] if stream.whole or stream.unconfirmed else [again]
    missing = [each for each in remains if isinstance(each.item, FilesItem) and _is_missing(each)]
    if not missing:
        return []
    how = "the same command" if alone else f"the same command to {peer} alone"
    if queue:
        return [f"{how} queues the rest"] if any(each.total is None for each in missing) else []
    there = [each for each in remains if each.delivered or each.unconfirmed or each.whole]
    if any(isinstance(each.item, FilesItem) and each not in missing for each in there):
        names = [label(each.item) for each in missing[:MOST_NAMED]]
        if len(missing) > MOST_NAMED:
            names.append(f"{len(missing) - MOST_NAMED} more")
        how += f" with {', '.join(names)} alone"
    elif any(isinstance(each.item, TextItem) for each in there):
        how += " without -m"
    resumes = any(each.resumes for each in missing)
    return [f"{how} {'goes on where it stopped' if resumes else 'sends it again'}"]


def _stream(remains: Sequence[Remains]) -> Remains | None:
    return next((each for each in remains if isinstance(each.item, StreamItem)), None)


def _is_missing(remains: Remains) -> bool:
    """Whether something of it has not left, be it what a folder itself is."""
    reached = remains.delivered + remains.unconfirmed + remains.queued
    if remains.total is None or reached < remains.total:
        return True
    return not (remains.whole or remains.unconfirmed or remains.queued)
