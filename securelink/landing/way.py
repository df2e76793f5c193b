"""`Way`: the folders on the way to where a file goes, open one below the other."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from securelink.filenames import OWN_FOLDER
from securelink.landing.folder import (
    FOLDER_MODE,
    FULL,
    check_writable,
    make_folder,
    open_folder,
    open_root,
    put_folder_on_disk,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

T = TypeVar("T")

_WRITABLE = 0o300

_OF_SENDERS = 2
"""From this level on the folders are a sender's, and so are their modes. Above it are the receiving
folder and those of the peers in it: who closed one of them meant it."""


@dataclass(slots=True)
class _Level:
    descriptor: int
    changed: bool = False
    """It holds names that may not be on the disk yet."""
    mode: int | None = None
    """What it had before it was opened up; None if it was not."""


class Way:
    """From the receiving folder down to the one that was entered last.

    Each folder stays open until another way is taken, so that neighbours cost nothing and nobody
    can put a link into its place. What was put into it is put on the disk when it is left.

    Args:
        start: the descriptor of the receiving folder, which is this object's from now on.
        make: whether folders that are missing are made.

    Attributes:
        failed: the error of the first folder that could not be put on the disk.
    """

    def __init__(self, start: int, *, make: bool) -> None:
        self._make = make
        self._names: tuple[str, ...] = ()
        self._levels = [_Level(start)]
        self.failed: OSError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave all folders."""
        self._leave(0)

    def enter(self, names: Sequence[str]) -> int:
        """Return the descriptor of the folder that *names* lead to; it is open until the next call.

        Raises:
            BadPlace: something else lies there, or on the way.
            FileNotFoundError: nothing does, and folders are not to be made.
        """
        names = tuple(names)
        if names != self._names:
            shared = 0
            for old, new in zip(self._names, names, strict=False):
                if old != new:
                    break
                shared += 1
            self._leave(shared + 1)
            for name in names[shared:]:
                self._go_down(name)
        return self._levels[-1].descriptor

    def change(self, do: Callable[[int], T]) -> T:
        """Have *do* put something into the folder that was entered last.

        Where the sender's mode keeps its owner from doing that, it is opened up until it is left.

        Raises:
            PermissionError: the person here has closed it.
        """
        level = self._levels[-1]
        try:
            done = do(level.descriptor)
        except PermissionError:
            if len(self._levels) <= _OF_SENDERS or not _open_up(level):
                raise
            done = do(level.descriptor)
        level.changed = True
        return done

    def _go_down(self, name: str) -> None:
        within = self._levels[-1].descriptor
        try:
            inner = open_folder(name, within)
        except FileNotFoundError:
            if not self._make:
                raise
            self.change(lambda folder: make_folder(name, folder))
            inner = open_folder(name, within)
        self._levels.append(_Level(inner))
        self._names = (*self._names, name)

    def _leave(self, kept: int) -> None:
        """Leave all folders but the first *kept*."""
        self._names = self._names[: max(kept - 1, 0)]
        while len(self._levels) > kept:
            level = self._levels.pop()
            try:
                if level.mode is not None:
                    os.fchmod(level.descriptor, level.mode)
                if level.changed:
                    put_folder_on_disk(level.descriptor)
            except OSError as error:
                self.failed = self.failed or error
            finally:
                os.close(level.descriptor)


def prepare(root: Path) -> None:
    """Make the receiving folder if it is missing, and see that something can be put into it.

    That a disk is full passes, and is told of the files that it keeps out.

    Raises:
        OSError: it can't be made, read or written.
        BadPlace: the folder of parts in it is none.
    """
    try:
        with Way(open_root(root, make=True), make=True) as way:
            check_writable(way.enter(()))
            check_writable(way.enter((OWN_FOLDER,)))
    except OSError as error:
        if error.errno not in FULL:
            raise


def _open_up(level: _Level) -> bool:
    """Let the owner of a folder put something into it; False if that was not in the way."""
    found = os.fstat(level.descriptor)
    if level.mode is not None or found.st_mode & _WRITABLE == _WRITABLE:
        return False
    os.fchmod(level.descriptor, FOLDER_MODE)
    level.mode = found.st_mode & 0o7777
    return True
