"""Putting rows into the outbox: texts, the lines of a pipe, files and folders, a stream."""

from __future__ import annotations

import asyncio
import contextlib
import os
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from securelink import sources
from securelink.clock import new_id, now_ms
from securelink.errors import SecurelinkError, SourceUnreadable, TransferError, UsageError
from securelink.items import FilesItem, LinesItem, QueuedItem, StreamItem, TextItem
from securelink.parcel.rows import Row
from securelink.store import outbox, outbox_files
from securelink.store.file_terms import Kind, NewFile
from securelink.threads import in_thread

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence

    from securelink.items import Tally
    from securelink.node import Node
    from securelink.parcel.rows import Rows
    from securelink.store.outbox_files import Put

_T = TypeVar("_T")

BATCH = 500
"""Rows that are put at a time."""

MOST_LINES_OPEN = 2000
"""Lines under way before no more are read, if they are not to be queued."""


class Putting:
    """Puts the items of one recipient into the outbox.

    Args:
        node: the node that sends.
        peer: the recipient's key, 32 bytes.
        rows: what was put is added to them.
        queue: what is not delivered stays queued.
        shared: whichever process has a link may deliver it.
        patience: seconds from when a text is put until others may no longer hand it over for the
            first time; None for ever. Of a file that is known only when it has nearly gone.
        life: for how long what is queued may wait, in ms of the store's own time; None for as long
            as it takes.
        skipped: told of what is not sent, such as a symbolic link.

    Attributes:
        shared: as above, for what is put from now on.
        wake: called whenever rows were put.
    """

    def __init__(
        self,
        node: Node,
        peer: bytes,
        rows: Rows,
        *,
        queue: bool,
        shared: bool,
        patience: float | None,
        life: int | None,
        skipped: Callable[[sources.Skipped], None],
    ) -> None:
        self.shared = shared
        self.wake: Callable[[], None] = lambda: None
        self._node = node
        self._peer = peer
        self._rows = rows
        self._queue = queue
        self._patience = patience
        self._life = life
        self._skipped = skipped

    async def put(self, tallies: Sequence[Tally]) -> None:
        """Put all that these are the tallies of, texts first."""
        for tally in tallies:
            if isinstance(tally.item, TextItem):
                await self._put_texts(tally, [tally.item])
                tally.complete = True
            elif isinstance(tally.item, QueuedItem):
                self._take_up(tally, tally.item)
                tally.complete = True
        for tally in tallies:
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
            self._rows.move()

    async def put_anew(self, seq: int, row: Row) -> None:
        """A file has changed while it was sent, and its row is dropped: begin with what it is now.

        Args:
            seq: the place of the row that was dropped.
            row: what that was.
        """
        tally = row.tally
        try:
            old = await self._node.store.read(outbox_files.get, seq)
            assert old is not None, "it ended a moment ago"
            found = await in_thread(sources.look_again, old, await self._key())
            await self._put_batch(tally, [found], old.group)
            tally.changed.add(row.label)
        except SecurelinkError as error:
            tally.rows += 1
            tally.files += 1
            tally.failed.append(error)
        self._rows.move()

    # ---- what is queued already

    def _take_up(self, tally: Tally, item: QueuedItem) -> None:
        for row in item.rows:
            is_file = row.kind == "file"
            tally.total = (tally.total or 0) + row.size
            tally.files += is_file
            self._rows.add(row.seq, Row(tally, row.size, is_file, label=row.name, queued=True))

    # ---- texts

    async def _put_texts(self, tally: Tally, texts: Sequence[TextItem]) -> None:
        writing = self._node.store.run(self._write_texts, texts, now_ms())
        async with _to_its_end(writing) as seqs:
            for seq in seqs:
                self._rows.add(seq, Row(tally, is_file=False))
        self.wake()

    def _write_texts(
        self, conn: sqlite3.Connection, texts: Sequence[TextItem], now: int
    ) -> list[int]:
        deadline = None
        if self.shared and self._patience is not None:
            deadline = now + int(self._patience * 1000)
        return [
            outbox.put(
                conn,
                message_id=each.id,
                peer=self._peer,
                text=each.text,
                sent_at=now,
                owner=self._node.owner,
                shared=self.shared,
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
            self._rows.changed.clear()
            await self._rows.changed.wait()

    # ---- files

    async def _put_stream(self, tally: Tally, item: StreamItem) -> None:
        stream = NewFile(item.name, b"", Kind.STREAM, None, now_ms() * 1_000_000, 0, 0o600)
        await self._put_batch(tally, [stream], tally.id)

    async def _put_files(self, tally: Tally, item: FilesItem) -> None:
        argument = item.argument
        group = await self._node.store.read(
            outbox_files.group_of,
            peer=self._peer,
            path=argument.path,
            name=argument.name,
        )
        tally.id = group or tally.id
        walk = sources.walk(argument, await self._key())
        while batch := await in_thread(_next, walk):
            for each in batch:
                if isinstance(each, sources.Skipped):
                    self._skipped(each)
                    tally.left_out.add(each)
                    if each.path == argument.path:
                        path = os.fsdecode(each.path)
                        tally.failed.append(TransferError(f"{path} is not sent: {each.reason}"))
            files = [each for each in batch if isinstance(each, NewFile)]
            if files:
                await self._put_batch(tally, files, tally.id)

    async def _key(self) -> sources.FileId | None:
        """What is never sent: whoever has it can be this node."""
        return await in_thread(sources.file_id, self._node.home.key_file)

    async def _put_batch(self, tally: Tally, files: Sequence[NewFile], group: bytes) -> None:
        writing = self._node.store.run(
            outbox_files.put,
            peer=self._peer,
            files=files,
            group=group,
            new_id=new_id,
            sent_at=now_ms(),
            owner=self._node.owner,
            shared=self.shared,
            life=self._life,
        )
        async with _to_its_end(writing) as put:
            for file, made in zip(files, put, strict=True):
                self._add_file(tally, file, made)
        if tally.rows == 1 and files[0].kind is not Kind.FOLDER:
            # So far it is one file, whose own ID is what its receiver tells too.
            row = await self._node.store.read(outbox_files.get, put[0].seq)
            tally.id = tally.id if row is None or "/" in row.name else row.id
        self.wake()

    def _add_file(self, tally: Tally, file: NewFile, made: Put) -> None:
        if made.changed:
            tally.changed.add(file.name)
        if tally.total is not None:
            tally.total += file.size or 0
        is_file = file.kind is not Kind.FOLDER
        tally.files += is_file
        self._rows.add(made.seq, Row(tally, file.size or 0, is_file, label=file.name))


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


def _next(walk: Iterator[NewFile | sources.Skipped]) -> list[NewFile | sources.Skipped]:
    return list(islice(walk, BATCH))
