"""What goes into `Landing.finish`, and what comes out."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from securelink.landing.part import Part


class Conflict(enum.StrEnum):
    """What happens when there is a file of that name."""

    RENAME = "rename"
    SKIP = "skip"
    OVERWRITE = "overwrite"


class Ready(msgspec.Struct, frozen=True):
    """A whole part, and the name that it is to get.

    Attributes:
        part: all its bytes are written.
        components: below the peer's folder; made by `filenames.components`.
        mtime: in nanoseconds since 1970.
        mode: the owner's permission bits.
    """

    part: Part
    components: tuple[str, ...]
    mtime: int
    mode: int


class Landed(msgspec.Struct, frozen=True):
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
