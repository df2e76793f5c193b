"""Time and chance, as one value that a test can hold in its hands."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec


def _now() -> float:
    # A laptop's closed lid ends no lease on the router: so the clock that goes on while asleep.
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def _wall() -> int:
    return time.time_ns() // 1_000_000


class Clock(msgspec.Struct, frozen=True):
    """What this package knows of time."""

    now: Callable[[], float] = _now
    """Seconds that never jump, from some beginning."""
    wall: Callable[[], int] = _wall
    """ms since 1970."""
    sleep: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep
    random: Callable[[], float] = random.random
    """A number from 0 to 1."""

    async def wait(self, future: asyncio.Future[None], seconds: float) -> bool:
        """Wait for *future*, *seconds* at most; return whether it is done. It is left alone."""
        pause = asyncio.ensure_future(self.sleep(seconds))
        try:
            await asyncio.wait({future, pause}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pause.cancel()
        return future.done()
