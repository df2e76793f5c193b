"""The files that go over one link: rows of the store, opened ahead, sent one after the other.

A row is committed as `handed` before the item that may complete it is sealed, its END or a
folder's OFFER: so a row that is still waiting was certainly not delivered. For small files that
is done for many at once, when they are opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from securelink import backoff, sources
from securelink.answers import Recorded, Settled
from securelink.clock import now_ms
from securelink.errors import StoreError, TransferError
from securelink.file_messages import Cancel, Prefix
from securelink.leaving import Leaving
from securelink.messages import Receipt, Refused
from securelink.session import Data
from securelink.store import notices, outbox, outbox_files
from securelink.store.outbox import State as RowState
from securelink.store.outbox_files import Kind
from securelink.threads import in_thread_or
from securelink.transfer.sending import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence

    from securelink.file_messages import Accept, FileMessage
    from securelink.link import Link
    from securelink.node import Node
    from securelink.store.outbox_files import FileRow

MOST_OPEN = 256
"""Files without an answer; the other side takes no more."""

MOST_READY = 64
"""Files that are opened ahead."""

SMALL = 1 << 20
"""A file of at most so many bytes is handed as soon as it is opened."""

HAND_AHEAD = 8 << 20
"""A larger one is handed when no more than so many bytes of it are left."""

FIRST_REST = 1.0
LONGEST_REST = 60.0
"""Seconds for which files rest after one was refused for now."""

_log = logging.getLogger(__name__)


class Watch(Protocol):
    """Whoever wants to know how far the files are. Nothing here may wait."""

    def compares(self, row: FileRow) -> None:
        """Both sides look how much of it is there already, which may take a while."""

    def resumed(self, row: FileRow, offset: int) -> None:
        """It goes from `offset` on, in bytes; what was told as sent before does not count."""

    def sent(self, row: FileRow, count: int) -> None:
        """So many more bytes of it have gone."""

    def settled(self, settled: Settled) -> None:
        """It has come to an end, or was refused for now."""

    def nothing_left(self) -> None:
        """No row is on its way: those of which no end was told were ended by somebody else."""


class _Nobody:
    """Does not watch."""

    def compares(self, row: FileRow) -> None: ...

    def resumed(self, row: FileRow, offset: int) -> None: ...

    def sent(self, row: FileRow, count: int) -> None: ...

    def settled(self, settled: Settled) -> None: ...

    def nothing_left(self) -> None: ...


NOBODY: Watch = _Nobody()


@dataclass(frozen=True, slots=True)
class Which:
    """Which rows are to go.

    Attributes:
        own: those of this process.
        queued: tells whether those of nobody may go too; None if they never do.
        stream: the descriptor that a row of a stream stands for.
        checksum: whether each brings the digest of the whole.
    """

    own: bool = True
    queued: Callable[[], bool] | None = None
    stream: int | None = None
    checksum: bool = False


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
        self._peer = peer
        self._link = link
        self._which = which
        self._watch = watch
        self._number = 0
        self._after = {"own": 0, "queued": 0}
        self._ready: deque[Leaving] = deque()
        self._again: deque[Leaving] = deque()
        self._current: Leaving | None = None
        self._cancels: deque[Cancel] = deque()
        self._open: dict[int, Leaving] = {}
        self._by_id: dict[bytes, Leaving] = {}
        self._noting: Sequence[FileRow] = ()
        self._recording = False
        self._wanted = asyncio.Event()
        self._rests: Iterator[float] | None = None
        self._rest: asyncio.TimerHandle | None = None
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
        self._after = {"own": 0, "queued": 0}
        self._wanted.set()

    @property
    def compares(self) -> bool:
        """Whether the present file waits for both sides to compare what is there already."""
        return self._current is not None and self._current.transfer.state is State.COMPARING

    async def aclose(self) -> None:
        """Send no more."""
        self._unsubscribe()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._rest is not None:
            self._rest.cancel()
        # A task that was cancelled while it handed rows has handed them all the same.
        unfinished = [row.seq for row in self._noting if row.state is RowState.WAITING]
        unfinished += [each.row.seq for each in self._by_id.values() if self._is_unfinished(each)]
        for leaving in list(self._by_id.values()):
            self._let_go(leaving)
        if unfinished:
            with contextlib.suppress(StoreError):
                await self._node.store.run(outbox.take_back, unfinished)

    # ---- what the peer says

    def feed(self, message: Accept | Prefix) -> None:
        """Take what the peer says of what it has already.

        Raises:
            RemoteProtocolError: that is not possible now.
        """
        leaving = self._open.get(message.number)
        if leaving is None:
            # Given up meanwhile: its CANCEL is under way.
            return
        if isinstance(message, Prefix):
            leaving.transfer.prefix(message)
        else:
            leaving.transfer.accept(message)
            if leaving is not self._current:
                self._again.append(leaving)
            if leaving.transfer.accepted:
                self._watch.compares(leaving.row)
                self._start(self._compare(leaving))
        self._link.more_of_files()

    def is_answer(self, answer: Receipt | Refused) -> bool:
        """Whether it answers one of these files; if so, nothing more of that file goes."""
        leaving = self._by_id.get(answer.id)
        if leaving is None:
            return False
        if leaving.transfer.state is not State.ENDED and not leaving.transfer.offer.folder:
            self._cancel(leaving)
        self._let_go(leaving)
        self._recording = True
        self._wanted.set()
        self._link.more_of_files()
        return True

    def unrecorded(self) -> None:
        """Answers could not be written down: their files are asked for again."""
        self._recording = False
        self._rest_a_while()

    def recorded(self, results: Iterable[Recorded]) -> None:
        """Act on what `answers.record` wrote for them, once it is committed."""
        for result in results:
            if result.state is RowState.WAITING:
                self._rest_a_while()
            elif result.state is RowState.DELIVERED:
                self._rests = None
            settled = result.settled(self._link)
            if settled is not None:
                self._watch.settled(settled)
        self._recording = False
        self._wanted.set()

    # ---- for the session

    def next(self) -> FileMessage | Data | None:
        """Return what goes next; the session asks whenever nothing else waits."""
        while True:
            if self._cancels:
                return self._cancels.popleft()
            if self._current is None:
                leaving = self._take_next()
                if leaving is None:
                    return None
                if leaving.transfer.offer.number not in self._open:
                    return self._offer(leaving)
            current = self._current
            assert current is not None
            try:
                message = self._step(current)
            except TransferError as error:
                self._give_up(current, error)
                continue
            if self._current is current:
                return message
            if message is not None:
                return message

    def _is_unfinished(self, leaving: Leaving) -> bool:
        """Whether it may have been handed here, and what would complete it has not left."""
        transfer = leaving.transfer
        has_left = transfer.offer.number in self._open
        return (
            leaving.row.state is RowState.WAITING
            and (leaving.handed or leaving.handing)
            and transfer.state is not State.ENDED
            and not (transfer.offer.folder and has_left)
        )

    # ---- inside: the present file

    def _take_next(self) -> Leaving | None:
        while self._again:
            leaving = self._again.popleft()
            if leaving.transfer.state is State.COMPARING:
                self._current = leaving
                return leaving
        if len(self._ready) <= MOST_READY // 2:
            self._wanted.set()
        if not self._ready or len(self._open) >= MOST_OPEN:
            return None
        self._current = self._ready.popleft()
        return self._current

    def _offer(self, leaving: Leaving) -> FileMessage:
        offer = leaving.transfer.offer
        self._open[offer.number] = leaving
        if offer.folder:
            self._current = None
        return offer

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
            self._current = None
            return end
        if transfer.is_compared:
            begin = transfer.begin()
            leaving.began()
            self._watch.resumed(leaving.row, begin.offset)
            return begin
        return None

    def _cancel(self, leaving: Leaving) -> None:
        """Have the other side forget it, unless it never heard of it."""
        if leaving.transfer.offer.number in self._open:
            self._cancels.append(Cancel(leaving.transfer.offer.number))

    def _let_go(self, leaving: Leaving) -> None:
        if self._open.pop(leaving.transfer.offer.number, None) is None:
            self._ready.remove(leaving)
        del self._by_id[leaving.row.id]
        if leaving.transfer.state is not State.OVER:
            leaving.transfer.close()
        leaving.close()
        if self._current is leaving:
            self._current = None

    def _give_up(self, leaving: Leaving, error: TransferError) -> None:
        """It can't be sent as it was offered: the other side forgets it, and so do we."""
        self._cancel(leaving)
        self._let_go(leaving)
        self._start(self._drop([(leaving.row, error)]))

    # ---- inside: the store and the disk

    async def _prepare(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            room = min(MOST_READY, MOST_OPEN - len(self._by_id)) - len(self._ready)
            if self._rest is not None or room <= 0:
                continue
            try:
                rows = await self._rows(room)
                if rows:
                    await self._make_ready(rows)
                    self._wanted.set()
                elif self._is_idle():
                    self._watch.nothing_left()
            except StoreError as error:
                _log.warning("no file is sent for a while: %s", error)
                self._noting = ()
                self._rest_a_while()

    def _is_idle(self) -> bool:
        """Whether all that was under way has come to an end, and that was told."""
        # Two tasks are always there.
        is_told = not self._recording and len(self._tasks) == 2
        return is_told and not self._by_id and not self._wanted.is_set()

    async def _rows(self, room: int) -> list[FileRow]:
        """The next rows that are not under way yet, the queued ones first."""
        store, found = self._node.store, []
        if self._which.queued is not None and self._which.queued():
            found = await store.read(outbox_files.queued, self._peer, self._after["queued"], room)
            if found:
                self._after["queued"] = found[-1].seq
        if not found and self._which.own:
            found = await store.read(
                outbox_files.own, self._node.owner, self._peer, self._after["own"], room
            )
            if found:
                self._after["own"] = found[-1].seq
        fresh = [row for row in found if row.id not in self._by_id]
        if found and not fresh:
            # All of them are under way: look further.
            self._wanted.set()
        return fresh

    async def _make_ready(self, rows: Sequence[FileRow]) -> None:
        opened = await in_thread_or(_close_all, _open_all, rows, self._which.stream)
        good = [(row, it) for row, it in opened if not isinstance(it, TransferError)]
        self._noting = [row for row, _ in good if _is_small(row)]
        try:
            handed = await self._node.store.run(_note, [row for row, _ in good])
        except BaseException:
            _close_all(good)
            raise
        self._noting = ()
        for row, descriptor in good:
            if row.seq in handed or not _is_small(row):
                leaving = Leaving(
                    row,
                    self._number,
                    descriptor,
                    self._link.more_of_files,
                    self._watch.sent,
                    checksum=self._which.checksum,
                    handed=row.seq in handed,
                )
                self._number += 1
                self._by_id[row.id] = leaving
                self._ready.append(leaving)
            else:
                # Withdrawn since it was read.
                _close(row, descriptor)
        await self._drop([(row, it) for row, it in opened if isinstance(it, TransferError)])
        self._link.more_of_files()

    async def _watch_present(self) -> None:
        """Send no more of a file whose row ends before the whole has left: it was cancelled.

        The others are looked at when they are handed.
        """
        while True:
            await self._changed.wait()
            self._changed.clear()
            present = self._current
            if present is None or present.handed or present.handing:
                continue
            try:
                row = await self._node.store.read(outbox.get, present.row.seq)
            except StoreError:
                # It is looked at again before it is handed.
                continue
            is_open = row is not None and row.state in {RowState.WAITING, RowState.HANDED}
            if not is_open and self._has(present) and not present.handed:
                self._cancel(present)
                self._let_go(present)
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
            self._rest_a_while()
            handed = []
        leaving.handed, leaving.handing = bool(handed), False
        if not handed and self._has(leaving):
            # Withdrawn meanwhile, or the store is busy: either way its END may not go.
            self._cancel(leaving)
            self._let_go(leaving)
        self._link.more_of_files()

    def _has(self, leaving: Leaving) -> bool:
        """Whether it is still under way; its row may be so anew, after a rest."""
        return self._by_id.get(leaving.row.id) is leaving

    async def _compare(self, leaving: Leaving) -> None:
        try:
            descriptor, digest = await in_thread_or(_close_compared, leaving.compare)
        except TransferError as error:
            if self._has(leaving):
                self._give_up(leaving, error)
        else:
            leaving.compared(descriptor, digest)
        self._link.more_of_files()

    async def _drop(self, failed: Sequence[tuple[FileRow, TransferError]]) -> None:
        """End the rows of files that can't be sent: no END of theirs has left."""
        if not failed:
            return
        try:
            await self._node.store.run(_withdraw, self._peer, failed)
        except StoreError as error:
            _log.warning("%s", error)
            # Then they are looked at again.
            self._rest_a_while()
            return
        for row, reason in failed:
            self._watch.settled(Settled(row.seq, RowState.WITHDRAWN, None, error=reason))

    def _rest_a_while(self) -> None:
        """Offer nothing new for a while, a longer one each time in a row."""
        if self._rest is not None:
            return
        if self._rests is None:
            self._rests = backoff.delays(FIRST_REST, LONGEST_REST, random.random)
        loop = asyncio.get_running_loop()
        self._rest = loop.call_later(next(self._rests), self._end_the_rest)

    def _end_the_rest(self) -> None:
        self._rest = None
        self.wake()

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


def _is_small(row: FileRow) -> bool:
    return row.kind is Kind.FOLDER or (row.kind is Kind.FILE and (row.size or 0) <= SMALL)


def _open_all(
    rows: Sequence[FileRow], stream: int | None
) -> list[tuple[FileRow, int | TransferError | None]]:
    """Open what the rows stand for; in a thread."""
    opened: list[tuple[FileRow, int | TransferError | None]] = []
    for row in rows:
        try:
            match row.kind:
                case Kind.FILE:
                    opened.append((row, sources.open_source(row)))
                case Kind.STREAM:
                    opened.append((row, stream))
                case Kind.FOLDER:
                    opened.append((row, None))
        except TransferError as error:
            opened.append((row, error))
    return opened


def _close(row: FileRow, descriptor: int | TransferError | None) -> None:
    if row.kind is Kind.FILE and isinstance(descriptor, int):
        os.close(descriptor)


def _close_all(opened: Iterable[tuple[FileRow, int | TransferError | None]]) -> None:
    for row, descriptor in opened:
        _close(row, descriptor)


def _close_compared(compared: tuple[int, Any]) -> None:
    os.close(compared[0])


def _note(conn: sqlite3.Connection, rows: Sequence[FileRow]) -> set[int]:
    """Note that these begin, and hand the small ones; return those that are handed."""
    outbox_files.begin(conn, [row.seq for row in rows])
    return set(outbox.hand(conn, [row.seq for row in rows if _is_small(row)], now_ms()))


def _withdraw(
    conn: sqlite3.Connection, peer: bytes, failed: Sequence[tuple[FileRow, TransferError]]
) -> None:
    now = now_ms()
    for row, error in failed:
        # Handed or not, what would complete it has not left: it waits again, and is given up.
        outbox.refused(
            conn,
            peer=peer,
            message_id=row.id,
            permanent=False,
            reason=error.message,
            now=now,
        )
        outbox.withdraw(conn, row.seq, now)
    # Whose row has an owner is told by it.
    notices.add(conn, [row.seq for row, _ in failed], now)
