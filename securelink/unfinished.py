"""What lies about of files that did not arrive whole: found for a person, and removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

from securelink.errors import TransferError
from securelink.landing import part_path
from securelink.store import partials

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from securelink.store.database import Database
    from securelink.store.partials import Partial


class Unfinished(msgspec.Struct, frozen=True):
    """One file of which a part is here, or was."""

    partial: Partial
    part: Path
    """The part, which may be gone."""
    received: int
    """How many bytes of it are there."""
    touched_at: int
    """When the last of them came, in ms since 1970."""


def look(partial: Partial, root: Path) -> Unfinished:
    """Return what is there of a file in the receiving folder *root*.

    Raises:
        TransferError: if that can't be seen.
    """
    part = part_path(root, partial.peer, partial.id)
    try:
        found = part.stat(follow_symlinks=False)
    except FileNotFoundError:
        return Unfinished(partial, part, 0, partial.touched_at)
    except OSError as error:
        raise _failure("look at", part, error) from error
    return Unfinished(partial, part, found.st_size, found.st_mtime_ns // 1_000_000)


def remove(database: Database, found: Unfinished) -> bool:
    """Remove a part and its row; False if a living process receives the file, or has it whole.

    Raises:
        TransferError: if the part can't be removed.
        StoreError: as `Database.transaction` says.
    """
    try:
        with _held(found.part) as free:
            if free:
                # In this order a crash leaves a part without a row, which the next `serve` removes.
                with database.transaction() as conn:
                    partials.forget(conn, found.partial.peer, found.partial.id)
                found.part.unlink(missing_ok=True)
    except OSError as error:
        raise _failure("remove", found.part, error) from error
    return free


@contextlib.contextmanager
def _held(part: Path) -> Iterator[bool]:
    """Keep everybody else from receiving into a part, if nobody does."""
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            # With two names it has arrived, and only the inbox does not know it yet.
            yield os.fstat(descriptor).st_nlink == 1
    finally:
        os.close(descriptor)


def _failure(what: str, part: Path, error: OSError) -> TransferError:
    reason = os.strerror(error.errno or 0).lower()
    return TransferError(f"can't {what} {part}: {reason}", hint="see who owns it and its folder")
