"""Digests of what is here already, made beside the disk thread: they may take minutes."""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.incoming.files import File

BLOCK_SIZE = 1 << 20

Work: TypeAlias = "Callable[[], bytes]"
"""Returns a digest; raises OSError if what is to be digested can't be read."""


class Digester(threading.Thread):
    """One thread that makes one digest after the other.

    Args:
        done: told each number and its digest, None if there is none; in this thread.
    """

    def __init__(self, done: Callable[[int, bytes | None], None]) -> None:
        super().__init__(name="digests", daemon=True)
        self._done = done
        self._waiting: queue.SimpleQueue[tuple[int, Work] | None] = queue.SimpleQueue()
        self.start()

    def put(self, number: int, work: Work) -> None:
        """Have one more digest made."""
        self._waiting.put((number, work))

    def stop(self) -> None:
        """End when those that wait are made."""
        self._waiting.put(None)

    def run(self) -> None:
        """Work until `stop`."""
        while (item := self._waiting.get()) is not None:
            number, work = item
            try:
                digest = work()
            except OSError:
                digest = None
            self._done(number, digest)


def of_file(descriptor: int, size: int, cancelled: Callable[[], bool]) -> bytes:
    """The SHA-256 of the first bytes of an open file, which is closed; of fewer if it is shorter.

    Raises:
        OSError: it can't be read.
    """
    digest = hashlib.sha256()
    offset = 0
    try:
        while offset < size and not cancelled():
            block = os.pread(descriptor, min(BLOCK_SIZE, size - offset), offset)
            if not block:
                break
            digest.update(block)
            offset += len(block)
    finally:
        os.close(descriptor)
    return digest.digest()


def of_part(file: File) -> bytes:
    """The SHA-256 of what is here of a file; its running digest knows these bytes from then on.

    Raises:
        OSError: it can't be read.
    """
    digest = file.hash if file.hash is not None else hashlib.sha256()
    file.own_part.digest_prefix(file.told, digest.update, lambda: file.dropped)
    return bytes(digest.digest())
