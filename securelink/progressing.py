"""How far files are that one process sends and another one waits for, written into the store."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from securelink.errors import StoreError
from securelink.store import outbox_files

if TYPE_CHECKING:
    from securelink.answers import Settled
    from securelink.store.outbox_files import FileRow
    from securelink.store.writer import Store

INTERVAL = 1.0
"""Seconds between two notes of how far a file is."""


class Progressing:
    """Watches the files of a `dispatch.Dispatch`: notes how far those are that somebody owns.

    Files that are just queued have nobody who waits for them, and cost nothing.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._sent: dict[int, int] = {}
        self._noted_at = 0.0
        self._noting: asyncio.Task[None] | None = None

    def compares(self, row: FileRow) -> None:
        """Both sides look how much of it is there already: that moves it too."""
        self._take(row, 0)

    def resumed(self, row: FileRow, offset: int) -> None:
        """It goes from `offset` on."""
        self._take(row, offset)

    def sent(self, row: FileRow, count: int) -> None:
        """So many more bytes of it have gone."""
        if row.owner is not None:
            self._take(row, self._sent.get(row.seq, 0) + count)

    def settled(self, settled: Settled) -> None:
        """It has come to an end, or was refused for now."""
        self._sent.pop(settled.seq, None)

    def nothing_left(self) -> None:
        """No row is on its way."""

    def _take(self, row: FileRow, sent: int) -> None:
        if row.owner is None:
            return
        self._sent[row.seq] = sent
        now = self._loop.time()
        if now - self._noted_at >= INTERVAL and self._noting is None:
            self._noted_at = now
            self._noting = asyncio.create_task(self._note(row.seq, sent))

    async def _note(self, seq: int, sent: int) -> None:
        try:
            await self._store.run(outbox_files.note_sent, seq, sent)
        except StoreError:
            # The next note may do.
            return
        finally:
            self._noting = None
