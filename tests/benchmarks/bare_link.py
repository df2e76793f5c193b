"""One side of a file over a link that is ready, to a destination that costs nothing.

`receive` prints its port and peer ID, takes one link, checks all that comes as a node does, drops
it, answers with a receipt and prints its CPU time; `send` connects, and when the link is ready
sends the file from where it is, awaits the receipt and prints the seconds and its CPU time.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from securelink.clock import new_id
from securelink.file_messages import Begin, Cancel, Chunk, End, Offer
from securelink.hello import FEATURES, ClientHello
from securelink.identity import Identity, PublicKey
from securelink.limits import Limits
from securelink.link import Link
from securelink.messages import Receipt
from securelink.reading import FileReader
from securelink.session import Data, Introduced, Session
from securelink.transfer.receiving import Receiving

if TYPE_CHECKING:
    from securelink.file_messages import FileMessage

LIMITS = Limits()


class Source:
    """One file, and nothing else."""

    def __init__(self, path: Path, link: Link) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        self.size = path.stat().st_size
        self.id = new_id()
        self._reader = FileReader(descriptor, 0, link.more_of_files)
        self._offered = self._ended = False

    def next(self) -> FileMessage | Data | None:
        if not self._offered:
            self._offered = True
            return Offer(
                id=self.id,
                group=self.id,
                number=0,
                name="file",
                size=self.size,
                mtime=0,
                mode=0o600,
            )
        if not self._reader.ended:
            return Data(0, self._reader.read_into) if self._reader.is_ready else None
        if self._ended:
            return None
        self._ended = True
        return End(0, self.size)


class Sink:
    """Checks what comes, and drops it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._receiving = Receiving()

    def take(self, message: FileMessage) -> None:
        match message:
            case Offer():
                self._receiving.offer(message)
            case Begin():
                self._receiving.begin(message)
            case Chunk():
                self._receiving.chunk(message)
            case End():
                transfer = self._receiving.end(message)
                assert transfer is not None
                self._link.send(Receipt(transfer.offer.id))
            case Cancel():
                raise SystemExit("the sender gave up")


async def receive() -> None:
    loop = asyncio.get_running_loop()
    identity = Identity.generate()
    links: asyncio.Queue[Link] = asyncio.Queue()

    def make() -> Link:
        session = Session.server(identity, limits=LIMITS, now=loop.time())
        links.put_nowait(link := Link(session, close_timeout=LIMITS.close_timeout))
        return link

    server = await loop.create_server(make, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], identity.public.raw.hex(), flush=True)
    link = await links.get()
    happened = await link.receive()
    while not any(isinstance(each, Introduced) for each in happened):
        happened += await link.receive()
    link.take_files(Sink(link).take)
    link.admit("receiver", 0)
    before = cpu()
    # The sender says goodbye when it has its receipt.
    await link.receive()
    used = cpu() - before
    await link.aclose()
    server.close()
    print(used, flush=True)


async def send(port: str, key: str, path: str) -> None:
    loop = asyncio.get_running_loop()
    hello = ClientHello("sender", FEATURES, LIMITS.max_message)

    def make() -> Link:
        session = Session.client(
            Identity.generate(),
            PublicKey(bytes.fromhex(key)),
            hello,
            limits=LIMITS,
            now=loop.time(),
        )
        return Link(session, close_timeout=LIMITS.close_timeout)

    _, link = await loop.create_connection(make, "127.0.0.1", int(port))
    await link.receive()
    link.proceed()
    await link.receive()
    before, began = cpu(), time.perf_counter()
    source = Source(Path(path), link)
    link.send_files(source)
    link.more_of_files()
    (receipt,) = await link.receive()
    seconds = time.perf_counter() - began
    assert receipt == Receipt(source.id), receipt
    print(seconds, cpu() - before, flush=True)
    await link.aclose()


def cpu() -> float:
    """Seconds of user and system time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    what = {"receive": receive, "send": send}[sys.argv[1]]
    asyncio.run(what(*sys.argv[2:]))  # type: ignore[operator]  # each takes words of its own
