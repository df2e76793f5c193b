"""How much may stand in the kernel, by how fast it leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.pacing import LARGEST, MOMENT, SMALLEST, WINDOW, Pace

MB = 1_000_000


def at_speed(speed: float, seconds: float = 1.0, step: float = 0.001) -> Pace:
    pace = Pace(0)
    for tick in range(1, int(seconds / step) + 1):
        pace.sent(int(speed * step), tick * step)
    return pace


@pytest.mark.parametrize(
    ("speed", "expected"),
    [
        (0, SMALLEST),
        (1 * MB, SMALLEST),
        (20 * MB, SMALLEST),
        (30 * MB, 2 * SMALLEST),
        (60 * MB, LARGEST),
        (3000 * MB, LARGEST),
    ],
)
def test_it_follows_the_speed(speed: int, expected: int) -> None:
    assert at_speed(speed).low_water == expected


def test_it_tells_when_it_has_changed_and_forgets_what_was() -> None:
    pace = Pace(0)
    assert not pace.sent(100 * MB, WINDOW / 2)
    assert pace.sent(0, WINDOW)
    assert pace.low_water == LARGEST
    assert not pace.sent(100 * MB, 2 * WINDOW)
    # A pause, and then a text.
    assert pace.sent(84, 60)
    assert pace.low_water == SMALLEST


@given(speed=st.floats(0, 1e10))
def test_a_receipt_waits_for_a_moment_at_most_or_behind_the_least(speed: float) -> None:
    low_water = at_speed(speed, 0.2).low_water
    assert SMALLEST <= low_water <= LARGEST
    assert low_water == SMALLEST or low_water <= speed * MOMENT * 1.01
