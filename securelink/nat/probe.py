"""Which of PCP, NAT-PMP and UPnP a router answers: all asked side by side, for 2 seconds.

Only a UPnP router that has shown itself in that time, and is slow to describe itself, gets more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from securelink.errors import NatError
from securelink.nat.clients import NatPmpClient, PcpClient
from securelink.nat.terms import Client, Method
from securelink.nat.timing import EpochRecord, natpmp_epoch_holds, pcp_epoch_holds
from securelink.nat.upnp import UpnpClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType

    from securelink.nat.clock import Clock
    from securelink.nat.route import Gateway


def methods_of(configured: str) -> tuple[Method, ...]:
    """The methods that `[nat] method` allows, in the order of preference."""
    return tuple(Method) if configured == "auto" else (Method(configured),)


class Prober:
    """Probes again and again; remembers between probes what the router's epoch was."""

    def __init__(self, clock: Clock, methods: Sequence[Method] = tuple(Method)) -> None:
        self.clock = clock
        self.methods = tuple(methods)
        self.pcp_epochs = EpochRecord(pcp_epoch_holds)
        self.natpmp_epochs = EpochRecord(natpmp_epoch_holds)

    def unasked(self, method: Method, gateway: Gateway) -> Client | None:
        """A client without a look first; None for UPnP, whose router has to be found."""
        if method is Method.PCP:
            return PcpClient(gateway, self.clock, self.pcp_epochs)
        if method is Method.NAT_PMP:
            return NatPmpClient(gateway, self.clock, self.natpmp_epochs)
        return None

    def start(self, gateway: Gateway) -> Probe:
        """Begin to ask *gateway* in every way that is allowed."""
        return Probe(self, gateway)


class Probe:
    """One look at a router; made by `Prober.start`, ended by `aclose`."""

    def __init__(self, prober: Prober, gateway: Gateway) -> None:
        self.gateway = gateway
        self.asked = prober.methods
        """The methods to map with."""
        self._prober = prober
        self._kept: list[Client] = []
        self._tasks: dict[Method, asyncio.Task[Client]] = {
            method: asyncio.ensure_future(self._ask(method)) for method in prober.methods
        }

    async def client(self, method: Method) -> Client:
        """Return the client for *method*; it ends with this probe, unless it is kept.

        What was not to be tried is asked now: for what was mapped in that way before.

        Raises:
            NatError: the router does not answer it, or it can't be asked.
        """
        if method not in self._tasks:
            self._tasks[method] = asyncio.ensure_future(self._ask(method))
        # Whoever waits may be cancelled; the asking goes on for the others.
        return await asyncio.shield(self._tasks[method])

    def keep(self, client: Client) -> None:
        """Leave *client* open when this probe ends; closing it is the caller's work then."""
        self._kept.append(client)

    async def clients(self) -> AsyncIterator[Client]:
        """Yield the clients that answer, the preferred first, each as soon as that is certain."""
        for method in self.asked:
            try:
                client = await self.client(method)
            except NatError:
                continue
            yield client

    async def external_address(self, client: Client) -> tuple[str, Method] | None:
        """Return the router's outer address and who told it, as far as it tells before a mapping.

        PCP can't be asked; then NAT-PMP is, which lives at the same port.

        Raises:
            NatError: the router failed.
        """
        told = await client.external_address()
        if told is not None:
            return told, client.method
        if Method.NAT_PMP not in self.asked:
            return None
        try:
            told = await (await self.client(Method.NAT_PMP)).external_address()
        except NatError:
            return None
        return None if told is None else (told, Method.NAT_PMP)

    async def answered(self) -> tuple[Method, ...]:
        """Wait for all; return those that the router answers."""
        return tuple([each for each in self.asked if await self.failure(each) is None])

    async def failure(self, method: Method) -> NatError | None:
        """Wait for *method*; return why it can't be used, None if it can."""
        try:
            await self.client(method)
        except NatError as error:
            return error
        return None

    async def aclose(self) -> None:
        """Stop asking, and close the clients that are not kept."""
        for task in self._tasks.values():
            task.cancel()
        for ended in await asyncio.gather(*self._tasks.values(), return_exceptions=True):
            if not isinstance(ended, BaseException) and ended not in self._kept:
                ended.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # ---- inside

    async def _ask(self, method: Method) -> Client:
        clock = self._prober.clock
        match method:
            case Method.PCP:
                pcp = PcpClient(self.gateway, clock, self._prober.pcp_epochs)
                await pcp.greet()
                return pcp
            case Method.NAT_PMP:
                natpmp = NatPmpClient(self.gateway, clock, self._prober.natpmp_epochs)
                await natpmp.greet()
                return natpmp
            case Method.UPNP:
                return await UpnpClient.open(self.gateway, clock)
