"""What becomes of what `send` sends: to each recipient at once, and a result for each item."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from securelink.choice import choose
from securelink.cli import cut_short
from securelink.cli.formats import contents, duration, size
from securelink.cli.output import Style, Styled, code_of, encodable
from securelink.cli.progress import shown
from securelink.cli.text import one_line, shorten
from securelink.client import Sending
from securelink.errors import ExitCode, SecurelinkError, Skipped, StoreError, UsageError
from securelink.ids import to_text
from securelink.items import (
    FilesItem,
    LinesItem,
    QueuedItem,
    StreamItem,
    TextItem,
    has_files,
    queued_items,
)
from securelink.progress import Phase, Snapshot
from securelink.store import outbox_list

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from securelink import sources
    from securelink.cli.output import Output
    from securelink.cli.wanted import Wanted
    from securelink.client import Outcome
    from securelink.directory import KnownPeer
    from securelink.items import Item, Tally
    from securelink.node import Node
    from securelink.parcel import Parcel

PRECEDENCE = (
    ExitCode.INTERRUPTED,
    ExitCode.TERMINATED,
    ExitCode.NOT_THEM,
    ExitCode.REFUSED,
    ExitCode.USAGE,
    ExitCode.ERROR,
    ExitCode.UNCONFIRMED,
    ExitCode.UNREACHABLE,
    ExitCode.QUEUED,
)
"""Of several results' exit codes, the first that occurs is the command's."""

MOST_COLUMNS = 30
"""How much of a text is repeated to say which one is meant."""

_ACTIVITY = (Phase.MOVING, Phase.FINISHING, Phase.COMPARING, Phase.CONNECTING, Phase.WAITING)
"""Of what is done for several recipients, the first of these is shown."""


async def deliver(
    node: Node,
    recipients: list[KnownPeer],
    wanted: Wanted,
    output: Output,
    *,
    life: int | None,
    checksum: bool,
) -> ExitCode:
    """Send to all recipients, side by side, and report on each item as soon as it is known."""
    client = node.config.client
    if client.queue and any(peer.key == node.identity.public for peer in recipients):
        raise UsageError("nothing can wait for this node itself", hint="add --no-queue")
    _check_choice(node, recipients)
    timeout = client.timeout or None
    works = [
        _Work(
            peer.name,
            Sending(
                node,
                peer,
                choice=client.endpoint,
                timeout=timeout,
                queue=client.queue,
                life=life,
                checksum=checksum,
                failed=_complaint(peer.name, timeout, output),
                skipped=_warning(output) if peer is recipients[0] else _silence,
            ),
            wanted.items(),
        )
        for peer in recipients
    ]
    return await _carry_out(works, output, queue=client.queue)


async def flush(node: Node, recipients: list[KnownPeer], output: Output) -> ExitCode:
    """Try now to deliver what is queued for them, and report on it as `deliver` does."""
    client = node.config.client
    timeout = client.timeout or None
    _check_choice(node, recipients)
    works = []
    for peer in recipients:
        items = queued_items(await node.store.read(outbox_list.queued, peer.key.raw))
        if items:
            sending = Sending(
                node,
                peer,
                choice=client.endpoint,
                timeout=timeout,
                queue=True,
                failed=_complaint(peer.name, timeout, output),
            )
            works.append(_Work(peer.name, sending, items))
    if not works and not output.json:
        output.note("nothing is queued")
    return await _carry_out(works, output, queue=True)


def _check_choice(node: Node, recipients: Sequence[KnownPeer]) -> None:
    """Raise UsageError if one of them has no such endpoint as is to be used."""
    choice = node.config.client.endpoint
    for peer in recipients:
        if peer.key != node.identity.public and choice != "auto":
            choose(peer, choice)


class _Work(NamedTuple):
    """What one recipient is to get."""

    peer: str
    sending: Sending
    items: Sequence[Item]


async def _carry_out(works: Sequence[_Work], output: Output, *, queue: bool) -> ExitCode:
    tasks = {asyncio.create_task(work.sending.send(work.items)): work for work in works}
    codes: set[ExitCode] = set()
    pending = set(tasks)
    try:
        async with shown(output, lambda: progress_of(_parcels(works))):
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    codes |= _report(task.result(), output)
    except asyncio.CancelledError:
        await _end(tasks)
        for task in pending:
            if task.cancelled() or task.exception() is not None:
                await _tell_cut_short(tasks[task], output, alone=len(tasks) == 1, queue=queue)
            else:
                _report(task.result(), output)
        raise
    finally:
        await _end(tasks)
    for work in works:
        if received := work.sending.received:
            plural = "s" if received > 1 else ""
            output.note(f"{received} message{plural} from {work.peer}: securelink inbox")
    return next((code for code in PRECEDENCE if code in codes), ExitCode.OK)


async def _end(tasks: Collection[asyncio.Task[list[Outcome]]]) -> None:
    """Have each withdraw what has not left, which needs the store to be open."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _tell_cut_short(work: _Work, output: Output, *, alone: bool, queue: bool) -> None:
    # The signal is what ends the command, whatever the store does.
    with contextlib.suppress(StoreError):
        remains = await work.sending.remains()
        said = cut_short.sentence(work.peer, remains, _label, alone=alone, queue=queue)
        output.note(f"interrupted: {said}")


def _parcels(works: Sequence[_Work]) -> list[Parcel]:
    return [work.sending.parcel for work in works if work.sending.parcel is not None]


