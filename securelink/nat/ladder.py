"""How far this machine can be reached through its router: one check after the other.

Each check is a rung, told as soon as it is done, whatever became of it. Nobody outside takes part:
the best that can be found is a port that the router forwards.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from securelink.errors import NoGateway, RouterSilent, UpnpMissing
from securelink.nat import machine
from securelink.nat.address import public_address
from securelink.nat.clock import Clock
from securelink.nat.diagnosis import (
    AddressKind,
    Diagnosis,
    Observations,
    Verdict,
    diagnose,
    kind_of,
)
from securelink.nat.keeper import locate
from securelink.nat.outside import seen_from_outside
from securelink.nat.probe import Prober, methods_of
from securelink.nat.rungs import Found, Place, Result, Rung
from securelink.nat.terms import Method
from securelink.nat.trial import try_mapping

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from securelink.config import NatConfig
    from securelink.nat.ledger import Ledger
    from securelink.nat.probe import Probe
    from securelink.nat.route import Gateway


class Ladder:
    """The checks of one node.

    Args:
        book: its mappings.
        config: how the router is asked.
        place: where it listens.
        tell: takes each rung.
    """

    def __init__(
        self, book: Ledger, config: NatConfig, place: Place, tell: Callable[[Rung], None]
    ) -> None:
        self._book = book
        self._config = config
        self._place = place
        self._tell = tell
        self._clock = Clock()
        self._gateway: Gateway | None = None
        self._seen = Observations(port=place.port, asked=methods_of(config.method))
        self._verdict: Diagnosis | None = None

    async def climb(self) -> Diagnosis:
        """Check everything, and return the verdict.

        Raises:
            StoreError: the store failed.
        """
        address = machine.lan_address()
        gateway = Result.OK, ""
        try:
            self._gateway = locate(self._config)
        except NoGateway as error:
            gateway = Result.FAILED, error.message
        else:
            address, gateway = self._gateway.local, (Result.OK, self._gateway.host)
            self._note(local=address, gateway=self._gateway.host)
        port = await self._rung("port", machine.port(self._place))
        listening = await self._rung("listening", machine.listening(self._place, address))
        await self._rung("lan-address", machine.lan(address))
        await self._rung("gateway", _known(*gateway))
        await self._ask_methods()
        await self._rung("external-address", self._external())
        await self._rung("mapping", self._mapping())
        await self._rung("stun", self._stun())
        await self._rung("ipv6", machine.ipv6())
        found = self._verdict or diagnose(self._seen)
        if found.verdict is Verdict.MAPPED and port is Result.FAILED:
            hint = f"Free port {self._place.port}, or serve on another with --port."
            return msgspec.structs.replace(found, hint=hint)
        if found.verdict is Verdict.MAPPED and listening is Result.FAILED:
            hint = "Let serve listen on this computer's LAN address: see [server] host."
            return msgspec.structs.replace(found, hint=hint)
        return found

    async def _rung(self, name: str, check: Awaitable[Found]) -> Result:
        rung = await self._timed(name, check)
        self._tell(rung)
        return rung.result

    async def _timed(self, name: str, check: Awaitable[Found]) -> Rung:
        began = self._clock.now()
        result, evidence = await check
        return Rung(name, result, round(self._clock.now() - began, 3), evidence)

    def _note(self, **seen: Any) -> None:
        self._seen = msgspec.structs.replace(self._seen, **seen)

    @property
    def _router(self) -> Gateway | None:
        """The gateway, if it may have something to forward to us."""
        gateway = self._gateway
        if gateway is None or kind_of(gateway.local) is AddressKind.PUBLIC:
            return None
        return gateway

    def _no_router(self) -> Found:
        public = self._gateway is not None and self._router is None
        why = "this computer's own address is public" if public else "no router to ask"
        return Result.SKIPPED, why

    async def _ask_methods(self) -> None:
        if self._router is None:
            for method in Method:
                await self._rung(method, _known(*self._no_router()))
            return
        answered = []
        async with (
            Prober(self._clock, self._seen.asked).start(self._router) as probe,
            asyncio.TaskGroup() as tasks,
        ):
            # Side by side, so that each has its own time.
            checks = [
                tasks.create_task(self._timed(method, self._method(probe, method)))
                for method in Method
            ]
            for method, check in zip(Method, checks, strict=True):
                rung = await check
                self._tell(rung)
                if rung.result is Result.OK:
                    answered.append(method)
        self._note(answered=tuple(answered))

    async def _method(self, probe: Probe, method: Method) -> Found:
        if method not in probe.asked:
            return Result.SKIPPED, f"not asked: the method is {self._config.method}"
        failure = await probe.failure(method)
        if failure is None:
            return Result.OK, f"{probe.gateway.host} answers"
        if isinstance(failure, UpnpMissing):
            self._note(upnp_missing=True)
        absent = isinstance(failure, RouterSilent | UpnpMissing)
        return Result.ABSENT if absent else Result.FAILED, failure.message

    def _prober(self) -> Prober:
        """For what answers: nothing is waited for a second time."""
        return Prober(self._clock, self._seen.answered)

    async def _external(self) -> Found:
        router = self._router
        if router is None or not self._seen.answered:
            return self._no_router()
        told = (await public_address(self._prober(), lambda: router, port=self._place.port)).told
        if told is None and self._seen.answered == (Method.PCP,):
            return Result.ABSENT, "PCP tells it only with a mapping"
        if told is None:
            self._note(external="")
            return Result.FAILED, "the router has none"
        self._note(external=told.host)
        result = Result.OK if told.kind == AddressKind.PUBLIC else Result.FAILED
        kind = f"{told.kind} (100.64/10)" if told.kind == AddressKind.SHARED else told.kind
        return result, f"{told.host}, {kind}, by {Method(told.source).label}"

    async def _mapping(self) -> Found:
        router = self._router
        if router is None or not self._seen.answered:
            return self._no_router()
        port = self._place.port
        tried = await try_mapping(self._book, self._config, port, router, self._prober())
        self._verdict = tried.diagnosis
        if tried.row is not None:
            self._note(
                external=self._seen.external or tried.row.external.host,
                mapped_port=tried.row.external.port,
                wanted_port=self._config.external_port or port,
                permanent=not tried.row.lease,
            )
        return tried.result, tried.evidence

    async def _stun(self) -> Found:
        if not self._config.stun:
            return Result.SKIPPED, "no server is configured"
        if self._gateway is None:
            return self._no_router()
        seen = await seen_from_outside(self._config.stun, self._gateway.local, self._clock)
        if seen is None:
            return Result.FAILED, "no server answers"
        self._note(seen_from_outside=seen)
        told = self._seen.external
        differs = bool(told) and seen != told
        return Result.FAILED if differs else Result.OK, f"the internet sees {seen}"


async def _known(result: Result, evidence: str) -> Found:
    return result, evidence
