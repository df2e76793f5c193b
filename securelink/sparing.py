"""A log that strangers can't fill: some lines a minute, and then how many more there were."""

from __future__ import annotations

import asyncio
import logging

INTERVAL = 60.0
"""Seconds after which lines are written again."""


class Sparing:
    """Lines of one sort, of which there may be any number.

    Args:
        log: where they go.
        most: how many are written in an `INTERVAL`.
        more: the line that stands for the rest, with one `%d` for their number.
    """

    def __init__(self, log: logging.Logger, most: int, more: str) -> None:
        self._log = log
        self._most = most
        self._more = more
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, level: int, line: str, *arguments: object) -> None:
        """Write one line, unless there were too many."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL, self.close)
        self._count += 1
        if self._count <= self._most:
            self._log.log(level, line, *arguments)

    def close(self) -> None:
        """Tell of those that were not written, and begin anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._count > self._most:
            self._log.warning(self._more, self._count - self._most)
        self._count = 0
