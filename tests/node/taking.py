"""A node's files on their way over real links, and who takes them: led by hand, or another node."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sqlite3
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from parties import BOB, ByHand, linked

from securelink import sources
from securelink.clock import new_id, now_ms
from securelink.delivery import Delivery
from securelink.directory import KnownPeer
from securelink.dispatch import Dispatch, Which
from securelink.file_messages import Accept, Begin, Chunk, End, FileMessage, Offer, Prefix
from securelink.items import FilesItem
from securelink.messages import Receipt, Refused
from securelink.outgoing import Outgoing
from securelink.store import outbox_files
from securelink.store.file_terms import Kind, NewFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from securelink.answers import Settled
    from securelink.errors import SecurelinkError
    from securelink.link import Link
    from securelink.node import Node
    from securelink.store.outbox_files import FileRow

M = TypeVar("M")


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Held:
    """Which of the files below a folder this process has open."""

    def __init__(self, folder: Path) -> None:
        self._files = {_inode(each.stat()) for each in folder.rglob("*") if each.is_file()}

    def count(self) -> int:
        """How many descriptors of them there are."""
        found = 0
        for each in Path("/dev/fd").iterdir():
            # The one with which the folder is read is gone by then.
            with contextlib.suppress(OSError):
                found += _inode(os.fstat(int(each.name))) in self._files
        return found


def _inode(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_dev, stat.st_ino


def item(path: Path) -> FilesItem:
    """What `send --file PATH` sends."""
    return FilesItem(str(path), sources.top_level(str(path)))


# ---- the store


async def put_files(
    node: Node, path: Path, *, owner: str | None = "own", began: bool = False, **terms: Any
) -> list[int]:
    """Put what *path* leads to, as one argument of a `send`; return the rows' `seq`s."""
    found = list(sources.walk(sources.top_level(str(path))))
    files = [each for each in found if isinstance(each, NewFile)]
    return await put_rows(node, files, owner=owner, began=began, **terms)


async def put_rows(
    node: Node,
    files: list[NewFile],
    *,
    owner: str | None = "own",
    began: bool = False,
    **terms: Any,
) -> list[int]:
    def write(conn: sqlite3.Connection) -> list[int]:
        made = outbox_files.put(
            conn,
            peer=BOB.public.raw,
            files=files,
            group=new_id(),
            new_id=new_id,
            sent_at=now_ms(),
            owner=node.owner if owner == "own" else owner,
            **terms,
        )
        seqs = [each.seq for each in made]
        if began:
            outbox_files.begin(conn, seqs)
        return seqs

    return await node.store.run(write)


async def put_stream(node: Node, name: str = "stream") -> int:
    stream = NewFile(name, b"", Kind.STREAM, None, now_ms() * 1_000_000, 0, 0o600)
    (seq,) = await put_rows(node, [stream])
    return seq


def file_rows(node: Node) -> list[tuple[str, str, str | None]]:
    """Name, state and reason of all rows of files, as another process sees them."""
    with contextlib.closing(sqlite3.connect(node.home.store_file)) as conn:
        return conn.execute(
            "SELECT name, state, reason FROM outbox JOIN outbox_files USING (seq) ORDER BY seq"
        ).fetchall()


def file_states(node: Node) -> list[str]:
    return [state for _, state, _ in file_rows(node)]


def owners(node: Node) -> list[str | None]:
    with contextlib.closing(sqlite3.connect(node.home.store_file)) as conn:
        return [owner for (owner,) in conn.execute("SELECT owner FROM outbox ORDER BY seq")]


def behind_its_back(node: Node, statement: str) -> None:
    """What another process writes."""
    with contextlib.closing(sqlite3.connect(node.home.store_file, isolation_level=None)) as conn:
        conn.execute(statement)


# ---- whoever takes them


