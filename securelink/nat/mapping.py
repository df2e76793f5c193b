"""One mapping: asked for in every way that the router answers, until one holds."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from securelink import events
from securelink.errors import (
    MappingRefused,
    NatError,
    NoUsableAddress,
    PortTaken,
    RouterFailed,
    RouterSilent,
    UpnpMissing,
)
from securelink.events import Address
from securelink.nat import diagnosis, ledger, pcp, ports
from securelink.nat.diagnosis import AddressKind, Diagnosis, Observations
from securelink.nat.outside import seen_from_outside
from securelink.nat.terms import Client, Granted, Method, Protocol, Wanted
from securelink.nat.timing import renew_after
from securelink.nat.upnp import UpnpClient
from securelink.store.mappings import StoredMapping

if TYPE_CHECKING:
    from securelink.nat.clock import Clock
    from securelink.nat.ledger import Ledger
    from securelink.nat.probe import Probe

_TELLING = (MappingRefused, PortTaken, NoUsableAddress, RouterFailed, RouterSilent)
"""Of several failures the one that tells most about what is wrong, first."""

_USELESS = (AddressKind.SHARED, AddressKind.EMPTY, AddressKind.RESERVED)
"""Outer addresses with which no mapping is worth asking for. Behind a private one it is: the
router before it can forward to this one by hand."""


async def _nothing() -> None:
    """For what is not ours to remove."""


class Request(msgspec.Struct, frozen=True):
    """What the user wants mapped."""

    port: int
    """The port that this machine listens on."""
    protocol: Protocol = Protocol.TCP
    external_port: int = 0
    """0: the same."""
    lease: int = 3600
    """Seconds."""
    any_port: bool = True
    """Whether another external port will do when the wanted one is taken."""
    stun: tuple[str, ...] = ()
    """Servers to compare the router's address with."""

    @property
    def wanted_port(self) -> int:
        """The external port to ask for first."""
        return self.external_port or self.port


@dataclass(frozen=True, slots=True)
class Mapping:
    """A port that the router forwards to us."""

    method: Method
    protocol: Protocol
    external: Address
    local: Address
    good_until: int | None
    """ms since 1970; None: it has no end."""
    renew_after: float
    """When to renew it, by the clock that it was made with, in seconds."""
    ends: float | None
    """When its lease ends, by that clock; None: never."""
    row: StoredMapping = field(repr=False)
    """As it is written down."""
    borrowed: bool = False
    """It was there before and is somebody else's: never removed by us."""
    _release: Callable[[], Awaitable[None]] = field(repr=False, compare=False, default=_nothing)

    async def release(self) -> None:
        """Remove it from the router.

        Raises:
            NatError: the router did not do it; the next start tries again.
        """
        await self._release()


class Attempt(msgspec.Struct, frozen=True):
    """What came of asking for a mapping."""

    seen: Observations
    mapping: Mapping | None = None
    client: Client | None = None
    """What the mapping was made with: open, and the caller's."""
    restarted: bool = False
    """The router has lost its state since it was last heard of."""
    source: Method | None = None
    """Who told the router's address."""

    def public_address(self) -> events.PublicAddress | None:
        """What is known of our address outside."""
        return diagnosis.public_address(self.seen, self.source)

    @property
    def diagnosis(self) -> Diagnosis:
        """The verdict."""
        return diagnosis.diagnose(self.seen)


async def acquire(
    probe: Probe, request: Request, book: Ledger, clock: Clock, *, nonce: bytes | None = None
) -> Attempt:
    """Ask the router in every way that it answers, until one mapping holds.

    Args:
        nonce: that of an earlier mapping of the same port by PCP, to get it again.
    """
    gateway = probe.gateway
    local = Address(gateway.local, request.port)
    failures: list[NatError] = []
    answered: list[Method] = []
    external: str | None = None
    source: Method | None = None
    nonce = (
        nonce
        or await book.nonce_for(gateway.host, request.protocol, local)
        or os.urandom(pcp.NONCE_SIZE)
    )
    made: tuple[Client, Mapping, Granted] | None = None
    async for client in probe.clients():
        answered.append(client.method)
        try:
            told = await probe.external_address(client)
            if told is not None:
                if external is None or diagnosis.kind_of(external) is AddressKind.EMPTY:
                    external, source = told
                if diagnosis.kind_of(told[0]) in _USELESS:
                    continue
            wanted = Wanted(
                request.protocol,
                local,
                request.wanted_port,
                request.lease,
                nonce,
                book.description,
            )
            granted, row, taken = await _map(client, wanted, gateway.host, request, book, clock)
        except NatError as error:
            failures.append(error)
            continue
        if taken is not None:
            failures.append(taken)
        probe.keep(client)
        made = client, of(client, row, granted, book, clock), granted
        external, source = (granted.external.host, client.method)
        break
    owners = (each.owner for each in failures if isinstance(each, PortTaken))
    owner = next(filter(None, owners), "")
    other_port = made is not None and made[1].external.port != request.wanted_port
    if other_port and not owner:
        owner = await _owner(probe, request)
    seen = Observations(
        port=request.port,
        protocol=request.protocol,
        local=gateway.local,
        gateway=gateway.host,
        asked=probe.asked,
        answered=tuple(answered),
        external=external,
        mapped_port=made[1].external.port if made else None,
        wanted_port=request.wanted_port,
        permanent=made is not None and made[1].good_until is None and not made[1].borrowed,
        failure=_most_telling(failures),
        owner=owner,
        seen_from_outside=await seen_from_outside(request.stun, gateway.local, clock)
        if answered
        else None,
        upnp_missing=not answered
        and Method.UPNP in probe.asked
        and isinstance(await probe.failure(Method.UPNP), UpnpMissing),
    )
    if made is None:
        return Attempt(seen, source=source)
    return Attempt(seen, made[1], made[0], made[2].restarted, source)


