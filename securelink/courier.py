"""Brings what is queued to peers that have addresses: dials them, again and again.

One errand a peer, for as long as something is queued for it that no process waits for, and none has
a link to it. An errand takes along what the other side has for us, as a `send` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from securelink.clock import now_ms
from securelink.connect import connect
from securelink.errors import (
    LinkClosed,
    LinkError,
    NotThem,
    PeerRefused,
    SecurelinkError,
    StoreError,
)
from securelink.hello import FILES
from securelink.identity import PublicKey
from securelink.redialling import Redial
from securelink.store import outbox, outbox_files, tries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Collection

    from securelink.directory import KnownPeer
    from securelink.node import Node
    from securelink.registry import Registry

ROUND = 30.0
"""Seconds that one attempt at all endpoints of a peer may take."""

MOST_DIALS = 16
"""Peers that are dialled at the same time: each attempt costs keys and sockets."""

LINGER = 1.0
"""Seconds at most for which a link is kept to take what waits for us there."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Errand:
    """The way to one peer."""

    task: asyncio.Task[None]
    looked: asyncio.Event
    """Set at each look at the queues: something may have been delivered, or be there no more."""


class Courier:
    """The errands of one process. Made by `Courier`, ended by `aclose`.

    Args:
        node: whose queues they are.
        registry: the links of this process, where those of errands go too.
    """

    def __init__(self, node: Node, registry: Registry) -> None:
        self._node = node
        self._registry = registry
        self._errands: dict[bytes, _Errand] = {}
        self._network_changed = asyncio.Event()
        self._dialling = asyncio.Semaphore(MOST_DIALS)

    def look(self, queued: Collection[bytes]) -> None:
        """Take which peers have queued rows, by their keys: whoever has none has an errand soon."""
        for errand in self._errands.values():
            errand.looked.set()
        for key in queued:
            if key not in self._errands and key not in self._registry:
                looked = asyncio.Event()
                task = asyncio.create_task(self._run(key, looked))
                self._errands[key] = _Errand(task, looked)

    def network_changed(self) -> None:
        """This machine has other addresses than before: whoever waits to dial again does so now."""
        self._network_changed.set()
        self._network_changed = asyncio.Event()

    async def aclose(self) -> None:
        """Run no more errands; their links are the registry's to end."""
        tasks = [errand.task for errand in self._errands.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- one errand

    async def _run(self, key: bytes, looked: asyncio.Event) -> None:
        try:
            await self._go(key, looked)
        except StoreError as error:
            # The next look sends another one.
            _log.warning("nothing is brought to a peer for a while: %s", error)
        finally:
            del self._errands[key]

    async def _go(self, key: bytes, looked: asyncio.Event) -> None:
        redial = Redial()
        read = self._node.store.read
        while await read(_count_queued, key) and key not in self._registry:
            peer = (await self._node.directory()).by_key(PublicKey(key))
            if peer is None or not peer.endpoints or await self._node.links_to(key):
                # Nobody to dial, or another process sends it.
                return
            failure = await self._try(peer, looked, redial)
            if failure is not None:
                delay, is_news = redial.after(failure)
                if is_news:
                    _log.info("%s: %s", failure.message, failure.hint or "it is tried again")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._network_changed.wait()

    async def _try(
        self, peer: KnownPeer, looked: asyncio.Event, redial: Redial
    ) -> SecurelinkError | None:
        """Dial once, and deliver; return why it has to be tried again, None if all is done."""
        node, key = self._node, peer.key.raw
        before = await node.store.read(_count_queued, key)
        try:
            async with self._dialling:
                until = asyncio.get_running_loop().time() + ROUND
                connected = await connect(
                    node, peer.key, peer.name, peer.endpoints, node.hello(), until
                )
        except (LinkError, NotThem, PeerRefused) as error:
            await node.store.run(tries.note_failure, key, error.message, now_ms())
            return error
        takes_files = bool(connected.link.session.features & FILES)
        count = _count_queued if takes_files else _count_texts
        carriage = await self._registry.enter_dialled(connected, peer, standing=False)
        ended: SecurelinkError | None = None
        carrying = asyncio.create_task(carriage.run(connected.early))
        try:
            await self._until_empty(partial(node.store.read, count, key), carrying, looked)
            if not carrying.done():
                await carriage.linger(connected.ready.waiting, LINGER)
        finally:
            await carriage.aclose()
            ended = await carrying
        left = await node.store.read(_count_queued, key)
        if left < before:
            redial.ready()
        if not left:
            return None
        if ended is None and not takes_files:
            ended = PeerRefused(f"{peer.name} runs a version that knows no files")
        return ended or LinkClosed(f"{peer.name} has ended the link")

    async def _until_empty(
        self,
        count: Callable[[], Awaitable[int]],
        carrying: asyncio.Task[SecurelinkError | None],
        looked: asyncio.Event,
    ) -> None:
        """Return when nothing is queued any more, or the link has ended."""
        while not carrying.done() and await count():
            looked.clear()
            waiting = asyncio.create_task(looked.wait())
            try:
                await asyncio.wait([carrying, waiting], return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()


def _count_queued(conn: sqlite3.Connection, key: bytes, /) -> int:
    """What nobody waits for: a `send` that waits dials by itself."""
    return _count_texts(conn, key) + outbox_files.count_queued(conn, key, unowned=True)


def _count_texts(conn: sqlite3.Connection, key: bytes, /) -> int:
    return outbox.count_queued(conn, key, unowned=True)
