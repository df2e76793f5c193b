"""Times and durations as people type them."""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.cli.formats import duration
from securelink.cli.moments import parse_duration, parse_moment
from securelink.errors import UsageError
from securelink.events import rfc3339

# 2026-11-22T21:30:00Z, which is 22:30 in this zone.
NOW = int(datetime(2026, 11, 22, 21, 30, tzinfo=UTC).timestamp() * 1000)


@pytest.fixture(autouse=True)
def an_hour_east(monkeypatch):
    monkeypatch.setenv("TZ", "XXX-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("15m", 900),
        ("15 min", 900),
        ("24h", 86_400),
        ("3D", 259_200),
        (" 2w ", 1_209_600),
        ("1d 12h", 129_600),
        ("1h30min5s", 5405),
        ("0s", 0),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "3", "h", "-3h", "3 hours", "1.5h", "3h!", "3hh", "٣h", "1" * 10 + "s", "2h " * 99 + "x"],
)
def test_what_is_no_duration(text):
    with pytest.raises(UsageError, match="is not a duration") as raised:
        parse_duration(text)
    assert len(raised.value.message) < 80
    assert raised.value.hint


@given(st.integers(10, 10**8))
def test_what_is_printed_can_be_typed(seconds):
    printed = duration(seconds)
    assert duration(parse_duration(printed)) == printed


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", "2026-11-22T19:30:00.000Z"),
        ("3d", "2026-11-19T21:30:00.000Z"),
        ("99999999w", "1970-01-01T00:00:00.000Z"),
        ("2026-11-01", "2026-10-31T23:00:00.000Z"),
        ("2026-11-01 14:05", "2026-11-01T13:05:00.000Z"),
        (" 2026-11-01T14:05:30 ", "2026-11-01T13:05:30.000Z"),
        ("2026-11-01T14:05:30.250Z", "2026-11-01T14:05:30.250Z"),
        ("2026-11-01T14:05+02:00", "2026-11-01T12:05:00.000Z"),
        ("1969-01-01", "1970-01-01T00:00:00.000Z"),
        # A time of day is the last one that has been.
        ("22:30", "2026-11-22T21:30:00.000Z"),
        ("22:31", "2026-11-21T21:31:00.000Z"),
        ("9:05", "2026-11-22T08:05:00.000Z"),
        ("23:59", "2026-11-21T22:59:00.000Z"),
    ],
)
def test_moments(text, moment):
    assert rfc3339(parse_moment(text, now_ms=NOW)) == moment


def test_now_is_the_clock_s():
    assert abs(parse_moment("0s") - time.time() * 1000) < 60_000


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026", "2026-13-01", "24:00", "14:60", "0001-01-01T00:00+23:00", "x" * 1000],
)
def test_what_is_no_moment(text):
    with pytest.raises(UsageError, match="is neither a date nor a duration") as raised:
        parse_moment(text, now_ms=NOW)
    assert len(raised.value.message) < 80


@given(st.text())
def test_any_text_is_a_moment_or_a_usage_error(text):
    with contextlib.suppress(UsageError):
        assert parse_moment(text, now_ms=NOW) >= 0
