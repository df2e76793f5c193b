"""How far files are on their way: what is known at one moment, and what follows from several.

Bytes that an earlier attempt has left on the other side count as done, but never towards the
rate. Nothing is complete before the receipt is here: until then at most 99 % are done.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

WINDOW = 5.0
"""Seconds over which the rate is taken."""

STALLED_AFTER = 3.0
"""Seconds without a byte."""

_RESOLUTION = 0.1
"""Seconds between two of the moments that are kept."""

_MOST_PEERS = 3


class Phase(enum.StrEnum):
    """What is done at a moment."""

    WAITING = "waiting for a link"
    """Another process of this node has it, or will."""
    CONNECTING = "connecting"
    COMPARING = "comparing"
    """Both sides look how much of a file the receiver has."""
    MOVING = "moving"
    FINISHING = "finishing"
    """All bytes have gone; the receiver puts them on its disk and says so."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One or several files at one moment; sizes in bytes."""

    name: str
    """What to call it; not shown where there are several files."""
    phase: Phase
    done: int
    """What is on the other side, as far as it is known, `resumed` included."""
    resumed: int = 0
    """What was there already, from earlier attempts."""
    moved: int
    """What has gone over the network since the beginning, in whichever attempt: it only grows."""
    size: int | None
    """All that there is; None if nobody knows."""
    files_done: int = 0
    files: int | None = 1
    """None while they are still being looked for."""

    @property
    def stage(self) -> Phase:
        """The phase, which is FINISHING when nothing is left to move."""
        if self.phase is Phase.MOVING and self.size is not None and self.done >= self.size:
            return Phase.FINISHING
        return self.phase

    @property
    def percent(self) -> int | None:
        """How much of it is done, 0 to 99; None if that can't be told."""
        return min(100 * self.done // self.size, 99) if self.size else None


class Reading(msgspec.Struct, frozen=True):
    """What several moments tell."""

    rate: float | None
    """Bytes a second over the last `WINDOW`; None where nothing is to be moved."""
    left: float | None
    """Seconds until all is moved, at that rate; None if that can't be told."""
    stalled: float | None
    """For how many seconds nothing has moved that should; None if that is no `STALLED_AFTER`."""


class _Moment(NamedTuple):
    time: float
    moved: int


class Meter:
    """Makes readings of what it is fed."""

    def __init__(self) -> None:
        self._moments: deque[_Moment] = deque()
        self._moved_at = 0.0

    def feed(self, now: float, snapshot: Snapshot) -> Reading:
        """Take what is known now.

        Args:
            now: in seconds, of a clock that only goes forward.
            snapshot: of the same files as before.
        """
        if snapshot.stage is not Phase.MOVING:
            # The wait before the first byte says nothing about how fast the next ones are.
            self._moments.clear()
            return Reading(None, None, None)
        moments = self._moments
        if not moments or snapshot.moved > moments[-1].moved:
            self._moved_at = now
        if len(moments) > 1 and now - moments[-2].time < _RESOLUTION:
            moments.pop()
        moments.append(_Moment(now, snapshot.moved))
        while len(moments) > 2 and now - moments[1].time >= WINDOW:
            moments.popleft()
        rate = self._rate()
        left = None
        if rate and snapshot.size is not None:
            left = (snapshot.size - snapshot.done) / rate
        still = now - self._moved_at
        return Reading(rate, left, still if still >= STALLED_AFTER else None)

    def _rate(self) -> float | None:
        first, last = self._moments[0], self._moments[-1]
        if last.time <= first.time:
            return None
        return (last.moved - first.moved) / (last.time - first.time)


class Arriving(Protocol):
    """One file that comes in at present."""

    @property
    def peer(self) -> str:
        """Who sends it."""

    @property
    def name(self) -> str:
        """What its sender calls it."""

    @property
    def size(self) -> int | None:
        """In bytes; None if nobody knows."""

    @property
    def received(self) -> int:
        """Bytes of it that are here."""

    @property
    def resumed(self) -> int:
        """How many of these came in earlier attempts."""

    @property
    def is_compared(self) -> bool:
        """Whether both sides look at this moment how much of it is here."""


def incoming(files: Sequence[Arriving], moved: int) -> Snapshot | None:
    """Return how far the files are that come in at present; None if there are none.

    Args:
        files: each of them.
        moved: the bytes of all files that ever came in.
    """
    if not files:
        return None
    sizes = [each.size for each in files if each.size is not None]
    return Snapshot(
        name=_name(files),
        phase=Phase.COMPARING if all(each.is_compared for each in files) else Phase.MOVING,
        done=sum(each.received for each in files),
        resumed=sum(each.resumed for each in files),
        moved=moved,
        size=sum(sizes) if len(sizes) == len(files) else None,
    )


def _name(files: Sequence[Arriving]) -> str:
    if len(files) == 1:
        return f"{files[0].peer}: {files[0].name}"
    peers = list(dict.fromkeys(each.peer for each in files))
    more = len(peers) - _MOST_PEERS
    shown = ", ".join(peers[:_MOST_PEERS]) + (f" and {more} more" if more > 0 else "")
    return f"{len(files)} files from {shown}"
