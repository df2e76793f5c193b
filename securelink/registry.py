"""The links that this process has, by peer: over each of them mail is carried until it ends.

It is the same for links that were accepted and for those that were dialled.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from securelink import events, reach
from securelink.delivery import Delivery
from securelink.dispatch import Dispatch, Which
from securelink.errors import LinkClosed
from securelink.incoming import Incoming
from securelink.linkrows import LinkRows
from securelink.messages import Announce
from securelink.outgoing import Outgoing
from securelink.progressing import Progressing
from securelink.states import ENDED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence

    from securelink.connect import Connected
    from securelink.directory import KnownPeer
    from securelink.endpoints import Endpoint
    from securelink.errors import SecurelinkError
    from securelink.incoming import Arriving
    from securelink.link import Link
    from securelink.node import Node
    from securelink.session import Happening
    from securelink.store.links import LinkRow


@dataclass(slots=True)
class _Linked:
    """One peer's links; there may be several."""

    peer: KnownPeer
    outgoing: Outgoing
    deliveries: dict[Link, Delivery] = field(default_factory=dict)
    """Oldest first."""
    leaving: set[Link] = field(default_factory=set)
    """Those that are being closed for newer ones."""
    dispatches: dict[Link, Dispatch] = field(default_factory=dict)
    """Those that take files, oldest first; one at a time is fed."""
    removed: bool = False

    def wake(self) -> None:
        """There may be new rows."""
        self.outgoing.wake()
        for dispatch in self.dispatches.values():
            dispatch.wake()

    def may_drain(self, link: Link) -> bool:
        """Whether the queued files go over this link: a file that has begun stays on its own."""
        return next(iter(self.dispatches), link) is link and self.outgoing.may_drain()


class Registry:
    """All links of one process.

    Args:
        node: whose links they are.
        emit: told of each link that comes and goes.

    Attributes:
        endpoints: where the node can be reached; its owner keeps them up to date with `moved`.
        rows: what the store says of the links.
    """

    def __init__(
        self,
        node: Node,
        emit: Callable[[events.Event], None],
        endpoints: tuple[Endpoint, ...] = (),
    ) -> None:
        self.endpoints = endpoints
        self.rows = LinkRows(node)
        self._node = node
        self._emit = emit
        self._linked: dict[bytes, _Linked] = {}
        self._incoming: dict[Link, Incoming] = {}
        self._taken = 0  # over the links that have ended
        self._tasks: set[asyncio.Task[None]] = set()

    def __contains__(self, key: bytes) -> bool:
        return key in self._linked

    @property
    def linked(self) -> tuple[bytes, ...]:
        """The keys of the peers that have links."""
        return tuple(self._linked)

    def incoming(self) -> list[Arriving]:
        """The files that are coming in at this moment."""
        return [each for incoming in self._incoming.values() for each in incoming.active()]

    @property
    def taken(self) -> int:
        """The bytes of files that have ever come in."""
        return self._taken + sum(incoming.taken for incoming in self._incoming.values())

    def enter(
        self, link: Link, peer: KnownPeer, row: LinkRow | None, *, standing: bool
    ) -> Carriage:
        """Take a ready link in; its mail is carried by `Carriage.run`, which must follow.

        Args:
            link: ready.
            peer: the other side.
            row: what the store says of it; None for a link of this node to itself, over which
                nothing is sent from here.
            standing: it is meant to last, and so preferred.
        """
        linked = self._linked.get(peer.key.raw)
        if linked is None:
            outgoing = Outgoing(self._node, peer.key.raw, drains=row is not None)
            linked = self._linked[peer.key.raw] = _Linked(peer, outgoing)
        linked.removed = False
        if row is not None and row.takes_files:
            which = Which(own=False, queued=partial(linked.may_drain, link))
            watch = Progressing(self._node.store)
            linked.dispatches[link] = Dispatch(self._node, peer.key.raw, link, which, watch)
        incoming = self._incoming[link] = Incoming(self._node, peer, link)
        delivery = Delivery(
            self._node,
            peer,
            link,
            linked.outgoing,
            incoming=incoming,
            dispatch=linked.dispatches.get(link),
        )
        linked.deliveries[link] = delivery
        linked.outgoing.attach(link, standing=standing)
        self._bound(linked)
        address = events.Address(*link.remote) if link.remote else None
        self._emit(events.LinkUp(peer=peer.name, address=address))
        if row is not None:
            self._announce(link)
        return Carriage(self, linked, link, row)

    async def enter_dialled(
        self, connected: Connected, peer: KnownPeer, *, standing: bool
    ) -> Carriage:
        """Write down that the peer has proven its key where we dialled it, and take the link in.

        Args:
            connected: the link; its `early` happenings are for `Carriage.run`.
            peer: the other side, which is not this node itself.
            standing: as for `enter`.

        Raises:
            StoreError: that could not be written, and the link is dropped.
        """
        try:
            row = await self.rows.write_dialled(connected, peer)
        except BaseException:
            connected.link.abort()
            raise
        return self.enter(connected.link, peer, row, standing=standing)

    async def carry(
        self,
        link: Link,
        peer: KnownPeer,
        row: LinkRow | None,
        *,
        standing: bool,
        early: Sequence[Happening] = (),
    ) -> SecurelinkError | None:
        """Carry mail over a ready link until it ends; return why, None after an orderly end.

        Args:
            link, peer, row, standing: as for `enter`.
            early: what came along with READY.
        """
        return await self.enter(link, peer, row, standing=standing).run(early)

    async def leave(self, linked: _Linked, link: Link, row: LinkRow | None, reason: str) -> None:
        """Let a link go that has ended; for `Carriage`."""
        address = events.Address(*link.remote) if link.remote else None
        self._emit(events.LinkDown(peer=linked.peer.name, address=address, reason=reason))
        del linked.deliveries[link]
        self._taken += self._incoming.pop(link).taken
        if linked.dispatches.pop(link, None) is not None:
            linked.wake()
        linked.leaving.discard(link)
        if not linked.deliveries:
            del self._linked[linked.peer.key.raw]
            await linked.outgoing.aclose()
        if row is not None:
            await self.rows.strike_out(row, linked.peer)

    async def aclose(self) -> None:
        """End all links in order."""
        deliveries = [
            each for linked in self._linked.values() for each in linked.deliveries.values()
        ]
        await asyncio.gather(*(delivery.aclose() for delivery in deliveries))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- what its owner has noticed

    def wake(self, keys: Iterable[bytes]) -> None:
        """There are queued rows for the peers with these keys."""
        for key in keys:
            if key in self._linked:
                self._linked[key].wake()

    def keep_only(self, keys: Collection[bytes], among: Iterable[bytes]) -> None:
        """End the links of whoever is neither this node nor one of the peers with these keys.

        Nobody waits for it: one that does not answer would hold up the end of the others.

        Args:
            keys: of all peers, as of some moment.
            among: those who had links before that moment: who came later may be a new peer.
        """
        own = self._node.identity.public.raw
        for key in among:
            linked = self._linked.get(key)
            if linked is not None and key not in keys and key != own and not linked.removed:
                linked.removed = True
                for delivery in linked.deliveries.values():
                    self._start(delivery.aclose())

    def moved(self, endpoints: tuple[Endpoint, ...]) -> None:
        """The node can be reached elsewhere now: tell everybody who is linked."""
        self.endpoints = endpoints
        own = self._node.identity.public.raw
        for key, linked in self._linked.items():
            if key != own:
                for link in linked.deliveries:
                    self._announce(link)

    # ---- inside

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _bound(self, linked: _Linked) -> None:
        """Close a peer's oldest links while it has too many."""
        most = self._node.config.limits.links_per_peer
        staying = [link for link in linked.deliveries if link not in linked.leaving]
        for link in staying[:-most]:
            linked.leaving.add(link)
            self._start(linked.deliveries[link].aclose())
        # Whoever makes links faster than it lets them be closed gains nothing by it.
        for link in [*linked.deliveries][: -2 * most]:
            link.abort()

    def _announce(self, link: Link) -> None:
        announce(self._node, link, self.endpoints)


