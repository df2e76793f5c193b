"""Over links of our own: dialled, used for all that is to be sent, and dialled again."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

from securelink import backoff
from securelink.choice import choose
from securelink.clock import now_ms
from securelink.connect import FIRST_DELAY, LONGEST_DELAY, Connected, dial
from securelink.delivery import Delivery
from securelink.directory import ME, KnownPeer
from securelink.dispatch import Dispatch, Which
from securelink.endpoints import Kind
from securelink.errors import (
    LinkError,
    NoReceipt,
    PeerRefused,
    StoreError,
    Unreachable,
)
from securelink.hello import FILES
from securelink.outgoing import Outgoing
from securelink.reading import SLOWEST
from securelink.registry import announce
from securelink.store import addresses, peers, serving, tries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from securelink.client.others import Others
    from securelink.client.terms import Terms
    from securelink.endpoints import Endpoint
    from securelink.errors import SecurelinkError
    from securelink.parcel import Parcel

LINGER = 1.0
"""Seconds at most for which a link is kept after the receipt, to take what waits for us."""


class Own:
    """The links to the recipient that this process dials, one after the other.

    Args:
        terms: what is sent, and to whom.

    Attributes:
        endpoint: where the last of them leads; None if there was none.
        received: how many texts were taken in over them.
    """

    def __init__(self, terms: Terms) -> None:
        self.endpoint: Endpoint | None = None
        self.received = 0
        self._node = terms.node
        self._peer = terms.peer
        self._terms = terms

    async def carry(self, parcel: Parcel, others: Others) -> None:
        """Return when nothing is on its way any more; or, before there is a link of our own, when
        another process has one.

        Raises:
            SecurelinkError: why that will not be in time, or ever.
        """
        delays = backoff.delays(FIRST_DELAY, LONGEST_DELAY, random.random)
        while not parcel.is_done():
            await parcel.until_not_idle()
            connected = await self._dial(parcel, others)
            if connected is None:
                if await others.links():
                    return
                continue
            moved_at = parcel.rows.moved_at
            error = await self._over(connected, parcel)
            if parcel.is_done():
                return
            if parcel.stream is not None and not isinstance(error, PeerRefused):
                raise NoReceipt(
                    "the link broke, and a stream cannot be read again",
                    hint="send it again from its beginning, or as a file",
                )
            if self._terms.is_late(parcel):
                raise error or LinkError("no receipt came in time")
            if parcel.rows.moved_at > moved_at:
                delays = backoff.delays(FIRST_DELAY, LONGEST_DELAY, random.random)
            # The link was ready and has ended: not at once again, should that repeat itself.
            await asyncio.sleep(next(delays))

    async def _dial(self, parcel: Parcel, others: Others) -> Connected | None:
        """A link; None if there is nothing to dial for any more, or no longer for ever."""
        deadline = self._terms.deadline(parcel)
        dialling = asyncio.create_task(
            dial(
                self._node,
                self._peer.key,
                self._peer.name,
                self._endpoints,
                self._node.hello(),
                deadline=deadline,
                failed=self._terms.failed,
            )
        )
        watching = [
            asyncio.create_task(parcel.until_settled()),
            asyncio.create_task(others.until_linked()),
        ]
        if deadline is None and self._terms.timeout is not None:
            watching.append(asyncio.create_task(parcel.until_read()))
        tasks = (dialling, *watching)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            is_linked = dialling.done()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            dialling.add_done_callback(_hang_up)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            raise
        if is_linked:
            return dialling.result()
        dialling.add_done_callback(_hang_up)
        for each in watching:
            if not each.cancelled():
                each.result()
        return None

    async def _endpoints(self) -> Sequence[Endpoint]:
        if not self._terms.is_me or self._terms.choice not in {"auto", *Kind}:
            return choose(self._peer, self._terms.choice)
        running = await self._node.store.read(serving.get)
        if running is None:
            hint = "start one: securelink serve"
            if not (await self._node.directory()).peers:
                # To this node goes what names nobody, too: perhaps from who has only an invite yet.
                hint += "; or, with an invite: securelink join INVITE"
            raise Unreachable("no `securelink serve` runs here", hint=hint)
        return choose(KnownPeer(ME, self._peer.key, running.endpoints), self._terms.choice)

    async def _over(self, connected: Connected, parcel: Parcel) -> SecurelinkError | None:
        """Use one link until all is settled; return why the link ended, if it did."""
        link = connected.link
        self.endpoint = connected.endpoint
        parcel.rows.begin_link()
        outgoing = Outgoing(
            self._node,
            self._peer.key.raw,
            own=parcel.rows.texts,
            settled=parcel.settled,
            drains=True,
        )
        dispatch = None
        if parcel.has_files:
            if not link.session.features & FILES:
                link.abort()
                await outgoing.aclose()
                raise PeerRefused(f"{self._peer.name} runs a version that knows no files")
            which = Which(
                queued=outgoing.may_drain if self._terms.queue else None,
                stream=parcel.stream,
                checksum=self._terms.checksum,
            )
            dispatch = Dispatch(self._node, self._peer.key.raw, link, which, parcel)

        def wake() -> None:
            outgoing.adopt(parcel.rows.texts)
            if dispatch is not None:
                dispatch.wake()

        parcel.watch(wake)
        delivery = Delivery(self._node, self._peer, link, outgoing, dispatch=dispatch)
        carrying = asyncio.create_task(delivery.run(connected.early))
        noting = asyncio.create_task(self._note(connected))

        def look() -> None:
            """Another process may settle our rows too."""
            outgoing.wake()
            if dispatch is not None and self._terms.queue:
                dispatch.wake()

        unsubscribe = self._node.store.on_change(look)
        outgoing.attach(link)
        try:
            await self._until_done(parcel, carrying, dispatch)
            if parcel.is_done():
                await self._linger(carrying, delivery, connected.ready.waiting)
            return carrying.result() if carrying.done() else None
        finally:
            unsubscribe()
            parcel.rows.end_link()
            parcel.watch(lambda: None)
            await delivery.aclose()
            await carrying
            await outgoing.aclose()
            await noting
            self.received += delivery.received

    async def _until_done(
        self, parcel: Parcel, carrying: asyncio.Task[Any], dispatch: Dispatch | None
    ) -> None:
        """Wait until all is settled, the link has ended, or nothing moves for too long."""
        loop = asyncio.get_running_loop()
        linked_at = loop.time()
        while not parcel.is_done() and not carrying.done():
            patience = self._terms.patience(parcel, linked_at)
            if patience is not None and dispatch is not None:
                # The other side reads as much as is there, and we only see that it lives.
                patience += dispatch.compared / SLOWEST
            if patience is not None and patience <= 0:
                return
            parcel.rows.changed.clear()
            moving = asyncio.create_task(parcel.rows.changed.wait())
            try:
                await asyncio.wait(
                    [carrying, moving], timeout=patience, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                moving.cancel()

    async def _linger(
        self, carrying: asyncio.Task[SecurelinkError | None], delivery: Delivery, waiting: int
    ) -> None:
        """Take what the server has for us, for a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while delivery.received < waiting and not carrying.done():
                    await delivery.progress()

    async def _note(self, connected: Connected) -> None:
        """Note where the peer proved its key, and tell it where this node is served, if it is.

        What becomes of the rows does not depend on it.
        """
        if not self._terms.is_me:
            with contextlib.suppress(StoreError):
                running = await self._node.serving()
                if running is not None:
                    announce(self._node, connected.link, running.endpoints)
                await self._node.store.run(_note, self._peer.key.raw, connected, now_ms())


def _note(conn: sqlite3.Connection, key: bytes, connected: Connected, now: int) -> None:
    peers.touch(conn, key, now, connected.ready.name)
    addresses.used_endpoint(conn, key, connected.endpoint, now)
    tries.note_success(conn, key)


def _hang_up(dialling: asyncio.Task[Connected]) -> None:
    """Drop a link that nobody needs any more."""
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().link.abort()
