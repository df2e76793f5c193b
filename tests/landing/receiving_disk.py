"""Parts for tests of the receiving disk, and ways to look at what it holds."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from securelink.landing import Landing, Part, Ready

KEY = bytes(range(32))
OTHER_KEY = bytes(range(100, 132))


class Parts:
    """Makes whole parts of one peer."""

    def __init__(self, landing: Landing) -> None:
        self.landing = landing
        self.made: list[Part] = []
        self._numbers = count(1)

    def whole(
        self, name: str, data: bytes = b"data", *, mtime: int = 0, mode: int = 0o600
    ) -> Ready:
        part = self.landing.open_part(next(self._numbers).to_bytes(16, "big"))
        self.made.append(part)
        part.write([data])
        return Ready(part, tuple(name.split("/")), mtime, mode)

    def close(self) -> None:
        for part in self.made:
            part.close()
        self.landing.close()


def failing(number: int, *first: type[OSError]) -> Callable[..., Any]:
    """A system call that fails; with *first*, as a link(2) does where the name is taken."""

    def fail(*args: Any, **kwargs: Any) -> None:
        if FileExistsError in first:
            try:
                os.lstat(args[1], dir_fd=kwargs["dst_dir_fd"])
            except FileNotFoundError:
                pass
            else:
                raise FileExistsError(17, os.strerror(17))
        raise OSError(number, os.strerror(number))

    return fail


def content(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def tree(folder: Path) -> set[Path]:
    """All that lies below a folder."""
    return {Path(at, each) for at, names, files in os.walk(folder) for each in [*names, *files]}


def descriptors() -> int:
    """How many descriptors this process has open."""
    return len(listing("/dev/fd"))


def listing(folder: int | str) -> list[str]:
    """The names in a folder, which may be given by its descriptor."""
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]
