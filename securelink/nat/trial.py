"""A mapping for a look at it: the one that this node has is read, else one is made and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from securelink.errors import NatError
from securelink.events import Address
from securelink.nat.diagnosis import Diagnosis, Reason, Verdict
from securelink.nat.keeper import Keeper, request_of
from securelink.nat.rungs import Result
from securelink.nat.terms import Method, Protocol
from securelink.nat.upnp import UpnpClient
from securelink.store.mappings import LEFT

if TYPE_CHECKING:
    from securelink.config import NatConfig
    from securelink.nat.ledger import Ledger
    from securelink.nat.probe import Prober
    from securelink.nat.route import Gateway
    from securelink.store.mappings import StoredMapping


class Trial(msgspec.Struct, frozen=True):
    """What came of it."""

    result: Result
    evidence: str
    """What was seen, in a few words."""
    row: StoredMapping | None = None
    """The mapping that the router has, or had for the moment."""
    diagnosis: Diagnosis | None = None
    """The verdict, if one was made."""


async def try_mapping(
    book: Ledger, config: NatConfig, port: int, gateway: Gateway, prober: Prober
) -> Trial:
    """Look whether the router forwards the TCP port *port* to this machine, or would.

    Args:
        book: this node's mappings.
        config: what to ask for.
        port: that this machine listens on.
        gateway: the router.
        prober: with methods that it has answered.

    Raises:
        StoreError: the store failed.
    """
    kept = await _kept(book, Address(gateway.local, port), gateway, prober.clock.wall())
    if kept is not None:
        return await _read(kept, gateway, prober)
    return await _make(book, config, port, gateway, prober)


async def _kept(book: Ledger, local: Address, gateway: Gateway, now: int) -> StoredMapping | None:
    """What this node's other processes have mapped for the port, or left to its lease."""
    loose = await book.removable(None)
    for row in await book.all():
        ends = row.good_until()
        lasts = row.owner == LEFT and (ends is None or ends > now)
        if (
            (row.gateway, row.local, row.protocol) == (gateway.host, local, Protocol.TCP)
            and row.external.host
            and (lasts or row not in loose)
        ):
            return row
    return None


async def _read(row: StoredMapping, gateway: Gateway, prober: Prober) -> Trial:
    """Look whether a mapping that this node has is there, as far as the router tells."""
    how = "left open" if row.owner == LEFT else "kept open"
    what = f"TCP {row.external.host}:{row.external.port}, {how} by this node"
    if Method.UPNP not in prober.methods:
        return Trial(Result.OK, f"{what}; {row.method.label} can't tell whether it is there", row)
    try:
        async with prober.start(gateway) as probe:
            client = await probe.client(Method.UPNP)
            assert isinstance(client, UpnpClient)
            entry = await client.entry(row.protocol, row.external.port)
    except NatError as error:
        return Trial(Result.FAILED, f"{what}: {error.message}")
    if entry is not None and entry.local == row.local and entry.enabled:
        return Trial(Result.OK, f"{what}: the router has it", row)
    return Trial(Result.FAILED, f"{what}: the router no longer has it")


async def _make(
    book: Ledger, config: NatConfig, port: int, gateway: Gateway, prober: Prober
) -> Trial:
    """Have the port mapped, and removed again."""
    request = request_of(config, port, Protocol.TCP)
    async with Keeper(book, request, find=lambda: gateway, prober=prober) as keeper:
        found = await keeper.attempt()
        mapping = keeper.mapping
    if mapping is None:
        useless = found.verdict is Verdict.BLOCKED
        evidence = found.sentence.removesuffix(".")
        return Trial(
            Result.SKIPPED if useless else Result.FAILED,
            f"not tried: {evidence[:1].lower()}{evidence[1:]}" if useless else evidence,
            diagnosis=found,
        )
    what = f"TCP {mapping.external.host}:{mapping.external.port} by {mapping.method.label}"
    if mapping.borrowed:
        return Trial(Result.OK, f"{what}, which was there before", mapping.row, found)
    if found.verdict is Verdict.MAPPED:
        found = _as_removed(found, mapping.external)
    if await book.own():
        return Trial(
            Result.FAILED, f"{what}, made, and not removed by the router", mapping.row, found
        )
    return Trial(Result.OK, f"{what}, made and removed", mapping.row, found)


def _as_removed(found: Diagnosis, external: Address) -> Diagnosis:
    sentence = found.sentence
    if found.reason is Reason.MAPPED:
        sentence = (
            f"The router forwards TCP {external.host}:{external.port} to this computer when asked, "
            "not verified from the internet."
        )
    return msgspec.structs.replace(
        found, sentence=sentence, hint="Have it kept open: securelink serve --upnp."
    )
