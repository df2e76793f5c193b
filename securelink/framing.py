"""Frames: a length of four bytes, big-endian, then a body of that many bytes.

A length is judged before a byte of its body is awaited, so that nobody can make this side wait
for, or hold, more than the largest frame of the present state.
"""

from __future__ import annotations

from collections.abc import Collection

from securelink.errors import FrameTooLong, MalformedRecord

LENGTH_SIZE = 4
LARGEST_BODY = 65535
LARGEST_FRAME = LENGTH_SIZE + LARGEST_BODY
SCRATCH_SIZE = 8 * LARGEST_FRAME
"""One read takes at most this much."""


def frame(body: bytes) -> bytes:
    """Put the length before a body of at most 65,535 bytes."""
    return len(body).to_bytes(LENGTH_SIZE, "big") + body


class FrameReader:
    """Cuts a stream of bytes into frame bodies.

    The stream is read into a scratch buffer that many readers may share, because it holds
    nothing of theirs between two reads: `keep_rest` puts the begin of an unfinished frame aside.
    An idle link so costs no buffer.

    Use: write into `get_buffer()`, say how much with `buffer_updated(n)`, call `next_frame`
    until it returns None, then `keep_rest`.
    """

    __slots__ = ("_end", "_missing", "_rest", "_start", "_view")

    def __init__(self, scratch: bytearray | None = None) -> None:
        self._view = memoryview(bytearray(SCRATCH_SIZE) if scratch is None else scratch)
        self._rest = b""
        self._missing = 0
        self._start = 0
        self._end = 0

    def get_buffer(self) -> memoryview:
        """Room for the next read, at least one largest frame.

        It ends where a frame does, if the largest frames follow one another as they do in a file:
        then nothing is left over that would have to be put aside.
        """
        start = len(self._rest)
        self._view[:start] = self._rest
        first = start + self._missing
        whole = (SCRATCH_SIZE - first) // LARGEST_FRAME * LARGEST_FRAME
        return self._view[start : first + whole]

    def buffer_updated(self, count: int) -> None:
        """Take in `count` bytes that were written to the start of `get_buffer()`."""
        self._start = 0
        self._end = len(self._rest) + count
        self._missing = 0

    def next_frame(self, lengths: Collection[int]) -> memoryview | None:
        """The next whole body, or None until more bytes are here.

        The view is valid until `keep_rest`.

        Args:
            lengths: the body lengths that the present state allows, in bytes.

        Raises:
            FrameTooLong: the announced length is over every allowed one.
            MalformedRecord: it is a smaller one that is not allowed; or none is, and even the
                first byte of one is here.
        """
        start = self._start + LENGTH_SIZE
        if self._end < start:
            if not lengths and self._end > self._start:
                raise MalformedRecord("no frame may begin here")
            return None
        length = int.from_bytes(self._view[self._start : start], "big")
        if length not in lengths:
            if length > max(lengths, default=0):
                raise FrameTooLong(f"a frame of {length} bytes is not possible here")
            raise MalformedRecord(f"no frame has {length} bytes")
        if self._end < start + length:
            self._missing = start + length - self._end
            return None
        self._start = start + length
        return self._view[start : self._start]

    def keep_rest(self) -> None:
        """Put aside what is left over, so that others can use the scratch buffer."""
        self._rest = bytes(self._view[self._start : self._end])
        self._start, self._end = 0, len(self._rest)
