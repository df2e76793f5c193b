"""`Landing`: the folder of one peer, and how whole files get their names in it.

A part becomes a file by a second, hard link: that takes a name only if it is free, in one step,
and leaves the part as a witness until the file is committed. `recovery` reads that witness.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from securelink.errors import BadPlace, DiskFull, FileExists, TransferError
from securelink.filenames import OWN_FOLDER, numbered
from securelink.landing import folder as folders
from securelink.landing.folder import Existing, Kind, put_on_disk
from securelink.landing.part import KEY_PREFIX, Part, part_name

if TYPE_CHECKING:
    from collections.abc import Sequence

PLACEHOLDER = ".securelink-"
"""The beginning of a name that a file has for a moment, before it replaces another."""

MOST_NUMBERS = 10_000
"""So many names with a number are tried."""

_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Conflict(enum.StrEnum):
    """What happens when there is a file of that name."""

    RENAME = "rename"
    SKIP = "skip"
    OVERWRITE = "overwrite"


@dataclass(frozen=True, slots=True)
class Ready:
    """A whole part, and the name that it is to get.

    Attributes:
        part: all its bytes are written.
        components: below the peer's folder.
        mtime: in nanoseconds since 1970.
        mode: the owner's permission bits.
    """

    part: Part
    components: tuple[str, ...]
    mtime: int
    mode: int


@dataclass(frozen=True, slots=True)
class Landed:
    """A file under its name.

    Attributes:
        path: where it lies.
        size: in bytes.
        components: the same below the peer's folder.
        inode: its number in its file system.
        replaced: another file had that name until now.
    """

    path: Path
    size: int
    components: tuple[str, ...]
    inode: int
    replaced: bool


class Landing:
    """The folder of one peer, and its parts.

    Nothing is made before it is needed.

    Args:
        root: the receiving folder of the node.
        peer_name: the name of the peer's folder in it.
        peer_key: the peer's key, 32 bytes.

    Every method may raise OSError, when the disk fails.
    """

    def __init__(self, root: Path, peer_name: str, peer_key: bytes) -> None:
        self._root = root
        self._peer_name = peer_name
        self._peer_key = peer_key
        self._parts: int | None = None
        self._unlinkable = False

    def close(self) -> None:
        """Let go of the folder of parts; all parts must be closed."""
        if self._parts is not None:
            os.close(self._parts)
            self._parts = None

    # ---- room

    def free(self) -> int:
        """Return how many bytes this user can still write there."""
        root = folders.open_root(self._root)
        try:
            system = os.fstatvfs(root)
        finally:
            os.close(root)
        return system.f_bavail * system.f_frsize

    def used(self) -> int:
        """Return the bytes in the peer's folder, and in its parts."""
        prefix = self._peer_key.hex()[:KEY_PREFIX]
        return sum(
            found.st_size
            for names, found in self._all()
            if names[0] == self._peer_name
            or (names[0] == OWN_FOLDER and names[-1].startswith(prefix) and found.st_nlink == 1)
        )

    def total(self) -> int:
        """Return the bytes in the whole receiving folder."""
        return sum(
            found.st_size
            for names, found in self._all()
            if names[0] != OWN_FOLDER or found.st_nlink == 1
        )

    # ---- parts

    def open_part(self, message_id: bytes) -> Part:
        """Make the part of a file, or open it where an earlier attempt has left it.

        Raises:
            PartInUse: a living process holds it.
            BadPlace: the folder of parts is no folder.
        """
        name = part_name(self._peer_key, message_id)
        try:
            return Part.open(message_id, self._parts_folder(), name)
        except FileNotFoundError:
            # Somebody has removed the folder; parts that are open keep the old one.
            self._parts = None
            return Part.open(message_id, self._parts_folder(), name)

    # ---- what is there

    def free_top_level(self, name: str) -> str:
        """Return *name*, or with the first number that makes it one that is not there yet."""
        try:
            peer = self._peer_folder(make=False)
        except FileNotFoundError:
            return name
        try:
            return _free(name, peer)
        finally:
            os.close(peer)

    def existing(self, components: Sequence[str]) -> Existing | None:
        """Return what lies at *components*, or None.

        Raises:
            BadPlace: what should be a folder on the way there is none.
        """
        try:
            folder = self._folder(components[:-1], make=False)
        except FileNotFoundError:
            return None
        try:
            return folders.look(components[-1], folder)
        finally:
            os.close(folder)

    def open_existing(self, components: Sequence[str]) -> int:
        """Return a descriptor for reading the regular file at *components*.

        Raises:
            BadPlace: no regular file lies there.
        """
        try:
            folder = self._folder(components[:-1], make=False)
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                descriptor = os.open(components[-1], flags, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise BadPlace(f"{components[-1]} cannot be opened: {_reason(error)}") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BadPlace(f"{components[-1]} is no file")
        return descriptor

    # ---- names

    def finish(self, ready: Sequence[Ready], conflict: Conflict) -> list[Landed | TransferError]:
        """Put whole parts on the disk and give them their names, many at a time.

        A part keeps its own name as well, until it is discarded. Files get the owner's
        permission bits that the sender gave, and nobody else any.

        Returns:
            What became of each: `FileExists`, `BadPlace` or `DiskFull` where it has got no name.
        """
        results: list[Landed | TransferError] = []
        touched: dict[tuple[str, ...], int] = {}
        for each in ready:
            try:
                os.fchmod(each.part.fileno(), each.mode)
                os.utime(each.part.fileno(), ns=(each.mtime, each.mtime))
                each.part.sync()
            except OSError as error:
                results.append(_failure(error))
                continue
            try:
                results.append(self._name(each, conflict, touched))
            except TransferError as error:
                results.append(error)
            except OSError as error:
                results.append(_failure(error))
        try:
            for folder in touched.values():
                put_on_disk(folder)
        except OSError as error:
            for landed in results:
                if isinstance(landed, Landed):
                    self.take_back(landed)
            return [_failure(error) if isinstance(each, Landed) else each for each in results]
        finally:
            for folder in touched.values():
                os.close(folder)
        return results

    def make_folder(self, components: Sequence[str], mode: int, mtime: int) -> Path:
        """Make a folder, if it is missing, and give it its mode and time.

        Raises:
            FileExists: something else lies there.
            BadPlace: a link or a file stands on the way there.
            DiskFull: there is no room.
        """
        try:
            parent = self._folder(components[:-1], make=True)
            try:
                found = folders.look(components[-1], parent)
                if found is not None and found.kind is not Kind.FOLDER:
                    raise FileExists(f"{components[-1]} is there already, and no folder")
                folder = folders.open_folder(components[-1], parent, make=True)
            finally:
                os.close(parent)
            try:
                os.fchmod(folder, mode)
                os.utime(folder, ns=(mtime, mtime))
                put_on_disk(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise _failure(error) from None
        return self._path(components)

    def remove_top_level(self, name: str) -> None:
        """Remove a folder that was made for a group of which nothing comes, if it is empty."""
        with contextlib.suppress(OSError, BadPlace):
            peer = self._peer_folder(make=False)
            try:
                os.rmdir(name, dir_fd=peer)
            finally:
                os.close(peer)

    def take_back(self, landed: Landed) -> None:
        """Remove a file that could not be committed, unless it has replaced another."""
        if landed.replaced:
            return
        with contextlib.suppress(OSError, BadPlace):
            folder = self._folder(landed.components[:-1], make=False)
            try:
                name = landed.components[-1]
                if os.lstat(name, dir_fd=folder).st_ino == landed.inode:
                    os.unlink(name, dir_fd=folder)
            finally:
                os.close(folder)

    # ---- inside

    def _all(self) -> list[tuple[tuple[str, ...], os.stat_result]]:
        root = folders.open_root(self._root)
        try:
            return list(folders.files(root))
        finally:
            os.close(root)

    def _parts_folder(self) -> int:
        if self._parts is None:
            root = folders.open_root(self._root)
            try:
                self._parts = folders.open_folder(OWN_FOLDER, root, make=True)
            finally:
                os.close(root)
        return self._parts

    def _peer_folder(self, *, make: bool) -> int:
        root = folders.open_root(self._root)
        try:
            return folders.open_folder(self._peer_name, root, make=make)
        finally:
            os.close(root)

    def _folder(self, components: Sequence[str], *, make: bool) -> int:
        peer = self._peer_folder(make=make)
        try:
            return folders.open_path(components, peer, make=make)
        finally:
            os.close(peer)

    def _path(self, components: Sequence[str]) -> Path:
        return self._root.joinpath(self._peer_name, *components)

    def _name(
        self, ready: Ready, conflict: Conflict, touched: dict[tuple[str, ...], int]
    ) -> Landed:
        where = ready.components[:-1]
        if where not in touched:
            touched[where] = self._folder(where, make=True)
        folder = touched[where]
        name, replaced = ready.components[-1], False
        found = os.fstat(ready.part.fileno())
        match conflict:
            case Conflict.RENAME:
                while not self._link(ready.part, name, folder):
                    name = _free(ready.components[-1], folder)
            case Conflict.SKIP:
                if not self._link(ready.part, name, folder):
                    raise FileExists(f"{name} is there already")
            case Conflict.OVERWRITE:
                if not self._link(ready.part, name, folder):
                    self._replace(ready.part, name, folder)
                    replaced = True
        components = (*where, name)
        path = self._path(components)
        return Landed(path, found.st_size, components, found.st_ino, replaced)

    def _link(self, part: Part, name: str, folder: int) -> bool:
        """Give a part one more name; False if that is taken."""
        parts = self._parts_folder()
        if not self._unlinkable:
            try:
                os.link(part.name, name, src_dir_fd=parts, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._unlinkable = True
            else:
                return True
        # A file system without hard links: an empty file holds the name, then gives way.
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o600, dir_fd=folder))
        except FileExistsError:
            return False
        os.replace(part.name, name, src_dir_fd=parts, dst_dir_fd=folder)
        return True

    def _replace(self, part: Part, name: str, folder: int) -> None:
        existing = folders.look(name, folder)
        if existing is not None and existing.kind is not Kind.FILE:
            raise FileExists(f"{name} is there already, and no file")
        if self._unlinkable:
            os.replace(part.name, name, src_dir_fd=self._parts_folder(), dst_dir_fd=folder)
            return
        # Under another name first, so that the part stays as a witness.
        between = f"{PLACEHOLDER}{part.id.hex()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(between, dir_fd=folder)
        self._link(part, between, folder)
        os.replace(between, name, src_dir_fd=folder, dst_dir_fd=folder)


def _free(name: str, folder: int) -> str:
    if folders.look(name, folder) is None:
        return name
    for number in range(2, MOST_NUMBERS):
        candidate = numbered(name, number)
        if folders.look(candidate, folder) is None:
            return candidate
    raise FileExists(f"{name} is there too often")


def _failure(error: OSError) -> TransferError:
    if error.errno in _FULL:
        return DiskFull(f"the disk is full: {_reason(error)}")
    return BadPlace(f"a file cannot be put there: {_reason(error)}")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
