"""What a router forwards, and what of it is this node's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from securelink.errors import NatError, UpnpMissing
from securelink.nat.diagnosis import Observations, diagnose
from securelink.nat.ledger import is_ours
from securelink.nat.terms import Method
from securelink.nat.upnp import Entry, UpnpClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securelink.nat.probe import Probe
    from securelink.store.mappings import StoredMapping


class Listing(msgspec.Struct, frozen=True):
    """The ports that a router forwards."""

    rows: tuple[tuple[Entry, bool], ...]
    """Each with whether it is ours."""
    told: bool
    """By the router; else they are what this node has written down: its own."""


async def listing(
    probe: Probe, written: Sequence[StoredMapping], *, port: int, now: int
) -> Listing:
    """Return what the router forwards; only UPnP has a way to ask for it.

    Args:
        written: this node's mappings, on whatever router.
        port: the port that this machine listens on, for the next step that is advised.
        now: ms since 1970.

    Raises:
        NatError: no router answers, or it breaks off.
    """
    gateway = probe.gateway
    here = [row for row in written if row.gateway == gateway.host]
    missing = False
    if Method.UPNP in probe.asked:
        try:
            client = await probe.client(Method.UPNP)
        except NatError as error:
            missing = isinstance(error, UpnpMissing)
        else:
            assert isinstance(client, UpnpClient)
            entries = await client.entries()
            return Listing(tuple((each, _is_ours(each, here)) for each in entries), told=True)
    # A router that is gone must not pass for one that forwards nothing.
    if not await probe.answered():
        seen = Observations(
            port=port,
            local=gateway.local,
            gateway=gateway.host,
            asked=probe.asked,
            upnp_missing=missing,
        )
        raise diagnose(seen).error()
    lasting = [row for row in here if (row.good_until() or now + 1) > now]
    return Listing(tuple((_entry(row, now), True) for row in lasting), told=False)


def _is_ours(entry: Entry, rows: Sequence[StoredMapping]) -> bool:
    # PCP and NAT-PMP carry no description: what such a mapping is called is the router's own word.
    return is_ours(entry, rows) or any(
        (entry.protocol, entry.external_port, entry.local)
        == (row.protocol, row.external.port, row.local)
        for row in rows
        if row.method is not Method.UPNP
    )


def _entry(row: StoredMapping, now: int) -> Entry:
    good_until = row.good_until()
    lease = 0 if good_until is None else -(-(good_until - now) // 1000)
    return Entry(
        row.protocol, row.external.port, row.local, row.description, enabled=True, lease=lease
    )