def progress_of(parcels: list[Parcel]) -> Snapshot | None:
    """Return how far the files of all recipients are; None if none are on their way."""
    tallies = [tally for parcel in parcels for tally in parcel.tallies]
    files = [each for each in tallies if has_files(each.item)]
    under_way = [parcel for parcel in parcels if parcel.has_files and not parcel.is_done()]
    if not under_way:
        return None
    are_listed = all(tally.complete for tally in files)
    totals = [tally.total for tally in files if tally.total is not None]
    return Snapshot(
        name=next(
            (parcel.rows.present for parcel in under_way if parcel.rows.present),
            _label(files[0].item),
        ),
        phase=min((parcel.rows.phase for parcel in under_way), key=_ACTIVITY.index),
        done=sum(tally.done for tally in files),
        resumed=sum(tally.resumed for tally in files),
        moved=sum(parcel.rows.moved for parcel in parcels),
        size=sum(totals) if are_listed and len(totals) == len(files) else None,
        files_done=sum(tally.files_done for tally in files),
        files=sum(tally.files for tally in files) if are_listed else None,
    )


def _silence(_: sources.Skipped) -> None:
    """Somebody else tells."""


def _warning(output: Output) -> Callable[[sources.Skipped], None]:
    def warn(skipped: sources.Skipped) -> None:
        output.warn(f"{os.fsdecode(skipped.path)} is not sent: {skipped.reason}")

    return warn


def _complaint(
    peer: str, timeout: float | None, output: Output
) -> Callable[[SecurelinkError], None]:
    """Tell a person, once, why it takes longer, so that nobody looks at a silent screen."""
    told = False

    def complain(error: SecurelinkError) -> None:
        nonlocal told
        if not told and output.stderr.is_terminal and not output.json:
            until = f" for {timeout:g} s" if timeout else ", until Ctrl-C"
            output.note(f"{peer} is not there yet, trying{until}")
            if error.hint is None:
                output.note(error.message)
            else:
                output.note(Styled("hint:", Style.BOLD), f" {error.hint}")
        told = True

    return complain


def _report(outcomes: list[Outcome], output: Output) -> set[ExitCode]:
    """Report what became of all that one recipient was to get."""
    return {_report_one(each, output, alone=len(outcomes) == 1) for each in outcomes}


def _report_one(outcome: Outcome, output: Output, *, alone: bool) -> ExitCode:
    error = outcome.error
    code = ExitCode.OK if error is None else error.exit_code
    if outcome.queued:
        code = ExitCode.QUEUED
    if output.json:
        result: dict[str, Any] = {
            "status": _status(outcome),
            "item": encodable(_label(outcome.tally.item)),
            "id": to_text(outcome.id),
            "peer": outcome.peer,
            "endpoint": outcome.endpoint,
            "seconds": round(outcome.seconds, 3),
            **_counts(outcome.tally),
        }
        if error is not None:
            result |= {
                "code": code_of(error),
                "error": encodable(error.message),
                "hint": error.hint,
                "exit": int(code),
            }
        output.result(result)
        return code
    for name in sorted(outcome.tally.changed):
        output.note(f"{name} has changed since an earlier attempt: it started over")
    if error is None or outcome.rest_is_delivered:
        where = f" ({outcome.endpoint.kind} {outcome.endpoint.host})" if outcome.endpoint else ""
        took = duration(outcome.seconds)
        delivered = f"delivered {_what(outcome.tally)}to {outcome.peer}{where} in {took}"
        if error is None:
            output.note(delivered)
        else:
            output.failure(type(error)(f"{delivered}, but {error.message}"))
        return code
    about = _about(outcome.tally.item, alone=alone)
    if outcome.queued:
        what = "" if about is None else f"{about} "
        output.note(f"queued {what}for {outcome.peer}: {error.message}")
    else:
        output.failure(error, about=about)
    return code


def _status(outcome: Outcome) -> str:
    if outcome.error is None:
        return "delivered"
    if outcome.queued:
        return "queued"
    if isinstance(outcome.error, Skipped):
        return "skipped"
    return "unconfirmed" if outcome.error.exit_code is ExitCode.UNCONFIRMED else "failed"


def _label(item: Item) -> str:
    match item:
        case TextItem():
            return "text"
        case FilesItem():
            return item.given
        case StreamItem():
            return item.name
        case LinesItem():
            return "lines"
        case QueuedItem():
            return item.name or "text"


def _counts(tally: Tally) -> dict[str, Any]:
    """What a script wants to know of more than one text; sizes in bytes."""
    match tally.item:
        case TextItem() | QueuedItem(name=""):
            return {}
        case LinesItem():
            return {"lines": tally.rows, "delivered": tally.delivered}
        case _:
            return {
                "files": tally.files,
                "bytes": tally.done if tally.total is None else tally.total,
                "resumed": tally.resumed,
                "changed": sorted(tally.changed),
                "left_out": [
                    {"path": encodable(os.fsdecode(each.path)), "reason": each.reason}
                    for each in tally.left_out.named
                ],
                "left_out_count": tally.left_out.count,
            }


def _what(tally: Tally) -> str:
    """What was delivered, and a space; nothing for a text."""
    match tally.item:
        case TextItem():
            return ""
        case QueuedItem(name="") as item:
            return f"{_quoted(item)} "
        case LinesItem():
            return f"{tally.delivered} line{'' if tally.delivered == 1 else 's'} "
    counts = contents(tally.files, tally.rows - tally.files, tally.done)
    if tally.files == 1:
        counts = [size(tally.done)]
    if tally.resumed:
        counts.append(f"{size(tally.resumed)} of it before")
    return f"{_label(tally.item)} ({', '.join(counts)}) "


def _about(item: Item, *, alone: bool) -> str | None:
    """What a person is told to know which of several it is; a new text stands for itself."""
    if isinstance(item, QueuedItem):
        return item.name or _quoted(item)
    return None if alone or isinstance(item, TextItem) else _label(item)


def _quoted(item: QueuedItem) -> str:
    return f'"{shorten(one_line(item.excerpt), MOST_COLUMNS)}"'
