"""The sending side: what one recipient is to get, from the outbox to the receipts.

What a caller learns is the truth: `delivered` means that the right machine has it on disk, and
whatever may have left without a receipt is kept and confirmed by the next link under the same ID.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
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
    LinkClosed,
    LinkError,
    LinkTruncated,
    NoReceipt,
    PeerError,
    PeerRefused,
    SecurelinkError,
    StoreError,
    Unreachable,
)
from securelink.hello import FILES
from securelink.items import StreamItem, has_files
from securelink.outgoing import Outgoing
from securelink.parcel import Parcel, let_go
from securelink.registry import announce
from securelink.store import addresses, peers, serving, tries

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from securelink.endpoints import Endpoint
    from securelink.items import Item, Tally
    from securelink.node import Node
    from securelink.sources import Skipped
    from securelink.store.links import LinkRow

GRACE = 10.0
"""Seconds that what has left waits for its receipt, even if the timeout is over."""

LINGER = 1.0
"""Seconds at most for which a link is kept after the receipt, to take what waits for us."""

SHARE_PATIENCE = 5.0
"""Seconds without progress after which a link of another process is not counted on any more, if
the peer can be dialled."""

LOOK_INTERVAL = 1.0
"""Seconds after which to look for others' links although nobody has committed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item for one recipient.

    Attributes:
        id: the message's 16 bytes; of a folder that of its group.
        peer: the recipient's name here.
        error: None when it was delivered; else why not, and `NoReceipt` when it is not known.
        endpoint: where it was delivered; None if another process did it, or nobody.
        seconds: from the call to the end.
        tally: what was sent.
        queued: it waits for the next link, as was asked for; `error` says why.
    """

    id: bytes
    peer: str
    error: SecurelinkError | None
    endpoint: Endpoint | None
    seconds: float
    tally: Tally
    queued: bool = False


class Sending:
    """Items on their way to one recipient.

    Args:
        node: the node that sends.
        peer: the recipient; this node itself is allowed.
        choice: which of its endpoints may be used, as for `choose`.
        timeout: seconds since the last progress until all must have left; None for ever.
        queue: what is not delivered by then stays queued.
        life: for how long it may wait then, in ms of the store's own time; None for as long as it
            takes.
        checksum: every file brings its SHA-256.
        failed: told of each attempt to connect that failed and is followed by another.
        skipped: told of what is not sent, such as a symbolic link.

    Attributes:
        received: how many texts were taken in on the way.
        parcel: what is sent, once `send` was called.
    """

    def __init__(
        self,
        node: Node,
        peer: KnownPeer,
        *,
        choice: str,
        timeout: float | None,
        queue: bool = False,
        life: int | None = None,
        checksum: bool = False,
        failed: Callable[[SecurelinkError], None] = lambda _: None,
        skipped: Callable[[Skipped], None] = lambda _: None,
    ) -> None:
        self._node = node
        self._peer = peer
        self._choice = choice
        self._timeout = timeout
        self._queue = queue
        self._life = life
        self._checksum = checksum
        self._failed = failed
        self._skipped = skipped
        self._is_me = peer.key == node.identity.public
        self._dials = bool(peer.endpoints) or self._is_me or choice != "auto"
        self._takes_files = self._has_stream = False
        self._began = asyncio.get_running_loop().time()
        self._endpoint: Endpoint | None = None
        self._was_linked = False
        self.received = 0
        self.parcel: Parcel | None = None

    async def send(self, items: Sequence[Item]) -> list[Outcome]:
        """Put the items into the outbox and see them delivered, or say why they were not.

        A cancelled call withdraws what has not left yet, and leaves the rest to the next link.

        Returns:
            One outcome for each item, in order.
        """
        self._takes_files = any(has_files(each) for each in items)
        self._has_stream = any(isinstance(each, StreamItem) for each in items)
        elsewhere = not self._dials or bool(await self._links_of_others())
        parcel = self.parcel = Parcel(
            self._node,
            self._peer,
            items,
            queue=self._queue,
            shared=elsewhere or (self._queue and not self._has_stream),
            patience=None if self._queue else self._timeout,
            life=self._life if self._queue else None,
            skipped=self._skipped,
        )
        kept: set[int] = set()
        error: SecurelinkError | None = None
        parcel.start()
        try:
            # It may be settled already.
            await parcel.until_not_idle()
            await parcel.look()
            if elsewhere:
                await self._wait_for_others(parcel)
            if not parcel.is_done():
                await self._deliver(parcel)
        except SecurelinkError as raised:
            error = raised
        finally:
            finish = self._queue and error is not None and not parcel.reads_lines
            kept = await asyncio.shield(self._let_go(parcel, error, finish=finish))
        if isinstance(parcel.failure, SecurelinkError):
            error = error or parcel.failure
        elif parcel.failure is not None:
            raise parcel.failure
        return [self._outcome(tally, error, kept) for tally in parcel.tallies]

    # ---- over a link of our own

    async def _deliver(self, parcel: Parcel) -> None:
        """Return when nothing is on its way any more."""
        delays = backoff.delays(FIRST_DELAY, LONGEST_DELAY, random.random)
        while not parcel.is_done():
            await parcel.until_not_idle()
            connected = await self._dial(parcel)
            if connected is None:
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
            if self._is_late(parcel):
                raise error or LinkError("no receipt came in time")
            if parcel.rows.moved_at > moved_at:
                delays = backoff.delays(FIRST_DELAY, LONGEST_DELAY, random.random)
            # The link was ready and has ended: not at once again, should that repeat itself.
            await asyncio.sleep(next(delays))

    async def _dial(self, parcel: Parcel) -> Connected | None:
        """A link; None if there is nothing to dial for any more, or no longer for ever."""
        deadline = self._deadline(parcel)
        dialling = asyncio.create_task(
            dial(
                self._node,
                self._peer.key,
                self._peer.name,
                self._endpoints,
                self._node.hello(),
                deadline=deadline,
                failed=self._failed,
            )
        )
        watching = [asyncio.create_task(self._until_settled(parcel))]
        if deadline is None and self._timeout is not None:
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
        if not self._is_me or self._choice not in {"auto", *Kind}:
            return choose(self._peer, self._choice)
        running = await self._node.store.read(serving.get)
        if running is None:
            raise Unreachable("no `securelink serve` runs here", hint="start one: securelink serve")
        return choose(KnownPeer(ME, self._peer.key, running.endpoints), self._choice)

    async def _over(self, connected: Connected, parcel: Parcel) -> SecurelinkError | None:
        """Use one link until all is settled; return why the link ended, if it did."""
        link = connected.link
        self._endpoint = connected.endpoint
        self._was_linked = True
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
                queued=outgoing.may_drain if self._queue else None,
                stream=parcel.stream,
                checksum=self._checksum,
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
            if dispatch is not None and self._queue:
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
            if dispatch is not None and dispatch.compares:
                # The other side reads as much as is there, and we only see that it lives.
                parcel.rows.moved_at = loop.time()
            patience = self._patience(parcel, linked_at)
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
        if not self._is_me:
            with contextlib.suppress(StoreError):
                running = await self._node.serving()
                if running is not None:
                    announce(self._node, connected.link, running.endpoints)
                await self._node.store.run(_note, self._peer.key.raw, connected, now_ms())

    # ---- by whichever process of this node has a link

    async def _links_of_others(self) -> list[LinkRow]:
        """The links of other processes that can carry what is to be sent."""
        if self._is_me or self._choice != "auto" or self._has_stream:
            return []
        found = await self._node.links_to(self._peer.key.raw)
        return [each for each in found if each.takes_files or not self._takes_files]

    async def _wait_for_others(self, parcel: Parcel) -> None:
        """Return when all is settled; or, if we can dial, when others will not do it.

        Raises:
            Unreachable: nobody has a link in time, and there is no address to dial.
        """
        changed = asyncio.Event()
        unsubscribe = self._node.store.on_change(changed.set)
        loop = asyncio.get_running_loop()
        told = False
        try:
            while True:
                await parcel.look()
                if parcel.is_done():
                    return
                linked = await self._links_of_others()
                is_stuck = not linked or loop.time() - parcel.rows.moved_at > SHARE_PATIENCE
                if self._dials and is_stuck:
                    if not self._queue:
                        await parcel.keep()
                    return
                deadline = self._deadline(parcel)
                left = LOOK_INTERVAL if deadline is None else deadline - loop.time()
                if linked and left <= 0:
                    self._was_linked = True
                    raise Unreachable(f"{self._peer.name} is linked, and has not taken it in time")
                if left <= 0 or (not linked and self._queue and not parcel.reads_lines):
                    raise self._not_linked()
                if not linked and not told:
                    told = True
                    self._failed(self._not_linked())
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
            hint=f"{name} gets it with: securelink receive; or give --endpoint HOST:PORT",
        )

    async def _until_settled(self, parcel: Parcel) -> None:
        """Return when other processes, or an earlier one, have settled every row."""
        changed = asyncio.Event()
        unsubscribe = self._node.store.on_change(changed.set)
        try:
            while True:
                await parcel.look()
                if parcel.is_done():
                    return
                await changed.wait()
                changed.clear()
        finally:
            unsubscribe()

    # ---- the end

    async def _let_go(
        self, parcel: Parcel, error: SecurelinkError | None, *, finish: bool
    ) -> set[int]:
        """Give up the rows that are left; return those that may have left this machine."""
        # A row that is put while the call is cancelled is put all the same.
        await parcel.stop(finish=finish)
        rows = parcel.rows.seqs
        if not rows:
            return set()
        in_vain = None
        if self._queue and not self._was_linked and isinstance(error, LinkError | PeerError):
            in_vain = (self._peer.key.raw, error.message)
        return await self._node.store.run(
            let_go, rows, self._node.owner, now_ms(), queue=self._queue, in_vain=in_vain
        )

    def _outcome(self, tally: Tally, error: SecurelinkError | None, kept: set[int]) -> Outcome:
        errors = tally.errors
        own = errors[0] if errors else None
        if tally.open and own is None:
            own = error or LinkError("no receipt came in time")
            if kept & tally.open and not self._queue:
                own = NoReceipt(
                    f"{self._peer.name} has not confirmed it: {own.message}",
                    hint="it is kept, and confirmed by the next link under the same ID",
                )
            elif isinstance(own, LinkClosed | LinkTruncated):
                # Of the link nothing is known, but of the row that it has not left.
                own = Unreachable(own.message, hint=own.hint)
        elif own is None and not tally.complete:
            own = error
        if own is not None and len(errors) + len(tally.open) > 1 and tally.rows > 1:
            failed = tally.rows - tally.delivered
            own = type(own)(
                f"{failed} of {tally.rows} were not delivered: {own.message}", hint=own.hint
            )
        seconds = asyncio.get_running_loop().time() - self._began
        queued = self._queue and bool(tally.open) and tally.complete and not errors
        endpoint = self._endpoint if tally.linked else None
        return Outcome(tally.id, self._peer.name, own, endpoint, seconds, tally, queued=queued)

    # ---- time

    def _deadline(self, parcel: Parcel) -> float | None:
        if self._timeout is None or (self._queue and parcel.reads_lines):
            # What is read from a pipe is queued as it comes, however long nobody is there.
            return None
        return parcel.rows.moved_at + self._timeout

    def _patience(self, parcel: Parcel, linked_at: float) -> float | None:
        if self._timeout is None or parcel.is_idle:
            return None
        now = asyncio.get_running_loop().time()
        return max(parcel.rows.moved_at + self._timeout, linked_at + GRACE) - now

    def _is_late(self, parcel: Parcel) -> bool:
        deadline = None if parcel.is_idle else self._deadline(parcel)
        return deadline is not None and asyncio.get_running_loop().time() >= deadline


def _note(conn: sqlite3.Connection, key: bytes, connected: Connected, now: int) -> None:
    peers.touch(conn, key, now, connected.ready.name)
    addresses.used_endpoint(conn, key, connected.endpoint, now)
    tries.note_success(conn, key)


def _hang_up(dialling: asyncio.Task[Connected]) -> None:
    """Drop a link that nobody needs any more."""
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().link.abort()
