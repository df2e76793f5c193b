"""What one `send` has for one recipient: items, the rows that they are, what became of them.

An item is what a person gave: one text, one file or folder, one stream. A folder is as many rows
as it holds, put while the first of them are already on their way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from securelink import sources
from securelink.answers import Settled
from securelink.clock import new_id, now_ms
from securelink.errors import (
    NoReceipt,
    PeerRefused,
    SecurelinkError,
    Skipped,
    SourceChanged,
    TransferError,
    Unreachable,
    UsageError,
)
from securelink.messages import RefusalCode
from securelink.progress import Phase
from securelink.store import outbox, outbox_files
from securelink.store.outbox import State
from securelink.store.outbox_files import Kind, NewFile
from securelink.threads import in_thread

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence

    from securelink.directory import KnownPeer
    from securelink.lines import Lines
    from securelink.node import Node
    from securelink.sources import Argument
    from securelink.store.outbox_files import FileRow, Put

_T = TypeVar("_T")

BATCH = 500
"""Rows that are put at a time."""

MOST_LINES_OPEN = 2000
"""Lines under way before no more are read."""

MOST_CHANGES = 3
"""How often a file that changes while it is sent is begun anew."""


@dataclass(frozen=True, slots=True)
class TextItem:
    """A text; `id` is its 16 bytes."""

    id: bytes
    text: str


@dataclass(frozen=True, slots=True)
class FilesItem:
    """A file or folder; `given` is what the person wrote."""

    given: str
    argument: Argument


@dataclass(frozen=True, slots=True)
class StreamItem:
    """What a descriptor gives until its end, under a name."""

    name: str
    descriptor: int


@dataclass(frozen=True, slots=True)
class LinesItem:
    """Texts that come as the lines of a pipe do."""

    lines: Lines
    longest: int
    """The most bytes of one."""


Item: TypeAlias = TextItem | FilesItem | StreamItem | LinesItem


@dataclass(slots=True)
class Tally:
    """How far an item is; sizes in bytes."""

    item: Item
    id: bytes
    """The text's, the single file's, or the folder's group."""
    total: int | None = 0
    """Of all its files; None for a stream."""
    files: int = 0
    files_done: int = 0
    done: int = 0
    resumed: int = 0
    changed: set[str] = field(default_factory=set)
    """What started over because it is another file than at an earlier attempt."""
    rows: int = 0
    delivered: int = 0
    linked: bool = False
    """Our own link has delivered of it."""
    open: set[int] = field(default_factory=set)
    errors: list[SecurelinkError] = field(default_factory=list)
    """Why rows were not delivered."""
    complete: bool = False
    """All its rows are put."""
    refused_for_now: bool = False
    """The peer does not take one of its files at present, so the others are not tried either."""


@dataclass(slots=True)
class _Row:
    """An own row on its way."""

    tally: Tally
    size: int = 0
    is_file: bool = True
    sent: int = 0
    resumed: int = 0
    label: str = ""


