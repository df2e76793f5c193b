"""Events on standard output, written by a thread: a reader that stands still holds up nobody."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.events import Event


class TellingThread:
    """Hands events to `write`, one after the other, in a thread of its own.

    Args:
        write: prints one event; a BrokenPipeError ends the telling.
        broken: called in the event loop when nobody reads any more.
    """

    def __init__(self, write: Callable[[Event], None], broken: Callable[[], None]) -> None:
        self._write = write
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Event | asyncio.Future[None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="telling", daemon=True).start()

    def event(self, event: Event, /) -> None:
        """Take an event; it is written soon."""
        self._queue.put(event)

    async def written(self) -> None:
        """Wait until all that was taken is written."""
        mark: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(mark)
        await mark

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, asyncio.Future):
                self._loop.call_soon_threadsafe(_resolve, item)
                continue
            try:
                self._write(item)
            except BrokenPipeError:
                self._loop.call_soon_threadsafe(self._broken)
                return


def _resolve(mark: asyncio.Future[None]) -> None:
    if not mark.done():
        mark.set_result(None)
