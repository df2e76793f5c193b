"""Folders by their descriptors: opened one component at a time, no symbolic link followed."""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from securelink.errors import BadPlace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER_MODE = 0o700

_F_FULLFSYNC = getattr(fcntl, "F_FULLFSYNC", None)


class Kind(enum.Enum):
    """What lies under a name."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Existing:
    """Something that is there; `size` is in bytes."""

    kind: Kind
    size: int


def open_root(root: Path) -> int:
    """Open the receiving folder, made if it is missing; a person may have made it a link."""
    root.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
    return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_folder(name: str, within: int, *, make: bool) -> int:
    """Open the folder *name* in the folder *within*.

    Raises:
        BadPlace: something else lies there.
        FileNotFoundError: nothing does, and it is not to be made.
    """
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=within)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as error:
        raise _bad_place(name, error) from None
    try:
        os.mkdir(name, FOLDER_MODE, dir_fd=within)
        os.fsync(within)
    except FileExistsError:
        pass
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=within)
    except OSError as error:
        raise _bad_place(name, error) from None


def open_path(names: Sequence[str], within: int, *, make: bool) -> int:
    """Open the folder that *names* lead to from *within*, which stays open.

    Raises:
        BadPlace, FileNotFoundError: as `open_folder`.
    """
    folder = os.dup(within)
    for name in names:
        try:
            inner = open_folder(name, folder, make=make)
        finally:
            os.close(folder)
        folder = inner
    return folder


def look(name: str, within: int) -> Existing | None:
    """Return what lies under *name*, or None."""
    try:
        found = os.lstat(name, dir_fd=within)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(found.st_mode):
        return Existing(Kind.FILE, found.st_size)
    return Existing(Kind.FOLDER if stat.S_ISDIR(found.st_mode) else Kind.OTHER, 0)


def files(
    folder: int, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], os.stat_result]]:
    """Yield all that is no folder below *folder*, with the components that lead there."""
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        try:
            if is_folder:
                inner = os.open(name, FOLDER_FLAGS, dir_fd=folder)
                try:
                    yield from files(inner, (*names, name))
                finally:
                    os.close(inner)
            else:
                yield (*names, name), os.lstat(name, dir_fd=folder)
        except OSError as error:
            # Somebody works in that folder too: what has gone or changed does not count.
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES}:
                raise


def put_on_disk(descriptor: int) -> None:
    """Wait until a file or folder is on the disk itself."""
    if _F_FULLFSYNC is not None:
        fcntl.fcntl(descriptor, _F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _bad_place(name: str, error: OSError) -> Exception:
    if error.errno in {errno.ELOOP, errno.ENOTDIR}:
        return BadPlace(f"{name} is a link or a file where a folder should be")
    return error
