"""`Incoming`: one link's files, in the event loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from securelink.admission import BUSY, DISK_FULL
from securelink.clock import now_ms
from securelink.errors import LinkClosed, StoreError, StoreFull
from securelink.file_messages import Accept, Begin, Cancel, Chunk, End, Offer, Prefix
from securelink.incoming import talk
from securelink.incoming.intake import Intake
from securelink.messages import Receipt, Refused
from securelink.transfer.receiving import COMPARED, Receiving

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from securelink.admission import Refusal
    from securelink.claims import Claim
    from securelink.directory import KnownPeer
    from securelink.link import Link
    from securelink.node import Node

PAUSE_ABOVE = 4 << 20
RESUME_BELOW = 1 << 20
"""Bytes that wait for the disk: reading pauses above the one, and goes on below the other."""


class Arriving(msgspec.Struct, frozen=True):
    """One file on its way to us, to be shown."""

    peer: str
    name: str
    size: int | None
    """In bytes; None if nobody knows."""
    received: int
    """Bytes of it that are here."""
    resumed: int
    """How many of these came in earlier attempts."""
    is_compared: bool
    """Both sides look at this moment how much of it is here."""


class Incoming:
    """The files that one link brings.

    Args:
        node: whose files they become.
        peer: who sends them.
        link: where the answers go; its owner gives what arrives to `feed`.

    Attributes:
        taken: the bytes of all files that have come.
    """

    def __init__(self, node: Node, peer: KnownPeer, link: Link) -> None:
        self._node = node
        self._peer = peer
        self._link = link
        self.taken = 0
        self._receiving = Receiving()
        self._intake: Intake | None = None
        self._claims: dict[int, Claim] = {}
        self._held: dict[int, list[talk.Job]] = {}
        self._jobs: list[talk.Job] = []
        self._handing_over = False
        self._backlog = 0
        self._notes: list[talk.Note] = []
        self._keeping: asyncio.Task[None] | None = None
        self._end: asyncio.Task[None] | None = None
        self._quiet = asyncio.Event()

    # ---- for the owner

    def feed(self, message: Offer | Begin | Chunk | End | Cancel) -> None:
        """Take what the peer says of its files, in the order in which it was said.

        The bytes of a chunk must stay as they are.

        Raises:
            RemoteProtocolError: that was against the rules; the link must end.
        """
        if self._end is not None:
            return
        match message:
            case Chunk():
                self.taken += len(message.data)
                if self._receiving.chunk(message) is not None:
                    self._queue(message.number, message)
            case Offer():
                self._receiving.offer(message)
                self._claim(message)
            case Begin():
                if self._receiving.begin(message) is not None:
                    self._queue(message.number, message)
            case End():
                if self._receiving.end(message) is not None:
                    self._queue(message.number, message)
            case Cancel():
                if self._receiving.cancel(message) is not None:
                    self._withdraw(message)

    async def aclose(self) -> None:
        """Let go of all files, after the link has ended or before it does.

        What has come whole is landed, committed, and receipted if the link still can. Of large
        files what is here is put on the disk, to go on there later. Every call returns when that
        is done.
        """
        if self._end is None:
            self._end = asyncio.create_task(self._let_go_of_all())
        await asyncio.shield(self._end)

    def active(self) -> list[Arriving]:
        """The files that are on their way, oldest first."""
        return [
            Arriving(
                peer=self._peer.name,
                name=transfer.offer.name,
                size=transfer.offer.size,
                received=transfer.received,
                resumed=transfer.resumed,
                is_compared=transfer.state in COMPARED,
            )
            for transfer in self._receiving.open.values()
            if not transfer.offer.folder
        ]

    async def _let_go_of_all(self) -> None:
        for number in tuple(self._held):
            self._forget_held(number)
        if self._intake is None and not self._jobs:
            return
        self._jobs.append(talk.HangUp())
        self._hand_over()
        assert self._intake is not None
        while self._claims or self._keeping is not None:
            self._quiet.clear()
            await self._quiet.wait()
        self._intake.thread.stop()
        await self._intake.thread.ended

    # ---- towards the disk

    def _queue(self, number: int, job: talk.Job) -> None:
        """Have the thread do something, once the file is this link's."""
        self._backlog += talk.cost(job)
        if self._backlog > PAUSE_ABOVE:
            self._link.pause_receiving()
        held = self._held.get(number)
        if held is not None:
            held.append(job)
        else:
            self._hand_over_soon([job])

    def _hand_over_soon(self, jobs: Sequence[talk.Job]) -> None:
        self._jobs += jobs
        if not self._handing_over:
            # One hand-over for all that one read has brought.
            self._handing_over = True
            asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._handing_over = False
        if not self._jobs:
            return
        if self._intake is None:
            self._intake = Intake(self._node, self._peer, self._deliver)
            self._intake.thread.ended.add_done_callback(self._thread_ended)
        jobs, self._jobs = self._jobs, []
        self._intake.thread.put(jobs)

    def _worked(self, cost: int) -> None:
        self._backlog -= cost
        if self._backlog < RESUME_BELOW:
            self._link.resume_receiving()

    def _thread_ended(self, _: asyncio.Future[None]) -> None:
        if self._end is None:
            # Something of ours was wrong, and Python has told what: nobody must wait for it.
            self._link.abort()
        for number in tuple(self._claims):
            self._let_go(number)

    # ---- whose file it is

    def _claim(self, offer: Offer) -> None:
        number = offer.number
        self._held[number] = []
        self._queue(number, offer)
        self._claims[number] = self._node.claims.take(
            (self._peer.key.raw, offer.id),
            granted=partial(self._granted, number),
            lost=partial(self._lost, number),
        )

    def _granted(self, number: int) -> None:
        self._hand_over_soon(self._held.pop(number))

    def _lost(self, number: int) -> None:
        """A newer link wants it."""
        if number in self._held:
            self._forget_held(number)
            self._refuse(number, BUSY)
        else:
            self._queue(number, talk.Drop(number))

    def _withdraw(self, cancel: Cancel) -> None:
        if cancel.number in self._held:
            self._forget_held(cancel.number)
        else:
            self._queue(cancel.number, cancel)

    def _forget_held(self, number: int) -> None:
        self._worked(sum(map(talk.cost, self._held.pop(number))))
        self._let_go(number)

    def _let_go(self, number: int) -> None:
        self._node.claims.release(self._claims.pop(number))
        self._quiet.set()

    # ---- back from the disk

    def _deliver(self, results: Sequence[talk.Result]) -> None:
        for result in results:
            match result:
                case talk.Worked(cost):
                    self._worked(cost)
                case talk.Refuse(number, refusal):
                    self._refuse(number, refusal)
                case talk.Known(number):
                    self._receipt(number)
                case talk.Here(number, size):
                    if number in self._receiving.open:
                        self._receiving.accept(number, size)
                        self._send(Accept(number, size))
                case talk.Digest(number, digest):
                    if number in self._receiving.open:
                        self._receiving.prefix(number)
                        self._send(Prefix(number, digest))
                case talk.Gone(number):
                    self._let_go(number)
                case _:
                    self._notes.append(result)
        if self._notes and self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        """Put into the store what has come, all that there is at a time in one transaction."""
        while self._notes:
            notes, self._notes = self._notes, []
            try:
                outcomes = await self._node.store.run(self._record, notes)
            except StoreError as error:
                self._not_kept(notes, DISK_FULL if isinstance(error, StoreFull) else BUSY)
            else:
                self._kept(notes, outcomes)
            self._hand_over()
        self._keeping = None
        self._quiet.set()

    def _record(self, conn: sqlite3.Connection, notes: Sequence[talk.Note]) -> list[str | bool]:
        now = now_ms()
        return [note.record(conn, self._peer, now) for note in notes]

    def _kept(self, notes: Sequence[talk.Note], outcomes: Sequence[str | bool]) -> None:
        for note, outcome in zip(notes, outcomes, strict=True):
            match note, outcome:
                case talk.Began(noted=noted), _:
                    noted.set()
                case talk.NameGroup(group, free_name), str(name):
                    self._jobs.append(talk.Named(group, free_name, name))
                case ((talk.Landed(number) | talk.Same(number)), bool(new)):
                    self._receipt(number)
                    self._jobs.append(talk.Settled(number, stays=new))

    def _not_kept(self, notes: Sequence[talk.Note], refusal: Refusal) -> None:
        for note in notes:
            match note:
                case talk.Began(noted=noted):
                    # It comes all the same, and starts over if it is cut.
                    noted.set()
                case talk.NameGroup(group, free_name):
                    self._jobs.append(talk.Named(group, free_name, refusal))
                case talk.Landed(number) | talk.Same(number):
                    self._refuse(number, refusal)
                    self._jobs.append(talk.Settled(number, stays=False))

    # ---- towards the peer

    def _receipt(self, number: int) -> None:
        transfer = self._receiving.open.get(number)
        if transfer is not None:
            self._receiving.close(number)
            self._send(Receipt(transfer.offer.id))

    def _refuse(self, number: int, refusal: Refusal) -> None:
        transfer = self._receiving.open.get(number)
        if transfer is not None:
            self._receiving.close(number)
            self._send(Refused(transfer.offer.id, permanent=refusal.permanent, code=refusal.code))

    def _send(self, message: Accept | Prefix | Receipt | Refused) -> None:
        try:
            self._link.send(message)
        except LinkClosed:
            # The sender learns it on the next link, when it asks.
            return
