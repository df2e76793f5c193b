"""The wall clock, and what is made from it."""

from __future__ import annotations

import os
import time

from securelink import ids


def now_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_id() -> bytes:
    """A new message ID, 16 bytes."""
    return ids.uuid7(now_ms(), os.urandom(ids.RANDOM_SIZE))
