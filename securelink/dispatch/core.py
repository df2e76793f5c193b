"""The source of files of one link: what goes next, what the peer says to it, what has come back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from securelink.answers import Recorded, Settled
from securelink.clock import now_ms
from securelink.dispatch.ahead import Ahead
from securelink.dispatch.put_off import PutOff
from securelink.dispatch.under_way import UnderWay
from securelink.errors import StoreError, TransferError
from securelink.file_messages import Prefix
from securelink.leaving import Leaving
from securelink.resting import Rest
from securelink.store import outbox
from securelink.store.outbox import State as RowState
from securelink.threads import in_thread_or
from securelink.transfer.sending import State

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from securelink.dispatch.ahead import Which
    from securelink.dispatch.watch import Watch
    from securelink.file_messages import Accept, FileMessage
    from securelink.link import Link
    from securelink.messages import Receipt, Refused
    from securelink.node import Node
    from securelink.session import Data
    from securelink.store.outbox_files import FileRow

HAND_AHEAD = 8 << 20
"""Another than a small one is handed when no more than so many bytes of it are left."""

_log = logging.getLogger(__name__)


class Dispatch:
    """The files for one peer, over one link. It is the link's source of files.

    Args:
        node: the node.
        peer: the recipient's key, 32 bytes.
        link: ready, and both sides know files.
        which: the rows that are to go.
        watch: who is told.
    """

    def __init__(self, node: Node, peer: bytes, link: Link, which: Which, watch: Watch) -> None:
        self._node = node
        self._link = link
        self._which = which
        self._watch = watch
        self._ahead = Ahead(node, peer, which)
        self._files = UnderWay()
        self._number = 0
        self._recording = False
        self._wanted = asyncio.Event()
        self._rest = Rest(self.wake)
        self._put_off = PutOff(self._wanted.set)
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._unsubscribe = node.store.on_change(self._changed.set)
        self._start(self._prepare())
        self._start(self._watch_present())
        link.send_files(self)
        self.wake()

    # ---- for the owner

    def wake(self) -> None:
        """There may be new rows."""
        self._ahead.start_over()
        self._wanted.set()

    @property
    def compared(self) -> int:
        """How many bytes of the present file both sides compare at this moment; 0 if none."""
        present = self._files.present
        if present is None or present.transfer.state is not State.COMPARING:
            return 0
        return present.transfer.accepted

    async def aclose(self) -> None:
        """Send no more."""
        self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._rest.close()
        self._put_off.close()
        # A task that was cancelled while it handed rows has handed them all the same.
        unfinished = self._ahead.unfinished + self._files.unfinished
        self._files.let_all_go()
        if unfinished:
            with contextlib.suppress(StoreError):
                await self._node.store.run(outbox.take_back, unfinished)

    # ---- what the peer says

    def feed(self, message: Accept | Prefix) -> None:
        """Take what the peer says of what it has already.

        Raises:
            RemoteProtocolError: that is not possible now.
        """
        leaving = self._files.offered(message.number)
        if leaving is None:
            # Given up meanwhile: its CANCEL is under way.
            return
        if isinstance(message, Prefix):
            leaving.transfer.prefix(message)
        else:
            leaving.transfer.accept(message)
            self._files.go_back_to(leaving)
            if leaving.transfer.accepted:
                self._watch.compares(leaving.row)
                self._start(self._compare(leaving))
        self._link.more_of_files()

    def is_answer(self, answer: Receipt | Refused) -> bool:
        """Whether it answers one of these files; if so, nothing more of that file goes."""
        leaving = self._files.get(answer.id)
        if leaving is None:
            return False
        if leaving.transfer.state is not State.ENDED and not leaving.transfer.offer.folder:
            self._files.cancel(leaving)
        self._files.let_go(leaving)
        self._recording = True
        self._wanted.set()
        self._link.more_of_files()
        return True

    def unrecorded(self) -> None:
        """Answers could not be written down: their files are asked for again."""
        self._recording = False
        self._rest.begin()

    def recorded(self, results: Iterable[Recorded]) -> None:
        """Act on what `answers.record` wrote for them, once it is committed."""
        for result in results:
            if result.state is RowState.WAITING:
                self._put_off.add(result.seq)
            elif result.state is RowState.DELIVERED:
                self._rest.forget()
                self._put_off.taken()
            settled = result.settled(self._link)
            if settled is not None:
                self._watch.settled(settled)
        self._recording = False
        self._wanted.set()

    # ---- for the session

    def next(self) -> FileMessage | Data | None:
        """Return what goes next; the session asks whenever nothing else waits."""
        files = self._files
        while (cancel := files.next_cancel()) is None:
            present = files.present or files.take_again()
            if present is None:
                if files.runs_low:
                    self._wanted.set()
                return files.offer_next()
            try:
                message = self._step(present)
            except TransferError as error:
                self._give_up(present, error)
                continue
            if message is not None or files.present is present:
                return message
        return cancel

    # ---- inside: the present file

    def _step(self, leaving: Leaving) -> FileMessage | Data | None:
        """What goes next of the present file; None if something is awaited, or it is done."""
        transfer = leaving.transfer
        if transfer.state is State.SENDING:
            left = leaving.left
            if not leaving.handed and left is not None and left <= HAND_AHEAD:
                self._hand(leaving)
            data = leaving.data()
            if data is not None or transfer.state is State.SENDING:
                return data
        if transfer.state is State.WHOLE:
            if not leaving.handed:
                self._hand(leaving)
                return None
            end = leaving.end()
            leaving.close()
            self._files.present = None
            return end
        if transfer.is_compared:
            begin = transfer.begin()
            leaving.began()
            self._watch.resumed(leaving.row, begin.offset)
            return begin
        return None

    def _give_up(self, leaving: Leaving, error: TransferError) -> None:
        """It can't be sent as it was offered: the other side forgets it, and so do we."""
        self._files.cancel(leaving)
        self._files.let_go(leaving)
        self._start(self._drop([(leaving.row, error)]))

    # ---- inside: the store and the disk

    async def _prepare(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            room = self._files.room
            if self._rest.is_on or room <= 0:
                continue
            try:
                found = await self._ahead.rows(room)
                fresh = [
                    row
                    for row in found
                    if self._files.get(row.id) is None and self._put_off.may_go(row)
                ]
                if fresh:
                    await self._make_ready(fresh)
                if found:
                    self._wanted.set()
                elif self._put_off.end():
                    self.wake()
                elif self._is_idle():
                    self._watch.nothing_left()
            except StoreError as error:
                _log.warning("no file is sent for a while: %s", error)
                self._rest.begin()

    async def _make_ready(self, rows: Sequence[FileRow]) -> None:
        opened, failed = await self._ahead.open(rows)
        for row, descriptor, handed in opened:
            leaving = Leaving(
                row,
                self._number,
                descriptor,
                self._link.more_of_files,
                self._watch.sent,
                checksum=self._which.checksum,
                handed=handed,
            )
            self._number += 1
            self._files.add(leaving)
        await self._drop(failed)
        self._link.more_of_files()

    def _is_idle(self) -> bool:
        """Whether all that was under way has come to an end, and that was told."""
        # Two tasks are always there.
        is_told = not self._recording and len(self._tasks) == 2
        return is_told and not self._files and not self._wanted.is_set()

    async def _watch_present(self) -> None:
        """Send no more of a file whose row ends before the whole has left: it was cancelled.

        The others are looked at when they are handed.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            present = self._files.present
            if present is None or present.handed or present.handing:
                continue
            try:
                row = await self._node.store.read(outbox.get, present.row.seq)
            except StoreError:
                # It is looked at again before it is handed.
                continue
            is_open = row is not None and row.state in {RowState.WAITING, RowState.HANDED}
            if not is_open and self._files.has(present) and not present.handed:
                self._files.cancel(present)
                self._files.let_go(present)
                self._wanted.set()
                self._link.more_of_files()

    def _hand(self, leaving: Leaving) -> None:
        if not leaving.handing:
            leaving.handing = True
            self._start(self._hand_over(leaving))

    async def _hand_over(self, leaving: Leaving) -> None:
        try:
            handed = await self._node.store.run(outbox.hand, [leaving.row.seq], now_ms())
        except StoreError as error:
            _log.warning("%s", error)
            self._rest.begin()
            handed = []
        leaving.handed, leaving.handing = bool(handed), False
        if not handed and self._files.has(leaving):
            # Withdrawn meanwhile, or the store is busy: either way its END may not go.
            self._files.cancel(leaving)
            self._files.let_go(leaving)
        self._link.more_of_files()

    async def _compare(self, leaving: Leaving) -> None:
        try:
            descriptor, digest = await in_thread_or(_close_compared, leaving.compare)
        except TransferError as error:
            if self._files.has(leaving):
                self._give_up(leaving, error)
        else:
            leaving.compared(descriptor, digest)
        self._link.more_of_files()

    async def _drop(self, failed: Sequence[tuple[FileRow, TransferError]]) -> None:
        """Drop them, and tell."""
        if not failed:
            return
        try:
            await self._ahead.drop(failed)
        except StoreError as error:
            _log.warning("%s", error)
            # Then they are looked at again.
            self._rest.begin()
            return
        for row, reason in failed:
            self._watch.settled(Settled(row.seq, RowState.WITHDRAWN, None, error=reason))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._has_ended)

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        """A bug must not leave files waiting on a link that looks well: end it."""
        self._tasks.discard(task)
        self._wanted.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("files cannot be fed to their link", exc_info=error)
            self._link.abort()


def _close_compared(compared: tuple[int, Any]) -> None:
    os.close(compared[0])
