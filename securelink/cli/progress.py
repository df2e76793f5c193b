"""A line of progress on a terminal's standard error, written anew a few times a second.

The line belongs to the event loop, and never holds it up: nothing is drawn while the terminal
stands still or somebody else writes. Everything else that is printed first takes the line away,
from whichever thread (`Output.keep_clear`), and the next drawing puts it back below.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING

from securelink.cli.formats import size
from securelink.cli.text import width
from securelink.progress import Meter, Phase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from securelink.cli.output import Output
    from securelink.progress import Reading, Snapshot

INTERVAL = 0.2
"""Seconds between two drawings, and before the first: what is faster shows its result alone."""

_ERASE_REST = "\x1b[K"  # ECMA-48, EL: to the end of the line
_SHORTEST_NAME = 12
_LONGEST_LEFT = 100 * 3600


class ProgressLine:
    """The line, which is there or not.

    Args:
        output: its standard error is the terminal.
        look: returns what to show now; None for nothing.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        output: Output,
        look: Callable[[], Snapshot | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = output.stderr
        self._look = look
        self._clock = clock
        self._meter = Meter()
        self._lock = threading.RLock()
        self._is_shown = False

    def tick(self) -> None:
        """Look, and draw what there is, unless that would have to wait."""
        snapshot = self._look()
        if snapshot is None:
            self._meter = Meter()
            if not self._is_shown:
                return
        reading = None if snapshot is None else self._meter.feed(self._clock(), snapshot)
        if not self._lock.acquire(blocking=False):
            return
        try:
            if not self._stream.takes_more:
                return
            if snapshot is None or reading is None:
                self._clear()
                return
            # The last column stays free: some terminals wrap as soon as it is taken.
            room = max(self._stream.present_columns - 1, 1)
            text = line(self._stream.fit(snapshot.name), snapshot, reading, room)
            self._draw(f"\r{text}{_ERASE_REST}")
            self._is_shown = True
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Take the line away, and draw none until the end of the context."""
        with self._lock:
            self._clear()
            yield

    def end(self) -> None:
        """Take the line away, unless that would have to wait."""
        if self._lock.acquire(blocking=False):
            try:
                if self._stream.takes_more:
                    self._clear()
            finally:
                self._lock.release()

    def _clear(self) -> None:
        if self._is_shown:
            self._is_shown = False
            self._draw(f"\r{_ERASE_REST}")

    def _draw(self, text: str) -> None:
        # A terminal that has gone is no reason for the files to stop.
        with contextlib.suppress(OSError):
            self._stream.draw(text)


@contextlib.asynccontextmanager
async def shown(
    output: Output, look: Callable[[], Snapshot | None]
) -> AsyncIterator[ProgressLine | None]:
    """Show progress for as long as the context lasts, where standard error is a terminal.

    Args:
        output: says whether it is one, and whether progress is wanted.
        look: returns what to show now; None for nothing. Called in the event loop.

    Yields:
        The line; None where none is shown.
    """
    if output.quiet or not output.stderr.can_redraw:
        yield None
        return
    progress = ProgressLine(output, look)
    output.keep_clear(progress.away)
    task = asyncio.create_task(_run(progress))
    try:
        yield progress
    finally:
        task.cancel()
        await asyncio.wait([task])
        progress.end()
        output.keep_clear(None)
        if not task.cancelled():
            task.result()


async def _run(progress: ProgressLine) -> None:
    while True:
        await asyncio.sleep(INTERVAL)
        progress.tick()


def line(name: str, snapshot: Snapshot, reading: Reading, columns: int) -> str:
    """Return the line for a snapshot, no wider than *columns*: what matters least goes first.

    Args:
        name: what stands at the beginning for one file, fit for the terminal.
        snapshot: how far it is.
        reading: what the moments until now tell.
        columns: more than 0.
    """
    if snapshot.files == 1:
        head, least = name, min(width(name), _SHORTEST_NAME)
    else:
        of = "" if snapshot.files is None else f" of {snapshot.files}"
        head = f"{snapshot.files_done}{of} files"
        least = width(head)
    for tail in _tails(snapshot, reading):
        room = columns - width(tail) - 2
        if room >= least:
            return f"{_end_of(head, room)}  {tail}"
    return tail[:columns]


def _tails(snapshot: Snapshot, reading: Reading) -> Iterator[str]:
    """What follows the name, from all there is to say to the least."""
    percent = None if snapshot.percent is None else f"{snapshot.percent}%"
    of = "" if snapshot.size is None else f" of {size(snapshot.size)}"
    amount = f"{percent} " if percent else ""
    amount += f"{size(snapshot.done)}{of}"
    resumed = f" ({size(snapshot.resumed)} resumed)" if snapshot.resumed else ""
    rate = None if reading.rate is None else f"{size(round(reading.rate))}/s"
    end = None if reading.left is None else f"{_left(reading.left)} left"
    trouble = None
    if snapshot.stage is not Phase.MOVING:
        trouble = str(snapshot.stage)
    elif reading.stalled is not None:
        trouble = f"stalled for {reading.stalled:.0f} s"
    if trouble is not None:
        rate, end = None, trouble
    for parts in (
        (f"{amount}{resumed}", rate, end),
        (amount, rate, end),
        (percent, rate, end),
        (percent, end),
        (trouble or percent or amount,),
    ):
        yield "  ".join(part for part in parts if part)


def _left(seconds: float) -> str:
    if seconds >= _LONGEST_LEFT:
        return "days"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _end_of(text: str, columns: int) -> str:
    """Return *text* without its beginning if there is no room for it: a path's end says more."""
    if width(text) <= columns:
        return text
    while width(text) > max(columns - 2, 0):
        text = text[1:]
    return f"..{text}"[-columns:]
