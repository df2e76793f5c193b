"""The wall clock, and what is made from it."""

from __future__ import annotations

import os
import sys
import time

from securelink import ids

# The one that goes on while the machine sleeps; the event loop's, and `time.monotonic`, do not.
_SLEEPLESS = getattr(
    time,
    "CLOCK_BOOTTIME",
    time.CLOCK_MONOTONIC if sys.platform == "darwin" else time.CLOCK_REALTIME,
)


def now_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def sleepless() -> float:
    """Seconds since some moment, those for which the machine slept too."""
    return time.clock_gettime(_SLEEPLESS)


def new_id() -> bytes:
    """A new message ID, 16 bytes."""
    return ids.uuid7(now_ms(), os.urandom(ids.RANDOM_SIZE))