class Carriage:
    """The mail of one link, both ways, from `Registry.enter` to its end.

    Attributes:
        link: the link.
    """

    def __init__(
        self, registry: Registry, linked: _Linked, link: Link, row: LinkRow | None
    ) -> None:
        self.link = link
        self._registry = registry
        self._linked = linked
        self._row = row
        self._delivery = linked.deliveries[link]

    @property
    def received(self) -> int:
        """How many texts were taken in."""
        return self._delivery.received

    @property
    def answered(self) -> int:
        """How many texts and files were taken, or refused."""
        return self.link.answers

    @property
    def begun(self) -> int:
        """How many bytes are here of a text that has not come whole yet."""
        return self.link.session.begun

    @property
    def put_off(self) -> int:
        """How many this side has refused for now, and not taken since."""
        return len(self.link.put_off)

    async def run(self, early: Sequence[Happening] = ()) -> SecurelinkError | None:
        """Carry it until the link ends; return why, None after an orderly end.

        Args:
            early: what came along with READY.
        """
        error: SecurelinkError | None = None
        try:
            error = await self._delivery.run(early)
        finally:
            reason = "closed" if error is None else error.message
            if self._linked.removed:
                reason = "removed"
            await self._registry.leave(self._linked, self.link, self._row, reason)
        return error

    async def linger(self, waiting: int, seconds: float) -> None:
        """Take what the other side has for us: as many texts as that, or as come in that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.received < waiting and self.link.session.state not in ENDED:
                    await self._delivery.progress()

    async def aclose(self) -> None:
        """End the link in order; `run` returns then."""
        await self._delivery.aclose()


def announce(node: Node, link: Link, endpoints: Sequence[Endpoint]) -> None:
    """Tell the peer where this node can be reached, as far as it is to know."""
    told = reach.announced(endpoints, link.remote[0] if link.remote else None)
    if told and node.config.server.announce:
        with contextlib.suppress(LinkClosed):
            link.send(Announce(told))
