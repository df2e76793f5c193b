"""The store for programs with an event loop, which never waits for a disk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from securelink.errors import StoreError
from securelink.store.workers import Job, Reader, Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

    from securelink.store.workers import Worker

P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """The store of a node, for one event loop; made by `open`, ended by `aclose`."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer = writer
        self._reader = reader
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> Store:
        """Open the store at *path*, made or brought up to date as needed.

        Raises:
            StoreError: as `Database.open`.
        """
        loop = asyncio.get_running_loop()
        workers: list[Worker] = []
        try:
            workers.append(writer := Writer(path, loop))
            await writer.opened
            # Only now: the reader finds the tables made.
            workers.append(reader := Reader(path, loop))
            await reader.opened
        except BaseException:
            for worker in workers:
                worker.stop()
            raise
        return cls(writer, reader)

    @property
    def commits(self) -> int:
        """How many transactions were committed here; several jobs share one."""
        return self._writer.commits

    async def run(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function that writes, in a transaction shared with others, and return its result.

        When this returns, the changes are on the disk. Jobs run in the order of the calls. If the
        function raises, its own changes are undone and nobody else's. A caller that is cancelled
        does not stop the function.

        Raises:
            StoreBusy: if another process kept the write lock for too long.
            StoreFull: if the disk is full.
            StoreError: if the store fails otherwise, or is closed.
        """
        return await self._submit(self._writer, function, *args, **kwargs)

    async def read(
        self,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a function that only reads, and return its result.

        It sees everything for which `run` has returned, and one state of the store throughout.

        Raises:
            StoreError: if the store fails, or is closed.
        """
        return await self._submit(self._reader, function, *args, **kwargs)

    async def _submit(
        self,
        worker: Worker,
        function: Callable[Concatenate[sqlite3.Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        if self._closed:
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def call(connection: sqlite3.Connection) -> T:
            return function(connection, *args, **kwargs)

        worker.submit(Job(call, future))
        return await future

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have *callback* called in the event loop after commits, ours and other processes'.

        One call may stand for several commits. Ours are told at once, others' within
        `POLL_INTERVAL`.

        Returns:
            A function that ends it; calling that again does nothing.
        """
        return self._writer.subscribe(callback)

    def hurry(self, seconds: float) -> None:
        """Let no job wait for other processes for longer than so many seconds from now.

        What can't be written by then raises StoreBusy as ever, and is not written.
        """
        self._writer.hurry(seconds)

    async def aclose(self) -> None:
        """Finish the jobs that wait, close the file and end the threads; twice does nothing."""
        self._closed = True
        workers = (self._reader, self._writer)
        for worker in workers:
            worker.stop()
        for worker in workers:
            await asyncio.shield(worker.ended)
            worker.join()
