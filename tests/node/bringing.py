"""Files brought to a node by a sender led by hand, over a link that only keeps what it is given."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from parties import BOB

from securelink.clock import new_id
from securelink.config import Config, FilesConfig, NodeConfig
from securelink.directory import KnownPeer
from securelink.errors import LinkClosed
from securelink.file_messages import Accept, Begin, Cancel, Chunk, End, Offer, Prefix
from securelink.home import Home
from securelink.incoming import Incoming
from securelink.messages import Receipt, Refused
from securelink.node import Node
from securelink.store import partials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from securelink.identity import Identity
    from securelink.link import Link

MIB = 1 << 20
CHUNK = 65_000
MTIME = 1_700_000_000_123_456_789


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class KeepingLink:
    """What `Incoming` sees of a link."""

    def __init__(self) -> None:
        self.sent: list[Accept | Prefix | Receipt | Refused] = []
        self.paused = False
        self.pauses = 0
        self.closed = False
        self.aborted = False
        self._more = asyncio.Event()

    def send(self, message: Accept | Prefix | Receipt | Refused) -> None:
        if self.closed:
            raise LinkClosed("the link has ended")
        self.sent.append(message)
        self._more.set()

    def pause_receiving(self) -> None:
        self.pauses += not self.paused
        self.paused = True

    def resume_receiving(self) -> None:
        self.paused = False
        self._more.set()

    def abort(self) -> None:
        self.aborted = True
        self._more.set()

    async def changed(self) -> None:
        self._more.clear()
        await self._more.wait()


class Sender:
    """One link's sender, and the `Incoming` that it talks to."""

    def __init__(self, node: Node, peer: KnownPeer) -> None:
        self.node = node
        self.link = KeepingLink()
        self.incoming = Incoming(node, peer, cast("Link", self.link))
        self.number = 0

    # ---- what it says

    def offer(self, name: str = "a.bin", size: int | None = 0, **fields: Any) -> Offer:
        self.number += 1
        chosen: dict[str, Any] = {
            "id": new_id(),
            "number": self.number,
            "name": name,
            "size": size,
            "mtime": MTIME,
            "mode": 0o600,
        }
        chosen |= fields
        chosen.setdefault("group", chosen["id"])
        offer = Offer(**chosen)
        self.incoming.feed(offer)
        return offer

    def chunks(self, number: int, data: bytes) -> None:
        for at in range(0, len(data), CHUNK):
            self.incoming.feed(Chunk(number, data[at : at + CHUNK]))

    def end(self, number: int, data: bytes, *, checksum: bool = False) -> None:
        digest = hashlib.sha256(data).digest() if checksum else None
        self.incoming.feed(End(number, len(data), digest))

    def bring(self, name: str, data: bytes, **fields: Any) -> Offer:
        """A whole file, unasked."""
        if not fields.pop("stream", False):
            fields["size"] = len(data)
        else:
            fields["size"] = None
        offer = self.offer(name, **fields)
        self.chunks(offer.number, data)
        self.end(offer.number, data, checksum=offer.checksum)
        return offer

    async def go_on(self, data: bytes, offset: int, offer: Offer) -> None:
        """The rest of a file that was asked for, after the receiver has told what is here."""
        accept = await self.accept(offer)
        assert accept.offset == offset
        if offset:
            prefix = await self.prefix(offer)
            assert prefix.digest == hashlib.sha256(data[:offset]).digest()
        self.incoming.feed(Begin(offer.number, offset))
        self.chunks(offer.number, data[offset:])
        self.end(offer.number, data, checksum=offer.checksum)

    def cancel(self, offer: Offer) -> None:
        self.incoming.feed(Cancel(offer.number))

    # ---- what it hears

    async def answer(self, offer: Offer) -> Receipt | Refused:
        while True:
            for each in self.link.sent:
                if isinstance(each, Receipt | Refused) and each.id == offer.id:
                    return each
            await self.link.changed()

    async def receipt(self, *offers: Offer) -> None:
        for offer in offers:
            assert await self.answer(offer) == Receipt(offer.id)

    async def refused(self, offer: Offer, code: int, *, permanent: bool) -> None:
        assert await self.answer(offer) == Refused(offer.id, permanent=permanent, code=code)

    async def accept(self, offer: Offer) -> Accept:
        return cast("Accept", await self._about(Accept, offer))

    async def prefix(self, offer: Offer) -> Prefix:
        return cast("Prefix", await self._about(Prefix, offer))

    async def _about(self, kind: type, offer: Offer) -> object:
        while True:
            for each in self.link.sent:
                if isinstance(each, kind) and each.number == offer.number:
                    return each
                assert not (isinstance(each, Refused) and each.id == offer.id), each
            await self.link.changed()

    async def cut(self) -> None:
        """The link is gone."""
        self.link.closed = True
        await self.incoming.aclose()


class Receiver:
    """A node, and the senders that are linked to it."""

    def __init__(self, node: Node, peer: Identity) -> None:
        self.node = node
        self.peer = KnownPeer("bob", peer.public)
        self.folder = node.home.files_folder(node.config.files.folder)
        self.senders: list[Sender] = []

    def link(self, peer: KnownPeer | None = None) -> Sender:
        sender = Sender(self.node, peer or self.peer)
        self.senders.append(sender)
        return sender

    def path(self, name: str, peer: str = "bob") -> Path:
        return self.folder / peer / name

    def lies(self) -> dict[str, bytes | None]:
        """All that is in the peer's folder: contents of files, None for folders."""
        top = self.folder / "bob"
        return {
            str(each.relative_to(top)): each.read_bytes() if each.is_file() else None
            for each in sorted(top.rglob("*"))
        }

    def parts(self) -> list[Path]:
        return sorted((self.folder / ".partial").glob("*"))

    def inbox(self) -> list[tuple[str, str, int, str]]:
        """Name, path, size and kind of the files in the inbox, as another process sees them."""
        return self._select(
            "SELECT name, CAST(path AS TEXT), size, kind FROM inbox_files ORDER BY seq"
        )

    def seen(self) -> set[bytes]:
        return {each for (each,) in self._select("SELECT id FROM seen")}

    def rows(self) -> list[partials.Partial]:
        with contextlib.closing(sqlite3.connect(self.node.home.store_file)) as conn:
            return partials.list_all(conn)

    def _select(self, query: str) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.node.home.store_file)) as conn:
            return conn.execute(query).fetchall()


@asynccontextmanager
async def receiver(
    home: Path, *, peer: Identity = BOB, keep_free: int = 0, **files: Any
) -> AsyncIterator[Receiver]:
    """A node in *home* with what `[files]` says, opened anew each time."""
    config = Config(node=NodeConfig(name="alice"), files=FilesConfig(keep_free=keep_free, **files))
    async with await Node.open(Home(home, home), config) as node:
        made = Receiver(node, peer)
        try:
            yield made
        finally:
            for sender in made.senders:
                await sender.incoming.aclose()
