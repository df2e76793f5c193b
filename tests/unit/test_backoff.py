"""The delays between attempts."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.backoff import JITTER, delays


def test_they_double_up_to_the_longest_and_stay_there() -> None:
    assert list(islice(delays(0.5, 5, lambda: 0.0), 6)) == [0.5, 1, 2, 4, 5, 5]


def test_chance_shortens_each_anew() -> None:
    numbers = iter([0.0, 1.0, 0.5])
    assert list(islice(delays(1, 100, lambda: next(numbers)), 3)) == [1, 1.5, 3.5]


@given(st.floats(0.01, 10), st.floats(10, 1000), st.randoms(use_true_random=False))
def test_none_leaves_its_bounds(first: float, longest: float, random) -> None:
    whole = list(islice(delays(first, longest, lambda: 0.0), 50))
    for delay, bound in zip(delays(first, longest, random.random), whole, strict=False):
        assert bound * (1 - JITTER) <= delay <= bound <= longest
    assert whole[-1] == longest


def test_they_never_end() -> None:
    generator = delays(1, 1, lambda: 0.0)
    assert [next(generator) for _ in range(10_000)] == pytest.approx([1.0] * 10_000)
