"""A link to one peer that is meant to last: dialled, carried until it ends, and dialled again.

It never gives up by itself. What brings the next attempt nearer: the machine was asleep, it has
other addresses than before, or another process of the node has learned where the peer is.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec

from securelink import clock, directory, interfaces
from securelink.choice import choose
from securelink.clock import now_ms
from securelink.connect import connect
from securelink.errors import (
    LinkClosed,
    LinkError,
    LinkTruncated,
    NotThem,
    PeerRefused,
    StoreError,
    Unreachable,
    UsageError,
)
from securelink.redialling import Redial
from securelink.store import addresses, outbox, outbox_files, tries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping, Sequence

    from securelink.config import ConfiguredPeer
    from securelink.connect import Connected
    from securelink.directory import KnownPeer
    from securelink.endpoints import Endpoint
    from securelink.errors import SecurelinkError
    from securelink.identity import PublicKey
    from securelink.link import Link
    from securelink.node import Node
    from securelink.registry import Registry

CLOCK_INTERVAL = 1.0
"""Seconds between two looks at the clocks: whether the machine was asleep."""

ADDRESSES_INTERVAL = 5.0
"""Seconds between two looks at this machine's own addresses."""

LOOK_PAUSE = 0.05
"""Seconds between two looks at what other processes have learned of the peer."""

NEWS_PAUSE = 5.0
"""Seconds between two attempts that were made early because something was learned of the peer: it
can have us learn ever new addresses, and knock there at its pace, through a `serve` of this node.
"""

LASTING = 30.0
"""Seconds from which on a link counts as one that held: the next delays are short again."""


class _Known(msgspec.Struct, frozen=True):
    """What the store and the configuration say of the peer at one moment."""

    peer: KnownPeer
    learned_at: int

    def promises(self, tried: _Known) -> bool:
        """Whether an attempt may go better than the one that was made with `tried`."""
        return (self.peer.endpoints, self.learned_at) != (tried.peer.endpoints, tried.learned_at)


