"""Locks between processes that the kernel frees however their holder ends, kill -9 included.

A lock is `flock(2)` on a file of its own: exclusive by whoever holds it, shared for the moment in
which somebody looks whether it is held. Python opens files close-on-exec, so a lock does not
outlive its process in a child that it started; after a bare `os.fork` both would hold it.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

from securelink.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class FileLock:
    """A lock that this process holds until `release`; made by `acquire`, never by hand."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd: int | None = fd

    @classmethod
    def acquire(cls, path: Path) -> Self | None:
        """Take the lock at *path*, making its file if need be; None if somebody else holds it.

        Never waits. Two locks on one path exclude each other within one process too.

        Raises:
            StoreError: if the file can't be made or locked.
        """
        while True:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise _cannot_lock(path, error) from error
            try:
                if not _lock(fd):
                    os.close(fd)
                    return None
                # Whoever held it before us may have unlinked the file that we opened; then the
                # next process would make a new one, and both would hold "the" lock.
                if _is_still_at(fd, path):
                    return cls(path, fd)
            except OSError as error:
                os.close(fd)
                raise _cannot_lock(path, error) from error
            os.close(fd)

    def release(self, *, unlink: bool = False) -> None:
        """Give the lock up, and with *unlink* delete its file; nothing happens a second time."""
        if self._fd is None:
            return
        fd, self._fd = self._fd, None
        try:
            # While still locked: afterwards the file might be somebody else's lock.
            if unlink:
                self.path.unlink(missing_ok=True)
        finally:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def is_held(path: Path) -> bool:
    """Tell whether some process, this one included, holds the lock at *path*.

    Whoever tries to acquire it at the same moment is not disturbed.

    Raises:
        StoreError: if the file can't be read or locked.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _cannot_lock(path, error) from error
    try:
        return not _flock(fd, fcntl.LOCK_SH)
    except OSError as error:
        raise _cannot_lock(path, error) from error
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Take the exclusive lock unless it is held, not counting those who only look."""
    while not _flock(fd, fcntl.LOCK_EX):
        if not _flock(fd, fcntl.LOCK_SH):
            return False
        # Only `is_held`, or another `_lock` at this very place, was in the way.
        fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def _flock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still_at(fd: int, path: Path) -> bool:
    try:
        there = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def _cannot_lock(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot lock {path}: {error.strerror}", hint=f"see who owns {path.parent}, and its disk"
    )
