"""Rests that a queue of one peer takes after it was refused for now, or the store was busy."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from securelink import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST_REST = 1.0
LONGEST_REST = 60.0
"""Seconds that one lasts."""


class Rest:
    """One rest after the other, a longer one each time in a row.

    Args:
        ended: called when one is over.
    """

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended
        self._lengths: Iterator[float] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_on(self) -> bool:
        """Whether nothing new is to go at present."""
        return self._timer is not None

    def begin(self) -> None:
        """Rest a while; one that is on is not made longer."""
        if self._timer is not None:
            return
        if self._lengths is None:
            self._lengths = backoff.delays(FIRST_REST, LONGEST_REST, random.random)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(next(self._lengths), self._end)

    def forget(self) -> None:
        """Something was taken: the next rest is a short one."""
        self._lengths = None

    def close(self) -> None:
        """Call nobody any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._timer = None
        self._ended()
