"""What whole parts get before their names: their times, and their way to the disk."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from securelink.landing.folder import failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securelink.errors import TransferError
    from securelink.landing.terms import Ready

SMALL = 4 << 20
"""Bytes of a file up to which its way to the disk is begun before those ahead have ended theirs."""


def put_parts_on_disk(ready: Sequence[Ready]) -> list[TransferError | None]:
    """Have everything on the disk that the parts hold; return what has failed of each."""
    now = time.time_ns()
    for each in ready:
        dress(each.part.fileno(), None, each.mtime, now)
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


def dress(descriptor: int, mode: int | None, mtime: int, now: int) -> None:
    """Give a file or folder its mode and times, where its file system has such things."""
    with contextlib.suppress(OSError):
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(now, mtime))
