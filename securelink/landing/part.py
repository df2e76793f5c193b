"""A part: a file that is not whole yet, under a name that its ID gives.

Whoever writes it holds a lock on it, which the kernel frees with the process. It is written in
order and never preallocated, so that its size tells how much is there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING

from securelink.errors import PartInUse
from securelink.filenames import OWN_FOLDER
from securelink.landing.folder import put_on_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

READ_SIZE = 1 << 20
MOST_VIEWS = 512
"""Buffers for one system call; Linux and macOS take 1,024."""

KEY_PREFIX = 16
"""Hexadecimal digits of the peer's key in the name of a part."""

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC


def part_name(peer_key: bytes, message_id: bytes) -> str:
    """Return the name of a part in the folder of parts."""
    return f"{peer_key.hex()[:KEY_PREFIX]}-{message_id.hex()}.part"


def part_path(root: Path, peer_key: bytes, message_id: bytes) -> Path:
    """Return where the part of a file lies."""
    return root / OWN_FOLDER / part_name(peer_key, message_id)


class Part:
    """A part that this process writes. Made by `open`.

    Attributes:
        id: the file's, 16 bytes.
        size: bytes that are there.
        created: it was not there before.
    """

    __slots__ = ("_descriptor", "_folder", "_name", "created", "id", "size")

    def __init__(
        self, message_id: bytes, descriptor: int, folder: int, name: str, *, created: bool
    ) -> None:
        self.id = message_id
        self.size = 0 if created else os.fstat(descriptor).st_size
        self.created = created
        self._descriptor = descriptor
        self._folder = folder
        self._name = name

    @classmethod
    def open(cls, message_id: bytes, folder: int, name: str) -> Part:
        """Make or open the part *name* in *folder*, which must stay open as long as this.

        Raises:
            PartInUse: a living process holds it.
        """
        while True:
            try:
                descriptor = os.open(name, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
                created = True
            except FileExistsError:
                created = False
                try:
                    descriptor = os.open(name, _FLAGS, dir_fd=folder)
                except FileNotFoundError:
                    continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise PartInUse("another process receives this file at present") from None
            links = os.fstat(descriptor).st_nlink
            if links == 1:
                return cls(message_id, descriptor, folder, name, created=created)
            if links > 1:
                # It has its name already: what is written now must not change that file.
                os.unlink(name, dir_fd=folder)
            # Else somebody has tidied it away between the two calls.
            os.close(descriptor)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    @property
    def name(self) -> str:
        """Its name in the folder of parts."""
        return self._name

    def write(self, views: Sequence[memoryview | bytes]) -> None:
        """Append bytes; `size` grows by what was written, also when this raises.

        Raises:
            OSError: the disk takes no more.
        """
        waiting = [memoryview(view) for view in views if len(view)]
        while waiting:
            count = os.pwritev(self._descriptor, waiting[:MOST_VIEWS], self.size)
            self.size += count
            while count:
                first = waiting[0]
                if count < len(first):
                    waiting[0] = first[count:]
                    break
                count -= len(first)
                del waiting[0]

    def truncate(self, size: int) -> None:
        """Keep the first *size* bytes alone."""
        if size != self.size:
            os.ftruncate(self._descriptor, size)
            self.size = size

    def digest_prefix(
        self,
        size: int,
        update: Callable[[memoryview], object],
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Give the first *size* bytes to *update*, until *cancelled* says so.

        Raises:
            OSError: they can't be read.
        """
        offset = 0
        while offset < size and not cancelled():
            block = os.pread(self._descriptor, min(READ_SIZE, size - offset), offset)
            if not block:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            update(memoryview(block))
            offset += len(block)

    def sync(self) -> None:
        """Wait until what was written is on the disk itself."""
        put_on_disk(self._descriptor)

    def close(self) -> None:
        """Let go of it; it stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def discard(self) -> None:
        """Remove it, under this name, and let go of it."""
        if self._descriptor >= 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._name, dir_fd=self._folder)
            self.close()
