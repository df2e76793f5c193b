"""A ready link and the store, tied together: the same for both roles.

What arrives is taken in batches: all that came while the last commit was under way goes into the
next one, and only then are receipts sent. What comes back for our own messages is written in the
same transaction.
"""

from __future__ import annotations

import asyncio
from itertools import compress
from typing import TYPE_CHECKING, TypeVar

from securelink import interfaces
from securelink.announced import usable
from securelink.answers import record
from securelink.clock import now_ms
from securelink.endpoints import Kind, kind_of
from securelink.errors import (
    LinkClosed,
    RemoteProtocolError,
    SecurelinkError,
    StoreError,
    StoreFull,
)
from securelink.file_messages import Accept, FileMessage, Prefix
from securelink.messages import Announce, Receipt, RefusalCode, Refused, Text
from securelink.session import Closing, Ended, Happening
from securelink.store import addresses, inbox

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from securelink.answers import Recorded
    from securelink.directory import KnownPeer
    from securelink.dispatch import Dispatch
    from securelink.incoming import Incoming
    from securelink.link import Link
    from securelink.node import Node
    from securelink.outgoing import Outgoing

_T = TypeVar("_T")

ANNOUNCED_PAUSE = 5.0
"""Seconds on one link between two announcements that are written down; of those that come
meanwhile the newest counts."""


