"""A link of the test's own process, held open as a `receive` would hold it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nodes import PATIENCE, Machine

from securelink.answers import Settled
from securelink.connect import Connected, dial
from securelink.delivery import Delivery
from securelink.directory import KnownPeer
from securelink.endpoints import Endpoint, Kind
from securelink.errors import SecurelinkError
from securelink.identity import PublicKey
from securelink.node import Node
from securelink.outgoing import Outgoing


@dataclass
class Held:
    """A ready link, and its mail both ways."""

    node: Node
    connected: Connected
    delivery: Delivery
    outgoing: Outgoing
    ended: asyncio.Task[SecurelinkError | None]
    """Done when the link has ended; why, or None if it was in order."""
    settled: list[Settled]


@asynccontextmanager
async def held_link(machine: Machine, peer: PublicKey, port: int) -> AsyncIterator[Held]:
    """A link from a machine's node to whoever listens on a port of loopback."""

    async def endpoints() -> list[Endpoint]:
        return [Endpoint(Kind.LOOPBACK, "127.0.0.1", port)]

    async with await machine.node() as node:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        connected = await dial(node, peer, "it", endpoints, node.hello(), deadline=deadline)
        settled: list[Settled] = []
        outgoing = Outgoing(node, peer.raw, settled=settled.append)
        delivery = Delivery(node, KnownPeer("it", peer), connected.link, outgoing)
        ended = asyncio.create_task(delivery.run(connected.early))
        outgoing.attach(connected.link)
        try:
            yield Held(node, connected, delivery, outgoing, ended, settled)
        finally:
            await delivery.aclose()
            await ended
            await outgoing.aclose()
