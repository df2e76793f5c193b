"""`Landing`: the folder of one peer: what lies there, and what lands there."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from securelink.errors import BadName, BadPlace, FileExists, TransferError
from securelink.filenames import OWN_FOLDER, numbered
from securelink.landing import folder as folders
from securelink.landing.folder import Existing, Kind, failure, look, status_of
from securelink.landing.naming import BETWEEN_SUFFIX, MOST_NUMBERS, Namer, beside
from securelink.landing.part import KEY_PREFIX, MODE, Part, part_name, remove
from securelink.landing.terms import Conflict, Landed, Ready
from securelink.landing.way import Way

if TYPE_CHECKING:
    from collections.abc import Sequence

OWNER_MODE = 0o700

FILE_FLOOR = 0o400
FOLDER_FLOOR = 0o500
"""What the owner may do in any case: or a file could not be found again after a crash, nor what
is in a folder."""

SMALL = 4 << 20
"""Bytes of a file up to which its way to the disk is begun before those ahead have ended theirs."""

_LONGEST_PATH = os.pathconf("/", "PC_PATH_MAX")


class Landing:
    """The folder of one peer, and its parts; for one thread at a time.

    Nothing is made before it is needed. Below the root no symbolic link is followed.

    Args:
        root: the receiving folder of the node.
        peer_name: the name of the peer's folder in it.
        peer_key: the peer's key, 32 bytes.

    Every method may raise OSError, when the disk fails or the receiving folder can't be used, and
    BadPlace, when what should be a folder in it is none.
    """

    def __init__(self, root: Path, peer_name: str, peer_key: bytes) -> None:
        self._root = root
        self._peer_name = peer_name
        self._peer_key = peer_key
        self._namer = Namer()
        self._parts: list[int] = []

    def close(self) -> None:
        """Let go of the folder of parts; all parts must be closed."""
        while self._parts:
            os.close(self._parts.pop())

    def make(self) -> None:
        """Make the receiving folder, if it is missing."""
        os.close(folders.open_root(self._root, make=True))

    # ---- room

    def free(self) -> int:
        """Return how many bytes this user can still write there."""
        folder = self._root.absolute()
        while not folder.exists():
            folder = folder.parent
        system = os.statvfs(folder)
        return system.f_bavail * system.f_frsize

    def used(self) -> int:
        """Return the bytes in the peer's folder, and in its parts."""
        prefix = self._peer_key.hex()[:KEY_PREFIX]
        size = 0
        with contextlib.suppress(FileNotFoundError), self._way(make=False) as way:
            with contextlib.suppress(FileNotFoundError):
                size += _size(way.enter((OWN_FOLDER,)), (OWN_FOLDER,), prefix)
            size += _size(way.enter((self._peer_name,)), (self._peer_name,))
        return size

    def total(self) -> int:
        """Return the bytes in the whole receiving folder."""
        with contextlib.suppress(FileNotFoundError), self._way(make=False) as way:
            return _size(way.enter(()), ())
        return 0

    # ---- parts

    def open_part(self, message_id: bytes) -> Part:
        """Make the part of a file, or open it where an earlier attempt has left it.

        What got its name and was never committed, because a process died in between, loses that
        name again: nobody was told of it.

        Raises:
            PartInUse: a living process holds it.
            BadPlace: something else lies there.
        """
        name = part_name(self._peer_key, message_id)
        while True:
            try:
                part = Part.open(message_id, self._parts_folder(), name)
            except FileNotFoundError:
                # Somebody has removed the folder; parts that are open keep the old one.
                self._parts.append(self._make_parts_folder())
                part = Part.open(message_id, self._parts_folder(), name)
            try:
                if part.created or self._is_bare(part):
                    return part
            except BaseException:
                part.close()
                raise
            # Its other name is out of reach, and what is written now must not change that file.
            part.discard()

    # ---- what is there

    def free_top_level(self, name: str) -> str:
        """Return *name*, or with the first number that makes it one that is not there yet.

        Raises:
            FileExists: all are there.
        """
        try:
            with self._way(make=False) as way:
                peer = way.enter((self._peer_name,))
                if look(name, peer) is None:
                    return name
                for number in range(2, MOST_NUMBERS):
                    candidate = numbered(name, number)
                    if look(candidate, peer) is None:
                        return candidate
        except FileNotFoundError:
            return name
        raise FileExists(f"{name} is there too often")

    def existing(self, components: Sequence[str]) -> Existing | None:
        """Return what lies at *components*, or None.

        Raises:
            BadPlace: what should be a folder on the way there is none.
            NotADirectoryError: so it is with the peer's own folder.
        """
        try:
            with self._way(make=False) as way:
                self._enter_own(way)
                return look(components[-1], way.enter((self._peer_name, *components[:-1])))
        except FileNotFoundError:
            return None

    def open_existing(self, components: Sequence[str]) -> int:
        """Return a descriptor for reading the regular file at *components*.

        Raises:
            BadPlace: no regular file lies there.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            with self._way(make=False) as way:
                folder = way.enter((self._peer_name, *components[:-1]))
                descriptor = os.open(components[-1], flags, dir_fd=folder)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BadPlace(f"{components[-1]} can't be opened: {reason}") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BadPlace(f"{components[-1]} is no file")
        return descriptor

    # ---- what lands

    def finish(self, ready: Sequence[Ready], conflict: Conflict) -> list[Landed | TransferError]:
        """Put whole parts on the disk and give them their names, many at a time.

        A part keeps its own name as well until it is discarded, where the file system has hard
        links. Files get the owner's permission bits that the sender gave, and nobody else any.

        Returns:
            What became of each, in their order: `FileExists`, `BadName`, `BadPlace` or
            `NoRoom` where it has got no name.
        """
        problems = _put_parts_on_disk(ready)
        try:
            with self._way(make=True) as way:
                results = [
                    problem or self._land(each, conflict, way)
                    for each, problem in zip(ready, problems, strict=True)
                ]
        except TransferError as error:
            return [error] * len(ready)
        except OSError as error:
            return [failure(error, str(self._root))] * len(ready)
        if way.failed is None:
            return results
        # Nobody knows which of the names are on the disk.
        for result in results:
            if isinstance(result, Landed):
                self.take_back(result)
        broken = failure(way.failed, self._peer_name)
        return [broken if isinstance(each, Landed) else each for each in results]

    def make_folder(self, components: Sequence[str], mode: int, mtime: int) -> Path:
        """Make a folder, if it is missing, and give it its mode and time.

        Raises:
            FileExists: something else lies there.
            BadPlace: a link or a file stands on the way there.
            BadName, NoRoom: the disk doesn't take it.
        """
        name = components[-1]
        try:
            path = self._path(components)
            with self._way(make=True) as way:
                there = look(name, way.enter((self._peer_name, *components[:-1])))
                if there is not None and there.kind is not Kind.FOLDER:
                    raise FileExists(f"{name} is there already, and no folder")
                folder = way.enter((self._peer_name, *components))
                _dress(folder, mode | FOLDER_FLOOR, mtime, time.time_ns())
            if way.failed is not None:
                raise way.failed
        except OSError as error:
            raise failure(error, name) from None
        return path

    def remove_top_level(self, name: str) -> None:
        """Remove a folder that was made for a group of which nothing comes, if it is empty."""
        with contextlib.suppress(OSError, BadPlace), self._way(make=False) as way:
            way.enter((self._peer_name,))
            way.change(lambda peer: os.rmdir(name, dir_fd=peer))

    def take_back(self, landed: Landed) -> None:
        """Remove a file that could not be committed, unless it has replaced another."""
        if not landed.replaced:
            self._remove(landed.components, landed.inode)

    # ---- inside

    def _way(self, *, make: bool) -> Way:
        return Way(folders.open_root(self._root, make=make), make=make)

    def _enter_own(self, way: Way) -> None:
        """Enter the peer's folder, of which no sender has a say.

        Raises:
            NotADirectoryError: something else lies there.
        """
        try:
            way.enter((self._peer_name,))
        except BadPlace:
            raise folders.no_folder(self._root / self._peer_name) from None

    def _path(self, components: Sequence[str]) -> Path:
        path = self._root.joinpath(self._peer_name, *components)
        if len(os.fsencode(path)) >= _LONGEST_PATH:
            raise BadName("the path to a file is longer than this system takes")
        return path

    def _parts_folder(self) -> int:
        """The folder of parts, for as long as this lives."""
        if not self._parts:
            self._parts.append(self._make_parts_folder())
        return self._parts[-1]

    def _make_parts_folder(self) -> int:
        with self._way(make=True) as way:
            return os.dup(way.enter((OWN_FOLDER,)))

    def _is_bare(self, part: Part) -> bool:
        """Whether a part has no other name, or none any more."""
        if part.links == 1:
            return True
        remove(beside(part.name, BETWEEN_SUFFIX), part.folder)
        # Of further names we know nothing: somebody else has given them.
        if part.links == 2:
            with contextlib.suppress(FileNotFoundError), self._way(make=False) as way:
                found = folders.find(way.enter((self._peer_name,)), {part.inode})
                if names := found.get(part.inode):
                    self._remove(names, part.inode)
        if part.links > 1:
            return False
        os.fchmod(part.fileno(), MODE)
        return True

    def _remove(self, components: Sequence[str], inode: int) -> None:
        """Remove a file, if it is the one that is meant."""
        name = components[-1]
        with contextlib.suppress(OSError, BadPlace), self._way(make=False) as way:
            folder = way.enter((self._peer_name, *components[:-1]))
            if os.lstat(name, dir_fd=folder).st_ino == inode:
                way.change(lambda folder: os.unlink(name, dir_fd=folder))

    def _land(self, ready: Ready, conflict: Conflict, way: Way) -> Landed | TransferError:
        part, components = ready.part, ready.components
        try:
            self._path(components)
            way.enter((self._peer_name, *components[:-1]))
            name, replaced = way.change(
                lambda folder: self._namer.name(part, folder, components, conflict)
            )
        except TransferError as error:
            return error
        except OSError as error:
            return failure(error, components[-1])
        # Only now: a part is one that can be written to.
        if (mode := ready.mode & OWNER_MODE | FILE_FLOOR) != MODE:
            with contextlib.suppress(PermissionError):
                os.fchmod(part.fileno(), mode)
        components = (*components[:-1], name)
        return Landed(self._path(components), part.size, components, part.inode, replaced)


def _put_parts_on_disk(ready: Sequence[Ready]) -> list[TransferError | None]:
    """Have everything on the disk that the parts hold; return what has failed of each."""
    now = time.time_ns()
    for each in ready:
        _dress(each.part.fileno(), None, each.mtime, now)
    if len(ready) > 1 and hasattr(os, "posix_fadvise"):
        # On Linux this begins to write what is not written yet, and doesn't wait. So the disk
        # has the next one at hand while we wait for one: twice as quick as one by one, and
        # quicker than threads.
        for each in ready:
            if each.part.size <= SMALL:
                os.posix_fadvise(each.part.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    problems: list[TransferError | None] = []
    for each in ready:
        try:
            # On macOS only `sync` empties the memory of the disk, for all at once.
            if each is not ready[-1]:
                os.fsync(each.part.fileno())
            else:
                each.part.sync()
        except OSError as error:
            problems.append(failure(error, each.components[-1]))
        else:
            problems.append(None)
    return problems


def _dress(descriptor: int, mode: int | None, mtime: int, now: int) -> None:
    """Give a file or folder its mode and times, where its file system has such things."""
    with contextlib.suppress(PermissionError):
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(now, mtime))


def _size(folder: int, at: tuple[str, ...], prefix: str = "") -> int:
    """The bytes of the files below *folder*, which is *at* these names below the root."""
    size = 0
    for names, entry in folders.files(folder):
        if not names[-1].startswith(prefix):
            continue
        found = status_of(entry)
        # A part with two names has landed, and is counted there.
        is_twice = (*at, *names)[0] == OWN_FOLDER and found is not None and found.st_nlink > 1
        if found is not None and not is_twice:
            size += found.st_size
    return size
