"""What this process sends to one peer: rows of the outbox, onto the links there are.

Its own rows are those that this process put. What it does not share it alone delivers. The queued
ones, and the shared, are sent by whichever process holds the peer's drain lock, which is taken only
with a ready link and given up with the last one. A row is committed as handed before its first byte
is sealed, and what has no receipt when its link ends goes again under the same ID.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from securelink import messages, window
from securelink.answers import Settled, record
from securelink.clock import now_ms
from securelink.errors import LinkClosed, StoreError
from securelink.messages import RefusalCode, Refused, Text
from securelink.resting import Rest
from securelink.states import State as LinkState
from securelink.store import outbox
from securelink.store.outbox import OutboxRow, State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Container, Iterable, Sequence

    from securelink.answers import Recorded
    from securelink.link import Link
    from securelink.locks import FileLock
    from securelink.node import Node
    from securelink.window import Window

LOCK_PAUSE = 1.0
"""Seconds until a drain lock that another process holds is tried again."""

_log = logging.getLogger(__name__)


class Outgoing:
    """The rows for one peer, fed to its links as their windows allow.

    Args:
        node: the node.
        peer: the recipient's key, 32 bytes.
        own: the `seq`s of the rows that this process has put.
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
        self._under_way: dict[bytes, Link] = {}
        self._recording: set[bytes] = set()
        self._wanted = asyncio.Event()
        self._more = False
        self._rest = Rest(self._look_again)
        self._lock_pause: asyncio.TimerHandle | None = None
        self._feeding = asyncio.create_task(self._feed())
        self._feeding.add_done_callback(self._has_stopped)

    def attach(self, link: Link, *, standing: bool = False) -> None:
        """A link is ready; a standing one is preferred, then the newest."""
        self._links[link] = standing
        self._more = False
        self.wake()

    def detach(self, link: Link) -> None:
        """A link has ended: what it owes a receipt for goes again on another."""
        self._links.pop(link, None)
        for message_id, carrier in list(self._under_way.items()):
            if carrier is link:
                del self._under_way[message_id]
        if not self._links:
            self._give_the_lock_up()
        self._more = False
        self.wake()

    def adopt(self, own: Iterable[int]) -> None:
        """More rows are this process's own: these, with what it has already."""
        self._own |= dict.fromkeys(own)
        self._more = False
        self.wake()

    def wake(self) -> None:
        """Look for rows to send: there may be new ones, or room for more."""
        self._wanted.set()

    def may_drain(self) -> bool:
        """Whether the peer's queued rows are ours to send: the drain lock is here, or free."""
        self._try_to_drain()
        return self._lock is not None

    async def aclose(self) -> None:
        """Send no more."""
        self._feeding.cancel()
        await asyncio.wait([self._feeding])
        self._rest.close()
        if self._lock_pause is not None:
            self._lock_pause.cancel()
        self._give_the_lock_up()

    # ---- what came back

    def recording(self, answers: Sequence[messages.Receipt | Refused]) -> None:
        """These are being written down: `recorded` tells of their rows, `unrecorded` nothing."""
        self._recording.update(answer.id for answer in answers)

    def recorded(
        self,
        answers: Sequence[messages.Receipt | Refused],
        results: Iterable[Recorded],
        link: Link,
    ) -> None:
        """Act on what `answers.record` wrote, once it is committed."""
        refused_for_now = False
        for answer, result in zip(answers, results, strict=True):
            self._under_way.pop(answer.id, None)
            self._recording.discard(answer.id)
            if result.seq is None:
                # Another process was faster, and what it wrote is told by a look.
                self.wake()
            if result.state is State.WAITING:
                refused_for_now = True
            elif result.state is State.DELIVERED:
                self._rest.forget()
            if (settled := result.settled(link)) is not None:
                self._tell(settled)
        if refused_for_now:
            self._rest.begin()
        elif answers and self._more:
            self.wake()

    def unrecorded(self, answers: Sequence[messages.Receipt | Refused]) -> None:
        """These could not be written down: their messages go again, and are answered again."""
        for answer in answers:
            self._under_way.pop(answer.id, None)
            self._recording.discard(answer.id)
        if answers:
            self._rest.begin()

    # ---- inside

    def _give_the_lock_up(self) -> None:
        if self._lock is not None:
            self._lock.release(unlink=True)
            self._lock = None

    def _look_again(self) -> None:
        self._more = False
        self.wake()

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

    def _has_stopped(self, feeding: asyncio.Task[None]) -> None:
        """A bug must not leave texts waiting on links that look well: end them."""
        if feeding.cancelled() or (error := feeding.exception()) is None:
            return
        _log.error("texts cannot be fed to their links", exc_info=error)
        for link in self._links:
            link.abort()

    async def _feed(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            link = self._choose()
            if link is None or self._rest.is_on or not self._is_worth_reading(link):
                continue
            try:
                await self._send_what_fits(link)
            except StoreError as error:
                # What is not sent stands in the store.
                _log.warning("nothing is sent for a while: %s", error)
                self._rest.begin()

    def _is_worth_reading(self, link: Link) -> bool:
        """Whether the store is to be read: not for the room of a single receipt.

        What is under way is read over each time, so a long queue waits for half a window.
        """
        return not self._more or (
            len(self._under_way) <= window.MESSAGES // 2 and link.fits(window.SIZE // 2)
        )

    def _try_to_drain(self) -> None:
        if self._drains and self._lock is None:
            self._lock = self._node.drain_lock(self._peer)
            if self._lock is None and self._lock_pause is None:
                # Its holder may leave rows behind when it goes, and tells nobody.
                loop = asyncio.get_running_loop()
                self._lock_pause = loop.call_later(LOCK_PAUSE, self._try_again_to_drain)

    def _try_again_to_drain(self) -> None:
        self._lock_pause = None
        self.wake()

    async def _send_what_fits(self, link: Link) -> None:
        self._try_to_drain()
        found = await self._node.store.read(
            _choose_rows,
            self._peer,
            queued=self._lock is not None,
            own=tuple(self._own),
            under_way=frozenset(self._under_way),
            recording=frozenset(self._recording),
            room=link.room(),
            longest=link.session.max_message,
        )
        self._more = found.more
        for settled in found.settled:
            self._tell(settled)
        if found.too_long:
            answers = [
                Refused(each, permanent=True, code=RefusalCode.TOO_LONG) for each in found.too_long
            ]
            results = await self._node.store.run(record, self._peer, answers)
            self.recorded(answers, results, link)
        if found.rows:
            await self._send(found.rows, link)

    async def _send(self, rows: Sequence[OutboxRow], link: Link) -> None:
        handed = set(await self._node.store.run(outbox.hand, [row.seq for row in rows], now_ms()))
        for row in rows:
            if row.seq in handed and link in self._links:
                with contextlib.suppress(LinkClosed):
                    link.send(Text(row.id, row.sent_at, row.text))
                    self._under_way[row.id] = link


class _Found(msgspec.Struct, frozen=True):
    """What a look at the store has found: for one link, and no more than it has room for."""

    rows: list[OutboxRow]
    too_long: list[bytes]
    settled: list[Settled]
    more: bool


def _choose_rows(
    conn: sqlite3.Connection,
    peer: bytes,
    *,
    queued: bool,
    own: Iterable[int],
    under_way: Container[bytes],
    recording: Container[bytes],
    room: Window,
    longest: int,
) -> _Found:
    """Rows to send now, in order, the queued ones first; in the store's thread."""
    found = _Found([], [], [], more=False)
    own_rows = (_own_row(conn, seq, recording, found.settled) for seq in own)
    for row in chain(outbox.queued(conn, peer) if queued else (), own_rows):
        if row is None or row.id in under_way:
            continue
        size = len(row.text.encode())
        if size > longest:
            found.too_long.append(row.id)
        elif room.fits(size):
            room.add(row.id, size)
            found.rows.append(row)
        else:
            return replace(found, more=True)
    return found


def _own_row(
    conn: sqlite3.Connection, seq: int, recording: Container[bytes], settled: list[Settled]
) -> OutboxRow | None:
    """An own row that is on its way; one that another process has settled goes into `settled`.

    One that is shared or queued goes in the order of the queue, with it. Of one that is being
    settled here at this moment nothing is said: that it was over our link, a look can't tell.
    """
    row = outbox.get(conn, seq)
    if row is not None and row.state in {State.WAITING, State.HANDED}:
        return None if row.shared or row.owner is None else row
    if row is not None and row.id in recording:
        return None
    if row is not None:
        settled.append(Settled(seq, row.state, None, row.reason))
    else:
        settled.append(Settled(seq, State.UNCONFIRMED, None, outbox.FORGOTTEN))
    return None
