"""What a serving node does about its router: has its port forwarded, or asks for its address."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, NoReturn

from securelink import events
from securelink.errors import StoreError
from securelink.nat.address import public_address
from securelink.nat.clock import Clock
from securelink.nat.keeper import Keeper, locate, request_of
from securelink.nat.probe import Prober, methods_of
from securelink.nat.sweep import clear_stale
from securelink.nat.terms import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.events import Address
    from securelink.node import Node

STORE_PAUSE = 5.0
"""Seconds until the router is asked again when the store has failed."""

_log = logging.getLogger(__name__)


class Outward:
    """The way out, as the configuration wants it.

    Args:
        node: whose port it is.
        port: the TCP port that the node listens on.
        tell: takes events of the router.
        changed: called when `mapped` or `known` has changed.

    Attributes:
        mapped: our address and port outside while the router forwards them, else None.
        known: whether the router has had its first word, or is not asked for one.
    """

    def __init__(
        self,
        node: Node,
        port: int,
        *,
        tell: Callable[[events.Event], None],
        changed: Callable[[], None],
    ) -> None:
        self.mapped: Address | None = None
        self.known = not node.config.server.upnp
        self._node = node
        self._port = port
        self._tell = tell
        self._changed = changed

    async def run(self) -> None:
        """Do what is wanted, until it is done or cancelled; then the mapping is removed."""
        config = self._node.config
        if config.server.upnp:
            await self._keep()
        prober = Prober(Clock(), methods_of(config.nat.method))
        with contextlib.suppress(StoreError):
            # What a killed process left open is nobody's wish any more.
            await clear_stale(self._node.ledger(), prober, lambda: locate(config.nat))
        if config.nat.public_address:
            await self._ask(prober)

    async def _keep(self) -> NoReturn:
        config = self._node.config.nat
        request = request_of(config, self._port, Protocol.TCP)
        book = self._node.ledger()
        while True:
            try:
                async with Keeper.configured(book, config, request, self._take) as keeper:
                    await keeper.run()
            except StoreError as error:
                _log.error("%s", error)
                await asyncio.sleep(STORE_PAUSE)

    async def _ask(self, prober: Prober) -> None:
        config = self._node.config.nat
        found = await public_address(
            prober, lambda: locate(config), port=self._port, stun=config.stun
        )
        unknown = events.PublicAddressUnknown(
            sentence=found.diagnosis.sentence, hint=found.diagnosis.hint
        )
        self._tell(found.told or unknown)

    def _take(self, event: events.Event) -> None:
        """Hand an event of the keeper's on, and keep what it says of our address."""
        self._tell(event)
        if isinstance(event, events.Mapped):
            self.mapped = event.external
        elif isinstance(event, events.MappingLost | events.MappingFailed):
            self.mapped = None
        elif not (isinstance(event, events.PublicAddress) and event.source == "interface"):
            return  # only an address of this machine's own needs no mapping
        self.known = True
        self._changed()
