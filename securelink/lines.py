"""The lines of a pipe, as they come: whole ones, and what is left at its end."""

from __future__ import annotations

import asyncio
import os
import threading

BLOCK_SIZE = 64 * 1024
"""Bytes that are read at a time."""

MOST_AHEAD = 16
"""Blocks that are read ahead of whoever takes the lines."""


class Lines:
    """Reads a descriptor in a thread, as a read may take for ever and can't be called off.

    Args:
        descriptor: open for reading, and left open.
        longest: of a line longer than this, in bytes, no more is kept than whoever takes it needs
            to say that it is too long.
    """

    def __init__(self, descriptor: int, longest: int) -> None:
        self._descriptor = descriptor
        # One byte more than is allowed, and one that may belong to the end of the line.
        self._kept = longest + 2
        self._loop = asyncio.get_running_loop()
        self._blocks: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._room = threading.Semaphore(MOST_AHEAD)
        self._rest = bytearray()
        self._ended = False
        threading.Thread(target=self._read, name="lines", daemon=True).start()

    async def next(self) -> list[bytes]:
        """Return the next lines, all that are here, without their ends; none after the last.

        Raises:
            OSError: they can't be read.
        """
        while not self._ended:
            block = await self._blocks.get()
            self._room.release()
            if isinstance(block, OSError):
                raise block
            if not block:
                self._ended = True
                return [bytes(self._rest)] if self._rest else []
            lines = self._split(block)
            if lines:
                return lines
        return []

    def _split(self, block: bytes) -> list[bytes]:
        first, *others = block.split(b"\n")
        self._keep(first)
        if not others:
            return []
        lines = [bytes(self._rest), *(line[: self._kept] for line in others[:-1])]
        self._rest.clear()
        self._keep(others[-1])
        return [line.removesuffix(b"\r") for line in lines]

    def _keep(self, piece: bytes) -> None:
        self._rest += piece[: self._kept - len(self._rest)]

    def _read(self) -> None:
        while True:
            self._room.acquire()
            block: bytes | OSError
            try:
                block = os.read(self._descriptor, BLOCK_SIZE)
            except OSError as error:
                block = error
            try:
                self._loop.call_soon_threadsafe(self._blocks.put_nowait, block)
            except RuntimeError:
                return  # the loop is closed: nobody waits
            if not block or isinstance(block, OSError):
                return
