"""The sender's side of one file: which answers have a place, and what may be said when."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from securelink.errors import LocalProtocolError, RemoteProtocolError
from securelink.file_messages import Accept, Begin, End, Offer, Prefix
from securelink.transfer.sending import THEIRS, TRANSITIONS, Input, Outbound, State

ONE, OTHER = bytes(32), bytes([1]) * 32


def outbound(size: int | None = 10, **kwargs: Any) -> Outbound:
    return Outbound(
        Offer(
            id=bytes(16),
            group=bytes(16),
            number=7,
            name="a",
            size=size,
            mtime=0,
            mode=0o600,
            **kwargs,
        )
    )


def compared(accepted: int, ours: bytes = ONE, theirs: bytes = ONE) -> Outbound:
    it = outbound(ask=True)
    it.accept(Accept(7, accepted))
    it.prefix(Prefix(7, theirs))
    it.digested(ours)
    return it


# ---- how it goes


def test_bytes_go_unasked_when_there_was_no_earlier_attempt() -> None:
    it = outbound()
    assert it.state is State.SENDING
    it.sent(4)
    assert (it.state, it.offset) == (State.SENDING, 4)
    it.sent(6)
    assert it.state is State.WHOLE
    assert it.end() == End(7, 10)
    assert it.state is State.ENDED
    it.close()
    assert (it.state, it.resumed) == (State.OVER, 0)


def test_an_empty_file_is_whole_at_once() -> None:
    it = outbound(0)
    assert it.state is State.WHOLE
    assert it.end(ONE) == End(7, 0, ONE)


def test_a_folder_is_whole_at_once() -> None:
    it = outbound(0, folder=True)
    assert it.state is State.WHOLE
    it.close()
    assert it.state is State.OVER


def test_a_stream_ends_when_it_is_exhausted() -> None:
    it = outbound(None)
    it.sent(100)
    it.sent(1)
    assert it.state is State.SENDING
    it.exhausted()
    assert it.state is State.WHOLE
    assert it.end(ONE) == End(7, 101, ONE)


def test_it_goes_on_from_what_the_receiver_has() -> None:
    it = outbound(ask=True)
    assert it.state is State.ASKING
    it.accept(Accept(7, 4))
    assert (it.state, it.accepted, it.is_compared) == (State.COMPARING, 4, False)
    it.prefix(Prefix(7, ONE))
    assert not it.is_compared
    it.digested(ONE)
    assert it.is_compared
    assert it.begin() == Begin(7, 4)
    assert (it.state, it.offset, it.resumed) == (State.SENDING, 4, 4)
    it.sent(6)
    assert it.end() == End(7, 10)


def test_it_does_not_matter_who_has_digested_first() -> None:
    it = outbound(ask=True)
    it.accept(Accept(7, 4))
    it.digested(ONE)
    assert not it.is_compared
    it.prefix(Prefix(7, ONE))
    assert it.begin() == Begin(7, 4)


def test_it_starts_over_when_the_prefix_differs() -> None:
    it = compared(4, ONE, OTHER)
    assert it.begin() == Begin(7, 0)
    assert (it.state, it.offset, it.resumed) == (State.SENDING, 0, 0)


def test_it_starts_at_the_start_when_nothing_is_there() -> None:
    it = outbound(ask=True)
    it.accept(Accept(7, 0))
    assert it.is_compared
    assert it.begin() == Begin(7, 0)
    assert it.state is State.SENDING


@pytest.mark.parametrize("size", [0, 10])
def test_what_is_there_whole_needs_no_chunk(size: int) -> None:
    it = outbound(size, ask=True)
    it.accept(Accept(7, size))
    if size:
        it.prefix(Prefix(7, ONE))
        it.digested(ONE)
    assert it.begin() == Begin(7, size)
    assert it.state is State.WHOLE
    assert it.end() == End(7, size)


@pytest.mark.parametrize("sent", [(), (4,), (10,), (10, "end")])
@pytest.mark.parametrize("same", [True, False])
def test_the_receiver_may_have_something_to_compare_unasked(
    sent: tuple[Any, ...], *, same: bool
) -> None:
    it = outbound()
    for each in sent:
        it.end() if each == "end" else it.sent(each)
    it.accept(Accept(7, 10))
    it.prefix(Prefix(7, ONE))
    it.digested(ONE if same else OTHER)
    assert it.begin() == Begin(7, 10 if same else 0)
    assert it.state is (State.WHOLE if same else State.SENDING)
    assert it.offset == (10 if same else 0)


# ---- what the receiver must not say


@pytest.mark.parametrize(
    ("make", "offset"),
    [
        pytest.param(lambda: outbound(ask=True), 11, id="more than there is"),
        pytest.param(outbound, 11, id="more than there is, unasked"),
        pytest.param(outbound, 0, id="nothing, unasked"),
        pytest.param(lambda: outbound(None), 1, id="of a stream"),
        pytest.param(lambda: outbound(0, folder=True), 0, id="of a folder"),
        pytest.param(lambda: outbound(0), 0, id="nothing of nothing, unasked"),
    ],
)
def test_offsets_that_can_not_be_accepted(make: Callable[[], Outbound], offset: int) -> None:
    with pytest.raises(RemoteProtocolError):
        make().accept(Accept(7, offset))


@pytest.mark.parametrize("after", ["accept", "begin", "whole", "end"])
def test_a_file_is_accepted_once(after: str) -> None:
    it = outbound(ask=True)
    it.accept(Accept(7, 0))
    if after != "accept":
        it.begin()
    if after in {"whole", "end"}:
        it.sent(10)
    if after == "end":
        it.end()
    with pytest.raises(RemoteProtocolError):
        it.accept(Accept(7, 10))


def test_a_digest_comes_once_and_of_something() -> None:
    it = compared(4)
    with pytest.raises(RemoteProtocolError, match="second"):
        it.prefix(Prefix(7, ONE))
    it = outbound(ask=True)
    it.accept(Accept(7, 0))
    with pytest.raises(RemoteProtocolError, match="nothing"):
        it.prefix(Prefix(7, ONE))


@pytest.mark.parametrize("make", [outbound, lambda: outbound(ask=True), lambda: outbound(0)])
def test_no_digest_comes_before_an_offset(make: Callable[[], Outbound]) -> None:
    with pytest.raises(RemoteProtocolError):
        make().prefix(Prefix(7, ONE))


# ---- what we must not do


def test_it_begins_only_when_both_have_digested() -> None:
    it = outbound(ask=True)
    with pytest.raises(LocalProtocolError):
        it.begin()
    it.accept(Accept(7, 4))
    with pytest.raises(LocalProtocolError):
        it.begin()
    it.digested(ONE)
    with pytest.raises(LocalProtocolError):
        it.begin()
    with pytest.raises(LocalProtocolError):
        outbound().begin()


def test_it_ends_only_when_all_has_gone() -> None:
    it = outbound()
    it.sent(9)
    with pytest.raises(LocalProtocolError):
        it.end()
    it.sent(1)
    it.end()
    with pytest.raises(LocalProtocolError):
        it.end()
    with pytest.raises(LocalProtocolError):
        it.exhausted()


def test_it_is_closed_once() -> None:
    it = outbound()
    it.close()
    with pytest.raises(LocalProtocolError):
        it.close()
    with pytest.raises(RemoteProtocolError):
        it.accept(Accept(7, 4))


# ---- the table


@pytest.mark.parametrize(("state", "by"), list(itertools.product(State, Input)))
def test_every_state_with_every_input(state: State, by: Input) -> None:
    allowed = {
        (State.ASKING, Input.ACCEPT): State.COMPARING,
        (State.SENDING, Input.ACCEPT): State.COMPARING,
        (State.WHOLE, Input.ACCEPT): State.COMPARING,
        (State.ENDED, Input.ACCEPT): State.COMPARING,
        (State.COMPARING, Input.PREFIX): State.COMPARING,
        (State.COMPARING, Input.BEGIN): State.SENDING,
        (State.SENDING, Input.ALL_SENT): State.WHOLE,
        (State.WHOLE, Input.END): State.ENDED,
    }
    if by is Input.CLOSE and state is not State.OVER:
        assert TRANSITIONS[state, by] is State.OVER
    else:
        assert TRANSITIONS.get((state, by)) is allowed.get((state, by))


def test_what_is_theirs() -> None:
    assert frozenset({Input.ACCEPT, Input.PREFIX}) == THEIRS
