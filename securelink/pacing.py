"""How much of a file may stand in the kernel before a receipt: no more than leaves in a moment.

On a slow line that must be little, for a receipt can't overtake what the kernel has taken. On a
fast one it must be more, or else sealing stops and goes with every record. So it follows the speed.
"""

from __future__ import annotations

SMALLEST = 128 * 1024
LARGEST = 512 * 1024
"""Bytes; more than that brings nothing, on loopback either."""

MOMENT = 0.01
"""Seconds in which what the kernel has taken is to leave."""

WINDOW = 0.05
"""Seconds over which the speed is measured."""


class Pace:
    """The speed of one direction of one link.

    Args:
        now: the time, in seconds.

    Attributes:
        low_water: bytes that the kernel is to take beyond what it has sent.
    """

    __slots__ = ("_count", "_since", "low_water")

    def __init__(self, now: float) -> None:
        self.low_water = SMALLEST
        self._since = now
        self._count = 0

    def sent(self, count: int, now: float) -> bool:
        """Count bytes that went to the kernel; return whether `low_water` has changed."""
        self._count += count
        passed = now - self._since
        if passed < WINDOW:
            return False
        fits = self._count / passed * MOMENT
        self._count, self._since = 0, now
        before, self.low_water = self.low_water, SMALLEST
        while self.low_water * 2 <= min(fits, LARGEST):
            self.low_water *= 2
        return self.low_water != before
