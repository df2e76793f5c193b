"""How long a text waits for its receipt while a file goes over the same link at full speed.

    python tests/benchmarks/beside_a_file.py --size 1GiB --rounds 5 --folder /dev/shm

The texts go one after another, from a client to a running `serve`, which puts each on its disk
before it sends the receipt; first over a link that carries nothing else, then beside the file.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bare_link import LIMITS, Source
from contest import ready, scratch, size
from contestants import Securelink
from files import make_file

from securelink import keyfile
from securelink.clock import new_id, now_ms
from securelink.hello import FEATURES, ClientHello
from securelink.identity import Identity, PublicKey
from securelink.link import Link
from securelink.messages import Receipt, Text
from securelink.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

ALONE = 200
"""Texts over a link that carries nothing else."""


async def waits(identity: Identity, server: PublicKey, port: int, file: Path | None) -> list[float]:
    """Send texts until the file has its receipt, or `ALONE` of them; return the seconds of each."""
    loop = asyncio.get_running_loop()
    hello = ClientHello("bob", FEATURES, LIMITS.max_message)

    def make() -> Link:
        session = Session.client(identity, server, hello, limits=LIMITS, now=loop.time())
        return Link(session, close_timeout=LIMITS.close_timeout)

    _, link = await loop.create_connection(make, "127.0.0.1", port)
    await link.receive()
    link.proceed()
    await link.receive()
    source = None
    if file is not None:
        source = Source(file, link)
        link.send_files(source)
        link.more_of_files()
    waited: list[float] = []
    answered: set[bytes] = set()
    while source.id not in answered if source is not None else len(waited) < ALONE:
        text = Text(new_id(), now_ms(), "x" * 100)
        began = time.perf_counter()
        link.send(text)
        while text.id not in answered:
            for happening in await link.receive():
                assert isinstance(happening, Receipt), happening
                answered.add(happening.id)
        waited.append(time.perf_counter() - began)
    await link.aclose()
    return waited


def tell(title: str, waited: Sequence[float]) -> None:
    """Print one line."""
    ms = sorted(1000 * each for each in waited)
    nearly_all = ms[min(len(ms) * 99 // 100, len(ms) - 1)]
    print(f"{title:<14}{len(ms):6} {statistics.median(ms):9.2f} {nearly_all:9.2f} {ms[-1]:9.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=size, default=size("1GiB"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="of both nodes")
    wanted = parser.parse_args()
    with scratch(wanted.folder) as folder:
        source = folder / "source.bin"
        make_file(source, wanted.size)
        with ready([Securelink], folder) as (node,):
            assert isinstance(node, Securelink)
            identity = keyfile.load_or_create(node.folder / "bob" / "identity.key")
            server = keyfile.load_or_create(node.folder / "alice" / "identity.key").public
            print(f"{'ms':<14}{'texts':>6} {'median':>9} {'99 %':>9} {'longest':>9}")
            for file, title in ((None, "alone"), (source, "beside a file")):
                waited: list[float] = []
                for _ in range(wanted.rounds):
                    waited += asyncio.run(waits(identity, server, node.port, file))
                    node.clear()
                tell(title, waited)


if __name__ == "__main__":
    main()
