"""The walk over files to send, and each of them opened later as what it was then.

A path given by a person may lead through symbolic links up to its last component; from there on
none is followed, also not one that takes a folder's place while the walk is under way. That is
why every file below a folder is opened one component at a time (openat(2) with O_NOFOLLOW).

One file is never sent: the private key of the node that sends. It is known by device and inode,
because a hard link to it may have any name.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import msgspec

from securelink.errors import SourceChanged, SourceUnreadable, TransferError, UsageError
from securelink.file_messages import OWNER_MODE
from securelink.filenames import LONGEST_NAME, MOST_COMPONENTS
from securelink.store.file_terms import Kind, NewFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Source: TypeAlias = NewFile
"""What the walk finds is what the outbox takes."""

IS_LINK = "a symbolic link, which is not followed"
IS_SPECIAL = "neither a file nor a folder"
IS_KEY = "it is this node's private key"
IS_GONE = "gone while it was looked at"
IS_UNNAMED = "a name that is not UTF-8"
IS_LONG = "too long or too deep a path to be sent"

_ON_PURPOSE = frozenset({IS_LINK, IS_SPECIAL, IS_KEY})

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A pipe that has taken the place of a file must not hold us up, a terminal not become ours.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_ELSEWHERE = (errno.ELOOP, errno.ENOTDIR)
"""What the kernel says where a symbolic link stands for a file; and where one for a folder."""


class FileId(NamedTuple):
    """What a file is, whatever it is called."""

    device: int
    inode: int


def file_id(path: Path) -> FileId | None:
    """Return what *path* leads to, through symbolic links too; None if there is nothing.

    Raises:
        OSError: it can't be told.
    """
    try:
        now = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileId(now.st_dev, now.st_ino)


class Argument(msgspec.Struct, frozen=True):
    """A file or folder that a person named."""

    path: bytes
    """Absolute, and no symbolic link before the last component."""
    name: str
    """What it is called on the other side: the last component."""


class Skipped(msgspec.Struct, frozen=True):
    """Something that is not sent."""

    path: bytes
    reason: str
    """What it is, or why it can't be read."""

    @property
    def is_missed(self) -> bool:
        """Whether it was to go: a link, for one, is left out on purpose."""
        return self.reason not in _ON_PURPOSE


class Known(Protocol):
    """A file as it was when it was looked at; every row of the outbox is one."""

    @property
    def path(self) -> bytes:
        """Absolute."""

    @property
    def name(self) -> str:
        """Has as many components as the path has from the argument's own on."""

    @property
    def size(self) -> int | None:
        """In bytes."""

    @property
    def mtime(self) -> int:
        """In nanoseconds since 1970."""

    @property
    def inode(self) -> int:
        """Its number in its file system."""


def top_level(path: str, key: FileId | None = None) -> Argument:
    """Return what *path* names: a file, a folder, or a symbolic link that `walk` will skip.

    Args:
        path: what a person wrote.
        key: this node's private key.

    Raises:
        UsageError: there is no such thing, it has no name of its own, or it can't be sent.
        SourceUnreadable: it may not be read.
    """
    if not path:
        raise UsageError("an empty path names no file")
    try:
        absolute = _absolute(os.fsencode(path))
        status = os.lstat(absolute)
        mode = status.st_mode
        if _is(status, key):
            raise UsageError(f"{path} is this node's private key: it is not sent")
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            os.close(os.open(absolute, _FILE))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file or folder") from None
    except NotADirectoryError:
        raise UsageError(f"{path}: a file stands where a folder should be") from None
    except OSError as error:
        raise SourceUnreadable(f"{path} can't be read: {_reason(error)}") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
        raise UsageError(f"{path} is {IS_SPECIAL}", hint="pipe what it gives into: --file -")
    name = _decoded(absolute.rpartition(b"/")[2])
    if name is None:
        raise UsageError(f"{path} has {IS_UNNAMED}", hint="rename it")
    if not name:
        raise UsageError(f"{path} has no name to be sent under", hint="name what is in it")
    return Argument(absolute, name)


def walk(argument: Argument, key: FileId | None = None) -> Iterator[Source | Skipped]:
    """Yield everything that *argument* leads to: the files of a folder, its folders, itself.

    A folder comes after all that is in it, so that its times and mode can be set last. Names are
    sorted. However large and deep the tree is, no more is held than the names of one folder and
    those of the folders that are still to come beside and above it.

    Args:
        argument: a file or folder.
        key: this node's private key, which is skipped wherever it is.
    """
    pending: list[Source | tuple[bytes, str]] = []
    try:
        mode = os.lstat(argument.path).st_mode
        if stat.S_ISDIR(mode):
            pending.append((argument.path, argument.name))
        else:
            yield _look(argument.path, argument.path, argument.name, stat.S_IFMT(mode), key)
    except OSError as error:
        yield Skipped(argument.path, _reason(error))
    while pending:
        match pending.pop():
            case (path, name):
                yield from _visit(path, name, pending, key)
            case folder:
                yield folder


def open_source(source: Known) -> int:
    """Return a descriptor for reading *source*, which is the file that was looked at.

    Raises:
        SourceChanged: it is gone, or something else now.
        SourceUnreadable: it can't be read.
    """
    try:
        descriptor = _open(source.path, source.name.count("/"), _FILE)
    except OSError as error:
        raise _failure(source, error) from None
    try:
        if unchanged(descriptor, source):
            return descriptor
    except SourceUnreadable:
        os.close(descriptor)
        raise
    os.close(descriptor)
    raise SourceChanged(f"{os.fsdecode(source.path)} has changed")


