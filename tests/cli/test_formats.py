"""Times, durations, sizes, messages and files, as people see them."""

from __future__ import annotations

import time

import pytest

from securelink.cli.formats import clock, duration, file_line, file_texts, message_line, size

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


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (2_345, "2.3 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (17_400, "17 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (2_300_000, "2.3 MB"),
        (123_456_789, "123 MB"),
        (999_999_999, "1.0 GB"),
        (5 * 10**12, "5.0 TB"),
        (10**15, "1.0 PB"),
        (2**63 - 1, "9.2 EB"),
        (10**22, "10000 EB"),
    ],
)
def test_sizes(count, expected):
    assert size(count) == expected


def test_a_file_as_a_person_reads_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice/")
    path = "/home/alice/Downloads/securelink/bob/photos/a.jpg"
    line = file_line(NOON, "bob", "photos/a.jpg", path, 2_300_000)
    _, what = line.split(" bob ")
    assert what == "photos/a.jpg (2.3 MB) -> ~/Downloads/securelink/bob/photos/a.jpg"
    assert file_line(NOON, "bob", "photos/a.jpg", path, 2_300_000, columns=len(line)) == line
    first, second = file_line(
        NOON, "bob", "photos/a.jpg", path, 2_300_000, columns=len(line) - 1
    ).split("\n")
    assert first.endswith(" bob photos/a.jpg (2.3 MB)")
    assert second == "      -> ~/Downloads/securelink/bob/photos/a.jpg"
    assert file_line(NOON, "bob", "f", "/f", None, columns=200).endswith(" bob f/ -> /f")


def test_wide_characters_take_their_room():
    line = file_line(NOON, "bob", "写真" * 10, "/f", 5)
    assert "\n" in file_line(NOON, "bob", "写真" * 10, "/f", 5, columns=len(line) + 19)
    assert "\n" not in file_line(NOON, "bob", "写真" * 10, "/f", 5, columns=len(line) + 20)


@pytest.mark.parametrize(
    ("home", "path", "expected"),
    [
        ("/home/alice", "/home/alicia/f", "/home/alicia/f"),
        ("/home/alice", "/srv/home/alice/f", "/srv/home/alice/f"),
        ("/home/alice", "/home/alice", "/home/alice"),
        ("/", "/srv/f", "/srv/f"),
        ("/home/alice", "/home/alice/\x1b[2J\n\u202e\udcff", "~/\\x1b[2J\\x0a\\u202e\\udcff"),
    ],
)
def test_where_a_file_lies(home, path, expected, monkeypatch):
    monkeypatch.setenv("HOME", home)
    assert file_texts("f\n\x1b", path, 0) == ("f\\x0a\\x1b (0 B)", f"-> {expected}")