class Delivery:
    """One link's mail, both ways, until the link ends.

    Args:
        node: the node.
        peer: the other side.
        link: ready.
        outgoing: the texts for that peer.
        incoming: takes the files that come; None if this link takes none.
        dispatch: the files for that peer; None if none are sent over this link.

    Attributes:
        received: how many texts were taken in, those that came twice too.
    """

    def __init__(
        self,
        node: Node,
        peer: KnownPeer,
        link: Link,
        outgoing: Outgoing,
        *,
        incoming: Incoming | None = None,
        dispatch: Dispatch | None = None,
    ) -> None:
        self._node = node
        self._peer = peer
        self._link = link
        self._outgoing = outgoing
        self._incoming = incoming
        self._dispatch = dispatch
        self._stopping = False
        self._done = asyncio.Event()
        self._progressed = asyncio.Event()
        self._announced: Announce | None = None
        self._announced_pause: asyncio.TimerHandle | None = None
        self.received = 0

    async def run(self, early: Sequence[Happening] = ()) -> SecurelinkError | None:
        """Carry mail until the link has ended; return why, None after an orderly end.

        Args:
            early: what came along with READY.
        """
        try:
            self._link.take_files(self._route)
            error = await self._run(list(early))
        finally:
            self._end_the_pause()
            self._outgoing.detach(self._link)
            self._link.abort()
            try:
                await self._end_files()
            finally:
                self._done.set()
                self._progressed.set()
        return error

    async def aclose(self) -> None:
        """End the link in order: what has been read is committed and receipted before."""
        self._stopping = True
        self._link.nudge()
        await self._done.wait()

    async def progress(self) -> None:
        """Wait until more texts have been taken in, or the link has ended."""
        self._progressed.clear()
        await self._progressed.wait()

    def _route(self, message: FileMessage) -> None:
        """Give what belongs to a file to whoever deals with that direction."""
        if isinstance(message, Accept | Prefix):
            if self._dispatch is not None:
                self._dispatch.feed(message)
                return
        elif self._incoming is not None:
            self._incoming.feed(message)
            return
        raise RemoteProtocolError("a file comes on a link that carries none that way")

    async def _end_files(self) -> None:
        if self._dispatch is not None:
            await self._dispatch.aclose()
        if self._incoming is not None:
            await self._incoming.aclose()

    async def _run(self, happenings: list[Happening]) -> SecurelinkError | None:
        while True:
            last = happenings[-1] if happenings else None
            closing = self._stopping or isinstance(last, Closing)
            if closing or isinstance(last, Ended):
                self._end_the_pause()
            await self._take(happenings)
            if isinstance(last, Ended):
                return last.error
            if closing:
                return await self._close()
            happenings = await self._link.receive()

    async def _close(self) -> SecurelinkError | None:
        """Say goodbye; receipts may still arrive on the way, texts are not taken any more."""
        if self._incoming is not None:
            # What has come whole gets its receipt while that can still leave.
            await self._incoming.aclose()
        await self._link.aclose()
        happenings = self._link.rest()
        await self._take([each for each in happenings if isinstance(each, Receipt | Refused)])
        last = happenings[-1] if happenings else None
        return last.error if isinstance(last, Ended) else None

    async def _take(self, happenings: Sequence[Happening]) -> None:
        texts = [each for each in happenings if isinstance(each, Text)]
        answers = [each for each in happenings if isinstance(each, Receipt | Refused)]
        announced = self._announcement_due(happenings)
        if not (texts or answers or announced):
            return
        of_files = [self._is_of_file(each) for each in answers]
        self._outgoing.recording(list(_where(answers, of_files, wanted=False)))
        try:
            results = await self._node.store.run(self._record, texts, answers, announced)
        except StoreError as error:
            self._outgoing.unrecorded(list(_where(answers, of_files, wanted=False)))
            if self._dispatch is not None and any(of_files):
                self._dispatch.unrecorded()
            self._answer_all(texts, error)
            return
        self._outgoing.recorded(
            list(_where(answers, of_files, wanted=False)),
            _where(results, of_files, wanted=False),
            self._link,
        )
        if self._dispatch is not None:
            self._dispatch.recorded(_where(results, of_files, wanted=True))
        self.received += len(texts)
        self._progressed.set()
        self._answer_all(texts, None)

    def _is_of_file(self, answer: Receipt | Refused) -> bool:
        return self._dispatch is not None and self._dispatch.is_answer(answer)

    def _announcement_due(self, happenings: Sequence[Happening]) -> Announce | None:
        """The newest announcement, if it is to be written down now."""
        for each in happenings:
            if isinstance(each, Announce):
                self._announced = each
        if self._announced is None or self._announced_pause is not None:
            return None
        due, self._announced = self._announced, None
        loop = asyncio.get_running_loop()
        self._announced_pause = loop.call_later(ANNOUNCED_PAUSE, self._look_again)
        return due

    def _look_again(self) -> None:
        self._announced_pause = None
        self._link.nudge()

    def _end_the_pause(self) -> None:
        if self._announced_pause is not None:
            self._announced_pause.cancel()
            self._announced_pause = None

    def _record(
        self,
        conn: sqlite3.Connection,
        texts: Sequence[Text],
        answers: Sequence[Receipt | Refused],
        announced: Announce | None,
    ) -> list[Recorded]:
        now = now_ms()
        for text in texts:
            inbox.receive(
                conn,
                peer=self._peer.key.raw,
                peer_name=self._peer.name,
                message_id=text.id,
                sent_at=text.sent_at,
                text=text.text,
                received_at=now,
            )
        if announced is not None:
            taken = usable(announced.endpoints, self._met())
            addresses.set_endpoints(
                conn, self._peer.key.raw, addresses.Source.ANNOUNCED, taken, now
            )
        return record(conn, self._peer.key.raw, answers)

    def _met(self) -> Kind:
        """The kind of the address at which the peer is: the furthest if it is not known."""
        remote = self._link.remote
        if remote is None:
            return Kind.PUBLIC
        return Kind.LOOPBACK if interfaces.is_own(remote[0]) else kind_of(remote[0])

    def _answer_all(self, texts: Sequence[Text], error: StoreError | None) -> None:
        code = RefusalCode.DISK_FULL if isinstance(error, StoreFull) else RefusalCode.BUSY
        try:
            for text in texts:
                if error is None:
                    self._link.send(Receipt(text.id))
                else:
                    self._link.send(Refused(text.id, permanent=False, code=code))
        except LinkClosed:
            # The sender gets its receipts on the next link, when it sends again.
            return


def _where(items: Sequence[_T], selectors: Sequence[bool], *, wanted: bool) -> Iterator[_T]:
    return compress(items, (each is wanted for each in selectors))