def unchanged(descriptor: int, source: Known) -> bool:
    """Return whether the open file is still what *source* says.

    Raises:
        SourceUnreadable: the disk doesn't tell.
    """
    try:
        now = os.fstat(descriptor)
    except OSError as error:
        raise _failure(source, error) from None
    seen = (source.size, source.mtime, source.inode)
    return stat.S_ISREG(now.st_mode) and (now.st_size, now.st_mtime_ns, now.st_ino) == seen


def look_again(source: Known, key: FileId | None = None) -> Source:
    """Return what a file is now, under the name that it had.

    Args:
        source: what it was.
        key: this node's private key.

    Raises:
        SourceChanged: it is gone, or no file any more.
        SourceUnreadable: it can't be read, or is that key now.
    """
    try:
        descriptor = _open(source.path, source.name.count("/"), _FILE)
    except OSError as error:
        raise _failure(source, error) from None
    try:
        now = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(now.st_mode):
        raise SourceChanged(f"{os.fsdecode(source.path)} has changed")
    if _is(now, key):
        path = os.fsdecode(source.path)
        raise SourceUnreadable(f"{path} is this node's private key: it is not sent")
    return _source(source.path, source.name, Kind.FILE, now)


def _absolute(path: bytes) -> bytes:
    parent, last = os.path.split(path.rstrip(b"/"))
    if last in (b"", b".", b".."):
        return os.path.realpath(path)
    return os.path.realpath(parent or b".").rstrip(b"/") + b"/" + last


def _visit(
    path: bytes, name: str, pending: list[Source | tuple[bytes, str]], key: FileId | None
) -> Iterator[Source | Skipped]:
    """Yield the files of a folder, and put the folder itself and those in it onto *pending*."""
    try:
        folder = _open(path, name.count("/"), _FOLDER)
    except OSError as error:
        yield Skipped(path, _reason(error))
        return
    folders: list[tuple[bytes, str]] = []
    try:
        pending.append(_source(path, name, Kind.FOLDER, os.fstat(folder)))
        with os.scandir(folder) as entries:
            found = sorted((os.fsencode(entry.name), _kind(entry)) for entry in entries)
        for raw, kind in found:
            inner, called = path + b"/" + raw, _decoded(raw)
            if called is None:
                yield Skipped(inner, IS_UNNAMED)
            elif _is_long(f"{name}/{called}"):
                yield Skipped(inner, IS_LONG)
            elif kind == stat.S_IFDIR:
                folders.append((inner, f"{name}/{called}"))
            else:
                yield _look(raw, inner, f"{name}/{called}", kind, key, folder)
    except OSError as error:
        yield Skipped(path, _reason(error))
    finally:
        os.close(folder)
    pending.extend(reversed(folders))


def _look(
    file: bytes,
    path: bytes,
    name: str,
    kind: int,
    key: FileId | None,
    folder: int | None = None,
) -> Source | Skipped:
    """Open what is no folder for a moment: so it can be read, and what it is belongs to it."""
    if kind == stat.S_IFLNK:
        return Skipped(path, IS_LINK)
    if kind != stat.S_IFREG:
        return Skipped(path, IS_SPECIAL)
    try:
        descriptor = os.open(file, _FILE, dir_fd=folder)
    except OSError as error:
        return Skipped(path, _reason(error))
    try:
        now = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(now.st_mode):
        return Skipped(path, IS_SPECIAL)
    if _is(now, key):
        return Skipped(path, IS_KEY)
    return _source(path, name, Kind.FILE, now)


def _kind(entry: os.DirEntry[str]) -> int:
    """The type of an entry, as in the upper bits of its mode; most file systems list it."""
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFREG if entry.is_file(follow_symlinks=False) else stat.S_IFIFO


def _open(path: bytes, below: int, flags: int) -> int:
    """Open *path*, whose last *below* components are below the argument's own."""
    top, *inner = path.rsplit(b"/", below)
    descriptor = os.open(top, _FOLDER if inner else flags)
    for number, component in enumerate(inner, start=1):
        folder = descriptor
        try:
            descriptor = os.open(component, flags if number == below else _FOLDER, dir_fd=folder)
        finally:
            os.close(folder)
    return descriptor


def _is(status: os.stat_result, key: FileId | None) -> bool:
    return (status.st_dev, status.st_ino) == key


def _source(path: bytes, name: str, kind: Kind, now: os.stat_result) -> Source:
    return Source(
        name=name,
        path=path,
        kind=kind,
        size=now.st_size if kind is Kind.FILE else None,
        mtime=now.st_mtime_ns,
        inode=now.st_ino,
        mode=now.st_mode & OWNER_MODE,
    )


def _is_long(name: str) -> bool:
    """Whether the other side would refuse to take it."""
    return len(name.encode()) > LONGEST_NAME or name.count("/") >= MOST_COMPONENTS


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _failure(source: Known, error: OSError) -> TransferError:
    path = os.fsdecode(source.path)
    if error.errno in _ELSEWHERE:
        return SourceChanged(f"{path} has changed")
    if error.errno == errno.ENOENT:
        return SourceChanged(f"{path} is gone")
    return SourceUnreadable(f"{path} can't be read: {_reason(error)}")


def _reason(error: OSError) -> str:
    if error.errno in _ELSEWHERE:
        return IS_LINK
    return IS_GONE if error.errno == errno.ENOENT else os.strerror(error.errno or 0).lower()