def of(client: Client, row: StoredMapping, granted: Granted, book: Ledger, clock: Clock) -> Mapping:
    """Return the mapping that *row* and what was *granted* stand for, from now on."""
    lease = granted.lease
    now = clock.now()
    return Mapping(
        client.method,
        row.protocol,
        granted.external,
        row.local,
        row.good_until(),
        # One without an end is looked at now and then, and never renewed.
        now + renew_after(lease, clock.random()) if lease else float("inf"),
        now + lease if lease else None,
        row,
        granted.borrowed,
        _nothing if granted.borrowed else lambda: ledger.remove(book, client, row),
    )


async def _map(
    client: Client,
    wanted: Wanted,
    gateway: str,
    request: Request,
    book: Ledger,
    clock: Clock,
) -> tuple[Granted, StoredMapping, PortTaken | None]:
    """Map the wanted port, or another one when it is taken and any will do."""
    others = ports.others(wanted.local.host, wanted.external_port) if request.any_port else ()
    taken: PortTaken | None = None
    for port in (wanted.external_port, *others):
        asked = msgspec.structs.replace(wanted, external_port=port)
        row = _row(client, asked, gateway, book, clock)
        # First on the disk: a crash from here on leaves nothing that nobody knows of.
        await book.note(row)
        try:
            granted = await client.map(asked)
        except PortTaken as error:
            taken = taken or error
            await book.drop(row)
            continue
        except NatError as error:
            # Without an answer it may have been made all the same: it stays written down.
            if not isinstance(error, RouterSilent):
                await book.drop(row)
            raise
        kept = written(row, granted, clock)
        if granted.borrowed:
            await book.drop(row)
        else:
            await book.replace(row, kept)
        if granted.external.port != wanted.external_port and not request.any_port:
            await ledger.remove(book, client, kept)
            raise PortTaken(f"port {wanted.external_port} is taken")
        return granted, kept, taken
    assert taken is not None
    raise taken


async def _owner(probe: Probe, request: Request) -> str:
    """Who has the wanted port: PCP and NAT-PMP give another one and do not say."""
    if Method.UPNP not in probe.asked:
        return ""
    try:
        client = await probe.client(Method.UPNP)
        assert isinstance(client, UpnpClient)
        entry = await client.entry(request.protocol, request.wanted_port)
    except NatError:
        return ""
    return "" if entry is None else entry.owner


def written(row: StoredMapping, granted: Granted, clock: Clock) -> StoredMapping:
    """Return *row* with what the router granted, as of now."""
    # By its description an entry is known as ours: a borrowed one must never pass for that.
    kept_as = "" if granted.borrowed else granted.description
    return msgspec.structs.replace(
        row,
        external=granted.external,
        lease=granted.lease,
        description=kept_as or row.description,
        made_at=clock.wall(),
    )


def _row(client: Client, asked: Wanted, gateway: str, book: Ledger, clock: Clock) -> StoredMapping:
    return StoredMapping(
        book.owner,
        client.method,
        gateway,
        asked.protocol,
        Address("", asked.external_port),
        asked.local,
        asked.lease,
        asked.nonce,
        asked.description,
        clock.wall(),
    )


def _most_telling(failures: list[NatError]) -> type[NatError] | None:
    for kind in _TELLING:
        for failure in failures:
            if isinstance(failure, kind):
                return type(failure)
    return type(failures[0]) if failures else None
