"""A part: a file that is not whole yet, under a name that its ID gives.

Whoever writes it holds a lock on it, which the kernel frees with the process. It is written in
order and never preallocated, so that its size tells how much is there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

from securelink.errors import BadPlace, PartInUse
from securelink.filenames import OWN_FOLDER
from securelink.landing.folder import put_on_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

READ_SIZE = 1 << 20
MOST_VIEWS = 1024
"""Buffers for one system call: IOV_MAX, on Linux and macOS."""

KEY_PREFIX = 16
"""Hexadecimal digits of the peer's key in the name of a part."""

SUFFIX = ".part"

MODE = 0o600

_NO_FILE = frozenset({errno.ELOOP, errno.EISDIR, errno.ENXIO})

# A pipe in its place must not hold us up.
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def part_name(peer_key: bytes, message_id: bytes) -> str:
    """Return the name of a part in the folder of parts."""
    return f"{peer_key.hex()[:KEY_PREFIX]}-{message_id.hex()}{SUFFIX}"


def part_path(root: Path, peer_key: bytes, message_id: bytes) -> Path:
    """Return where the part of a file lies."""
    return root / OWN_FOLDER / part_name(peer_key, message_id)


class Part:
    """A part that this process writes. Made by `open`.

    Attributes:
        id: the file's, 16 bytes.
        name: its name in the folder of parts.
        folder: the descriptor of that folder.
        size: bytes that are there.
        created: it was not there before.
        inode: its number in its file system.
        beside: names in the folder of parts that go when it does.
    """

    __slots__ = ("_descriptor", "beside", "created", "folder", "id", "inode", "name", "size")

    def __init__(
        self,
        message_id: bytes,
        descriptor: int,
        folder: int,
        name: str,
        found: os.stat_result,
        *,
        created: bool,
    ) -> None:
        self.id = message_id
        self.name = name
        self.folder = folder
        self.size = found.st_size
        self.created = created
        self.inode = found.st_ino
        self.beside: tuple[str, ...] = ()
        self._descriptor = descriptor

    @classmethod
    def open(cls, message_id: bytes, folder: int, name: str) -> Part:
        """Make or open the part *name* in *folder*, which must stay open as long as this.

        It may have more `links` than one: then it is not to be written to.

        Raises:
            PartInUse: a living process holds it.
            BadPlace: something else lies there.
        """
        while True:
            descriptor, created = _open(name, folder)
            try:
                found = _locked(descriptor, name)
                # Whoever had it before may have discarded it, or given it its name, between the
                # opening and the lock.
                if found.st_nlink and (created or _is_at(name, folder, found)):
                    return cls(message_id, descriptor, folder, name, found, created=created)
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    @property
    def links(self) -> int:
        """How many names it has: with more than one it has landed."""
        return os.fstat(self._descriptor).st_nlink

    def is_at_its_name(self) -> bool:
        """Whether the name in the folder of parts still leads to it."""
        return _is_at(self.name, self.folder, os.fstat(self._descriptor))

    def write(self, views: Sequence[memoryview | bytes]) -> None:
        """Append bytes; `size` grows by what was written, also when this raises.

        Raises:
            OSError: the disk takes no more.
        """
        for start in range(0, len(views), MOST_VIEWS):
            some = views[start : start + MOST_VIEWS]
            written = os.pwritev(self._descriptor, some, self.size)
            self.size += written
            if written < sum(map(len, some)):
                self._write_rest(some, written)

    def _write_rest(self, views: Sequence[memoryview | bytes], done: int) -> None:
        """Write what follows the first *done* bytes: usually to learn what is in the way."""
        for view in views:
            rest = memoryview(view)[done:]
            done = max(done - len(view), 0)
            while rest:
                written = os.pwrite(self._descriptor, rest, self.size)
                self.size += written
                rest = rest[written:]

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
            for name in (self.name, *self.beside):
                remove(name, self.folder)
            self.close()


def lock(descriptor: int) -> bool:
    """Become the one who receives into a part; False if somebody else is."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def remove(name: str, folder: int) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def _open(name: str, folder: int) -> tuple[int, bool]:
    """Return a descriptor for a part, and whether it was made."""
    while True:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS
            return os.open(name, flags, MODE, dir_fd=folder), True
        except FileExistsError:
            pass
        try:
            return os.open(name, os.O_RDWR | _FLAGS, dir_fd=folder), False
        except FileNotFoundError:
            continue
        except PermissionError:
            _make_writable(name, folder)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            raise BadPlace(f"{name} in {OWN_FOLDER} is no file") from None


def _locked(descriptor: int, name: str) -> os.stat_result:
    """Lock a part, and return what the file system says of it."""
    if not lock(descriptor):
        raise PartInUse("another process receives this file at present")
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise BadPlace(f"{name} in {OWN_FOLDER} is no file")
    return found


def _make_writable(name: str, folder: int) -> None:
    """Take a mode back that the file was to have under its own name."""
    descriptor = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=folder)
    try:
        _locked(descriptor, name)
        os.fchmod(descriptor, MODE)
    finally:
        os.close(descriptor)


def _is_at(name: str, folder: int, found: os.stat_result) -> bool:
    try:
        there = os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, found)
