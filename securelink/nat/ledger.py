"""What this node has had mapped, in its store: whose each mapping is, and which are stale.

A mapping belongs to the process that asked for it. Those of processes that died are stale; those
of living ones are left alone, except that two processes of a node may share one, and then the
last to let go removes it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec.structs import replace

from securelink.nat.terms import Method, Wanted
from securelink.store import mappings
from securelink.store.mappings import LEFT, StoredMapping

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securelink.events import Address
    from securelink.nat.terms import Client, Protocol
    from securelink.nat.upnp import Entry
    from securelink.store.writer import Store


def describe(public_key: bytes) -> str:
    """Return how a node's mappings are described on a router's own page.

    Everybody in the network can read it, so it names the node without giving its key away.
    """
    return f"securelink {hashlib.sha256(public_key).hexdigest()[:8]}"


class Ledger:
    """The mappings of one node, for one of its processes.

    Args:
        store: the node's.
        owner: this process, as in the outbox.
        is_alive: whether the process that an owner's name stands for still lives.
        description: what this node's mappings are called on the router, from `describe`.
    """

    def __init__(
        self, store: Store, owner: str, is_alive: Callable[[str], bool], description: str
    ) -> None:
        self.owner = owner
        self.description = description
        self._store = store
        self._is_alive = is_alive

    async def note(self, mapping: StoredMapping) -> None:
        """Write a mapping down; before the router is asked for it, and with what it granted."""
        await self._store.run(mappings.record, mapping)

    async def replace(self, old: StoredMapping, new: StoredMapping) -> None:
        """Write down what became of a mapping."""
        await self._store.run(mappings.replace, old, new)

    async def drop(self, mapping: StoredMapping) -> None:
        """Strike a mapping out: it is known to be gone."""
        await self._store.run(mappings.forget, mapping)

    async def leave(self, mapping: StoredMapping) -> None:
        """Leave a mapping to its lease: no start removes it any more."""
        await self._store.run(mappings.replace, mapping, replace(mapping, owner=LEFT))

    async def all(self) -> list[StoredMapping]:
        """Every mapping of this node, whosever."""
        return await self._store.read(mappings.list_all)

    async def own(self) -> list[StoredMapping]:
        """Those of this process."""
        return [each for each in await self.all() if each.owner == self.owner]

    async def stale(self) -> list[StoredMapping]:
        """Those of processes that died."""
        return [each for each in await self.all() if self._is_stale(each)]

    async def removable(self, port: int | None) -> list[StoredMapping]:
        """Those that no living process keeps, stale or left; with *port*, at that external port."""
        return [
            each
            for each in await self.all()
            if (each.owner == LEFT or self._is_stale(each))
            and (port is None or each.external.port == port)
        ]

    async def is_shared(self, mapping: StoredMapping) -> bool:
        """Whether another living process relies on the same mapping."""
        return any(
            each.owner != mapping.owner and self._is_live(each) and is_same(each, mapping)
            for each in await self.all()
        )

    async def nonce_for(self, gateway: str, protocol: Protocol, local: Address) -> bytes | None:
        """The nonce with which this node has had that port mapped by PCP, if it has.

        The router takes no other one: neither to share a living process's mapping nor to take
        over a dead one's.
        """
        nonces = [
            (self._is_live(each), each.nonce)
            for each in await self.all()
            if each.method is Method.PCP
            and (each.gateway, each.protocol, each.local) == (gateway, protocol, local)
        ]
        return max(nonces)[1] if nonces else None

    def _is_stale(self, mapping: StoredMapping) -> bool:
        return mapping.owner != LEFT and not self._is_live(mapping)

    def _is_live(self, mapping: StoredMapping) -> bool:
        owner = mapping.owner
        return owner == self.owner or (owner != LEFT and self._is_alive(owner))


async def remove(ledger: Ledger, client: Client, mapping: StoredMapping) -> None:
    """Delete *mapping* on the router, unless it is shared, and strike it out.

    Raises:
        NatError: the router did not do it; it stays written down.
    """
    if not await ledger.is_shared(mapping):
        await client.unmap(wanted(mapping), mapping.external.port)
    await ledger.drop(mapping)


def wanted(mapping: StoredMapping) -> Wanted:
    """What was asked for to get *mapping*."""
    return Wanted(
        mapping.protocol,
        mapping.local,
        mapping.external.port,
        mapping.lease,
        mapping.nonce,
        mapping.description,
    )


def is_ours(entry: Entry, rows: Sequence[StoredMapping]) -> bool:
    """Whether a row of the router's table is one of this node's mappings."""
    return any(
        (entry.protocol, entry.external_port, entry.local, entry.description)
        == (row.protocol, row.external.port, row.local, row.description)
        for row in rows
    )


def is_same(one: StoredMapping, other: StoredMapping) -> bool:
    """Whether both stand for the same thing on the router."""
    if (one.method, one.gateway, one.protocol, one.local) != (
        other.method,
        other.gateway,
        other.protocol,
        other.local,
    ):
        return False
    # PCP and NAT-PMP know a mapping by its inner end alone.
    return one.method is not Method.UPNP or one.external.port == other.external.port
