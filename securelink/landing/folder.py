"""Folders by their descriptors: opened one component at a time, no symbolic link followed."""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

import msgspec

from securelink.errors import BadName, BadPlace, NoRoom

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from securelink.errors import TransferError

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER_MODE = 0o700

DEEPEST = 200
"""Levels of folders that are looked through, each with a descriptor; names lead 100 deep."""

_F_FULLFSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)

_IN_THE_WAY = frozenset({errno.ELOOP, errno.ENOTDIR})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""A disk, or a quota on it, has no room."""

_UNNAMEABLE = frozenset({errno.ENAMETOOLONG, errno.EILSEQ})
# Somebody works in these folders too: what has gone, changed or is closed to us does not count.
_PASSED_OVER = _IN_THE_WAY | {errno.ENOENT, errno.EACCES}
# What file systems answer that can't do it, by fsync(2) and by experience with F_FULLFSYNC.
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY})


class Kind(enum.Enum):
    """What lies under a name."""

    FILE = "file"
    FOLDER = "folder"
    OTHER = "other"


class Existing(msgspec.Struct, frozen=True):
    """Something that is there; `size` is in bytes, 0 unless it is a file."""

    kind: Kind
    size: int


def open_root(root: Path, *, make: bool) -> int:
    """Open the receiving folder; a person may have made it a symbolic link.

    Raises:
        NotADirectoryError: something else lies there, or on the way.
        FileNotFoundError: there is nothing, and it is not, or can't, be made.
        OSError: it can't be opened.
    """
    try:
        if make:
            root.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileExistsError:
        raise no_folder(root) from None


def no_folder(path: Path) -> NotADirectoryError:
    """Return the error for something that should be a folder, for the one who put it there."""
    return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def check_writable(folder: int) -> None:
    """Raise what putting something into a folder would meet, without putting anything there.

    Raises:
        OSError: it is closed to this user, or its file system is read-only.
    """
    effective = os.access in os.supports_effective_ids
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=effective):
        is_read_only = os.fstatvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if is_read_only else errno.EACCES
        raise OSError(number, os.strerror(number))


def open_folder(name: str, within: int) -> int:
    """Open the folder *name* in the folder *within*.

    Raises:
        BadPlace: something else lies there.
        FileNotFoundError: nothing does.
    """
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=within)
    except OSError as error:
        if error.errno not in _IN_THE_WAY:
            raise
        raise BadPlace(f"{name} is a link or a file where a folder should be") from None


def make_folder(name: str, within: int) -> bool:
    """Make the folder *name* in *within*; False if something lies there already."""
    try:
        os.mkdir(name, FOLDER_MODE, dir_fd=within)
    except FileExistsError:
        return False
    return True


def look(name: str, within: int) -> Existing | None:
    """Return what lies under *name*, or None."""
    try:
        found = os.lstat(name, dir_fd=within)
    except FileNotFoundError:
        return None
    if stat.S_ISREG(found.st_mode):
        return Existing(Kind.FILE, found.st_size)
    return Existing(Kind.FOLDER if stat.S_ISDIR(found.st_mode) else Kind.OTHER, 0)


def files(folder: int) -> Iterator[tuple[tuple[str, ...], os.DirEntry[str]]]:
    """Yield all that is no folder below *folder*, with the components that lead there.

    An entry can be asked for its size only until the next one is taken.
    """
    levels: list[tuple[tuple[str, ...], int, Iterator[os.DirEntry[str]]]]
    levels = [((), folder, _entries(folder))]
    try:
        while levels:
            names, within, entries = levels[-1]
            entry = next(entries, None)
            if entry is None:
                if len(levels) > 1:
                    os.close(within)
                levels.pop()
            elif not entry.is_dir(follow_symlinks=False):
                yield (*names, entry.name), entry
            elif len(levels) <= DEEPEST:
                try:
                    inner = os.open(entry.name, FOLDER_FLAGS, dir_fd=within)
                except OSError as error:
                    if error.errno not in _PASSED_OVER:
                        raise
                else:
                    levels.append(((*names, entry.name), inner, _entries(inner)))
    finally:
        for _, within, _ in levels[1:]:
            os.close(within)


def find(folder: int, inodes: Collection[int]) -> dict[int, tuple[str, ...]]:
    """Return where below *folder* the files with these inodes lie, for those that do."""
    device = os.fstat(folder).st_dev
    found: dict[int, tuple[str, ...]] = {}
    for names, entry in files(folder):
        if len(found) == len(inodes):
            break
        if entry.inode() in inodes:
            status = status_of(entry)
            if status is not None and status.st_dev == device:
                found[status.st_ino] = names
    return found


def status_of(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return what the file system says of an entry, not of what it links to; None if it is gone."""
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def put_on_disk(descriptor: int) -> None:
    """Wait until a file or folder is on the disk itself."""
    if _F_FULLFSYNC is not None:
        try:
            fcntl.fcntl(descriptor, _F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise
        else:
            return
    os.fsync(descriptor)


def put_folder_on_disk(folder: int) -> None:
    """Wait until the names in a folder are on the disk itself, if its file system can do that."""
    try:
        put_on_disk(folder)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def failure(error: OSError, name: str) -> TransferError:
    """Return what to tell of an error that putting *name* into its place has met."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in FULL:
        return NoRoom(f"there is no room for {name}: {reason}")
    if error.errno in _UNNAMEABLE:
        return BadName(f"{name} can't be the name of a file here: {reason}")
    return BadPlace(f"{name} can't be put there: {reason}")


def _entries(folder: int) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return iter(list(entries))
