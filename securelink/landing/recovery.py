"""What a crash has left of files that came in: found, and told apart by the links it has."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from securelink.filenames import OWN_FOLDER
from securelink.landing import folder as folders
from securelink.landing.landing import PLACEHOLDER
from securelink.landing.part import KEY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SUFFIX = ".part"


@dataclass(frozen=True, slots=True)
class Found:
    """A file that has its name, and may not be committed yet.

    Attributes:
        peer: the key of its sender, 32 bytes.
        id: the file's, 16 bytes.
        path: where it lies.
        name: the same below its peer's folder, with slashes.
        size: in bytes.
        part: the name of its part, to `forget` once it is committed.
    """

    peer: bytes
    id: bytes
    path: Path
    name: str
    size: int
    part: Path

    def forget(self) -> None:
        """Remove the part: the file has its own name, and is committed."""
        self.part.unlink(missing_ok=True)


def recover(
    root: Path, peers: Mapping[bytes, str], keep: Callable[[bytes, bytes], bool]
) -> Iterator[Found]:
    """Yield the files that have got their names; tidy away what nobody can go on with.

    Parts that a living process holds are left alone.

    Args:
        root: the receiving folder.
        peers: the names of the peers' folders, by their keys.
        keep: tells for a peer's key and a file's ID whether its part is worth keeping.
    """
    by_prefix = {key.hex()[:KEY_PREFIX]: key for key in peers}
    try:
        parts = os.open(root / OWN_FOLDER, folders.FOLDER_FLAGS)
    except OSError:
        return
    try:
        with os.scandir(parts) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            prefix, _, rest = name.removesuffix(_SUFFIX).partition("-")
            key = by_prefix.get(prefix)
            if key is None or not name.endswith(_SUFFIX):
                continue
            try:
                message_id = bytes.fromhex(rest)
            except ValueError:
                continue
            with _held(name, parts) as found:
                if found is None:
                    continue
                place = _place(root, peers[key], found.st_ino) if found.st_nlink > 1 else None
                if place is not None:
                    path = root.joinpath(peers[key], *place)
                    part = root / OWN_FOLDER / name
                    yield Found(key, message_id, path, "/".join(place), found.st_size, part)
                elif not keep(key, message_id):
                    os.unlink(name, dir_fd=parts)
    finally:
        os.close(parts)


@contextlib.contextmanager
def _held(name: str, parts: int) -> Iterator[os.stat_result | None]:
    """Hold a part, as its receiver would; None if it is held already, or no part at all."""
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=parts)
    except OSError:
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield os.fstat(descriptor)
    finally:
        os.close(descriptor)


def _place(root: Path, peer: str, inode: int) -> tuple[str, ...] | None:
    """Where in the peer's folder the file with that inode lies; None if it has no name there."""
    try:
        folder = os.open(root / peer, folders.FOLDER_FLAGS)
    except OSError:
        return None
    try:
        for names, found in folders.files(folder):
            if found.st_ino == inode:
                if names[-1].startswith(PLACEHOLDER):
                    # It was about to replace another file, and has not.
                    within = folders.open_path(names[:-1], folder, make=False)
                    os.unlink(names[-1], dir_fd=within)
                    os.close(within)
                    return None
                return names
    finally:
        os.close(folder)
    return None
