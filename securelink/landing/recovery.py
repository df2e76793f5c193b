"""What a crash has left of files that came in: found, and told apart by the links it has."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from securelink.errors import BadPlace
from securelink.filenames import OWN_FOLDER, components
from securelink.landing.folder import Existing, Kind, find, look, open_root
from securelink.landing.naming import BETWEEN_SUFFIX, NOTE_SUFFIX, beside
from securelink.landing.part import KEY_PREFIX, SUFFIX, lock, remove
from securelink.landing.way import Way

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

JUST_MADE = 60.0
"""Seconds for which an empty part is left alone: whoever made it may be about to lock it."""


@dataclass(slots=True, eq=False)
class Found:
    """A file that has its name, and may not be committed yet; it is held until `release`.

    Attributes:
        peer: the key of its sender, 32 bytes.
        id: the file's, 16 bytes.
        path: where it lies.
        name: the same below its peer's folder, with slashes.
        size: in bytes.
    """

    peer: bytes
    id: bytes
    path: Path
    name: str
    size: int
    _witness: Path = field(repr=False)
    _descriptor: int = field(repr=False)

    def forget(self) -> None:
        """Remove what tells that it is not committed, as it is now; and let go of it."""
        if self._descriptor < 0:
            return
        held = os.fstat(self._descriptor)
        with contextlib.suppress(FileNotFoundError):
            # Another part in its place is another attempt's.
            is_note = self._witness.suffix == NOTE_SUFFIX
            if is_note or os.path.samestat(self._witness.lstat(), held):
                self._witness.unlink()
        self.release()

    def release(self) -> None:
        """Let go of it; it will be found again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def recover(
    root: Path, peers: Mapping[bytes, str], keep: Callable[[bytes, bytes], bool]
) -> list[Found]:
    """Return the files that have got their names; tidy away what nobody can go on with.

    Parts that a living process holds are left alone, and those of others than *peers*.

    Args:
        root: the receiving folder.
        peers: the names of the peers' folders, by their keys.
        keep: tells for a peer's key and a file's ID whether its part is worth keeping.

    Raises:
        OSError: the disk fails.
    """
    try:
        with Way(open_root(root, make=False), make=False) as way:
            parts = os.dup(way.enter((OWN_FOLDER,)))
            with contextlib.closing(_Recovery(root, peers, keep, parts, way)) as recovery:
                return recovery.run()
    except (FileNotFoundError, NotADirectoryError, BadPlace):
        return []


@dataclass(slots=True)
class _Part:
    """A part that is there, or was; and the lock on it, or on what it has become."""

    peer: bytes
    id: bytes
    name: str
    descriptor: int = -1


