"""Files and folders to send, and how to tell whether what landed is the same."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Entry:
    """What is kept of a file or folder.

    Attributes:
        digest: the SHA-256 of a file's content; None for a folder.
        mode: the owner's permission bits.
        mtime: in nanoseconds since 1970; None for a folder, whose own changes as it is filled.
    """

    digest: str | None
    mode: int
    mtime: int | None


def make_file(path: Path, size: int, seed: int = 0) -> Path:
    """A file of so many random bytes, the same ones for the same seed, made some time ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = random.Random(seed or size)
    with path.open("wb") as file:
        while left := size - file.tell():
            file.write(source.randbytes(min(left, MIB)))
    # A time that no clock of now would give.
    mtime = 1_500_000_000_000_000_000 + source.randrange(10**15)
    os.utime(path, ns=(mtime, mtime))
    return path


def make_tree(folder: Path, files: int, *, seed: int = 1) -> Path:
    """A folder of so many small files in folders, some empty, with modes of all kinds."""
    source = random.Random(seed)
    folder.mkdir(parents=True)
    (folder / "nothing in it" / "nor here").mkdir(parents=True)
    folders = [folder]
    for number in range(files):
        if number % 20 == 0:
            folders.append(source.choice(folders) / f"Ordner {number} ü")
            folders[-1].mkdir()
        size = source.choice((0, 1, source.randrange(200), source.randrange(30_000)))
        path = make_file(source.choice(folders) / f"file {number}.txt", size, seed + number)
        path.chmod(source.choice((0o600, 0o644, 0o755, 0o400, 0o700)))
    return folder


def digest_file(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_tree(folder: Path) -> dict[str, Entry]:
    """Everything below a folder, and it itself, under its name from there; links as they are."""
    return {
        str(path.relative_to(folder)): _entry(path) for path in [folder, *sorted(folder.rglob("*"))]
    }


def _entry(path: Path) -> Entry:
    info = path.lstat()
    mode = info.st_mode & stat.S_IRWXU
    if stat.S_ISREG(info.st_mode):
        return Entry(digest_file(path), mode, info.st_mtime_ns)
    assert stat.S_ISDIR(info.st_mode), f"neither a file nor a folder: {path}"
    return Entry(None, mode, None)


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same content, mode (the owner's) and time."""
    return _entry(one) == _entry(other)


def names(folder: Path) -> list[str]:
    """All names of files below a folder, from there, in order; none if it is not there."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def unlike(folder: Path, contents: Iterable[str]) -> list[str]:
    """The names of files below a folder with other digests than these."""
    wanted = set(contents)
    return [name for name in names(folder) if digest_file(folder / name) not in wanted]
