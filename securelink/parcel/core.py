"""One recipient's items on their way: what becomes of each row, and when all is done."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from securelink.clock import new_id, now_ms
from securelink.errors import SourceChanged, StoreError
from securelink.items import LinesItem, QueuedItem, StreamItem, Tally, TextItem, has_files
from securelink.parcel import ends
from securelink.parcel.putting import Putting
from securelink.parcel.rows import Rows
from securelink.progress import Phase
from securelink.store import outbox, outbox_files
from securelink.store.outbox import State

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from securelink.answers import Settled
    from securelink.directory import KnownPeer
    from securelink.errors import SecurelinkError
    from securelink.items import Item
    from securelink.node import Node
    from securelink.parcel.rows import Row
    from securelink.sources import Skipped
    from securelink.store.outbox_files import FileRow

_log = logging.getLogger(__name__)

MOST_CHANGES = 3
"""How often a file that changes while it is sent is begun anew."""


class Parcel:
    """Items on their way to one recipient. It watches their files, as a `dispatch.Watch`.

    Args:
        node: the node that sends.
        peer: the recipient.
        items: what it is to get, in order.
        queue: what is not delivered stays queued.
        shared: whichever process has a link may deliver it.
        patience: as for `Putting`.
        life: as for `Putting`.
        skipped: told of what is not sent, such as a symbolic link.

    Attributes:
        failure: why not all could be put; None as long as all is well.
        tallies: one for each item, in order.
        rows: what has not come to an end, and how far it is.
    """

    def __init__(
        self,
        node: Node,
        peer: KnownPeer,
        items: Sequence[Item],
        *,
        queue: bool = False,
        shared: bool = False,
        patience: float | None = None,
        life: int | None = None,
        skipped: Callable[[Skipped], None] = lambda _: None,
    ) -> None:
        self.failure: BaseException | None = None
        self.tallies = [
            Tally(
                item,
                item.id if isinstance(item, TextItem | QueuedItem) else new_id(),
                total=None if isinstance(item, StreamItem) else 0,
            )
            for item in items
        ]
        self.rows = Rows(Phase.WAITING if shared else Phase.CONNECTING)
        self._node = node
        self._peer = peer
        self._queue = queue
        self._putting = Putting(
            node,
            peer.key.raw,
            self.rows,
            queue=queue,
            shared=shared,
            patience=patience,
            life=life,
            skipped=skipped,
        )
        self._changes: dict[str, int] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._is_looking = False

    def start(self) -> None:
        """Begin to put the rows into the outbox, texts first."""
        self._start(self._putting.put(self.tallies))

    async def stop(self, *, finish: bool) -> None:
        """Put no more rows, or to *finish* all that are left; afterwards none comes any more."""
        if not finish:
            for task in self._work:
                task.cancel()
        while self._work:
            await asyncio.wait(self._work)

    def watch(self, wake: Callable[[], None]) -> None:
        """Have *wake* called whenever rows were put."""
        self._putting.wake = wake

    # ---- what it holds

    @property
    def has_files(self) -> bool:
        """Whether there is anything but texts."""
        return any(has_files(tally.item) for tally in self.tallies)

    @property
    def stream(self) -> int | None:
        """The descriptor of the stream, if there is one."""
        items = (tally.item for tally in self.tallies)
        return next((item.descriptor for item in items if isinstance(item, StreamItem)), None)

    @property
    def reads_lines(self) -> bool:
        """Whether more lines may come."""
        return any(
            isinstance(tally.item, LinesItem) and not tally.complete for tally in self.tallies
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way, and more may come at any time."""
        return not self.rows and not self.is_done()

    def is_done(self) -> bool:
        """Whether nothing is on its way any more: every row has come to an end.

        What was refused for now is not waited for.
        """
        return self.failure is not None or (
            not self._work and all(tally.is_done for tally in self.tallies)
        )

    async def until_not_idle(self) -> None:
        """Wait for something to be on its way, or for the end."""
        while self.is_idle:
            self.rows.changed.clear()
            await self.rows.changed.wait()

    async def until_read(self) -> None:
        """Wait for the end of the lines."""
        while self.reads_lines:
            self.rows.changed.clear()
            await self.rows.changed.wait()

    # ---- what becomes of it over a link of our own

    def compares(self, row: FileRow) -> None:
        """Both sides look how much is there."""
        self.rows.compares(row.seq)

    def resumed(self, row: FileRow, offset: int) -> None:
        """It goes from `offset` on."""
        self.rows.resumed(row.seq, offset)

    def sent(self, row: FileRow, count: int) -> None:
        """So many more bytes have gone."""
        self.rows.sent(row.seq, count)

    def settled(self, settled: Settled) -> None:
        """A row has come to an end, or was refused for now."""
        row = self.rows.get(settled.seq)
        if row is None:
            if settled.error is not None:
                # Nobody waits for it, so it is told where a person may see it.
                _log.warning("no longer queued: %s", settled.error.message)
            return
        if settled.state in {State.WAITING, State.HANDED} and settled.reason is None:
            return
        if settled.state is State.WAITING and self._queue:
            row.tally.put_off[settled.seq] = self._error(settled, row)
            return
        if settled.state is State.WAITING and settled.seq in row.tally.refused:
            # It is told already, and no progress.
            return
        self.rows.move()
        if self.rows.phase is Phase.COMPARING:
            self.rows.phase = Phase.MOVING
        is_ours = not row.queued
        if is_ours and isinstance(settled.error, SourceChanged) and self._may_begin_anew(row):
            self.rows.drop(settled.seq)
            self._start(self._putting.put_anew(settled.seq, row))
            return
        tally = row.tally
        tally.open.discard(settled.seq)
        if settled.state is State.WAITING:
            tally.refused[settled.seq] = self._error(settled, row)
            return
        tally.refused.pop(settled.seq, None)
        tally.put_off.pop(settled.seq, None)
        self.rows.end(settled.seq)
        if settled.state is State.DELIVERED:
            tally.delivered += 1
            tally.linked |= settled.link is not None
            tally.done += row.size - row.sent if tally.total is not None else 0
            tally.files_done += row.is_file
        else:
            tally.failed.append(self._error(settled, row))

    def nothing_left(self) -> None:
        """No file is on its way: those of which no end was told were ended by somebody else."""
        if self.rows and not self._is_looking:
            self._is_looking = True
            self._start(self._look_for_ended())

    # ---- what other processes make of it

    async def look(self) -> None:
        """See what another process, or an earlier one, has settled.

        Raises:
            StoreError: the store does not tell.
        """
        for settled in await self._node.store.read(ends.settled, self.rows.seqs):
            self.settled(settled)
        if self._putting.shared and self.has_files:
            noted = await self._node.store.read(outbox_files.progress, self._node.owner)
            for seq, sent in noted:
                self.rows.noted(seq, sent)

    async def until_settled(self) -> None:
        """Return when other processes, or an earlier one, have settled every row.

        Raises:
            StoreError: the store does not tell.
        """
        changed = asyncio.Event()
        unsubscribe = self._node.store.on_change(changed.set)
        try:
            while True:
                await self.look()
                if self.is_done():
                    return
                await changed.wait()
                changed.clear()
        finally:
            unsubscribe()

    async def share(self, patience: float | None) -> None:
        """Have whichever process has a link deliver what is not settled.

        Args:
            patience: seconds until others may hand over no text for the first time; None for ever.

        Raises:
            StoreError: the store fails.
        """
        if self._putting.shared:
            return
        self._putting.shared = True
        self.rows.phase = Phase.WAITING
        deadline = None if patience is None else now_ms() + int(patience * 1000)
        await self._node.store.run(outbox.share, self.rows.seqs, self._node.owner, deadline)

    async def keep(self) -> None:
        """Leave what is not settled to other processes no longer.

        Raises:
            StoreError: the store fails.
        """
        self._putting.shared = False
        self.rows.phase = Phase.CONNECTING
        await self._node.store.run(outbox.keep, self.rows.seqs, self._node.owner)

    # ---- inside

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever waits for what can't come must know.
            self.failure = self.failure or error
        self.rows.changed.set()

    async def _look_for_ended(self) -> None:
        try:
            found = await self._node.store.read(ends.settled, self.rows.files)
        except StoreError:
            # It is looked for again.
            found = []
        self._is_looking = False
        for settled in found:
            if settled.state is not State.WAITING:
                self.settled(settled)

    def _may_begin_anew(self, row: Row) -> bool:
        self._changes[row.label] = self._changes.get(row.label, 0) + 1
        return self._changes[row.label] < MOST_CHANGES

    def _error(self, settled: Settled, row: Row) -> SecurelinkError:
        return ends.error_of(settled, self._peer.name, row.label)
