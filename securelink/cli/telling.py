"""Events on standard output, written by a thread: a reader that stands still holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.events import Event


class TellingThread:
    """Hands events to `write`, one after the other, in a thread of its own.

    Args:
        write: prints one event.
        broken: called in the event loop when that failed, such as with BrokenPipeError because
            nobody reads any more; what comes after it is dropped.

    Attributes:
        is_stuck: an event is being written at this moment, which may take for ever.
    """

    def __init__(self, write: Callable[[Event], None], broken: Callable[[OSError], None]) -> None:
        self._write = write
        self._broken = broken
        self._gone = False
        self.is_stuck = False
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Event | asyncio.Future[bool] | Callable[[], None]] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._run, name="telling", daemon=True).start()

    def event(self, event: Event, /) -> None:
        """Take an event; it is written soon."""
        self._queue.put(event)

    def say(self, write: Callable[[], None]) -> None:
        """Have something written to standard error, after the events that were taken before."""
        self._queue.put(write)

    async def written(self) -> bool:
        """Wait until all that was taken is written; return False if it never will be."""
        mark: asyncio.Future[bool] = self._loop.create_future()
        self._queue.put(mark)
        return await mark

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, asyncio.Future):
                self._loop.call_soon_threadsafe(_resolve, item, not self._gone)
                continue
            if self._gone:
                continue
            self.is_stuck = True
            try:
                if callable(item):
                    with contextlib.suppress(OSError):
                        item()
                else:
                    self._write(item)
            except OSError as error:
                self._gone = True
                self._loop.call_soon_threadsafe(self._broken, error)
            self.is_stuck = False


def _resolve(mark: asyncio.Future[bool], written: bool) -> None:
    if not mark.done():
        mark.set_result(written)
