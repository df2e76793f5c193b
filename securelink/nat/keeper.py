"""Keeps one port mapped: finds the router, maps, renews, looks again, and lets go at the end.

A mapping is looked at every 5 minutes and renewed at half its lease. When that fails the router is
looked for anew at once, as its control address changes when it restarts, then after 5, 15, 60
seconds, and so on. Between the looks, every few seconds and without a packet, it is noticed that
this machine's own address or gateway has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

import msgspec

from securelink import events
from securelink.errors import NatError, NoGateway, StoreError
from securelink.nat import ledger, route
from securelink.nat.clock import Clock
from securelink.nat.diagnosis import AddressKind, Observations, Verdict, kind_of
from securelink.nat.mapping import Attempt, Request, acquire, of, written
from securelink.nat.probe import Prober, methods_of
from securelink.nat.sweep import sweep
from securelink.nat.telling import Telling, event_of
from securelink.nat.timing import RETRIES, retries
from securelink.nat.upnp import UpnpClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from securelink.config import NatConfig
    from securelink.nat.diagnosis import Diagnosis
    from securelink.nat.ledger import Ledger
    from securelink.nat.mapping import Mapping
    from securelink.nat.route import Gateway
    from securelink.nat.terms import Client, Protocol
    from securelink.store.mappings import StoredMapping

LOOK_INTERVAL = 300.0
"""Seconds between two looks at the router."""

TICK = 5.0
"""Seconds between two looks at our own address, and the longest sleep: a closed lid ends one."""

RELEASE_TIME = 3.0
"""Seconds that letting go may take at the end."""


def locate(config: NatConfig) -> Gateway:
    """Find the gateway that the configuration means; raises NoGateway."""
    return route.find(gateway=config.gateway, interface=config.interface)


def request_of(
    config: NatConfig, port: int, protocol: Protocol, *, any_port: bool = True
) -> Request:
    """What the configuration wants mapped for *port*."""
    return Request(
        port,
        protocol,
        external_port=config.external_port,
        lease=config.lease,
        any_port=any_port,
        stun=config.stun,
    )


class Keeper:
    """Keeps one port mapped while `run` runs; `aclose` removes the mapping.

    Args:
        book: where mappings are written down.
        request: what to map.
        find: finds the gateway, now and whenever it may have changed; raises NoGateway.
        prober: the methods to try.
        tell: takes the events that `Telling` makes.

    Attributes:
        mapping: what holds at present, also when it is of no use, as behind a second NAT.
        diagnosis: the verdict at present, None before the first.
    """

    def __init__(
        self,
        book: Ledger,
        request: Request,
        *,
        find: Callable[[], Gateway],
        prober: Prober,
        tell: Callable[[events.Event], None] = lambda _: None,
    ) -> None:
        self.mapping: Mapping | None = None
        self.diagnosis: Diagnosis | None = None
        self._book = book
        self._request = request
        self._find = find
        self._prober = prober
        self._clock: Clock = prober.clock
        self._telling = Telling(tell)
        self._gateway: Gateway | None = None
        self._client: Client | None = None
        self._nonce: bytes | None = None
        self._location = ""
        self._missed = False
        self._judged = asyncio.Event()

    @classmethod
    def configured(
        cls,
        book: Ledger,
        config: NatConfig,
        request: Request,
        tell: Callable[[events.Event], None] = lambda _: None,
    ) -> Self:
        """A keeper as `[nat]` wants it."""
        return cls(
            book,
            request,
            find=lambda: locate(config),
            prober=Prober(Clock(), methods_of(config.method)),
            tell=tell,
        )

    @property
    def public(self) -> events.Address | None:
        """Our address outside while the verdict is that it is mapped, else None."""
        if self.mapping is None or self.diagnosis is None:
            return None
        return self.mapping.external if self.diagnosis.verdict is Verdict.MAPPED else None

    async def first(self) -> Diagnosis:
        """Wait for the first verdict; return the present one."""
        await self._judged.wait()
        assert self.diagnosis is not None
        return self.diagnosis

    async def run(self) -> None:
        """Map and keep, until cancelled; goes on whatever the router does.

        Raises:
            StoreError: the store failed.
        """
        waits = retries()
        while True:
            await self.attempt()
            if self._client is not None:
                waits = retries()
                await self._hold()
            else:
                await self._wait(self._clock.now() + self._pause(waits))

    async def attempt(self) -> Diagnosis:
        """Look for the router, clear what dead processes left there, and map, once.

        Raises:
            StoreError: the store failed.
        """
        self._close_client()
        try:
            self._gateway = self._find()
        except NoGateway:
            self._gateway = None
            self._conclude(Attempt(Observations(port=self._request.port)))
            return await self.first()
        local = self._gateway.local
        if kind_of(local) is AddressKind.PUBLIC:
            self._conclude(Attempt(Observations(port=self._request.port, local=local)))
            return await self.first()
        async with self._prober.start(self._gateway) as probe:
            await sweep(probe, await self._book.stale(), self._book)
            attempt = await acquire(
                probe, self._request, self._book, self._clock, nonce=self._nonce
            )
        self._conclude(attempt)
        await self._clear_earlier()
        return await self.first()

    async def leave(self) -> None:
        """Leave the mapping to its lease: `aclose` then removes nothing of it."""
        if self.mapping is not None and not self.mapping.borrowed:
            await self._book.leave(self.mapping.row)

    async def aclose(self) -> None:
        """Remove from the router whatever this process had mapped, in `RELEASE_TIME` at most.

        What can't be removed stays written down, and the next start tries again.
        """
        with contextlib.suppress(TimeoutError, StoreError):
            async with asyncio.timeout(RELEASE_TIME):
                await asyncio.gather(*(self._release(row) for row in await self._book.own()))
        self._close_client()
        self.mapping = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # ---- holding

    async def _hold(self) -> None:
        """Renew and look, until the router has to be looked for anew."""
        while True:
            assert self.mapping is not None
            due = min(self.mapping.renew_after, self._clock.now() + LOOK_INTERVAL)
            if not await self._wait(due):
                self._lose("this computer's address or gateway has changed")
                return
            try:
                reason = await self._look()
            except NatError:
                return
            if reason is not None:
                self._lose(reason)
                return

    async def _look(self) -> str | None:
        """See that the mapping holds, renewing it when it is time to; return why it does not.

        Raises:
            NatError: the router does not answer, or refuses.
        """
        mapping, client = self.mapping, self._client
        assert mapping is not None
        assert client is not None
        wanted = ledger.wanted(mapping.row)
        due = self._clock.now() >= mapping.renew_after
        renews = not isinstance(client, UpnpClient) or (due and not mapping.borrowed)
        if renews:
            granted = await client.map(
                msgspec.structs.replace(
                    wanted,
                    lease=self._request.lease,
                    description=self._book.description,
                    kept_as=wanted.description,
                )
            )
        else:
            assert isinstance(client, UpnpClient)
            looked = await client.check(wanted)
            if looked is None:
                return "the router no longer has the mapping"
            granted = looked
        if granted.restarted:
            return "the router was restarted"
        if granted.external != mapping.external:
            return "the router's address, or the port, has changed"
        if renews:
            row = written(mapping.row, granted, self._clock)
            await self._book.note(row)
            self.mapping = of(client, row, granted, self._book, self._clock)
        elif mapping.borrowed:
            self.mapping = of(client, mapping.row, granted, self._book, self._clock)
        return None

    async def _wait(self, until: float) -> bool:
        """Wait; return False at once when our address or gateway has changed."""
        while (left := until - self._clock.now()) > 0:
            await self._clock.sleep(min(left, TICK))
            try:
                present = self._find()
            except NoGateway:
                present = None
            if present != self._gateway:
                return False
        return True

    def _pause(self, waits: Iterator[float]) -> float:
        """How long to wait after a failure: without hope soon only as long as between two looks."""
        pause = next(waits)
        ever_mapped = self._nonce is not None
        return LOOK_INTERVAL if pause == RETRIES[-1] and not ever_mapped else pause

    # ---- letting go

    async def _clear_earlier(self) -> None:
        """Remove what this process had mapped before and has no longer."""
        present = self.mapping.row if self.mapping else None
        for row in await self._book.own():
            if present is None or row == present:
                continue
            if ledger.is_same(row, present):
                await self._book.drop(row)
            else:
                await self._release(row)

    async def _release(self, row: StoredMapping) -> None:
        """Remove a mapping of this process, if its router is still ours and lets us."""
        gateway = self._gateway
        if gateway is None or gateway.host != row.gateway:
            return
        own, client = self._client, self._prober.unasked(row.method, gateway)
        with contextlib.suppress(NatError):
            if own is not None and own.method is row.method:
                await ledger.remove(self._book, own, row)
            elif client is not None:
                await ledger.remove(self._book, client, row)
            else:
                opened = await UpnpClient.open(gateway, self._clock)
                try:
                    await ledger.remove(self._book, opened, row)
                finally:
                    opened.close()

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    # ---- what came of it

    def _lose(self, reason: str) -> None:
        """Nothing is mapped any more, and who was told of a mapping is told that."""
        self.mapping = None
        self._telling.lost(reason)

    def _conclude(self, attempt: Attempt) -> None:
        """Take what came of an attempt, and tell what is new about it."""
        missed, self._missed = self._missed, attempt.mapping is None
        if attempt.mapping is None and not missed and self._may_still_hold():
            # One missed answer is no reason to withdraw an address from everybody.
            return
        if attempt.restarted or self._has_moved(attempt.client):
            self._lose("the router was restarted")
        self.diagnosis = attempt.diagnosis
        event = event_of(attempt.mapping, attempt.diagnosis)
        if not isinstance(event, events.Mapped):
            self._lose(attempt.diagnosis.sentence.removesuffix("."))
        self.mapping = attempt.mapping
        self._client = attempt.client
        if attempt.mapping is not None:
            self._nonce = attempt.mapping.row.nonce
        self._telling.address(attempt.public_address())
        self._telling.concluded(event)
        self._judged.set()

    def _has_moved(self, client: Client | None) -> bool:
        """Whether the UPnP router describes itself elsewhere than before, as after a restart."""
        if not isinstance(client, UpnpClient):
            return False
        before, self._location = self._location, client.location
        return before not in ("", self._location)

    def _may_still_hold(self) -> bool:
        mapping = self.mapping
        return mapping is not None and (mapping.ends is None or self._clock.now() < mapping.ends)
