"""What a row of a file stands for, and what is known of a file that is to get one."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.StrEnum):
    """What a row of a file stands for."""

    FILE = "file"
    FOLDER = "folder"
    """Itself alone: what is in it has rows of its own."""
    STREAM = "stream"
    """Standard input: it is read once, so it is never queued and never goes on later."""


class NewFile(msgspec.Struct, frozen=True):
    """What is to be sent; the fields are those of `FileRow`."""

    name: str
    path: bytes
    kind: Kind
    size: int | None
    mtime: int
    inode: int
    mode: int
