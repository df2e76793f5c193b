"""One node's store and the processes that share it, each with a keeper."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from fake_router import FakeRouter
from held import HeldClock

from securelink.nat.keeper import Keeper
from securelink.nat.ledger import Ledger, describe
from securelink.nat.mapping import Request
from securelink.nat.probe import Prober
from securelink.nat.terms import Method
from securelink.store.writer import Store

if TYPE_CHECKING:
    from securelink import events

PORT = 24819


class Home:
    """One node's store, and the processes that share it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "securelink.db"
        self.alive: set[str] = set()
        self.description = describe(b"k" * 32)

    @contextlib.asynccontextmanager
    async def process(self, owner: str = "one") -> AsyncIterator[Ledger]:
        """A process of the node that lives for the block."""
        store = await Store.open(self.path)
        self.alive.add(owner)
        try:
            yield Ledger(store, owner, self.alive.__contains__, self.description)
        finally:
            self.alive.discard(owner)
            await store.aclose()

    @contextlib.asynccontextmanager
    async def keeper(
        self,
        router: FakeRouter,
        held: HeldClock,
        *methods: Method,
        owner: str = "one",
        **request: object,
    ) -> AsyncIterator[tuple[Keeper, list[events.Event]]]:
        """A keeper in a process of its own, and the events that it told."""
        told: list[events.Event] = []
        router.now = held.clock.now
        async with self.process(owner) as book:
            keeper = Keeper(
                book,
                Request(**{"port": PORT, **request}),
                find=lambda: router.gateway,
                prober=Prober(held.clock, methods or tuple(Method)),
                tell=told.append,
            )
            try:
                yield keeper, told
            finally:
                await held.through(keeper.aclose())
