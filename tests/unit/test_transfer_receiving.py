"""What a sender of files may say at which time: the rules, each broken once, and a model."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from securelink.errors import LocalProtocolError, RemoteProtocolError
from securelink.file_messages import Begin, Cancel, Chunk, End, Offer
from securelink.transfer.receiving import MOST_OPEN, TRANSITIONS, Input, Receiving, State


def offer(number: int = 1, size: int | None = 10, **changed: Any) -> Offer:
    fields: dict[str, Any] = {
        "id": number.to_bytes(16, "big"),
        "group": bytes(16),
        "number": number,
        "name": "a.txt",
        "size": size,
        "mtime": 0,
        "mode": 0o600,
    }
    return Offer(**fields | changed)


def receiving(*offers: Offer) -> Receiving:
    made = Receiving()
    for each in offers:
        made.offer(each)
    return made


def theirs(text: str) -> Any:
    return pytest.raises(RemoteProtocolError, match=f"^{re.escape(text)}$")


def ours(text: str) -> Any:
    return pytest.raises(LocalProtocolError, match=f"^{re.escape(text)}$")


# ---- the ways that lead to a whole file


def test_bytes_come_unasked_when_there_was_no_earlier_attempt() -> None:
    it = receiving(offer())
    assert it.chunk(Chunk(1, b"1234")) == 0
    assert it.chunk(Chunk(1, memoryview(b"567890"))) == 4
    transfer = it.end(End(1, 10))
    assert transfer is it.open[1]
    assert (transfer.state, transfer.received, transfer.resumed) == (State.EAGER_WHOLE, 10, 0)
    it.close(1)
    assert not it.open


def test_a_file_goes_on_where_it_was_cut() -> None:
    it = receiving(offer(ask=True))
    it.accept(1, 6)
    it.prefix(1)
    transfer = it.begin(Begin(1, 6))
    assert transfer is not None
    assert transfer.resumed == 6
    assert it.chunk(Chunk(1, b"7890")) == 6
    assert it.end(End(1, 10)) is transfer
    assert transfer.resumed == 6


def test_a_file_starts_over_when_the_prefix_differs() -> None:
    it = receiving(offer(ask=True))
    it.accept(1, 6)
    it.prefix(1)
    transfer = it.begin(Begin(1, 0))
    assert transfer is not None
    assert (transfer.received, transfer.resumed) == (0, 0)
    assert it.chunk(Chunk(1, b"1234567890")) == 0
    assert it.end(End(1, 10)) is transfer


def test_what_crosses_our_accept_does_not_count() -> None:
    it = receiving(offer())
    assert it.chunk(Chunk(1, b"1234")) == 0
    it.accept(1, 10)
    assert it.chunk(Chunk(1, b"56")) is None
    it.prefix(1)
    assert it.chunk(Chunk(1, b"7890")) is None
    assert it.end(End(1, 10)) is None
    transfer = it.begin(Begin(1, 10))
    assert transfer is not None
    assert it.end(End(1, 10)) is transfer
    assert transfer.state is State.WHOLE


def test_what_has_come_whole_can_still_be_compared() -> None:
    it = receiving(offer())
    it.chunk(Chunk(1, bytes(10)))
    it.end(End(1, 10))
    it.accept(1, 10)
    assert it.open[1].received == 0
    it.prefix(1)
    it.begin(Begin(1, 0))
    assert it.chunk(Chunk(1, bytes(10))) == 0


def test_an_empty_file_has_no_chunks() -> None:
    assert receiving(offer(size=0)).end(End(1, 0)) is not None


def test_a_stream_has_any_size() -> None:
    it = receiving(offer(size=None, checksum=True))
    assert it.chunk(Chunk(1, b"1")) == 0
    assert it.chunk(Chunk(1, b"2")) == 1
    assert it.end(End(1, 2, bytes(32))) is not None


def test_a_folder_is_whole_at_once() -> None:
    it = Receiving()
    assert it.offer(offer(size=0, folder=True)).state is State.WHOLE
    it.close(1)


def test_what_comes_for_a_transfer_that_is_over_is_dropped() -> None:
    it = receiving(offer(), offer(2), offer(7))
    it.close(1)
    assert it.cancel(Cancel(2)) is not None
    # 5 was never offered, but its turn is over too.
    for number in (1, 2, 5):
        assert it.begin(Begin(number, 3)) is None
        assert it.chunk(Chunk(number, b"12")) is None
        assert it.end(End(number, 99)) is None
        assert it.cancel(Cancel(number)) is None
    assert list(it.open) == [7]


def test_an_id_may_come_again_once_it_was_answered() -> None:
    it = receiving(offer())
    it.close(1)
    it.offer(offer(2, id=offer().id, ask=True))
    it.cancel(Cancel(2))
    it.offer(offer(3, id=offer().id))


# ---- the rules


@pytest.mark.parametrize("number", [0, 5])
def test_numbers_grow(number: int) -> None:
    it = receiving(offer(5))
    it.close(5)
    with theirs("the numbers of the files on a link do not grow"):
        it.offer(offer(number))


def test_so_many_may_be_open_and_no_more() -> None:
    it = receiving(*map(offer, range(MOST_OPEN)))
    with theirs("too many files are under way without an answer"):
        it.offer(offer(MOST_OPEN))
    it.close(3)
    it.offer(offer(MOST_OPEN))


def test_an_id_is_under_way_once() -> None:
    it = receiving(offer())
    with theirs("a file is offered again while it is under way"):
        it.offer(offer(2, id=offer().id))


@pytest.mark.parametrize("what", [Begin(2, 0), Chunk(2, b"1"), End(2, 0), Cancel(2)])
def test_only_what_was_offered_comes(what: Any) -> None:
    it = receiving(offer())
    method = getattr(it, type(what).__name__.lower())
    with theirs("a file that was not offered"):
        method(what)


@pytest.mark.parametrize("sizes", [(11,), (10, 1)])
def test_a_file_is_as_long_as_was_offered(sizes: tuple[int, ...]) -> None:
    it = receiving(offer())
    *before, last = sizes
    for size in before:
        it.chunk(Chunk(1, bytes(size)))
    with theirs("a file is longer than was offered"):
        it.chunk(Chunk(1, bytes(last)))


@pytest.mark.parametrize(("sent", "told"), [(10, 9), (10, 11), (9, 9), (9, 10)])
def test_an_end_tells_the_size(sent: int, told: int) -> None:
    it = receiving(offer())
    it.chunk(Chunk(1, bytes(sent)))
    with theirs("a file ends with another size than it has"):
        it.end(End(1, told))


@pytest.mark.parametrize("checksum", [True, False])
def test_a_digest_comes_if_it_was_offered(checksum: bool) -> None:
    it = receiving(offer(size=0, checksum=checksum))
    with theirs("a file's digest is missing, or was not offered"):
        it.end(End(1, 0, None if checksum else bytes(32)))


def test_a_file_begins_where_it_was_accepted() -> None:
    it = receiving(offer(ask=True))
    it.accept(1, 6)
    it.prefix(1)
    with theirs("a file begins at an offset that was not accepted"):
        it.begin(Begin(1, 5))


def test_nothing_comes_before_the_answer() -> None:
    it = receiving(offer(ask=True))
    text = "is not possible for a file when the sender waits for our answer"
    with theirs(f"a CHUNK {text}"):
        it.chunk(Chunk(1, b"1"))
    with theirs(f"an END {text}"):
        it.end(End(1, 10))
    with theirs(f"a BEGIN {text}"):
        it.begin(Begin(1, 0))


def test_nothing_comes_between_our_accept_and_its_begin() -> None:
    it = receiving(offer(ask=True))
    it.accept(1, 0)
    with theirs("a CHUNK is not possible for a file when the sender owes a BEGIN"):
        it.chunk(Chunk(1, b"1"))


@pytest.mark.parametrize("asked", [True, False])
def test_a_file_begins_when_both_have_compared(asked: bool) -> None:
    it = receiving(offer(ask=asked))
    it.accept(1, 6)
    with pytest.raises(RemoteProtocolError, match=r"^a BEGIN is not possible .* we owe the digest"):
        it.begin(Begin(1, 6))


def test_a_file_begins_once() -> None:
    it = receiving(offer(ask=True), offer(2))
    it.accept(1, 0)
    it.begin(Begin(1, 0))
    with theirs(
        "a BEGIN is not possible for a file when its bytes come from the offset of its BEGIN on"
    ):
        it.begin(Begin(1, 0))
    with theirs("a BEGIN is not possible for a file when its bytes come unasked"):
        it.begin(Begin(2, 0))


@pytest.mark.parametrize("asked", [True, False])
def test_nothing_comes_after_an_end(asked: bool) -> None:
    it = receiving(offer(size=0, ask=asked))
    if asked:
        it.accept(1, 0)
        it.begin(Begin(1, 0))
    it.end(End(1, 0))
    with pytest.raises(RemoteProtocolError):
        it.end(End(1, 0))
    with pytest.raises(RemoteProtocolError):
        it.chunk(Chunk(1, b"1"))
    with pytest.raises(RemoteProtocolError):
        it.cancel(Cancel(1))


def test_nothing_follows_a_folder() -> None:
    it = receiving(offer(size=0, folder=True))
    with theirs("an END is not possible for a file when all of it has come"):
        it.end(End(1, 0))


# ---- our own misuse


def test_we_accept_once() -> None:
    it = receiving(offer(ask=True))
    it.accept(1, 0)
    with ours("accept() from the start is not possible for a file when the sender owes a BEGIN"):
        it.accept(1, 0)


def test_we_accept_nothing_only_when_asked() -> None:
    with ours("accept() from the start is not possible for a file when its bytes come unasked"):
        receiving(offer()).accept(1, 0)


def test_we_tell_one_digest_of_what_is_here() -> None:
    it = receiving(offer(ask=True), offer(2, ask=True))
    it.accept(1, 0)
    it.accept(2, 5)
    it.prefix(2)
    for number in (1, 2):
        with ours("prefix() is not possible for a file when the sender owes a BEGIN"):
            it.prefix(number)


@pytest.mark.parametrize(("size", "offset"), [(10, 11), (10, -1), (None, 0)])
def test_we_accept_no_more_than_there_is(size: int | None, offset: int) -> None:
    it = receiving(offer(size=size))
    with ours("an offset beyond the end of a file, or in a stream"):
        it.accept(1, offset)


def test_we_answer_what_is_open() -> None:
    it = receiving(offer())
    it.close(1)
    for number in (1, 2):
        with ours("an answer to a file that is not under way"):
            it.close(number)
        with ours("an answer to a file that is not under way"):
            it.accept(number, 0)
        with ours("an answer to a file that is not under way"):
            it.prefix(number)


def test_the_table_has_no_way_out_of_the_end_and_one_to_it_from_everywhere() -> None:
    assert not [state for state, _ in TRANSITIONS if state is State.OVER]
    closed = {state for state, by in TRANSITIONS if by is Input.CLOSE}
    assert closed == set(State) - {State.OVER}
    assert all(leads is State.OVER for (_, by), leads in TRANSITIONS.items() if by is Input.CLOSE)


# ---- a model


class Machine(RuleBasedStateMachine):
    """A sender that keeps to the rules, and a receiver that answers when it likes.

    Their messages cross: each direction is a queue. What counts must be the file, byte by byte.
    """

    @initialize()
    def start(self) -> None:
        self.it = Receiving()
        self.number = 0
        self.to_them: list[object] = []
        self.to_us: list[object] = []
        self.answered = True

    @precondition(lambda self: self.answered and not self.to_us and not self.to_them)
    @rule(size=st.integers(0, 12), ask=st.booleans(), here=st.integers(0, 12))
    def offer_a_file(self, size: int, ask: bool, here: int) -> None:
        self.number += 1
        self.size = size
        self.content = bytes(range(1, size + 1))
        self.it.offer(offer(self.number, size=size, ask=ask))
        self.here = bytearray(self.content[:here])
        """What the receiver has written; in front what earlier attempts left."""
        self.ask = ask
        self.at: int | None = None if ask else 0
        """Where the sender goes on; None: it waits."""
        self.ended = False
        self.accepted = False
        self.owes_digest = False
        self.answered = False
        self.whole = False

    # ---- the sender

    @precondition(
        lambda self: self.number and self.at is not None and self.at < self.size and not self.ended
    )
    @rule(count=st.integers(1, 5))
    def send_chunk(self, count: int) -> None:
        assert self.at is not None
        data = self.content[self.at : self.at + count]
        self.to_us.append(Chunk(self.number, data))
        self.at += len(data)

    @precondition(lambda self: self.number and self.at == self.size and not self.ended)
    @rule()
    def send_end(self) -> None:
        self.to_us.append(End(self.number, self.size))
        self.ended = True

    @precondition(lambda self: self.to_them)
    @rule(same=st.booleans())
    def sender_reads(self, same: bool) -> None:
        message = self.to_them.pop(0)
        if isinstance(message, int):
            self.at = message if same else 0
            self.to_us.append(Begin(self.number, self.at))
            self.ended = False
        else:
            self.to_us.append(Cancel(self.number))
            self.at = None

    # ---- the receiver

    @precondition(lambda self: self.to_us)
    @rule()
    def receiver_reads(self) -> None:
        match self.to_us.pop(0):
            case Begin() as begin:
                if self.it.begin(begin) is not None:
                    del self.here[begin.offset :]
            case Chunk() as chunk:
                offset = self.it.chunk(chunk)
                if offset is not None:
                    self.here[offset:] = chunk.data
            case End() as end:
                self.whole = self.it.end(end) is not None
            case Cancel() as cancel:
                assert self.it.cancel(cancel) is None, "it was refused before"

    @precondition(
        lambda self: self.number in self.it.open and not self.accepted and (self.ask or self.size)
    )
    @rule()
    def accept(self) -> None:
        # Without an earlier attempt it compares the whole with another file that is here.
        if not self.ask:
            self.here[:] = self.content
        self.accepted = True
        self.whole = False
        self.it.accept(self.number, len(self.here))
        self.owes_digest = bool(self.here)
        if not self.owes_digest:
            self.to_them.append(0)

    @precondition(lambda self: self.number in self.it.open and self.owes_digest)
    @rule()
    def tell_digest(self) -> None:
        self.it.prefix(self.number)
        self.to_them.append(len(self.here))
        self.owes_digest = False

    @precondition(lambda self: self.number in self.it.open and not self.whole)
    @rule()
    def refuse(self) -> None:
        self.it.close(self.number)
        self.to_them.append("refused")
        self.answered = True

    @precondition(lambda self: self.number and self.whole and self.number in self.it.open)
    @rule()
    def receipt(self) -> None:
        assert bytes(self.here) == self.content
        self.it.close(self.number)
        self.answered = True

    @invariant()
    def it_counts_what_it_has(self) -> None:
        assert (self.number in self.it.open) is not self.answered
        if (transfer := self.it.open.get(self.number)) is not None:
            assert 0 <= transfer.resumed <= transfer.received <= self.size
            if self.whole:
                assert transfer.received == self.size


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
