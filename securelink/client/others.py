"""Over links of others: a process of this node that has one carries what is in the store."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from securelink.errors import Unreachable
from securelink.items import StreamItem, has_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from securelink.client.terms import Terms
    from securelink.items import Item
    from securelink.parcel import Parcel
    from securelink.store.links import LinkRow

SHARE_PATIENCE = 5.0
"""Seconds without progress after which a link of another process is not counted on any more, if
the peer can be dialled."""

LOOK_INTERVAL = 1.0
"""Seconds after which to look for others' links although nobody has committed."""


class Others:
    """The processes of this node that have a link to the recipient.

    Args:
        terms: what is sent, and to whom.
        items: what the recipient is to get.

    Attributes:
        has_stream: there is a stream among the items, which only this process can read.
        were_linked: one of them had a link until the end, and did not take all in time.
    """

    def __init__(self, terms: Terms, items: Sequence[Item]) -> None:
        self.has_stream = any(isinstance(each, StreamItem) for each in items)
        self.were_linked = False
        self._given_up: set[tuple[str, int]] = set()
        self._node = terms.node
        self._peer = terms.peer
        self._terms = terms
        self._takes_files = any(has_files(each) for each in items)

    async def links(self) -> list[LinkRow]:
        """Return the links that can carry what is to be sent."""
        if self._terms.is_me or self._terms.choice != "auto" or self.has_stream:
            return []
        found = await self._node.links_to(self._peer.key.raw)
        return [
            each
            for each in found
            if (each.takes_files or not self._takes_files)
            and (each.owner, each.number) not in self._given_up
        ]

    async def until_linked(self) -> None:
        """Return when there is such a link.

        Raises:
            StoreError: the store does not tell.
        """
        changed = asyncio.Event()
        unsubscribe = self._node.store.on_change(changed.set)
        try:
            while not await self.links():
                await changed.wait()
                changed.clear()
        finally:
            unsubscribe()

    async def carry(self, parcel: Parcel) -> None:
        """Return when all is settled; or, if we can dial, when others will not do it.

        Raises:
            Unreachable: nobody has a link in time, and there is no address to dial.
        """
        changed = asyncio.Event()
        unsubscribe = self._node.store.on_change(changed.set)
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = self._terms.deadline(parcel)
        await parcel.share(None if deadline is None else max(deadline - began, 0))
        told = False
        try:
            while True:
                await parcel.until_not_idle()
                await parcel.look()
                if parcel.is_done():
                    return
                if parcel.is_idle:
                    continue
                linked = await self.links()
                still = loop.time() - max(parcel.rows.moved_at, began)
                if self._terms.dials and (not linked or still > SHARE_PATIENCE):
                    self._given_up |= {(each.owner, each.number) for each in linked}
                    if not self._terms.queue:
                        await parcel.keep()
                    return
                deadline = self._terms.deadline(parcel)
                left = LOOK_INTERVAL if deadline is None else deadline - loop.time()
                if linked and left <= 0:
                    self.were_linked = True
                    raise Unreachable(f"{self._peer.name} is linked, and has not taken it in time")
                if left <= 0 or (not linked and self._terms.queue and not parcel.reads_lines):
                    raise self._not_linked()
                if not linked and not told:
                    told = True
                    self._terms.failed(self._not_linked())
                with contextlib.suppress(TimeoutError):
                    # A process that is killed commits nothing.
                    async with asyncio.timeout(min(left, LOOK_INTERVAL)):
                        await changed.wait()
                changed.clear()
        finally:
            unsubscribe()

    def _not_linked(self) -> Unreachable:
        name = self._peer.name
        return Unreachable(
            f"{name} is not linked, and no address of it is known",
            hint=f"on {name}: securelink receive, or a send while it serves; "
            "or here: --endpoint HOST:PORT",
        )
