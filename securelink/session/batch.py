"""Frames that leave together: sealed straight into the buffer that the connection gets."""

from __future__ import annotations

from securelink import framing
from securelink.session.buffers import is_free

ROOM = 512 * 1024 + framing.LENGTH_SIZE + framing.LARGEST_BODY
"""What is allocated at once when a large frame comes: it is not the last one."""

LARGE = 16 * 1024


class Batch:
    """A buffer that grows in few steps, and is used again: fresh memory costs more than AES."""

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

    def take(self) -> bytes | memoryview:
        """Return all of it, and begin anew.

        A view lasts as long as anybody holds it: only then the buffer is used again.
        """
        view = memoryview(self._buffer)[: self._used]
        if self._used >= LARGE:
            self._used = 0
            return view
        # A link that carries little keeps no large buffer.
        data = bytes(view)
        view.release()
        self._buffer, self._used = bytearray(), 0
        return data

    def _reserve(self, size: int) -> None:
        if not self._used and not is_free(self._buffer):
            self._buffer = bytearray()
        missing = self._used + size - len(self._buffer)
        if missing > 0:
            self._buffer += bytes(max(missing, ROOM) if size > LARGE else missing)
