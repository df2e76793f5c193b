"""What one `send` has for one recipient: its items as rows of the outbox, and what became of them.

A folder is as many rows as it holds, put while the first of them are already on their way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from securelink import sources
from securelink.answers import Settled
from securelink.clock import new_id, now_ms
from securelink.errors import (
    Cancelled,
    NoReceipt,
    PeerRefused,
    SecurelinkError,
    Skipped,
    SourceChanged,
    SourceUnreadable,
    StoreError,
    TransferError,
    Unreachable,
    UsageError,
)
from securelink.items import (
    FilesItem,
    LinesItem,
    QueuedItem,
    StreamItem,
    Tally,
    TextItem,
    has_files,
)
from securelink.messages import RefusalCode
from securelink.progress import Phase
from securelink.store import outbox, outbox_files, tries
from securelink.store.outbox import State
from securelink.store.outbox_files import Kind, NewFile
from securelink.threads import in_thread

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence

    from securelink.directory import KnownPeer
    from securelink.items import Item
    from securelink.node import Node
    from securelink.store.outbox_files import FileRow, Put

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

BATCH = 500
"""Rows that are put at a time."""

MOST_LINES_OPEN = 2000
"""Lines under way before no more are read, if they are not to be queued."""

MOST_CHANGES = 3
"""How often a file that changes while it is sent is begun anew."""


@dataclass(slots=True)
class _Row:
    """An own row on its way."""

    tally: Tally
    size: int = 0
    is_file: bool = True
    sent: int = 0
    resumed: int = 0
    label: str = ""
    queued: bool = False
    """It is not ours, but any process's."""


