"""A thread that does what would make the event loop wait for a disk, in the order it was asked."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

J = TypeVar("J")
R = TypeVar("R")


class DiskThread(threading.Thread, Generic[J, R]):
    """Works through jobs batch by batch, and tells the loop what came of them, likewise.

    It is a daemon because a process must be able to end while a disk makes it wait. Both ways
    many things cost one hand-over: while it works, jobs gather, and while the loop is busy,
    results do.

    Args:
        name: the thread's.
        work: does a batch of jobs, in the thread; it may take them out as it goes.
        deliver: takes results, in the order of `post`, in the event loop that made this.
        finish: what is to be done last, in the thread.

    Attributes:
        ended: done when the thread works no more: after `stop`, or because `work` has raised.
    """

    def __init__(
        self,
        name: str,
        *,
        work: Callable[[deque[J]], None],
        deliver: Callable[[Sequence[R]], None],
        finish: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._work = work
        self._deliver = deliver
        self._finish = finish
        self._batches: queue.SimpleQueue[Sequence[J] | None] = queue.SimpleQueue()
        self._results: deque[R] = deque()
        self._told = False
        self.start()

    def put(self, jobs: Sequence[J]) -> None:
        """Hand jobs over, from any thread; not after `stop`."""
        self._batches.put(jobs)

    def stop(self) -> None:
        """Have the thread end after the jobs that were handed over."""
        self._batches.put(None)

    def post(self, *results: R) -> None:
        """Tell the loop results, from the thread; these come to it together."""
        self._results.extend(results)
        # The loop clears this before it looks: whatever was added before is seen.
        if not self._told:
            self._told = True
            self._tell(self._take_results)

    def run(self) -> None:
        """Work until `stop`."""
        try:
            going = True
            while going:
                jobs, going = self._next()
                if jobs:
                    self._work(jobs)
        finally:
            self._finish()
            self._tell(self._end)

    def _next(self) -> tuple[deque[J], bool]:
        """Return the jobs that wait, and whether more can follow."""
        jobs: deque[J] = deque()
        batch = self._batches.get()
        while batch is not None:
            jobs += batch
            try:
                batch = self._batches.get_nowait()
            except queue.Empty:
                return jobs, True
        return jobs, False

    def _tell(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed: nobody is left to work for
            self.stop()

    def _take_results(self) -> None:
        self._told = False
        results = []
        while self._results:
            results.append(self._results.popleft())
        if results:
            self._deliver(results)

    def _end(self) -> None:
        self._take_results()
        if not self.ended.done():
            self.ended.set_result(None)
