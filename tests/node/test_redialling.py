"""When a peer is dialled again, and what of it is worth a line."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.errors import (
    LinkClosed,
    LinkTruncated,
    NotThem,
    PeerRefused,
    SecurelinkError,
    Unreachable,
)
from securelink.redialling import FIRST_DELAY, LONGEST_DELAY, LONGEST_REFUSED, Redial


def steady() -> float:
    return 0.0


@pytest.mark.parametrize(
    ("error", "longest"),
    [
        (Unreachable("no answer"), LONGEST_DELAY),
        (LinkTruncated("broke off"), LONGEST_DELAY),
        (NotThem("somebody else"), LONGEST_REFUSED),
        (PeerRefused("not paired"), LONGEST_REFUSED),
    ],
)
def test_delays_grow_to_their_bound(error: SecurelinkError, longest: float) -> None:
    redial = Redial(steady)
    found = [redial.after(error) for _ in range(14)]
    assert found[0] == (FIRST_DELAY, True)
    assert found[-1] == (longest, False)
    delays = [delay for delay, _ in found]
    assert all(
        b == min(2 * a, longest) for a, b in zip(delays, islice(delays, 1, None), strict=False)
    )


def test_another_failure_is_news_and_brings_nothing_nearer() -> None:
    redial = Redial(steady)
    for _ in range(3):
        redial.after(Unreachable("no answer"))
    assert redial.after(NotThem("somebody else")) == (8 * FIRST_DELAY, True)
    assert redial.after(NotThem("somebody else")) == (16 * FIRST_DELAY, False)
    assert redial.after(Unreachable("no answer")) == (32 * FIRST_DELAY, True)


@given(st.lists(st.sampled_from([Unreachable, LinkTruncated, LinkClosed, NotThem, PeerRefused])))
def test_who_fails_in_ever_other_ways_sets_no_pace(kinds: list[type[SecurelinkError]]) -> None:
    redial = Redial(steady)
    told = None
    for number, kind in enumerate(kinds):
        delay, is_news = redial.after(kind("no"))
        assert delay >= min(FIRST_DELAY * 2**number, LONGEST_DELAY)
        assert is_news is (kind is not told)
        told = kind


def test_a_failure_for_long_makes_nobody_wait_longer_for_another_kind() -> None:
    redial = Redial(steady)
    for _ in range(14):
        redial.after(PeerRefused("not paired"))
    assert redial.after(Unreachable("no answer")) == (LONGEST_DELAY, True)
    assert redial.after(PeerRefused("not paired")) == (LONGEST_DELAY, True)
    assert redial.after(PeerRefused("not paired")) == (2 * LONGEST_DELAY, False)


def test_a_ready_link_begins_it_anew() -> None:
    redial = Redial(steady)
    redial.after(Unreachable("no answer"))
    redial.after(Unreachable("no answer"))
    redial.ready()
    assert redial.after(Unreachable("no answer")) == (FIRST_DELAY, True)


def test_what_hastens_it_is_no_news() -> None:
    redial = Redial(steady)
    for _ in range(5):
        redial.after(Unreachable("no answer"))
    redial.hasten()
    assert redial.after(Unreachable("no answer")) == (FIRST_DELAY, False)
    assert redial.after(Unreachable("no answer")) == (2 * FIRST_DELAY, False)
    redial.hasten()
    assert redial.after(NotThem("somebody else")) == (FIRST_DELAY, True)
    assert redial.after(NotThem("somebody else")) == (2 * FIRST_DELAY, False)


def test_many_do_not_come_back_together() -> None:
    assert {Redial().after(Unreachable("no answer"))[0] for _ in range(50)} != {FIRST_DELAY}
