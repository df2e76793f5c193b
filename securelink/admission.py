"""How much a peer may bring: judged when a file is offered, and while it comes.

A sender can lie, and the disk is also filled by others. What is promised to files that are on
their way counts as used, so that many small promises never make a large breach.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import msgspec

from securelink import descriptors
from securelink.messages import RefusalCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.config import FilesConfig

LOOK_EVERY = 4 << 20
"""Bytes that are written between two looks at the disk."""

FILE_COST = 4096
"""What a file takes of the disk beside its bytes, about."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a file is not taken, and whether it might be later."""

    code: RefusalCode
    permanent: bool


NOT_ALLOWED = Refusal(RefusalCode.NOT_ALLOWED, permanent=True)
TOO_LARGE = Refusal(RefusalCode.TOO_LARGE, permanent=True)
EXISTS = Refusal(RefusalCode.EXISTS, permanent=True)
BAD_NAME = Refusal(RefusalCode.BAD_NAME, permanent=True)
DISK_FULL = Refusal(RefusalCode.DISK_FULL, permanent=False)
QUOTA = Refusal(RefusalCode.QUOTA, permanent=False)
BUSY = Refusal(RefusalCode.BUSY, permanent=False)


class Disk(Protocol):
    """What is known of the receiving folder, for one peer; all in bytes."""

    def free(self) -> int:
        """Space left on its disk."""

    def used(self) -> int:
        """What the files of the peer take, with those that are not whole yet."""

    def total(self) -> int:
        """What the whole folder takes, likewise."""


@dataclass(slots=True)
class _Gauge:
    """What a limit is compared with."""

    limit: int
    """In bytes; 0: none."""
    counted: int | None = None
    """Bytes found by the last count; None before the first."""
    written: int = 0
    """Bytes written since."""
    promised: int = 0
    """Bytes still to be written for files that are on their way."""

    def has_room(self, more: int, count: Callable[[], int]) -> bool:
        """Whether so many bytes fit in; files are counted again before the answer is no."""
        if not self.limit:
            return True
        for fresh in (False, True):
            if fresh or self.counted is None:
                self.counted, self.written = count(), 0
            if self.counted + self.written + self.promised + more <= self.limit:
                return True
        return False


class Room:
    """The room in a receiving folder, for all links of a process and their threads."""

    def __init__(self, config: FilesConfig) -> None:
        self._config = config
        self._all = _Gauge(config.total)
        self._peers: dict[str, _Gauge] = {}
        self._free = 0
        """Bytes that were free at the last look at the disk."""
        self._since = LOOK_EVERY
        """Bytes that have been taken since."""
        self._parts: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def parts(self) -> int:
        """How many files are open that are being received."""
        return self._parts.total()

    def accepts(self, peer: str) -> bool:
        """Whether a peer may send files at all."""
        return self._config.of(peer).accept

    def open_part(self, peer: str) -> bool:
        """Whether one more file may be open for a peer; `close_part` must follow then.

        Of half of what this process may have open, a peer gets as much as it leaves to others: it
        can offer hundreds of files over each of its links, and send nothing of them.
        """
        with self.lock:
            if self._parts[peer] >= descriptors.allowed() // 2 - self.parts:
                return False
            self._parts[peer] += 1
            return True

    def close_part(self, peer: str) -> None:
        """It is open no more."""
        with self.lock:
            self._parts[peer] -= 1

    def book(self, peer: str, disk: Disk, size: int | None, here: int = 0) -> Booking | Refusal:
        """Set room aside for a file, or say why there is none.

        Args:
            peer: the sender's name.
            disk: the folder, as that peer sees it.
            size: of the whole file, in bytes; None if nobody knows.
            here: how much of it is on the disk already.
        """
        limits = self._config.of(peer)
        if not limits.accept:
            return NOT_ALLOWED
        if limits.largest and size is not None and size > limits.largest:
            return TOO_LARGE
        with self.lock:
            own = self._peers.setdefault(peer, _Gauge(limits.quota))
            self.took(FILE_COST)
            gauges = ((own, disk.used), (self._all, disk.total))
            booking = Booking(self, disk, gauges, limits.largest, open_ended=size is None)
            return booking.promise(0 if size is None else size - here) or booking

    # ---- for bookings, which hold the lock

    def fits(self, disk: Disk, more: int) -> bool:
        """Whether what is to stay free does, with all that is promised and so many bytes more.

        Others write to the disk too; but to look at it for every small file would take as long as
        to write it.
        """
        if self._since >= LOOK_EVERY or self._spare(more) < 0:
            self._free, self._since = disk.free(), 0
        return self._spare(more) >= 0

    def has_spare(self, disk: Disk) -> bool:
        """Whether what is to stay free does, leaving aside what is promised."""
        return self.fits(disk, -self._all.promised)

    def took(self, count: int) -> None:
        """So many bytes were taken from the disk, or given back."""
        self._since += count

    def look_again(self) -> None:
        """The next question is answered by the disk."""
        self._since = LOOK_EVERY

    def _spare(self, more: int) -> int:
        return self._free - self._since - self._all.promised - more - self._config.keep_free


class Booking:
    """Room that was set aside for one file; made by `Room.book`, given back by `release`."""

    def __init__(
        self,
        room: Room,
        disk: Disk,
        gauges: tuple[tuple[_Gauge, Callable[[], int]], ...],
        largest: int,
        *,
        open_ended: bool,
    ) -> None:
        self._room = room
        self._disk = disk
        self._gauges = gauges
        self._largest = largest
        self._open_ended = open_ended
        self._promised = 0
        self._taken = 0

    def promise(self, more: int) -> Refusal | None:
        """Set more aside; the caller holds the lock of the room."""
        if not self._room.fits(self._disk, more):
            return DISK_FULL
        if not all(gauge.has_room(more, count) for gauge, count in self._gauges):
            return QUOTA
        self._add(promised=more)
        return None

    def take(self, count: int) -> Refusal | None:
        """So many bytes are about to be written; or why they must not be."""
        with self._room.lock:
            self._taken += count
            if self._open_ended:
                if self._largest and self._taken > self._largest:
                    return TOO_LARGE
                if refusal := self.promise(count):
                    return refusal
            self._add(promised=-count, written=count)
            return None if self._room.has_spare(self._disk) else DISK_FULL

    def start_over(self, dropped: int) -> Refusal | None:
        """So many bytes were dropped, to come again; or why they must not."""
        with self._room.lock:
            self._add(written=-dropped)
            self._room.look_again()
            return self.promise(dropped)

    def release(self, dropped: int = 0) -> None:
        """No more is written, and so many bytes of it were deleted; twice does nothing."""
        with self._room.lock:
            self._add(promised=-self._promised, written=-dropped)

    def _add(self, *, promised: int = 0, written: int = 0) -> None:
        self._promised += promised
        self._room.took(written)
        for gauge, _ in self._gauges:
            gauge.promised += promised
            gauge.written += written