class Taker:
    """The other end of a link, which hears of files; what it says a test decides.

    Args:
        by_hand: that end.
        willing: it takes all it is offered, and has nothing of it from earlier.
    """

    def __init__(self, by_hand: ByHand, *, willing: bool = False) -> None:
        self.by_hand = by_hand
        self.link = by_hand.link
        self.files: list[FileMessage] = []
        self._willing = willing
        self._more = asyncio.Event()
        self.link.take_files(self._take)

    def _take(self, message: FileMessage) -> None:
        # What a chunk holds is a view of a buffer that is used again.
        if isinstance(message, Chunk):
            message = Chunk(message.number, bytes(message.data))
        self.files.append(message)
        self._more.set()
        if self._willing:
            self._answer(message)

    def _answer(self, message: FileMessage) -> None:
        if isinstance(message, Offer) and message.ask:
            self.accept(message.number, 0)
        elif isinstance(message, Offer) and message.folder:
            self.receipt(message)
        elif isinstance(message, End):
            self.receipt(next(e for e in self.heard(Offer) if e.number == message.number))

    def pause(self) -> None:
        """Read no more: what a file has beyond the buffers does not leave."""
        self.link.pause_receiving()

    def resume(self) -> None:
        self.link.resume_receiving()

    async def of(self, kind: type[M], count: int = 1) -> list[M]:
        """All it has heard of that kind, as soon as there are so many."""
        while len(found := self.heard(kind)) < count:
            self._more.clear()
            await self._more.wait()
        return found

    def heard(self, kind: type[M]) -> list[M]:
        return [each for each in self.files if isinstance(each, kind)]

    async def about(self, kind: type[M], number: int, count: int = 1) -> M:
        """The newest of that kind about one file, as soon as there are so many."""
        while len(found := [e for e in self.heard(kind) if e.number == number]) < count:  # type: ignore[attr-defined]  # all have one
            self._more.clear()
            await self._more.wait()
        return found[-1]

    async def offer(self, number: int) -> Offer:
        return await self.about(Offer, number)

    def data(self, number: int) -> bytes:
        """What has come of a file since its newest BEGIN."""
        data = bytearray()
        for each in self.files:
            if isinstance(each, Begin) and each.number == number:
                data.clear()
            elif isinstance(each, Chunk) and each.number == number:
                data += each.data
        return bytes(data)

    def names(self) -> list[str]:
        return [each.name for each in self.heard(Offer)]

    # ---- what it says

    def accept(self, number: int, offset: int) -> None:
        self.link.send(Accept(number, offset))

    def prefix(self, number: int, data: bytes) -> None:
        self.link.send(Prefix(number, sha256(data)))

    def receipt(self, *offers: Offer) -> None:
        for offer in offers:
            self.link.send(Receipt(offer.id))

    def refuse(self, offer: Offer, code: int, *, permanent: bool = False) -> None:
        self.link.send(Refused(offer.id, permanent=permanent, code=code))

    async def ended(self) -> SecurelinkError | None:
        return await self.by_hand.ended()


class Seen:
    """A `dispatch.Watch` that keeps what it is told."""

    def __init__(self) -> None:
        self.compared: list[str] = []
        self.begun: list[tuple[str, int]] = []
        self.bytes: dict[str, int] = {}
        self.ends: list[Settled] = []
        self.has_nothing_left = False
        self._more = asyncio.Event()

    def compares(self, row: FileRow) -> None:
        self.compared.append(row.name)

    def resumed(self, row: FileRow, offset: int) -> None:
        self.begun.append((row.name, offset))

    def sent(self, row: FileRow, count: int) -> None:
        self.bytes[row.name] = self.bytes.get(row.name, 0) + count

    def settled(self, settled: Settled) -> None:
        self.ends.append(settled)
        self._more.set()

    def nothing_left(self) -> None:
        self.has_nothing_left = True

    async def ended(self, count: int = 1) -> list[Settled]:
        while len(self.ends) < count:
            self._more.clear()
            await self._more.wait()
        return self.ends


class Leading:
    """A node's files for one peer, over one link."""

    def __init__(self, node: Node, link: Link, by_hand: ByHand, which: Which, seen: Seen) -> None:
        self.seen = seen
        self.link = link
        self.taker = Taker(by_hand)
        self.outgoing = Outgoing(node, BOB.public.raw, drains=False)
        self.dispatch = Dispatch(node, BOB.public.raw, link, which, seen)
        self.delivery = Delivery(
            node, KnownPeer("bob", BOB.public), link, self.outgoing, dispatch=self.dispatch
        )
        self.run = asyncio.create_task(self.delivery.run())

    async def aclose(self) -> None:
        await self.cut()
        await self.outgoing.aclose()

    async def cut(self) -> None:
        """The link is cut, and all that hangs on it is tidied up."""
        self.taker.link.abort()
        await self.run


@asynccontextmanager
async def leading(node: Node, **which: Any) -> AsyncIterator[Leading]:
    """Send the node's files for the peer over a link to one that is led by hand."""
    link, by_hand = await linked(node)
    made = Leading(node, link, by_hand, Which(**which), Seen())
    try:
        yield made
    finally:
        await made.aclose()
