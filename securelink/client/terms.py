"""What a `Sending` was told to do, and the moments that follow from it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.directory import KnownPeer
    from securelink.errors import SecurelinkError
    from securelink.node import Node
    from securelink.parcel import Parcel
    from securelink.sources import Skipped

GRACE = 10.0
"""Seconds that what has left waits for its receipt, even if the timeout is over."""


class Terms(msgspec.Struct, frozen=True):
    """As for `Sending`. All moments are in the event loop's time."""

    node: Node
    peer: KnownPeer
    choice: str
    timeout: float | None
    queue: bool
    life: int | None
    checksum: bool
    failed: Callable[[SecurelinkError], None]
    skipped: Callable[[Skipped], None]

    @property
    def is_me(self) -> bool:
        """Whether it is for this node itself."""
        return self.peer.key == self.node.identity.public

    @property
    def dials(self) -> bool:
        """Whether there may be something to dial."""
        return bool(self.peer.endpoints) or self.is_me or self.choice != "auto"

    def deadline(self, parcel: Parcel) -> float | None:
        """Return when all must have left, if nothing moves until then; None for never."""
        if self.timeout is None or (self.queue and parcel.reads_lines):
            # What is read from a pipe is queued as it comes, however long nobody is there.
            return None
        return parcel.rows.moved_at + self.timeout

    def patience(self, parcel: Parcel, linked_at: float) -> float | None:
        """Return for how many more seconds a link may carry nothing; None for ever."""
        if self.timeout is None or parcel.is_idle:
            return None
        now = asyncio.get_running_loop().time()
        return max(parcel.rows.moved_at + self.timeout, linked_at + GRACE) - now

    def is_late(self, parcel: Parcel) -> bool:
        """Whether the deadline has passed for what is on its way."""
        deadline = None if parcel.is_idle else self.deadline(parcel)
        return deadline is not None and asyncio.get_running_loop().time() >= deadline
