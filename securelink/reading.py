"""A file that is being sent, read without ever holding up the event loop for long.

What the kernel has in memory is read at once; for all else a thread waits for the disk.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK_SIZE = 1 << 20
"""Bytes that a thread reads at a time."""

SLOWEST = 10_000_000
"""Bytes a second at least that any disk gives: who claims to read what it has of a file is given
up when it takes longer."""

SLOW = 0.02
"""Seconds that one read may take where the kernel can't say beforehand whether it waits."""

_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class Reader(Protocol):
    """Bytes in order, some of them now."""

    def read_into(self, room: memoryview) -> int:
        """Take bytes that are here; 0 if none are, and then `ready` is called when some are."""

    @property
    def is_ready(self) -> bool:
        """Whether `read_into` has something to give, or knows of an error or the end."""

    def close(self) -> None:
        """Read no more."""


class FileReader:
    """A regular file from an offset on.

    Args:
        descriptor: open for reading; this object closes it.
        offset: where to begin.
        ready: called in the event loop when there is more after `read_into` gave nothing.

    Attributes:
        descriptor: to look at the file, until `close`.
        error: why nothing more can be read.
        ended: the file has no more bytes.
    """

    def __init__(self, descriptor: int, offset: int, ready: Callable[[], None]) -> None:
        self.descriptor = descriptor
        self.error: OSError | None = None
        self.ended = False
        self._offset = offset
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._block = memoryview(b"")
        self._waiting = False
        self._closed = False
        self._flags = _NOWAIT
        self._in_thread = False

    @property
    def is_ready(self) -> bool:
        """Whether `read_into` may be called."""
        return not self._waiting

    def read_into(self, room: memoryview) -> int:
        """Take what is here; 0 if nothing is, or after the end or an error."""
        if self._block:
            count = min(len(self._block), len(room))
            room[:count] = self._block[:count]
            self._block = self._block[count:]
            return count
        if self._waiting or self.ended or self.error is not None:
            return 0
        if not self._in_thread:
            now = self._read_now(room)
            if now is not None:
                return now
        self._waiting = True
        threading.Thread(target=self._read_block, name="reading", daemon=True).start()
        return 0

    def close(self) -> None:
        """Read no more; a thread that still reads closes the file when it is done."""
        if not self._closed:
            self._closed = True
            if not self._waiting:
                os.close(self.descriptor)

    def _read_now(self, room: memoryview) -> int | None:
        """Read what is in memory; None if that is nothing, 0 at the end or after an error."""
        began = time.monotonic()
        try:
            if self._flags:
                try:
                    count = os.preadv(self.descriptor, [room], self._offset, self._flags)
                except BlockingIOError:
                    return None
                except OSError:
                    # This file system can't say: it is tried, and watched.
                    self._flags = 0
                    count = os.preadv(self.descriptor, [room], self._offset)
            else:
                count = os.preadv(self.descriptor, [room], self._offset)
        except OSError as error:
            self.error = error
            return 0
        if not self._flags and time.monotonic() - began > SLOW:
            self._in_thread = True
        self._offset += count
        self.ended = not count
        return count

    def _read_block(self) -> None:
        try:
            block, error = os.pread(self.descriptor, BLOCK_SIZE, self._offset), None
        except OSError as raised:
            block, error = b"", raised
        try:
            self._loop.call_soon_threadsafe(self._take_block, block, error)
        except RuntimeError:
            # The loop is gone, and with it whoever wanted this.
            os.close(self.descriptor)

    def _take_block(self, block: bytes, error: OSError | None) -> None:
        self._waiting = False
        if self._closed:
            os.close(self.descriptor)
            return
        self.error = error
        self.ended = not block and error is None
        self._block = memoryview(block)
        self._offset += len(block)
        self._ready()


class StreamReader:
    """Something that is read once, from its beginning to its end, such as a pipe.

    A thread reads ahead, `BLOCKS_AHEAD` blocks at most: a read of a pipe may take for ever, and
    can't be called off.

    Args:
        descriptor: open for reading, and left open.
        ready: as for `FileReader`.
    """

    BLOCKS_AHEAD = 4
    SIZE = 256 * 1024

    def __init__(self, descriptor: int, ready: Callable[[], None]) -> None:
        self._failure: OSError | None = None
        self._at_end = False
        self._descriptor = descriptor
        self._ready = ready
        self._loop = asyncio.get_running_loop()
        self._blocks: list[memoryview] = []
        self._room = threading.Semaphore(self.BLOCKS_AHEAD)
        self._closed = False
        threading.Thread(target=self._read, name="reading", daemon=True).start()

    @property
    def is_ready(self) -> bool:
        """Whether there are bytes, or an end."""
        return bool(self._blocks) or self._at_end

    @property
    def ended(self) -> bool:
        """Whether all there ever was has been taken."""
        return self._at_end and self._failure is None and not self._blocks

    @property
    def error(self) -> OSError | None:
        """Why there is no more, once all that came before it was taken."""
        return None if self._blocks else self._failure

    def read_into(self, room: memoryview) -> int:
        """Take what is here."""
        if not self._blocks:
            return 0
        block = self._blocks[0]
        count = min(len(block), len(room))
        room[:count] = block[:count]
        if count < len(block):
            self._blocks[0] = block[count:]
        else:
            del self._blocks[0]
            self._room.release()
        return count

    def close(self) -> None:
        """Read no more."""
        self._closed = True
        self._room.release()

    def _read(self) -> None:
        while True:
            self._room.acquire()
            if self._closed:
                return
            try:
                block, error = os.read(self._descriptor, self.SIZE), None
            except OSError as raised:
                block, error = b"", raised
            try:
                self._loop.call_soon_threadsafe(self._take, block, error)
            except RuntimeError:
                return
            if not block:
                return

    def _take(self, block: bytes, error: OSError | None) -> None:
        if block:
            self._blocks.append(memoryview(block))
        else:
            self._failure = error
            self._at_end = True
        self._ready()