class _Recovery:
    def __init__(
        self,
        root: Path,
        peers: Mapping[bytes, str],
        keep: Callable[[bytes, bytes], bool],
        parts: int,
        way: Way,
    ) -> None:
        self._root = root
        self._peers = peers
        self._keep = keep
        self._parts = parts
        self._way = way
        self._held: list[_Part] = []
        self._found: list[Found] = []

    def close(self) -> None:
        """Let go of what was not found to be anything."""
        for part in self._held:
            os.close(part.descriptor)
        os.close(self._parts)

    def run(self) -> list[Found]:
        """Look at everything, and return what has its name."""
        with os.scandir(self._parts) as entries:
            there = frozenset(
                entry.name for entry in entries if entry.is_file(follow_symlinks=False)
            )
        by_prefix = {key.hex()[:KEY_PREFIX]: key for key in self._peers}
        try:
            for stem in sorted({name.rpartition(".")[0] for name in there}):
                prefix, _, rest = stem.partition("-")
                if prefix in by_prefix:
                    with contextlib.suppress(ValueError):
                        message_id = bytes.fromhex(rest)
                        self._look_at(_Part(by_prefix[prefix], message_id, stem + SUFFIX), there)
            for peer in dict.fromkeys(part.peer for part in self._held):
                self._find(peer, [part for part in self._held if part.peer == peer])
        except BaseException:
            for each in self._found:
                each.release()
            raise
        return self._found

    def _look_at(self, part: _Part, there: frozenset[str]) -> None:
        note, between = beside(part.name, NOTE_SUFFIX), beside(part.name, BETWEEN_SUFFIX)
        if part.name in there:
            if there.isdisjoint({note, between}) and self._is_left_alone(part):
                return
            descriptor = _hold(part.name, self._parts)
            if descriptor is None:
                return
            part.descriptor = descriptor
            self._held.append(part)
        if between in there:
            # It was about to replace another file, and has not.
            remove(between, self._parts)
        if note in there:
            self._read(note, part)
        if part.descriptor >= 0 and os.fstat(part.descriptor).st_nlink == 1:
            self._tidy(part)

    def _is_left_alone(self, part: _Part) -> bool:
        """Whether a part is none of our business, as far as that can be told without its lock."""
        try:
            found = os.lstat(part.name, dir_fd=self._parts)
        except FileNotFoundError:
            return True
        if found.st_nlink > 1:
            return False
        is_new = found.st_size == 0 and abs(time.time() - found.st_mtime) < JUST_MADE
        return is_new or self._keep(part.peer, part.id)

    def _tidy(self, part: _Part) -> None:
        """Let go of a part without another name, and remove it if nobody can go on with it."""
        self._held.remove(part)
        if not self._keep(part.peer, part.id):
            remove(part.name, self._parts)
        os.close(part.descriptor)

    def _read(self, note: str, part: _Part) -> None:
        """Find the file that a note tells of, from a file system without hard links."""
        try:
            names = self._noted(note)
            folder = self._way.enter((self._peers[part.peer], *names[:-1]))
            there = look(names[-1], folder)
        except (ValueError, BadPlace, FileNotFoundError):
            names, folder, there = (), -1, None
        if part.descriptor >= 0:
            if there == Existing(Kind.FILE, 0) and not self._is_older(names[-1], folder, note):
                # It held the name for the part, which has not got it.
                remove(names[-1], folder)
        elif there is not None and there.kind is Kind.FILE:
            descriptor = _hold(names[-1], folder)
            if descriptor is not None:
                part.descriptor = descriptor
                self._add(part, names, note)
            return
        remove(note, self._parts)

    def _noted(self, note: str) -> tuple[str, ...]:
        """Return the components in a note; ValueError if they make no sense."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(note, flags, dir_fd=self._parts), encoding="utf-8") as file:
            return components(file.read())

    def _is_older(self, name: str, folder: int, note: str) -> bool:
        """Whether a file was there before the note was written, and so is not ours."""
        written = os.lstat(note, dir_fd=self._parts).st_mtime_ns
        return os.lstat(name, dir_fd=folder).st_mtime_ns < written

    def _find(self, peer: bytes, parts: list[_Part]) -> None:
        """Find the other names of a peer's parts, all on one walk."""
        inodes = {os.fstat(part.descriptor).st_ino: part for part in parts}
        try:
            found = find(self._way.enter((self._peers[peer],)), inodes)
        except PermissionError:
            # They may lie there: a later look will tell, and the other peers need not wait.
            return
        except (BadPlace, FileNotFoundError):
            found = {}
        for inode, part in inodes.items():
            if names := found.get(inode):
                self._held.remove(part)
                self._add(part, names, part.name)
            else:
                self._tidy(part)

    def _add(self, part: _Part, names: tuple[str, ...], witness: str) -> None:
        self._found.append(
            Found(
                peer=part.peer,
                id=part.id,
                path=self._root.joinpath(self._peers[part.peer], *names),
                name="/".join(names),
                size=os.fstat(part.descriptor).st_size,
                _witness=self._root / OWN_FOLDER / witness,
                _descriptor=part.descriptor,
            )
        )


def _hold(name: str, folder: int) -> int | None:
    """Hold a file, as the receiver of a part would; None if it is held already, or is no file."""
    for access in (os.O_RDWR, os.O_RDONLY):
        try:
            flags = access | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
        except PermissionError:
            continue
        except OSError:
            return None
        try:
            if lock(descriptor):
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None
    return None
