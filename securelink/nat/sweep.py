"""Removing from the router what earlier processes of this node left there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.errors import NatError
from securelink.nat import ledger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securelink.nat.ledger import Ledger
    from securelink.nat.probe import Probe
    from securelink.store.mappings import StoredMapping


async def sweep(probe: Probe, rows: Iterable[StoredMapping], book: Ledger) -> list[StoredMapping]:
    """Remove those of *rows* that are on this router; return those that are gone now.

    Only what has our address, port and description is deleted. What is on another router, or
    can't be removed, stays written down.
    """
    gone = []
    for row in rows:
        if row.gateway != probe.gateway.host:
            continue
        try:
            await ledger.remove(book, await probe.client(row.method), row)
        except NatError:
            continue
        gone.append(row)
    return gone
