"""The rows of one parcel that have not come to an end, and how far they are: no store, no link."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from securelink.progress import Phase

if TYPE_CHECKING:
    from securelink.items import Tally


@dataclass(slots=True)
class Row:
    """An own row on its way; sizes in bytes."""

    tally: Tally
    size: int = 0
    is_file: bool = True
    sent: int = 0
    resumed: int = 0
    label: str = ""
    """What to call it in a sentence; empty for a text."""
    queued: bool = False
    """It is not ours, but any process's."""


class Rows:
    """Rows on their way, by their `seq`. What is told of them here is in their tallies at once.

    Args:
        phase: what is done at first.

    Attributes:
        phase: what is done at this moment.
        present: what goes at this moment, in the words of its sender; empty if nothing does yet.
        moved: the bytes of files that have gone, in whichever attempt.
        changed: set whenever something has moved.
        moved_at: when that last was, in the event loop's time.
    """

    def __init__(self, phase: Phase) -> None:
        self.phase = phase
        self.present = ""
        self.moved = 0
        self.changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.moved_at = self._loop.time()
        self._rows: dict[int, Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, seq: int) -> Row | None:
        """Return the row, or None if it is not one of these, or has come to an end."""
        return self._rows.get(seq)

    @property
    def seqs(self) -> list[int]:
        """All of them."""
        return list(self._rows)

    @property
    def left(self) -> list[tuple[int, Row]]:
        """All of them, each with what it is of."""
        return list(self._rows.items())

    @property
    def texts(self) -> list[int]:
        """Those of texts."""
        return [seq for seq, row in self._rows.items() if not row.label]

    @property
    def files(self) -> list[int]:
        """Those of all else."""
        return [seq for seq, row in self._rows.items() if row.label]

    # ---- which they are

    def add(self, seq: int, row: Row) -> None:
        """It was put."""
        row.tally.rows += 1
        row.tally.open.add(seq)
        self._rows[seq] = row
        self.move()

    def end(self, seq: int) -> None:
        """It has come to an end."""
        del self._rows[seq]

    def drop(self, seq: int) -> None:
        """It counts as if it had never been put: another one takes its place."""
        row = self._rows.pop(seq)
        self._forget(row)
        tally = row.tally
        tally.open.discard(seq)
        tally.rows -= 1
        tally.files -= 1
        if tally.total is not None:
            tally.total -= row.size

    # ---- how far they are

    def move(self) -> None:
        """Something has moved."""
        self.moved_at = self._loop.time()
        self.changed.set()

    def compares(self, seq: int) -> None:
        """Both sides look how much of it is there."""
        row = self._rows.get(seq)
        self.present = "" if row is None else row.label
        self.phase = Phase.COMPARING
        self.move()

    def resumed(self, seq: int, offset: int) -> None:
        """It goes from `offset` on."""
        if (row := self._rows.get(seq)) is not None:
            self._forget(row)
            row.sent = row.resumed = offset
            row.tally.done += offset
            row.tally.resumed += offset
            self._goes(row)
            self.move()

    def sent(self, seq: int, count: int) -> None:
        """So many more bytes of it have gone."""
        if (row := self._rows.get(seq)) is not None:
            row.sent += count
            row.tally.done += count
            self.moved += count
            self._goes(row)
            # Nobody is woken: this is so every few microseconds.
            self.moved_at = self._loop.time()

    def noted(self, seq: int, sent: int) -> None:
        """Another process has sent so much of it."""
        row = self._rows.get(seq)
        if row is not None and row.sent != sent:
            row.tally.done += sent - row.sent
            self.moved += max(sent - row.sent, 0)
            row.sent = sent
            self._goes(row)
            self.move()

    def begin_link(self) -> None:
        """A new link: what has no receipt is not known to have arrived."""
        self.phase = Phase.MOVING
        for row in self._rows.values():
            self._forget(row)

    def end_link(self) -> None:
        """That link has ended."""
        self.phase = Phase.CONNECTING

    # ---- inside

    def _goes(self, row: Row) -> None:
        self.present = row.label
        self.phase = Phase.MOVING

    def _forget(self, row: Row) -> None:
        row.tally.done -= row.sent
        row.tally.resumed -= row.resumed
        row.sent = row.resumed = 0
