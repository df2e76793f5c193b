"""How far files are on their way: the truth at one moment, and what several moments tell."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from securelink.progress import (
    STALLED_AFTER,
    WINDOW,
    Meter,
    Phase,
    Reading,
    Snapshot,
    incoming,
)

NOTHING = Reading(None, None, None)


def a_snapshot(**changes) -> Snapshot:
    known = {"name": "a.jpg", "phase": Phase.MOVING, "done": 0, "moved": 0, "size": 1000}
    return Snapshot(**known | changes)


def moving(moved: int, *, resumed: int = 0, size: int | None = 1000) -> Snapshot:
    return a_snapshot(done=resumed + moved, resumed=resumed, moved=moved, size=size)


# ---- one moment


@pytest.mark.parametrize(
    ("done", "size", "percent"),
    [
        (0, 1000, 0),
        (9, 1000, 0),
        (10, 1000, 1),
        (425, 1000, 42),
        (999, 1000, 99),
        (1000, 1000, 99),
        (1001, 1000, 99),
        (5, None, None),
        (0, 0, None),
    ],
)
@pytest.mark.parametrize("phase", Phase)
def test_nothing_is_complete_before_the_receipt(done, size, percent, phase):
    assert a_snapshot(done=done, size=size, phase=phase).percent == percent


@pytest.mark.parametrize(
    ("phase", "done", "size", "stage"),
    [
        (Phase.MOVING, 999, 1000, Phase.MOVING),
        (Phase.MOVING, 1000, 1000, Phase.FINISHING),
        (Phase.MOVING, 0, 0, Phase.FINISHING),
        (Phase.MOVING, 10**9, None, Phase.MOVING),
        (Phase.COMPARING, 1000, 1000, Phase.COMPARING),
        (Phase.CONNECTING, 1000, 1000, Phase.CONNECTING),
    ],
)
def test_when_all_has_gone_it_still_is_not_there(phase, done, size, stage):
    assert a_snapshot(phase=phase, done=done, size=size).stage is stage


# ---- several


def test_one_moment_tells_no_rate():
    assert Meter().feed(7.0, moving(100)) == NOTHING


def test_the_rate_and_the_time_left():
    meter = Meter()
    meter.feed(7.0, moving(0))
    assert meter.feed(8.0, moving(100)) == Reading(100.0, 9.0, None)
    assert meter.feed(9.0, moving(300)) == Reading(150.0, 700 / 150, None)
    assert meter.feed(9.5, moving(300, size=None)) == Reading(120.0, None, None)


def test_what_was_there_already_does_not_count_towards_the_rate():
    meter = Meter()
    meter.feed(0.0, a_snapshot())
    assert meter.feed(1.0, moving(10, resumed=890)) == Reading(10.0, 10.0, None)


def test_only_the_last_seconds_count():
    meter = Meter()
    meter.feed(0.0, moving(0, size=10**6))
    for second in range(1, 11):
        meter.feed(float(second), moving(1000 * second, size=10**6))
    for second in range(11, 11 + int(WINDOW)):
        reading = meter.feed(float(second), moving(10_000 + second - 10, size=10**6))
    assert reading.rate == 1.0


def test_the_wait_for_a_link_does_not_count():
    meter = Meter()
    meter.feed(0.0, a_snapshot(phase=Phase.CONNECTING))
    assert meter.feed(60.0, a_snapshot(phase=Phase.CONNECTING)) == NOTHING
    assert meter.feed(60.2, moving(0)) == NOTHING
    assert meter.feed(61.2, moving(100)) == Reading(100.0, 9.0, None)


@pytest.mark.parametrize("phase", [Phase.CONNECTING, Phase.COMPARING, Phase.FINISHING])
def test_what_takes_its_time_is_not_stalled(phase):
    meter = Meter()
    meter.feed(0.0, moving(10))
    for second in range(1, 100):
        assert meter.feed(float(second), a_snapshot(phase=phase, done=10, moved=10)) == NOTHING
    assert meter.feed(100.0, moving(10)) == NOTHING
    assert meter.feed(102.9, moving(10)).stalled is None


def test_stalled_after_three_seconds_and_not_a_moment_longer():
    meter = Meter()
    meter.feed(0.0, moving(10))
    meter.feed(1.0, moving(20))
    assert meter.feed(3.9, moving(20)).stalled is None
    assert meter.feed(4.0, moving(20)).stalled == STALLED_AFTER
    assert meter.feed(20.0, moving(20)) == Reading(0.0, None, 19.0)
    assert meter.feed(20.1, moving(21)).stalled is None
    assert meter.feed(23.0, moving(21)).stalled is None


def test_stalled_from_the_first_byte_on():
    meter = Meter()
    meter.feed(5.0, moving(0))
    assert meter.feed(8.0, moving(0)) == Reading(0.0, None, 3.0)


def test_two_moments_at_the_same_time():
    meter = Meter()
    assert meter.feed(1.0, moving(0)) == NOTHING
    assert meter.feed(1.0, moving(10)) == NOTHING
    assert meter.feed(2.0, moving(20)).rate == 20.0


def test_many_moments_are_not_all_kept():
    meter = Meter()
    for tick in range(100_000):
        meter.feed(tick / 10_000, moving(0))
    assert len(meter._moments) < 10 * WINDOW + 3


@given(
    st.lists(st.tuples(st.floats(0.001, 2), st.integers(0, 1000)), min_size=2),
    st.integers(0, 100),
)
def test_a_steady_rate_is_told_whenever_one_looks(steps, speed):
    meter, now, reading = Meter(), 0.0, NOTHING
    for seconds, _ in steps:
        now += seconds
        reading = meter.feed(now, moving(round(now * speed * 1000), size=None))
    assert reading.rate is not None
    assert reading.rate == pytest.approx(speed * 1000, rel=0.01, abs=2 / min(s for s, _ in steps))


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 1000), st.sampled_from(Phase))))
def test_a_reading_is_never_less_than_nothing(steps):
    meter, now, moved = Meter(), 0.0, 0
    for seconds, more, phase in steps:
        now += seconds
        moved += more
        size = moved + more
        reading = meter.feed(now, a_snapshot(phase=phase, done=moved, moved=moved, size=size))
        for value in (reading.rate, reading.left, reading.stalled):
            assert value is None or value >= 0


# ---- what comes in


@dataclass
class File:
    peer: str = "bob"
    name: str = "photos/a.jpg"
    size: int | None = 100
    received: int = 42
    resumed: int = 0
    is_compared: bool = False


def test_nothing_comes_in():
    assert incoming([], 7) is None


def test_one_file_comes_in():
    assert incoming([File(resumed=2)], 7) == Snapshot(
        name="bob: photos/a.jpg", phase=Phase.MOVING, done=42, resumed=2, moved=7, size=100
    )


def test_several_files_come_in():
    files = [File(), File(resumed=3), File(peer="carol")]
    snapshot = incoming(files, 1000)
    assert snapshot == Snapshot(
        name="3 files from bob, carol",
        phase=Phase.MOVING,
        done=126,
        resumed=3,
        moved=1000,
        size=300,
    )
    assert incoming([*files, File(size=None)], 1000) == replace(
        snapshot, name="4 files from bob, carol", done=168, size=None
    )


def test_many_peers_are_not_all_named():
    files = [File(peer=peer) for peer in "abcde"]
    assert incoming(files, 0).name == "5 files from a, b, c and 2 more"
    assert incoming(files[:3], 0).name == "3 files from a, b, c"


def test_comparing_when_nothing_else_is_done():
    files = [File(is_compared=True), File(is_compared=True)]
    assert incoming(files, 0).phase is Phase.COMPARING
    assert incoming([*files, File()], 0).phase is Phase.MOVING
