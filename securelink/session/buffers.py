"""Memory that is used again as soon as nobody looks at it any more.

A fresh buffer costs the kernel a page fault every 4 KiB, which is more than it costs to seal or
open what is in it.
"""

from __future__ import annotations

from collections import deque


def is_free(buffer: bytearray) -> bool:
    """Whether no memoryview of *buffer* is alive: Python refuses to resize one that is seen."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    del buffer[-1]
    return True


class Buffers:
    """Buffers of one size, handed out as views.

    Args:
        size: of each, in bytes.
        most: how many are kept at most; more are made when all are in use, and forgotten.
    """

    __slots__ = ("_kept", "_most", "_size")

    def __init__(self, size: int, most: int) -> None:
        self._size = size
        self._most = most
        self._kept: deque[bytearray] = deque()

    def get(self) -> memoryview:
        """Return a view of a buffer that nobody else sees; it is used again once that is gone."""
        # The oldest was handed out first, so if that is in use the others are as well.
        if self._kept and is_free(self._kept[0]):
            self._kept.rotate(-1)
            return memoryview(self._kept[-1])
        buffer = bytearray(self._size)
        if len(self._kept) < self._most:
            self._kept.append(buffer)
        return memoryview(buffer)
