"""Durable texts a second: many clients, one server in a process of its own, each text receipted.

    python tests/benchmarks/durable.py --clients 64 --texts 200 --ahead 1

Prints texts a second, the server's commits, and its CPU time a text. Absolute figures say little;
compare runs made side by side.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securelink.clock import new_id, now_ms
from securelink.config import load
from securelink.hello import ClientHello
from securelink.home import Home
from securelink.identity import Identity, PublicKey
from securelink.limits import Limits
from securelink.link import Link
from securelink.node import Node
from securelink.service import Service
from securelink.session import Ready, Receipt, Scratch, Session, Text
from securelink.store import peers

if TYPE_CHECKING:
    import sqlite3
    from multiprocessing.connection import Connection

    from securelink.events import Event


class Nobody:
    """Events go nowhere."""

    def event(self, event: Event, /) -> None: ...

    async def written(self) -> None: ...


def serve(folder: Path, keys: list[bytes], pipe: Connection) -> None:
    asyncio.run(_serve(folder, keys, pipe))


async def _serve(folder: Path, keys: list[bytes], pipe: Connection) -> None:
    home = Home(folder, folder)
    environ = {"SECURELINK_SERVER_PORT": "0", "SECURELINK_SERVER_HOST": "127.0.0.1"}
    config = load(home.config_file, environ=environ).config

    def pair(conn: sqlite3.Connection) -> None:
        for key in keys:
            peers.add_pending(conn, key=key, name_wanted="client", taken=(), now=now_ms())
            peers.confirm(conn, key, calls_itself="client", now=now_ms())

    async with await Node.open(home, config) as node:
        await node.store.run(pair)
        async with await Service.open(node, Nobody()) as service:
            running = asyncio.create_task(service.run())
            before = node.store.commits
            pipe.send((service.server.port, node.identity.public.raw))
            await asyncio.to_thread(pipe.recv)
            used = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send((node.store.commits - before, used.ru_utime + used.ru_stime))
            running.cancel()


async def connect(identity: Identity, key: bytes, port: int, scratch: Scratch) -> Link:
    loop = asyncio.get_running_loop()
    limits = Limits()
    hello = ClientHello("client", 0, limits.max_message)

    def make() -> Link:
        server = PublicKey(key)
        session = Session.client(
            identity, server, hello, limits=limits, now=loop.time(), scratch=scratch
        )
        return Link(session, close_timeout=limits.close_timeout)

    _, link = await loop.create_connection(make, "127.0.0.1", port)
    await link.receive()
    link.proceed()
    assert isinstance((await link.receive())[0], Ready)
    return link


async def send(link: Link, texts: int, ahead: int, waits: list[float]) -> None:
    """Send so many texts, so many of them ahead of their receipts."""
    sent = done = 0
    left: dict[bytes, float] = {}
    while done < texts:
        while sent < texts and len(left) < ahead:
            message_id = new_id()
            left[message_id] = time.perf_counter()
            link.send(Text(message_id, now_ms(), "x" * 100))
            sent += 1
        for happening in await link.receive():
            if isinstance(happening, Receipt):
                waits.append(time.perf_counter() - left.pop(happening.id))
                done += 1


async def measure(clients: int, texts: int, ahead: int) -> dict[str, Any]:
    identities = [Identity.generate() for _ in range(clients)]
    here, there = multiprocessing.Pipe()
    with tempfile.TemporaryDirectory() as folder:
        keys = [identity.public.raw for identity in identities]
        server = multiprocessing.Process(target=serve, args=(Path(folder), keys, there))
        server.start()
        port, key = here.recv()
        scratch = Scratch()
        links = [await connect(identity, key, port, scratch) for identity in identities]
        waits: list[float] = []
        began = time.perf_counter()
        await asyncio.gather(*(send(link, texts, ahead, waits) for link in links))
        seconds = time.perf_counter() - began
        await asyncio.gather(*(link.aclose() for link in links))
        here.send(None)
        commits, cpu = here.recv()
        server.join()
    total = clients * texts
    return {
        "texts a second": round(total / seconds),
        "median receipt, ms": round(statistics.median(waits) * 1000, 2),
        "commits": commits,
        "texts a commit": round(total / commits, 1),
        "server CPU a text, ms": round(cpu / total * 1000, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--texts", type=int, default=200, help="for each client")
    parser.add_argument("--ahead", type=int, default=1, help="texts without receipt, each client")
    wanted = parser.parse_args()
    figures = asyncio.run(measure(wanted.clients, wanted.texts, wanted.ahead))
    for name, figure in figures.items():
        print(f"{name:<24}{figure}")


if __name__ == "__main__":
    main()
