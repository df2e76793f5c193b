"""Removing from the router what earlier processes of this node left there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.errors import NatError, NoGateway, RouterSilent
from securelink.nat import ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from securelink.nat.ledger import Ledger
    from securelink.nat.probe import Probe, Prober
    from securelink.nat.route import Gateway
    from securelink.nat.terms import Method
    from securelink.store.mappings import StoredMapping


async def sweep(probe: Probe, rows: Iterable[StoredMapping], book: Ledger) -> list[StoredMapping]:
    """Remove those of *rows* that are on this router; return those that are gone now.

    Only what has our address, port and description is deleted, in the way in which it was made,
    whatever is asked now. What is on another router, or can't be removed, stays written down.
    """
    here = [row for row in rows if row.gateway == probe.gateway.host]
    gone = []
    silent: set[Method] = set()
    for row in here:
        if row.method in silent:
            continue
        try:
            await ledger.remove(book, await probe.client(row.method), row)
        except RouterSilent:
            silent.add(row.method)  # it would be waited for again for each of them
        except NatError:
            continue
        else:
            gone.append(row)
    return gone


async def clear_stale(
    book: Ledger, prober: Prober, find: Callable[[], Gateway]
) -> list[StoredMapping]:
    """Remove what dead processes left; for a start that maps nothing itself.

    The router is asked only if there is something to remove. Return what is gone now.
    """
    rows = await book.stale()
    if not rows:
        return []
    try:
        gateway = find()
    except NoGateway:
        return []
    async with prober.start(gateway) as probe:
        return await sweep(probe, rows, book)
