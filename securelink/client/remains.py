"""How the items of one recipient stand in the store when the call that sent them was cut short."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from securelink.incoming.files import RESUMABLE
from securelink.items import LinesItem, QueuedItem, TextItem
from securelink.parcel import ends
from securelink.store.outbox import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securelink.items import Item, Tally
    from securelink.node import Node
    from securelink.parcel import Parcel
    from securelink.parcel.rows import Row


class Remains(msgspec.Struct, frozen=True):
    """How one item stands, counted in its `unit`s.

    Attributes:
        item: what it is.
        unit: what is counted: `text`, `line`, `file`, or `folder` where there is no file.
        total: all of them; None if not all are known.
        delivered: they are on the recipient's disk.
        unconfirmed: they may be, and no receipt came.
        queued: they wait for the next link, whether they may be there or not.
        whole: all of it is delivered, but what was left out.
        missed: so much was left out that should have gone.
        resumes: another call for the same does not begin at the beginning.
    """

    item: Item
    unit: str
    total: int | None
    delivered: int
    unconfirmed: int
    queued: int
    whole: bool
    missed: int
    resumes: bool


async def remains(node: Node, parcel: Parcel, *, queue: bool) -> list[Remains]:
    """Return how each item stands, as the store has it now.

    Args:
        node: the node.
        parcel: the items, of which nothing is put or sent any more.
        queue: what is not delivered stays queued.

    Raises:
        StoreError: the store does not tell.
    """
    left = parcel.rows.left
    states = await node.store.read(ends.states, [seq for seq, _ in left])
    return [
        _of(tally, [(row, states[seq][0]) for seq, row in left if row.tally is tally], queue=queue)
        for tally in parcel.tallies
    ]


def _of(tally: Tally, left: Sequence[tuple[Row, State]], *, queue: bool) -> Remains:
    unit = _unit(tally)
    counts = Counter(state for row, state in left if row.is_file or unit != "file")
    before = tally.files_done if unit == "file" else tally.delivered
    delivered = before + counts[State.DELIVERED]
    is_open = counts[State.WAITING] + counts[State.HANDED]
    undone = [row for row, state in left if state is not State.DELIVERED]
    return Remains(
        tally.item,
        unit,
        total=_total(tally, unit),
        delivered=delivered,
        # What still waits here and is not to be queued, another process has taken over.
        unconfirmed=counts[State.UNCONFIRMED] + (0 if queue else is_open),
        queued=is_open if queue else 0,
        whole=tally.complete and not undone and not tally.errors,
        missed=tally.left_out.missed,
        resumes=delivered > 0 or any(row.size >= RESUMABLE for row in undone),
    )


def _total(tally: Tally, unit: str) -> int | None:
    if unit == "line" or tally.complete:
        # What was not read of a pipe is nobody's yet.
        return tally.files if unit == "file" else tally.rows
    return None


def _unit(tally: Tally) -> str:
    match tally.item:
        case TextItem() | QueuedItem(name=""):
            return "text"
        case LinesItem():
            return "line"
    return "folder" if tally.complete and tally.rows and not tally.files else "file"
