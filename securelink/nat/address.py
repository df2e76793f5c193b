"""The public address, without a mapping: only questions, nothing is changed on the router."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from securelink.errors import NatError, NoGateway, NoUsableAddress, UpnpMissing
from securelink.nat.diagnosis import (
    AddressKind,
    Diagnosis,
    Observations,
    Verdict,
    diagnose,
    kind_of,
)
from securelink.nat.diagnosis import public_address as address_of
from securelink.nat.outside import seen_from_outside
from securelink.nat.terms import Method

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink import events
    from securelink.nat.probe import Prober
    from securelink.nat.route import Gateway


class PublicAddress(msgspec.Struct, frozen=True):
    """What was found."""

    told: events.PublicAddress | None
    """The address, whatever its kind, with a note if nobody gets through to it; None if nobody told
    one."""
    diagnosis: Diagnosis
    """The verdict without a mapping: why there is no address, or what is wrong with it."""


async def public_address(
    prober: Prober, find: Callable[[], Gateway], *, port: int, stun: tuple[str, ...] = ()
) -> PublicAddress:
    """Ask the router, and the STUN servers if there are any, for our address outside.

    Args:
        port: the port that this machine listens on, for the next step that is advised.
        stun: HOST[:PORT] each; asked only if named here.
    """
    try:
        gateway = find()
    except NoGateway:
        return PublicAddress(None, diagnose(Observations(port=port)))
    if kind_of(gateway.local) is AddressKind.PUBLIC:
        return _found(Observations(port=port, local=gateway.local))
    answered: list[Method] = []
    told: tuple[str, Method] | None = None
    async with prober.start(gateway) as probe:
        async for client in probe.clients():
            answered.append(client.method)
            try:
                told = await probe.external_address(client)
            except NoUsableAddress:
                told = "", client.method
            except NatError:
                continue
            if told is not None and kind_of(told[0]) is not AddressKind.EMPTY:
                break
        missing = not answered and Method.UPNP in probe.asked
        missing = missing and isinstance(await probe.failure(Method.UPNP), UpnpMissing)
    outside = await seen_from_outside(stun, gateway.local, prober.clock) if stun else None
    seen = Observations(
        port=port,
        local=gateway.local,
        gateway=gateway.host,
        asked=prober.methods,
        answered=tuple(answered),
        external=told[0] if told else None,
        seen_from_outside=outside,
        upnp_missing=missing,
    )
    return _found(seen, told[1] if told else None)


def _found(seen: Observations, source: Method | None = None) -> PublicAddress:
    verdict, told = diagnose(seen), address_of(seen, source)
    if told is not None and verdict.verdict is Verdict.BLOCKED:
        told = msgspec.structs.replace(told, note=verdict.sentence)
    return PublicAddress(told, verdict)
