"""Times and durations, as people see them."""

from __future__ import annotations

import time

import pytest

from securelink.cli.formats import clock, duration, message_line

NOON = 1_795_608_000_000  # 2026-11-25T12:00:00Z


@pytest.fixture
def zone(monkeypatch):
    def set_zone(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield set_zone
    monkeypatch.undo()
    time.tzset()


def test_the_clock_is_local_and_has_a_date_when_that_is_not_today(zone):
    zone("UTC-2")  # POSIX: two hours east
    assert clock(NOON, now_ms=NOON + 3_600_000) == "14:00"
    assert clock(NOON, now_ms=NOON + 43_200_000) == "2026-11-25 14:00"
    zone("UTC+13")
    assert clock(NOON, now_ms=NOON) == "23:00"
    assert clock(NOON, now_ms=NOON + 3_600_000) == "2026-11-24 23:00"


@pytest.mark.parametrize("name", ["UTC-14", "UTC+12"])
def test_the_clock_bears_what_a_peer_claims(name, zone):
    zone(name)
    assert clock(2**64 - 1).startswith("9999-12-3")
    assert clock(0).startswith(("1970-01-01", "1969-12-31"))


def test_now_is_the_default():
    assert len(clock(int(time.time() * 1000))) in (len("14:05"), len("2026-11-25 14:05"))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.00 s"),
        (0.04, "0.04 s"),
        (1.53, "1.5 s"),
        (12.3, "12 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "24 h"),
        (3 * 86400 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def test_a_message_as_a_person_reads_it():
    assert message_line(NOON, "bob", "hello\n").endswith(" bob hello")
    first, second, third = message_line(NOON, "bob", "two\n\nlines\r\n").split("\n")
    assert first.endswith(" bob two")
    assert (second, third) == ("      ", "      lines")
