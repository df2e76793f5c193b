"""The sending side: one recipient's texts, from the outbox to their receipts.

What a caller learns is the truth: `delivered` means that the right machine has it on disk, and
whatever has left without a receipt is kept and confirmed by the next link under the same ID.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from securelink import backoff, endpoints
from securelink.answers import Settled
from securelink.clock import now_ms
from securelink.connect import FIRST_DELAY, LONGEST_DELAY, Connected, dial
from securelink.delivery import Delivery
from securelink.directory import ME, KnownPeer
from securelink.endpoints import Endpoint, Kind
from securelink.errors import (
    LinkClosed,
    LinkError,
    LinkTruncated,
    NoReceipt,
    PeerRefused,
    SecurelinkError,
    StoreError,
    Unreachable,
    UsageError,
)
from securelink.outgoing import Outgoing
from securelink.store import addresses, outbox, peers, serving
from securelink.store.outbox import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from securelink.node import Node

GRACE = 10.0
"""Seconds that a message which has left waits for its receipt, even if the timeout is over."""

LINGER = 1.0
"""Seconds at most for which a link is kept after the receipt, to take what waits for us."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one text for one recipient.

    Attributes:
        id: the message's 16 bytes.
        peer: the recipient's name here.
        error: None when it was delivered; else why not, and `NoReceipt` when it is not known.
        endpoint: where it was delivered; None if another process did it, or nobody.
        seconds: from the call to the end.
    """

    id: bytes
    peer: str
    error: SecurelinkError | None
    endpoint: Endpoint | None
    seconds: float


def choose(peer: KnownPeer, choice: str) -> tuple[Endpoint, ...]:
    """The endpoints of a peer that `--endpoint` allows.

    Args:
        choice: `auto`, `loopback`, `lan`, `public`, or HOST:PORT.

    Raises:
        UsageError: none of that kind is known, or the choice means nothing.
    """
    if choice == "auto":
        return peer.endpoints
    if choice in set(Kind):
        chosen = tuple(each for each in peer.endpoints if each.kind == choice)
        if not chosen:
            known = ", ".join(f"{each} ({each.kind})" for each in peer.endpoints)
            raise UsageError(
                f"no {choice} endpoint of {peer.name} is known",
                hint=f"known: {known}" if known else "none at all is known",
            )
        return chosen
    host, port = endpoints.parse(choice)
    return (Endpoint(endpoints.kind_of(host), host, port),)


class Sending:
    """One text on its way to one recipient.

    Args:
        node: the node that sends.
        peer: the recipient; this node itself is allowed.
        choice: which of its endpoints may be used, as for `choose`.
        timeout: seconds until it must have left; None for ever.
        failed: told of each attempt to connect that failed and is followed by another.
    """

    def __init__(
        self,
        node: Node,
        peer: KnownPeer,
        *,
        choice: str,
        timeout: float | None,
        failed: Callable[[SecurelinkError], None] = lambda _: None,
    ) -> None:
        self._node = node
        self._peer = peer
        self._choice = choice
        self._failed = failed
        self._is_me = peer.key == node.identity.public
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._deadline = None if timeout is None else self._began + timeout
        self._settled: asyncio.Future[Settled] = loop.create_future()
        self.received = 0

    async def send(self, message_id: bytes, text: str) -> Outcome:
        """Put the text into the outbox and see it delivered, or say why it was not.

        A cancelled call withdraws what has not left yet, and leaves the rest to the next link.
        """
        dials = bool(self._peer.endpoints) or self._is_me or self._choice != "auto"
        now = now_ms()
        left = None if self._deadline is None else int((self._deadline - self._began) * 1000)
        endpoint = seq = None
        kept = False
        error: SecurelinkError | None = None
        putting = asyncio.create_task(
            self._node.store.run(
                outbox.put,
                message_id=message_id,
                peer=self._peer.key.raw,
                text=text,
                sent_at=now,
                owner=self._node.owner,
                shared=not dials,
                deadline=None if dials or left is None else now + left,
            )
        )
        try:
            seq = await asyncio.shield(putting)
            if not await self._is_delivered(seq):
                if dials:
                    endpoint = await self._deliver(seq)
                else:
                    await self._wait_for_others(seq)
        except SecurelinkError as raised:
            error = raised
        finally:
            # A call that is cancelled while the row is put has put it all the same.
            with contextlib.suppress(SecurelinkError):
                seq = await asyncio.shield(putting)
            if seq is not None:
                kept = await self._let_go(seq)
        if error is not None and kept:
            error = NoReceipt(
                f"{self._peer.name} has not confirmed it: {error.message}",
                hint="it is kept, and confirmed by the next link under the same ID",
            )
        elif isinstance(error, LinkClosed | LinkTruncated):
            # Of the link nothing is known, but of the text that it has not left.
            error = Unreachable(error.message, hint=error.hint)
        seconds = asyncio.get_running_loop().time() - self._began
        return Outcome(message_id, self._peer.name, error, endpoint, seconds)

    # ---- over a link of our own

    async def _deliver(self, seq: int) -> Endpoint | None:
        """Return where it was delivered; None if another process did it meanwhile."""
        for delay in backoff.delays(FIRST_DELAY, LONGEST_DELAY, random.random):
            connected = await self._dial(seq)
            if connected is None:
                return None
            error = await self._over(connected, seq)
            if self._settled.done():
                return self._verdict(connected.endpoint)
            if self._is_late():
                raise error or LinkError("no receipt came in time")
            # The link was ready and has ended: not at once again, should that repeat itself.
            await asyncio.sleep(delay)
        raise AssertionError("there is always another delay")

    async def _dial(self, seq: int) -> Connected | None:
        """A link; None as soon as another process has delivered the text."""
        dialling = asyncio.create_task(
            dial(
                self._node,
                self._peer.key,
                self._peer.name,
                self._endpoints,
                self._node.hello(),
                deadline=self._deadline,
                failed=self._failed,
            )
        )
        watching = asyncio.create_task(self._until_delivered(seq))
        try:
            await asyncio.wait([dialling, watching], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            dialling.add_done_callback(_hang_up)
            raise
        else:
            if dialling.done():
                return dialling.result()
            dialling.add_done_callback(_hang_up)
            return watching.result()
        finally:
            for task in (dialling, watching):
                task.cancel()
            await asyncio.wait([dialling, watching])

    async def _endpoints(self) -> Sequence[Endpoint]:
        if not self._is_me or self._choice not in {"auto", *Kind}:
            return choose(self._peer, self._choice)
        running = await self._node.store.read(serving.get)
        if running is None:
            raise Unreachable("no `securelink serve` runs here", hint="start one: securelink serve")
        return choose(KnownPeer(ME, self._peer.key, running.endpoints), self._choice)

    async def _over(self, connected: Connected, seq: int) -> SecurelinkError | None:
        """Use one link until our text is settled; return why the link ended, if it did."""
        link = connected.link
        outgoing = Outgoing(
            self._node,
            self._peer.key.raw,
            own=[seq],
            settled=self._on_settled,
            drains=True,
        )
        delivery = Delivery(self._node, self._peer, link, outgoing)
        carrying = asyncio.create_task(delivery.run(connected.early))
        noting = asyncio.create_task(self._note(connected))
        # Another process may settle our row too.
        unsubscribe = self._node.store.on_change(outgoing.wake)
        outgoing.attach(link)
        try:
            either: list[asyncio.Future[Any]] = [carrying, self._settled]
            await asyncio.wait(
                either,
                timeout=self._patience(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._settled.done():
                await self._linger(carrying, delivery, connected.ready.waiting)
            return carrying.result() if carrying.done() else None
        finally:
            unsubscribe()
            await delivery.aclose()
            await carrying
            await outgoing.aclose()
            await noting
            self.received += delivery.received

    async def _linger(
        self, carrying: asyncio.Task[SecurelinkError | None], delivery: Delivery, waiting: int
    ) -> None:
        """Take what the server has for us, for a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while delivery.received < waiting and not carrying.done():
                    await delivery.progress()

    async def _note(self, connected: Connected) -> None:
        """Note where the peer proved its key; what becomes of the text does not depend on it."""
        if not self._is_me:
            with contextlib.suppress(StoreError):
                await self._node.store.run(_note, self._peer.key.raw, connected, now_ms())

    def _on_settled(self, settled: Settled) -> None:
        if not self._settled.done():
            self._settled.set_result(settled)

    def _verdict(self, endpoint: Endpoint) -> Endpoint | None:
        settled = self._settled.result()
        self._judge(settled.state, settled.reason)
        return None if settled.link is None else endpoint

    def _judge(self, state: State, reason: str | None) -> bool:
        """Whether it is delivered, False while it is on its way; raise how else it ended."""
        name = self._peer.name
        match state:
            case State.DELIVERED:
                return True
            case State.UNCONFIRMED:
                raise self._unconfirmed(reason)
            case State.REFUSED:
                raise PeerRefused(f"{name} refused it: {reason}")
            case State.WITHDRAWN:
                raise Unreachable(f"{name}: {reason or 'withdrawn'}")
            case State.WAITING if reason is not None:
                raise PeerRefused(f"{name} refused it: {reason}", hint="try again later")
        return False

    # ---- by whichever process of this node has a link

    async def _wait_for_others(self, seq: int) -> None:
        try:
            async with asyncio.timeout_at(self._deadline):
                await self._until_delivered(seq)
        except TimeoutError:
            name = self._peer.name
            raise Unreachable(
                f"{name} is not linked, and no address of it is known",
                hint=f"send it while {name} is linked to a `securelink serve` here, or give "
                "--endpoint HOST:PORT",
            ) from None

    async def _until_delivered(self, seq: int) -> None:
        changed = asyncio.Event()
        unsubscribe = self._node.store.on_change(changed.set)
        try:
            while not await self._is_delivered(seq):
                await changed.wait()
                changed.clear()
        finally:
            unsubscribe()

    async def _is_delivered(self, seq: int) -> bool:
        """Whether another process, or an earlier one, has delivered it already."""
        row = await self._node.store.read(outbox.get, seq)
        if row is None:
            # Forgotten, long after it ended; how it ended, nobody here knows any more.
            raise self._unconfirmed(outbox.FORGOTTEN)
        return self._judge(row.state, row.reason)

    # ---- the end

    def _unconfirmed(self, reason: str | None) -> NoReceipt:
        return NoReceipt(
            f"{self._peer.name} has not confirmed it: {reason}",
            hint="it may have arrived; with the same --id it can be sent again safely",
        )

    async def _let_go(self, seq: int) -> bool:
        """Withdraw the row if it has not left; else leave it to the next link, and say so."""
        return await asyncio.shield(self._node.store.run(_let_go, seq, self._node.owner, now_ms()))

    def _patience(self) -> float | None:
        if self._deadline is None:
            return None
        return max(self._deadline - asyncio.get_running_loop().time(), GRACE)

    def _is_late(self) -> bool:
        return self._deadline is not None and asyncio.get_running_loop().time() >= self._deadline


def _note(conn: sqlite3.Connection, key: bytes, connected: Connected, now: int) -> None:
    peers.touch(conn, key, now, connected.ready.name)
    addresses.used_endpoint(conn, key, connected.endpoint, now)


def _let_go(conn: sqlite3.Connection, seq: int, owner: str, now: int) -> bool:
    row = outbox.get(conn, seq)
    if row is None:
        return False
    # Another process may have taken it over, under the same ID: then it is theirs.
    if row.owner in {None, owner}:
        outbox.withdraw(conn, seq, now)
        outbox.release(conn, seq)
    return row.state is State.HANDED


def _hang_up(dialling: asyncio.Task[Connected]) -> None:
    """Drop a link that nobody needs any more."""
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().link.abort()
