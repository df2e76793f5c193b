"""What this process sends to one peer: rows of the outbox, onto the links there are.

Its own rows are those that this process put and alone delivers. The queued ones belong to no
process; they are sent by whichever holds the peer's drain lock, which is taken only with a ready
link and given up with the last one. A row is committed as handed before its first byte is
sealed, and what has no receipt when its link ends goes again under the same ID.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from securelink import backoff, messages
from securelink.errors import LinkClosed
from securelink.messages import RefusalCode, Refused, Text
from securelink.node import now_ms
from securelink.states import State as LinkState
from securelink.store import outbox
from securelink.store.outbox import OutboxRow, State
from securelink.window import MESSAGES

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from securelink.link import Link
    from securelink.locks import FileLock
    from securelink.node import Node

FIRST_REST = 1.0
LONGEST_REST = 60.0
"""Seconds for which a peer's rows rest after it has refused one for now."""

LOCK_PAUSE = 1.0
"""Seconds until a drain lock that another process holds is tried again."""

REASONS = {
    RefusalCode.TOO_LONG: "too long",
    RefusalCode.NOT_ALLOWED: "not allowed",
    RefusalCode.DISK_FULL: "its disk is full",
    RefusalCode.QUOTA: "its quota is used up",
    RefusalCode.BUSY: "its store is busy",
}


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an own row: the state it has now, over which link, and why if not well."""

    seq: int
    state: State
    link: Link | None
    reason: str | None = None


class Outgoing:
    """The rows for one peer, fed to its links as their windows allow.

    Args:
        node: the node.
        peer: the recipient's key, 32 bytes.
        own: the `seq`s of the rows that this process alone delivers.
        settled: called for each own row that has come to an end, after the commit.
        drains: whether queued rows may be sent too.
    """

    def __init__(
        self,
        node: Node,
        peer: bytes,
        *,
        own: Iterable[int] = (),
        settled: Callable[[Settled], None] | None = None,
        drains: bool = True,
    ) -> None:
        self._node = node
        self._peer = peer
        self._own = dict.fromkeys(own)
        self._settled = settled
        self._drains = drains
        self._lock: FileLock | None = None
        self._links: dict[Link, bool] = {}
        self._under_way: dict[bytes, tuple[OutboxRow, Link]] = {}
        self._wanted = asyncio.Event()
        self._rests: Iterator[float] | None = None
        self._rest_ends = 0.0
        self._feeding = asyncio.create_task(self._feed())

    def attach(self, link: Link, *, standing: bool = False) -> None:
        """A link is ready; a standing one is preferred, then the newest."""
        self._links[link] = standing
        self.wake()

    def detach(self, link: Link) -> None:
        """A link has ended: what it owes a receipt for goes again on another."""
        self._links.pop(link, None)
        for message_id, (_, carrier) in list(self._under_way.items()):
            if carrier is link:
                del self._under_way[message_id]
        if not self._links and self._lock is not None:
            self._lock.release(unlink=True)
            self._lock = None
        self.wake()

    def wake(self) -> None:
        """Look for rows to send: there may be new ones, or room for more."""
        self._wanted.set()

    async def aclose(self) -> None:
        """Send no more."""
        self._feeding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._feeding
        if self._lock is not None:
            self._lock.release(unlink=True)
            self._lock = None

    # ---- what came back

    def record(
        self, conn: sqlite3.Connection, answers: Sequence[messages.Receipt | Refused]
    ) -> list[tuple[int | None, State, str | None]]:
        """Write receipts and refusals down; runs in a transaction, so it changes nothing else."""
        now = now_ms()
        results: list[tuple[int | None, State, str | None]] = []
        for answer in answers:
            if isinstance(answer, Refused):
                reason = reason_of(answer.code)
                state = State.REFUSED if answer.permanent else State.WAITING
                seq = outbox.refused(
                    conn,
                    peer=self._peer,
                    message_id=answer.id,
                    permanent=answer.permanent,
                    reason=reason,
                    now=now,
                )
                results.append((seq, state, reason))
            else:
                seq = outbox.delivered(conn, peer=self._peer, message_id=answer.id, now=now)
                results.append((seq, State.DELIVERED, None))
        return results

    def recorded(
        self,
        answers: Sequence[messages.Receipt | Refused],
        results: Iterable[tuple[int | None, State, str | None]],
        link: Link,
    ) -> None:
        """Act on what `record` wrote, once it is committed."""
        for answer, (seq, state, reason) in zip(answers, results, strict=True):
            self._under_way.pop(answer.id, None)
            if state is State.WAITING:
                self._rest()
            elif state is State.DELIVERED:
                self._rests = None
            if seq is not None:
                self._tell(Settled(seq, state, link, reason))
        if answers:
            self.wake()

    # ---- inside

    def _rest(self) -> None:
        loop = asyncio.get_running_loop()
        if self._rests is None:
            self._rests = backoff.delays(FIRST_REST, LONGEST_REST, random.random)
        delay = next(self._rests)
        self._rest_ends = loop.time() + delay
        loop.call_later(delay, self.wake)

    def _tell(self, settled: Settled) -> None:
        if settled.seq in self._own:
            if settled.state is not State.WAITING:
                del self._own[settled.seq]
            if self._settled is not None:
                self._settled(settled)

    def _choose(self) -> Link | None:
        ready = [link for link in self._links if link.session.state is LinkState.OPEN]
        standing = [link for link in ready if self._links[link]]
        return next(reversed(standing or ready), None)

    async def _feed(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            link = self._choose()
            if link is None or asyncio.get_running_loop().time() < self._rest_ends:
                continue
            if self._drains and self._lock is None:
                self._lock = self._node.drain_lock(self._peer)
                if self._lock is None:
                    # Its holder may leave rows behind when it goes, and tells nobody.
                    asyncio.get_running_loop().call_later(LOCK_PAUSE, self.wake)
            rows = await self._node.store.read(self._candidates)
            rows = await self._refuse_too_long(rows, link)
            await self._send(self._fitting(rows, link), link)

    def _candidates(self, conn: sqlite3.Connection) -> list[OutboxRow]:
        """Rows that might be sent now, the queued ones first."""
        rows = []
        if self._lock is not None:
            rows = outbox.queued(conn, self._peer, MESSAGES + len(self._under_way))
        for seq in self._own:
            row = outbox.get(conn, seq)
            if row is not None and row.state in {State.WAITING, State.HANDED}:
                rows.append(row)
        return rows

    async def _refuse_too_long(self, rows: Iterable[OutboxRow], link: Link) -> list[OutboxRow]:
        """Settle rows that this peer can never take; return the others."""
        limit = link.session.max_message
        fine = []
        for row in rows:
            if len(row.text) <= limit and len(row.text.encode()) <= limit:
                fine.append(row)
                continue
            answers = [Refused(row.id, permanent=True, code=RefusalCode.TOO_LONG)]
            results = await self._node.store.run(self.record, answers)
            self.recorded(answers, results, link)
        return fine

    def _fitting(self, rows: Iterable[OutboxRow], link: Link) -> list[OutboxRow]:
        """As many rows, in order, as the link's window has room for."""
        room = link.room()
        fitting = []
        for row in rows:
            if row.id in self._under_way:
                continue
            if not room.fits(size := len(row.text.encode())):
                break
            room.add(row.id, size)
            fitting.append(row)
        return fitting

    async def _send(self, rows: Sequence[OutboxRow], link: Link) -> None:
        if not rows:
            return
        handed = set(await self._node.store.run(outbox.hand, [row.seq for row in rows], now_ms()))
        for row in rows:
            if row.seq in handed and link in self._links:
                with contextlib.suppress(LinkClosed):
                    link.send(Text(row.id, row.sent_at, row.text))
                    self._under_way[row.id] = row, link


def reason_of(code: int) -> str:
    """What a refusal's code says to a person."""
    try:
        return REASONS[RefusalCode(code)]
    except ValueError:
        return f"reason {code}"