class Parcel:
    """Items on their way to one recipient.

    Args:
        node: the node that sends.
        peer: the recipient.
        items: what it is to get, in order.
        queue: what is not delivered stays queued.
        shared: whichever process has a link may deliver it.
        patience: seconds from when a text is put until others may no longer hand it over for the
            first time; None for ever. Of a file that is known only when it has nearly gone.
        life: for how long what is queued may wait, in ms of the store's own time; None for as long
            as it takes.
        skipped: told of what is not sent, such as a symbolic link.

    Attributes:
        peer: the recipient.
        failure: why not all could be put; None as long as all is well.
        tallies: one for each item, in order.
        phase: what is done at this moment.
        moved: the bytes of files that have gone, in whichever attempt.
        changed: set whenever something has moved.
        moved_at: when that last was, in the event loop's time.
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
        skipped: Callable[[sources.Skipped], None] = lambda _: None,
    ) -> None:
        self.peer = peer
        self.failure: BaseException | None = None
        self.tallies = [
            Tally(
                item,
                item.id if isinstance(item, TextItem | QueuedItem) else new_id(),
                total=None if isinstance(item, StreamItem) else 0,
            )
            for item in items
        ]
        self.phase = Phase.WAITING if shared else Phase.CONNECTING
        self.moved = 0
        self.changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.moved_at = self._loop.time()
        self._node = node
        self._queue = queue
        self._shared = shared
        self._patience = patience
        self._life = life
        self._skipped = skipped
        self._rows: dict[int, _Row] = {}
        self._changes: dict[str, int] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._is_looking = False
        self._wake: Callable[[], None] = lambda: None
        self._present: _Row | None = None

    # ---- into the outbox

    def start(self) -> None:
        """Begin to put the rows into the outbox, texts first."""
        self._start(self._put())

    async def stop(self, *, finish: bool) -> None:
        """Put no more rows, or to *finish* all that are left; afterwards none comes any more."""
        if not finish:
            for task in self._work:
                task.cancel()
        while self._work:
            await asyncio.wait(self._work)

    async def _put(self) -> None:
        for tally in self.tallies:
            if isinstance(tally.item, TextItem):
                await self._put_texts(tally, [tally.item])
                tally.complete = True
            elif isinstance(tally.item, QueuedItem):
                self._take_up(tally, tally.item)
                tally.complete = True
        for tally in self.tallies:
            try:
                match tally.item:
                    case FilesItem():
                        await self._put_files(tally, tally.item)
                    case StreamItem():
                        await self._put_stream(tally, tally.item)
                    case LinesItem():
                        await self._put_lines(tally, tally.item)
            except SecurelinkError as error:
                # What is put of it goes, and the other items too.
                tally.failed.append(error)
            tally.complete = True
            self._move()

    def watch(self, wake: Callable[[], None]) -> None:
        """Have *wake* called whenever rows were put."""
        self._wake = wake

    def _take_up(self, tally: Tally, item: QueuedItem) -> None:
        for row in item.rows:
            is_file = row.kind == "file"
            tally.total = (tally.total or 0) + row.size
            tally.files += is_file
            own = _Row(tally, row.size, is_file, label=row.name, queued=True)
            self._add(tally, row.seq, own)

    async def _put_texts(self, tally: Tally, texts: Sequence[TextItem]) -> None:
        writing = self._node.store.run(self._write_texts, texts, now_ms())
        async with _to_its_end(writing) as seqs:
            for seq in seqs:
                self._add(tally, seq, _Row(tally, is_file=False))
        self._wake()

    def _write_texts(
        self, conn: sqlite3.Connection, texts: Sequence[TextItem], now: int
    ) -> list[int]:
        deadline = None
        if self._shared and self._patience is not None:
            deadline = now + int(self._patience * 1000)
        return [
            outbox.put(
                conn,
                message_id=each.id,
                peer=self.peer.key.raw,
                text=each.text,
                sent_at=now,
                owner=self._node.owner,
                shared=self._shared,
                deadline=deadline,
                life=self._life,
            )
            for each in texts
        ]

    async def _put_lines(self, tally: Tally, item: LinesItem) -> None:
        """Put each line as it comes; what can't be a text is told, and the rest goes on."""
        told = 0
        while lines := await self._next_lines(item):
            texts = []
            for number, line in enumerate(lines, start=told + 1):
                if len(line) > item.longest:
                    tally.failed.append(
                        UsageError(f"line {number} is longer than {item.longest} bytes")
                    )
                    continue
                try:
                    text = line.decode()
                except UnicodeDecodeError:
                    tally.failed.append(UsageError(f"line {number} is not UTF-8"))
                    continue
                if text:
                    texts.append(TextItem(new_id(), text))
            told += len(lines)
            if texts:
                await self._put_texts(tally, texts)
            if not self._queue:
                # What is queued stands in the store, however long nobody comes for it.
                await self._until_fewer_are_open()

    async def _next_lines(self, item: LinesItem) -> list[bytes]:
        try:
            return await item.lines.next()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise SourceUnreadable(f"standard input cannot be read: {reason}") from None

    async def _until_fewer_are_open(self) -> None:
        while len(self._rows) > MOST_LINES_OPEN:
            self.changed.clear()
            await self.changed.wait()

    async def _put_stream(self, tally: Tally, item: StreamItem) -> None:
        stream = NewFile(item.name, b"", Kind.STREAM, None, now_ms() * 1_000_000, 0, 0o600)
        await self._put_batch(tally, [stream], tally.id)

    async def _put_files(self, tally: Tally, item: FilesItem) -> None:
        argument = item.argument
        group = await self._node.store.read(
            outbox_files.group_of,
            peer=self.peer.key.raw,
            path=argument.path,
            name=argument.name,
        )
        tally.id = group or tally.id
        walk = sources.walk(argument)
        while batch := await in_thread(_next, walk):
            for each in batch:
                if isinstance(each, sources.Skipped):
                    self._skipped(each)
                    if each.path == argument.path:
                        path = os.fsdecode(each.path)
                        tally.failed.append(TransferError(f"{path} is not sent: {each.reason}"))
            files = [each for each in batch if isinstance(each, NewFile)]
            if files:
                await self._put_batch(tally, files, tally.id)

    async def _put_batch(self, tally: Tally, files: Sequence[NewFile], group: bytes) -> None:
        writing = self._node.store.run(
            outbox_files.put,
            peer=self.peer.key.raw,
            files=files,
            group=group,
            new_id=new_id,
            sent_at=now_ms(),
            owner=self._node.owner,
            shared=self._shared,
            life=self._life,
        )
        async with _to_its_end(writing) as put:
            for file, made in zip(files, put, strict=True):
                self._count(tally, file, made)
        if tally.rows == 1 and files[0].kind is not Kind.FOLDER:
            # So far it is one file, whose own ID is what its receiver tells too.
            row = await self._node.store.read(outbox_files.get, put[0].seq)
            tally.id = tally.id if row is None or "/" in row.name else row.id
        self._wake()

    def _count(self, tally: Tally, file: NewFile, made: Put) -> None:
        if made.changed:
            tally.changed.add(file.name)
        if tally.total is not None:
            tally.total += file.size or 0
        tally.files += file.kind is not Kind.FOLDER
        row = _Row(tally, file.size or 0, file.kind is not Kind.FOLDER, label=file.name)
        self._add(tally, made.seq, row)

    def _add(self, tally: Tally, seq: int, row: _Row) -> None:
        tally.rows += 1
        tally.open.add(seq)
        self._rows[seq] = row
        self._move()

    # ---- what becomes of them: this is a `dispatch.Watch`

    def compares(self, row: FileRow) -> None:
        """Both sides look how much is there."""
        self._present = self._rows.get(row.seq)
        self.phase = Phase.COMPARING
        self._move()

    def resumed(self, row: FileRow, offset: int) -> None:
        """It goes from `offset` on."""
        if (own := self._rows.get(row.seq)) is not None:
            self._forget(own)
            own.sent = own.resumed = offset
            own.tally.done += offset
            own.tally.resumed += offset
            self._present = own
            self.phase = Phase.MOVING
            self._move()

    def sent(self, row: FileRow, count: int) -> None:
        """So many more bytes have gone."""
        if (own := self._rows.get(row.seq)) is not None:
            own.sent += count
            own.tally.done += count
            self._present = own
            self.phase = Phase.MOVING
            self.moved += count
            # Nobody is woken: this is so every few microseconds.
            self.moved_at = self._loop.time()

    def settled(self, settled: Settled) -> None:
        """A row has come to an end, or was refused for now."""
        own = self._rows.get(settled.seq)
        if own is None:
            if settled.error is not None:
                # Nobody waits for it, so it is told where a person may see it.
                _log.warning("no longer queued: %s", settled.error.message)
            return
        if settled.state is State.WAITING and self._queue:
            return
        if settled.state in {State.WAITING, State.HANDED} and settled.reason is None:
            return
        self._move()
        if self.phase is Phase.COMPARING:
            self.phase = Phase.MOVING
        tally = own.tally
        is_ours = not own.queued
        if is_ours and isinstance(settled.error, SourceChanged) and self._may_begin_anew(own):
            self._drop(settled.seq, own)
            self._start(self._put_anew(settled.seq, own))
            return
        tally.open.discard(settled.seq)
        if settled.state is State.WAITING:
            tally.refused[settled.seq] = self._error(settled, own)
            return
        tally.refused.pop(settled.seq, None)
        del self._rows[settled.seq]
        if settled.state is State.DELIVERED:
            tally.delivered += 1
            tally.linked |= settled.link is not None
            tally.done += own.size - own.sent if tally.total is not None else 0
            tally.files_done += own.is_file
        else:
            tally.failed.append(self._error(settled, own))

    def nothing_left(self) -> None:
        """No file is on its way: those of which no end was told were ended by somebody else."""
        if self._rows and not self._is_looking:
            self._is_looking = True
            self._start(self._look_for_ended())

    async def look(self) -> None:
        """See what another process, or an earlier one, has settled.

        Raises:
            StoreError: the store does not tell.
        """
        for settled in await self._node.store.read(_settled, list(self._rows)):
            self.settled(settled)
        if self._shared and self.has_files:
            noted = await self._node.store.read(outbox_files.progress, self._node.owner)
            for seq, sent in noted:
                self._note_progress(seq, sent)

    async def keep(self) -> None:
        """Leave what is not settled to other processes no longer.

        Raises:
            StoreError: the store fails.
        """
        self._shared = False
        self.phase = Phase.CONNECTING
        await self._node.store.run(outbox.keep, self.open_rows(), self._node.owner)

    def begin_link(self) -> None:
        """A new link: what has no receipt is not known to have arrived."""
        self.phase = Phase.MOVING
        for own in self._rows.values():
            self._forget(own)

    def end_link(self) -> None:
        """That link has ended."""
        self.phase = Phase.CONNECTING

    @property
    def own_texts(self) -> list[int]:
        """The rows of the texts that are still on their way."""
        return [seq for seq, row in self._rows.items() if not row.label]

    @property
    def has_files(self) -> bool:
        """Whether there is anything but texts."""
        return any(has_files(tally.item) for tally in self.tallies)

    @property
    def reads_lines(self) -> bool:
        """Whether more lines may come."""
        return any(
            isinstance(tally.item, LinesItem) and not tally.complete for tally in self.tallies
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way, and more may come at any time."""
        return not self._rows and not self.is_done()

    async def until_not_idle(self) -> None:
        """Wait for something to be on its way, or for the end."""
        while self.is_idle:
            self.changed.clear()
            await self.changed.wait()

    async def until_read(self) -> None:
        """Wait for the end of the lines."""
        while self.reads_lines:
            self.changed.clear()
            await self.changed.wait()

    @property
    def stream(self) -> int | None:
        """The descriptor of the stream, if there is one."""
        items = (tally.item for tally in self.tallies)
        return next((item.descriptor for item in items if isinstance(item, StreamItem)), None)

    def is_done(self) -> bool:
        """Whether nothing is on its way any more: every row has come to an end.

        What was refused for now ends the rest of its item too.
        """
        return self.failure is not None or (
            not self._work and all(tally.is_done for tally in self.tallies)
        )

    def open_rows(self) -> list[int]:
        """The rows that have not come to an end."""
        return list(self._rows)

    @property
    def present(self) -> str:
        """What goes at this moment, in the words of its sender."""
        return self._present.label if self._present is not None else ""

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
        self.changed.set()

    async def _look_for_ended(self) -> None:
        files = [seq for seq, row in self._rows.items() if row.label]
        try:
            found = await self._node.store.read(_settled, files)
        except StoreError:
            # It is looked for again.
            found = []
        self._is_looking = False
        for settled in found:
            if settled.state is not State.WAITING:
                self.settled(settled)

    def _note_progress(self, seq: int, sent: int) -> None:
        """Another process has sent so much of a file."""
        own = self._rows.get(seq)
        if own is not None and own.sent != sent:
            own.tally.done += sent - own.sent
            self.moved += max(sent - own.sent, 0)
            own.sent = sent
            self._present = own
            self.phase = Phase.MOVING
            self._move()

    def _move(self) -> None:
        self.moved_at = self._loop.time()
        self.changed.set()

    def _forget(self, own: _Row) -> None:
        own.tally.done -= own.sent
        own.tally.resumed -= own.resumed
        own.sent = own.resumed = 0

    def _drop(self, seq: int, own: _Row) -> None:
        self._forget(own)
        tally = own.tally
        tally.open.discard(seq)
        tally.rows -= 1
        tally.files -= 1
        if tally.total is not None:
            tally.total -= own.size
        del self._rows[seq]

    def _may_begin_anew(self, own: _Row) -> bool:
        self._changes[own.label] = self._changes.get(own.label, 0) + 1
        return self._changes[own.label] < MOST_CHANGES

    async def _put_anew(self, seq: int, own: _Row) -> None:
        """A file has changed while it was sent: begin with what it is now."""
        tally = own.tally
        try:
            row = await self._node.store.read(outbox_files.get, seq)
            assert row is not None, "it ended a moment ago"
            found = await in_thread(sources.look_again, row)
            await self._put_batch(tally, [found], row.group)
            tally.changed.add(own.label)
        except SecurelinkError as error:
            tally.rows += 1
            tally.failed.append(error)
        self._move()

    def _error(self, settled: Settled, own: _Row) -> SecurelinkError:
        name, what = self.peer.name, own.label or "it"
        match settled.state:
            case State.UNCONFIRMED:
                return unconfirmed(name, settled.reason)
            case State.REFUSED if settled.code == RefusalCode.EXISTS:
                return Skipped(f"{name} has another {what} already: it was left as it is")
            case State.REFUSED if settled.code == RefusalCode.NOT_ALLOWED and own.label:
                return PeerRefused(f"{name} takes no files from this node")
            case State.REFUSED:
                return PeerRefused(f"{name} refused {what}: {settled.reason}")
            case State.WAITING:
                return PeerRefused(
                    f"{name} refused {what}: {settled.reason}", hint="try again later"
                )
        if settled.error is not None:
            return settled.error
        if settled.reason == outbox.CANCELLED:
            return Cancelled(f"{name} does not get {what}: {settled.reason}")
        return Unreachable(f"{name}: {settled.reason or 'withdrawn'}")


@contextlib.asynccontextmanager
async def _to_its_end(writing: Coroutine[Any, Any, _T]) -> AsyncIterator[_T]:
    """Give what *writing* returns to the block, also when the caller is cancelled meanwhile.

    The store writes all the same, so what it wrote must be known before the cancellation goes on.
    """
    task = asyncio.create_task(writing)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            await asyncio.wait([task])
        yield task.result()
        raise
    yield task.result()


def _settled(conn: sqlite3.Connection, seqs: Sequence[int]) -> list[Settled]:
    """Those of the rows that have come to an end, or were refused for now."""
    found = []
    for start in range(0, len(seqs), BATCH):
        batch = seqs[start : start + BATCH]
        states = outbox.states(conn, batch)
        for seq in batch:
            # A row that is forgotten has ended long ago; how, nobody here knows any more.
            state, reason = states.get(seq, (State.UNCONFIRMED, outbox.FORGOTTEN))
            if state is not State.HANDED and (state, reason) != (State.WAITING, None):
                found.append(Settled(seq, state, None, reason))
    return found


def unconfirmed(name: str, reason: str | None) -> NoReceipt:
    """The error for a row whose end nobody here knows."""
    return NoReceipt(
        f"{name} has not confirmed it: {reason}",
        hint="it may have arrived; with the same --id it can be sent again safely",
    )


def _next(walk: Iterator[NewFile | sources.Skipped]) -> list[NewFile | sources.Skipped]:
    return list(islice(walk, BATCH))


def let_go(
    conn: sqlite3.Connection,
    seqs: Iterable[int],
    owner: str,
    now: int,
    *,
    queue: bool,
    in_vain: tuple[bytes, str] | None = None,
) -> set[int]:
    """Withdraw the rows that have not left, or leave them queued; return those that may have left.

    What may have left is confirmed by the next link, whichever process makes it.

    Args:
        conn: the store.
        seqs: the rows.
        owner: this process.
        now: ms since 1970.
        queue: leave them queued.
        in_vain: whose peer could not be reached for them, and why.
    """
    if in_vain is not None:
        tries.note_failure(conn, *in_vain, now)
    handed = set()
    for seq in seqs:
        row = outbox.get(conn, seq)
        if row is None:
            continue
        # Another process may have taken it over, under the same ID: then it is theirs.
        if row.owner in {None, owner}:
            if not queue:
                outbox.withdraw(conn, seq, now)
            outbox.release(conn, seq)
        if row.state is State.HANDED:
            handed.add(seq)
    return handed