class Parcel:
    """Items on their way to one recipient.

    Args:
        node: the node that sends.
        peer: the recipient.
        items: what it is to get, in order.
        queue: what is not delivered stays queued.
        shared: whichever process has a link may deliver it.
        deadline: when it may no longer be handed over for the first time, in ms since 1970.
        skipped: told of what is not sent, such as a symbolic link.

    Attributes:
        peer: the recipient.
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
        deadline: int | None = None,
        skipped: Callable[[sources.Skipped], None] = lambda _: None,
    ) -> None:
        self.peer = peer
        self.tallies = [
            Tally(
                item,
                item.id if isinstance(item, TextItem) else new_id(),
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
        self._deadline = deadline
        self._skipped = skipped
        self._rows: dict[int, _Row] = {}
        self._changes: dict[str, int] = {}
        self._again: set[asyncio.Task[None]] = set()
        self._wake: Callable[[], None] = lambda: None
        self._present: _Row | None = None

    # ---- into the outbox

    async def put(self) -> None:
        """Put all rows into the outbox, texts first; a cancelled call may leave some out.

        Raises:
            StoreError: they can't be written.
            UsageError: the ID of a text was used for another one.
        """
        for tally in self.tallies:
            if isinstance(tally.item, TextItem):
                await self._put_text(tally, tally.item)
        for tally in self.tallies:
            match tally.item:
                case FilesItem():
                    await self._put_files(tally, tally.item.argument)
                case StreamItem():
                    await self._put_stream(tally, tally.item)
                case LinesItem():
                    await self._put_lines(tally, tally.item)

    def watch(self, wake: Callable[[], None]) -> None:
        """Have *wake* called whenever rows were put."""
        self._wake = wake

    async def _put_text(self, tally: Tally, item: TextItem) -> None:
        await self._put_texts(tally, [item])
        tally.complete = True

    async def _put_texts(self, tally: Tally, texts: Sequence[TextItem]) -> None:
        writing = self._node.store.run(self._write_texts, texts, now_ms())
        async with _to_its_end(writing) as seqs:
            for seq in seqs:
                self._add(tally, seq, _Row(tally, is_file=False))
        self._wake()

    def _write_texts(
        self, conn: sqlite3.Connection, texts: Sequence[TextItem], now: int
    ) -> list[int]:
        return [
            outbox.put(
                conn,
                message_id=each.id,
                peer=self.peer.key.raw,
                text=each.text,
                sent_at=now,
                owner=self._node.owner,
                shared=self._shared,
                deadline=self._deadline,
            )
            for each in texts
        ]

    async def _put_lines(self, tally: Tally, item: LinesItem) -> None:
        """Put each line as it comes; what can't be a text is told, and the rest goes on."""
        told = 0
        while lines := await item.lines.next():
            texts = []
            for number, line in enumerate(lines, start=told + 1):
                try:
                    text = line.decode()
                except UnicodeDecodeError:
                    tally.errors.append(UsageError(f"line {number} is not UTF-8"))
                    continue
                if len(line) > item.longest:
                    tally.errors.append(
                        UsageError(f"line {number} is longer than {item.longest} bytes")
                    )
                elif text:
                    texts.append(TextItem(new_id(), text))
            told += len(lines)
            if texts:
                await self._put_texts(tally, texts)
            await self._until_fewer_are_open()
        tally.complete = True
        self._move()

    async def _until_fewer_are_open(self) -> None:
        while len(self._rows) > MOST_LINES_OPEN:
            self.changed.clear()
            await self.changed.wait()

    async def _put_stream(self, tally: Tally, item: StreamItem) -> None:
        stream = NewFile(item.name, b"", Kind.STREAM, None, now_ms() * 1_000_000, 0, 0o600)
        await self._put_batch(tally, [stream], tally.id)
        tally.complete = True

    async def _put_files(self, tally: Tally, argument: Argument) -> None:
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
                        tally.errors.append(TransferError(f"{path} is not sent: {each.reason}"))
            files = [each for each in batch if isinstance(each, NewFile)]
            if files:
                await self._put_batch(tally, files, tally.id)
        tally.complete = True
        self._move()

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
            deadline=self._deadline,
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
            return
        if settled.state is State.WAITING and self._queue:
            return
        if settled.state in {State.WAITING, State.HANDED} and settled.reason is None:
            return
        self._move()
        if self.phase is Phase.COMPARING:
            self.phase = Phase.MOVING
        tally = own.tally
        if isinstance(settled.error, SourceChanged) and self._may_begin_anew(own):
            self._drop(settled.seq, own)
            task = asyncio.create_task(self._put_anew(settled.seq, own))
            self._again.add(task)
            task.add_done_callback(self._again.discard)
            return
        if settled.state is State.DELIVERED:
            tally.delivered += 1
            tally.linked |= settled.link is not None
            tally.done += own.size - own.sent if tally.total is not None else 0
            tally.files_done += own.is_file
            own.sent = own.size
        else:
            tally.refused_for_now |= settled.state is State.WAITING
            tally.errors.append(self._error(settled, own))
        tally.open.discard(settled.seq)
        if settled.state is not State.WAITING:
            del self._rows[settled.seq]

    def nothing_left(self) -> None:
        """No row is on its way: those of which no end was told were ended by somebody else."""

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
        return any(isinstance(tally.item, FilesItem | StreamItem) for tally in self.tallies)

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

    @property
    def stream(self) -> int | None:
        """The descriptor of the stream, if there is one."""
        items = (tally.item for tally in self.tallies)
        return next((item.descriptor for item in items if isinstance(item, StreamItem)), None)

    def is_done(self) -> bool:
        """Whether nothing is on its way any more: every row has come to an end.

        What was refused for now ends the rest of its item too.
        """
        return not self._again and all(
            tally.complete and (not tally.open or tally.refused_for_now) for tally in self.tallies
        )

    def open_rows(self) -> list[int]:
        """The rows that have not come to an end."""
        return list(self._rows)

    def watched_rows(self) -> list[int]:
        """Those of them that another process may settle: texts by their ID, and what is shared."""
        return self.open_rows() if self._shared else self.own_texts

    @property
    def present(self) -> str:
        """What goes at this moment, in the words of its sender."""
        return self._present.label if self._present is not None else ""

    # ---- inside

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
            tally.errors.append(error)
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


def unconfirmed(name: str, reason: str | None) -> NoReceipt:
    """The error for a row whose end nobody here knows."""
    return NoReceipt(
        f"{name} has not confirmed it: {reason}",
        hint="it may have arrived; with the same --id it can be sent again safely",
    )


def _next(walk: Iterator[NewFile | sources.Skipped]) -> list[NewFile | sources.Skipped]:
    return list(islice(walk, BATCH))


def let_go(
    conn: sqlite3.Connection, seqs: Iterable[int], owner: str, now: int, *, queue: bool
) -> set[int]:
    """Withdraw the rows that have not left, or leave them queued; return those that may have left.

    What may have left is confirmed by the next link, whichever process makes it.
    """
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
