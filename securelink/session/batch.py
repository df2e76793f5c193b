"""Frames that leave together: sealed straight into the buffer that the connection gets."""

from __future__ import annotations

from securelink import framing

ROOM = 256 * 1024 + framing.LENGTH_SIZE + framing.LARGEST_BODY
"""What is allocated at once when a large frame comes: it is not the last one."""

LARGE = 16 * 1024


class Batch:
    """A buffer that grows in few steps, as every step copies it."""

    __slots__ = ("_buffer", "_used")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def append(self, data: bytes) -> None:
        """Add frames that are sealed already."""
        self._reserve(len(data))
        self._buffer[self._used : self._used + len(data)] = data
        self._used += len(data)

    def frame(self, length: int) -> memoryview:
        """Add a frame with a body of *length* bytes, which the caller writes at once."""
        start = self._used + framing.LENGTH_SIZE
        self._reserve(framing.LENGTH_SIZE + length)
        self._buffer[self._used : start] = length.to_bytes(framing.LENGTH_SIZE, "big")
        self._used = start + length
        return memoryview(self._buffer)[start : self._used]

    def clear(self) -> None:
        """Forget everything."""
        self.take()

    def take(self) -> bytearray:
        """Return all of it, and begin anew."""
        buffer, used = self._buffer, self._used
        self._buffer, self._used = bytearray(), 0
        del buffer[used:]
        return buffer

    def _reserve(self, size: int) -> None:
        missing = self._used + size - len(self._buffer)
        if missing > 0:
            self._buffer += bytes(max(missing, ROOM) if size > LARGE else missing)
