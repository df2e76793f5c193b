"""Both sides of files on one link, played against each other: they never disagree.

What is said goes over two wires, each in order, and is heard at any later time. Each side does
whatever its rules allow at any moment: the sender as `dispatch` does, the receiver as `incoming`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from securelink.file_messages import (
    Accept,
    Begin,
    Cancel,
    Chunk,
    End,
    FileMessage,
    Offer,
    Prefix,
)
from securelink.messages import Receipt, Refused
from securelink.transfer import receiving, sending
from securelink.transfer.receiving import Receiving
from securelink.transfer.sending import Outbound

LARGEST = 6

FATES = ["lands"] * 4 + ["is compared"] * 4 + ["is given up", "is answered early"]
"""What may become of a file. Without one, most would be given up or refused before they land."""

SAME, OTHER = bytes(32), bytes([1]) * 32


@dataclass
class Leaving:
    """What the sender knows of one file."""

    outbound: Outbound
    content: bytes
    digested: bool = False


@dataclass
class Landing:
    """What the receiver knows of one file."""

    here: bytes = b""
    """What it had before."""
    data: bytearray = field(default_factory=bytearray)


class BothSides(RuleBasedStateMachine):
    """Several files on one link."""

    def __init__(self) -> None:
        super().__init__()
        self.leaving: dict[int, Leaving] = {}
        self.landing: dict[int, Landing] = {}
        self.receiving = Receiving()
        self.there: deque[FileMessage] = deque()
        self.back: deque[Accept | Prefix | Receipt | Refused] = deque()
        self.contents: dict[int, bytes] = {}
        self.fates: dict[int, str] = {}
        self.given_up: set[int] = set()
        self.number = 0

    # ---- what the sender does

    @precondition(lambda self: len(self.leaving) < 3)
    @rule(
        content=st.binary(max_size=LARGEST),
        kind=st.sampled_from(["file", "file", "asked", "asked", "stream", "folder"]),
        fate=st.sampled_from(FATES),
    )
    def offer(self, content: bytes, kind: str, fate: str) -> None:
        number = self.number
        self.number += 1
        if kind == "folder":
            content = b""
        made = Offer(
            id=number.to_bytes(16, "big"),
            group=bytes(16),
            number=number,
            name="a",
            size=None if kind == "stream" else len(content),
            mtime=0,
            mode=0o600,
            folder=kind == "folder",
            ask=kind == "asked",
        )
        self.contents[number] = content
        self.fates[number] = fate
        self.leaving[number] = Leaving(Outbound(made), content)
        self.there.append(made)

    def _in(self, *states: sending.State) -> list[int]:
        return [n for n, each in self.leaving.items() if each.outbound.state in states]

    @precondition(lambda self: self._in(sending.State.SENDING))
    @rule(data=st.data(), count=st.integers(1, LARGEST))
    def chunk(self, data: st.DataObject, count: int) -> None:
        number = data.draw(st.sampled_from(self._in(sending.State.SENDING)))
        it = self.leaving[number]
        piece = it.content[it.outbound.offset :][:count]
        if piece:
            it.outbound.sent(len(piece))
            self.there.append(Chunk(number, piece))
        else:
            assert it.outbound.offer.size is None
            it.outbound.exhausted()

    @precondition(lambda self: self._ending())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self._ending()))
        self.there.append(self.leaving[number].outbound.end())

    def _ending(self) -> list[int]:
        whole = self._in(sending.State.WHOLE)
        return [n for n in whole if not self.leaving[n].outbound.offer.folder]

    @precondition(lambda self: self._in(sending.State.COMPARING))
    @rule(data=st.data(), same=st.booleans())
    def compare(self, data: st.DataObject, same: bool) -> None:
        number = data.draw(st.sampled_from(self._in(sending.State.COMPARING)))
        it = self.leaving[number]
        if it.outbound.accepted and not it.digested:
            it.digested = True
            # What the receiver has is compared by what it is; here that is known.
            it.outbound.digested(SAME)
        if it.outbound.is_compared:
            self.there.append(it.outbound.begin())

    @precondition(lambda self: self._unended())
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self._unended()))
        self._forget(number)
        self.given_up.add(number)
        self.there.append(Cancel(number))

    def _unended(self) -> list[int]:
        """A file whose END is not the last that was said of it may be given up."""
        return [
            n
            for n, each in self.leaving.items()
            if self.fates[n] == "is given up"
            and each.outbound.state is not sending.State.ENDED
            and not each.outbound.offer.folder
        ]

    def _forget(self, number: int) -> None:
        self.leaving.pop(number).outbound.close()

    @precondition(lambda self: self.back)
    @rule()
    def hear_answer(self) -> None:
        message = self.back.popleft()
        if isinstance(message, Accept | Prefix):
            it = self.leaving.get(message.number)
            if it is None:
                return
            if isinstance(message, Accept):
                it.outbound.accept(message)
            else:
                it.outbound.prefix(message)
            return
        number = int.from_bytes(message.id, "big")
        it = self.leaving.get(number)
        if it is None:
            return
        is_open = it.outbound.state is not sending.State.ENDED and not it.outbound.offer.folder
        self._forget(number)
        if is_open:
            self.there.append(Cancel(number))

    # ---- what the receiver does

    @precondition(lambda self: self.there)
    @rule(here=st.binary(max_size=LARGEST), same=st.booleans())
    def hear(self, here: bytes, same: bool) -> None:
        message = self.there.popleft()
        match message:
            case Offer():
                self.receiving.offer(message)
                content = self.contents[message.number]
                had = content[: len(here)] if same else here[: len(content)]
                self.landing[message.number] = Landing(had)
            case Begin():
                if (transfer := self.receiving.begin(message)) is not None:
                    landing = self.landing[message.number]
                    landing.data = bytearray(landing.here[: transfer.received])
            case Chunk():
                offset = self.receiving.chunk(message)
                if offset is not None:
                    landing = self.landing[message.number]
                    assert offset == len(landing.data)
                    landing.data += message.data
            case End():
                self.receiving.end(message)
            case Cancel():
                self.receiving.cancel(message)

    def _theirs(self, *states: receiving.State) -> list[int]:
        return [n for n, each in self.receiving.open.items() if each.state in states]

    @precondition(lambda self: self._theirs(receiving.State.ASKED))
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self._theirs(receiving.State.ASKED)))
        offset = len(self.landing[number].here)
        self.receiving.accept(number, offset)
        self.back.append(Accept(number, offset))

    @precondition(lambda self: self._comparable())
    @rule(data=st.data())
    def find_something_to_compare(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self._comparable()))
        offset = len(self.landing[number].here)
        self.receiving.accept(number, offset)
        self.back.append(Accept(number, offset))

    def _comparable(self) -> list[int]:
        return [
            n
            for n in self._theirs(receiving.State.EAGER, receiving.State.EAGER_WHOLE)
            if self.fates[n] == "is compared"
            and self.receiving.open[n].offer.size is not None
            and self.landing[n].here
        ]

    @precondition(lambda self: self._digesting())
    @rule(data=st.data())
    def tell_the_digest(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self._digesting()))
        here = self.landing[number].here
        self.receiving.prefix(number)
        is_same = self.contents[number].startswith(here)
        self.back.append(Prefix(number, SAME if is_same else OTHER))

    def _digesting(self) -> list[int]:
        return self._theirs(receiving.State.DIGESTING, receiving.State.STOPPING)

    @precondition(lambda self: self._whole())
    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self._whole()))
        assert bytes(self.landing[number].data) == self.contents[number]
        assert number not in self.given_up
        self._answer(number, Receipt(number.to_bytes(16, "big")))

    def _whole(self) -> list[int]:
        whole = self._theirs(receiving.State.WHOLE, receiving.State.EAGER_WHOLE)
        return [n for n in whole if n not in self._comparable()]

    @precondition(lambda self: self._answerable())
    @rule(data=st.data(), receipt=st.booleans())
    def answer_early(self, data: st.DataObject, receipt: bool) -> None:
        """Refused at any time; or it was seen before, which is told when it is asked for."""
        number = data.draw(st.sampled_from(self._answerable()))
        made = number.to_bytes(16, "big")
        if receipt and self.receiving.open[number].state is receiving.State.ASKED:
            self._answer(number, Receipt(made))
        else:
            self._answer(number, Refused(made, permanent=True, code=2))

    def _answerable(self) -> list[int]:
        return [n for n in self.receiving.open if self.fates[n] == "is answered early"]

    def _answer(self, number: int, answer: Receipt | Refused) -> None:
        self.receiving.close(number)
        self.back.append(answer)

    # ---- what always holds

    @invariant()
    def never_more_than_there_is(self) -> None:
        for number, landing in self.landing.items():
            assert len(landing.data) <= len(self.contents[number])

    @invariant()
    def nothing_is_left_open_alone(self) -> None:
        if not self.there and not self.back:
            assert set(self.leaving) == set(self.receiving.open)

    @invariant()
    def whoever_waits_is_answered(self) -> None:
        """With all heard, each file has somebody whose turn it is."""
        if self.there or self.back:
            return
        for number, each in self.leaving.items():
            state, theirs = each.outbound.state, self.receiving.open[number].state
            if state is sending.State.ASKING:
                assert theirs is receiving.State.ASKED
            elif state is sending.State.ENDED:
                assert theirs in {receiving.State.WHOLE, receiving.State.EAGER_WHOLE}
            elif state is sending.State.COMPARING and not each.outbound.is_compared:
                owes_digest = theirs in {receiving.State.DIGESTING, receiving.State.STOPPING}
                assert owes_digest or not each.digested


TestBothSides = BothSides.TestCase
TestBothSides.settings = settings(max_examples=100, stateful_step_count=80, deadline=None)