class Standing:
    """One standing link.

    Args:
        node: whose link it is.
        registry: where it is carried.
        key: the peer's.
        choice: which of its endpoints may be used, as for `choose`; they are asked anew for each
            attempt.
        failed: told why there is no link, of failures of one kind in a row the first alone.
        sleepless: seconds that go on while the machine sleeps, as those of the loop do not.
    """

    def __init__(
        self,
        node: Node,
        registry: Registry,
        key: PublicKey,
        *,
        choice: str = "auto",
        failed: Callable[[SecurelinkError], None] = lambda _: None,
        sleepless: Callable[[], float] = clock.sleepless,
    ) -> None:
        self._node = node
        self._registry = registry
        self._key = key
        self._choice = choice
        self._failed = failed
        self._sleepless = sleepless
        self._redial = Redial()
        self._link: Link | None = None
        self._changed = asyncio.Event()
        self._hastened = False
        self._early_at = 0.0

    async def run(self, first: Connected | None = None) -> None:
        """Keep the link until the peer is removed; cancelled, it ends the link in order.

        Args:
            first: a link to begin with, already ready.

        Raises:
            StoreError: the store can be read no more.
        """
        watching = [
            asyncio.create_task(self._watch_clocks()),
            asyncio.create_task(self._watch_addresses()),
        ]
        unsubscribe = self._node.store.on_change(self._changed.set)
        try:
            await self._keep(first)
        finally:
            unsubscribe()
            if first is not None:
                first.link.abort()
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)

    # ---- one link after the other

    async def _keep(self, connected: Connected | None) -> None:
        loop = asyncio.get_running_loop()
        while (known := await self._look_up()) is not None:
            began = loop.time()
            try:
                if connected is None:
                    connected = await self._dial(known.peer)
                failure = await self._carry(connected, known.peer)
            except (LinkError, NotThem, PeerRefused, StoreError) as error:
                failure = error
                await self._note_failure(error)
            else:
                # What was noted of this link promises nothing for the next.
                if (after := await self._look_up()) is None:
                    return
                known = after
                if loop.time() - began >= LASTING:
                    self._redial.ready()
            connected = None
            delay, is_news = self._redial.after(failure)
            if is_news:
                self._failed(failure)
            await self._rest(delay, known)

    async def _look_up(self) -> _Known | None:
        return await self._node.store.read(_look_up, self._node.config.peers, self._key)

    async def _dial(self, peer: KnownPeer) -> Connected:
        try:
            endpoints: Sequence[Endpoint] = choose(peer, self._choice)
        except UsageError as error:
            # There was one when it began.
            raise Unreachable(error.message, hint=error.hint) from None
        hello = self._node.hello(standing=True, takes_files=True)
        return await connect(self._node, self._key, peer.name, endpoints, hello)

    async def _carry(self, connected: Connected, peer: KnownPeer) -> SecurelinkError:
        """Carry the link until it ends; return why."""
        carriage = await self._registry.enter_dialled(connected, peer, standing=True)
        self._link = connected.link
        carrying = asyncio.create_task(carriage.run(connected.early))
        try:
            error = await asyncio.shield(carrying)
        finally:
            self._link = None
            await carriage.aclose()
            await carrying
        if error is None:
            return LinkClosed(f"{peer.name} has ended the link")
        return LinkTruncated(f"the link to {peer.name} is lost: {error.message}")

    async def _note_failure(self, error: SecurelinkError) -> None:
        """Count it, for those who ask why their messages wait."""
        key = self._key.raw
        with contextlib.suppress(StoreError):
            if await self._node.store.read(_is_awaited, key):
                await self._node.store.run(tries.note_failure, key, error.message, now_ms())

    # ---- between two attempts

    async def _rest(self, delay: float, tried: _Known) -> None:
        """Wait so many seconds, or until the next attempt may go better than the last."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                while not self._hastened:
                    self._changed.clear()
                    known = await self._look_up()
                    is_promising = known is not None and known.promises(tried)
                    if known is None or (is_promising and self._may_be_early()):
                        break
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout_at(self._early_at if is_promising else None):
                            await self._changed.wait()
                    await asyncio.sleep(LOOK_PAUSE)
        self._hastened = False

    def _may_be_early(self) -> bool:
        """Whether what was learned brings the next attempt nearer now; it does so once."""
        now = asyncio.get_running_loop().time()
        if now < self._early_at:
            return False
        self._early_at = now + NEWS_PAUSE
        return True

    def _hasten(self) -> None:
        self._redial.hasten()
        self._hastened = True
        self._changed.set()

    async def _watch_clocks(self) -> None:
        """Drop the link when the machine has slept: the other side has long given it up."""
        loop = asyncio.get_running_loop()
        patience = self._node.config.limits.heartbeat_timeout
        asleep = self._sleepless() - loop.time()
        while True:
            await asyncio.sleep(CLOCK_INTERVAL)
            before, asleep = asleep, self._sleepless() - loop.time()
            if asleep - before > patience:
                if self._link is not None:
                    self._link.drop(LinkTruncated("this machine was asleep"))
                self._hasten()

    async def _watch_addresses(self) -> None:
        present = interfaces.local_addresses()
        while True:
            await asyncio.sleep(ADDRESSES_INTERVAL)
            before, present = present, interfaces.local_addresses()
            if present != before:
                self._hasten()


def _look_up(
    conn: sqlite3.Connection, configured: Mapping[str, ConfiguredPeer], key: PublicKey
) -> _Known | None:
    peer = directory.read(conn, configured).by_key(key)
    return None if peer is None else _Known(peer, addresses.learned_at(conn, key.raw))


def _is_awaited(conn: sqlite3.Connection, key: bytes) -> bool:
    return outbox.count_queued(conn, key) + outbox_files.count_queued(conn, key) > 0
