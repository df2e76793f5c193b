"""How much a peer may bring: every limit, at the offer and while it comes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from securelink import descriptors
from securelink.admission import (
    DISK_FULL,
    FILE_COST,
    LOOK_EVERY,
    NOT_ALLOWED,
    QUOTA,
    TOO_LARGE,
    Booking,
    Refusal,
    Room,
)
from securelink.config import ConfiguredPeerFiles, FilesConfig

KEEP = 1000
COUNTED = {"quota": "used", "total": "total"}


@dataclass
class Disk:
    """What a folder would say, and how often it was asked to count."""

    space: int = 1 << 30
    mine: int = 0
    all: int = 0
    counts: list[str] = field(default_factory=list)

    def free(self) -> int:
        self.counts.append("free")
        return self.space

    def used(self) -> int:
        self.counts.append("used")
        return self.mine

    def total(self) -> int:
        self.counts.append("total")
        return self.all


def room(**limits: Any) -> Room:
    return Room(FilesConfig(**{"keep_free": KEEP} | limits))


def booked(found: Booking | Refusal) -> Booking:
    assert isinstance(found, Booking)
    return found


def test_without_limits_nothing_is_counted() -> None:
    disk = Disk()
    booking = booked(room().book("bob", disk, 10**8))
    assert booking.take(10**8) is None
    booking.release()
    assert set(disk.counts) == {"free"}


def test_who_may_send_no_files_sends_none() -> None:
    peers = {"eve": ConfiguredPeerFiles(accept=False)}
    assert room(peers=peers).book("eve", Disk(), 1) == NOT_ALLOWED
    assert isinstance(room(peers=peers).book("bob", Disk(), 1), Booking)
    assert room(accept=False).book("bob", Disk(), 1) == NOT_ALLOWED


def test_a_file_is_no_larger_than_the_largest() -> None:
    it = room(largest=100)
    assert it.book("bob", Disk(), 101) == TOO_LARGE
    # Also when most of it is here already.
    assert it.book("bob", Disk(), 101, 100) == TOO_LARGE
    assert isinstance(it.book("bob", Disk(), 100), Booking)


def test_a_stream_is_no_larger_than_the_largest() -> None:
    booking = booked(room(largest=100).book("bob", Disk(), None))
    assert booking.take(60) is None
    assert booking.take(40) is None
    assert booking.take(1) == TOO_LARGE


def test_so_much_stays_free() -> None:
    it = room()
    assert it.book("bob", Disk(KEEP + 10), 11) == DISK_FULL
    assert isinstance(it.book("bob", Disk(KEEP + 10), 11, 1), Booking)
    assert it.book("bob", Disk(KEEP - 1), 0) == DISK_FULL


def test_what_was_promised_is_not_free() -> None:
    it, disk = room(), Disk(KEEP + 10)
    first = booked(it.book("bob", disk, 6))
    assert it.book("eve", disk, 5) == DISK_FULL
    first.take(4)
    disk.space -= 4
    assert it.book("eve", disk, 5) == DISK_FULL
    booked(it.book("eve", disk, 4)).release()
    first.release(dropped=4)
    disk.space += 4
    assert isinstance(it.book("eve", disk, 10), Booking)


def test_others_fill_the_disk_too() -> None:
    disk = Disk()
    booking = booked(room().book("bob", disk, 3 * LOOK_EVERY))
    assert booking.take(LOOK_EVERY) is None
    disk.space = KEEP - 1
    assert booking.take(LOOK_EVERY - 1) is None
    assert booking.take(1) == DISK_FULL


def test_the_disk_is_looked_at_now_and_then() -> None:
    it, disk = room(), Disk()
    for _ in range(10 * LOOK_EVERY // FILE_COST):
        booked(it.book("bob", disk, 0)).release()
    assert disk.counts == ["free"] * 10
    for _ in range(16):
        booking = booked(it.book("bob", disk, LOOK_EVERY // 2))
        assert booking.take(LOOK_EVERY // 2) is None
        booking.release()
    assert 18 <= len(disk.counts) <= 20


def test_a_file_may_take_the_last_byte_that_is_to_spare() -> None:
    disk = Disk(KEEP + LOOK_EVERY)
    booking = booked(room().book("bob", disk, LOOK_EVERY))
    disk.space = KEEP
    assert booking.take(LOOK_EVERY) is None


def test_a_stream_leaves_so_much_free() -> None:
    disk = Disk(KEEP + 10)
    booking = booked(room().book("bob", disk, None))
    assert booking.take(10) is None
    disk.space -= 10
    assert booking.take(1) == DISK_FULL


@pytest.mark.parametrize("limit", ["quota", "total"])
def test_a_folder_is_no_larger_than_its_limit(limit: str) -> None:
    it, disk = room(**{limit: 100}), Disk(mine=90, all=90)
    assert it.book("bob", disk, 11) == QUOTA
    booking = booked(it.book("bob", disk, 10))
    assert it.book("bob", disk, 1) == QUOTA
    booking.take(10)
    booking.release()
    disk.mine = disk.all = 100
    assert it.book("bob", disk, 1) == QUOTA
    # Somebody has tidied up: that is seen before the answer is no.
    disk.mine = disk.all = 50
    assert isinstance(it.book("bob", disk, 50), Booking)


@pytest.mark.parametrize("limit", ["quota", "total"])
def test_files_are_counted_again_only_before_a_no(limit: str) -> None:
    it, disk = room(**{limit: 100}), Disk()
    for _ in range(10):
        booking = booked(it.book("bob", disk, 10))
        booking.take(10)
        booking.release()
    assert [each for each in disk.counts if each != "free"] == [COUNTED[limit]]
    disk.mine = disk.all = 100
    assert it.book("bob", disk, 10) == QUOTA
    assert [each for each in disk.counts if each != "free"] == [COUNTED[limit]] * 2


@pytest.mark.parametrize("limit", ["quota", "total"])
def test_a_stream_keeps_to_the_folders_limit(limit: str) -> None:
    disk = Disk(mine=90, all=90)
    booking = booked(room(**{limit: 100}).book("bob", disk, None))
    assert booking.take(10) is None
    disk.mine = disk.all = 100
    assert booking.take(1) == QUOTA


def test_a_quota_is_a_peers_own() -> None:
    it = room(quota=100, peers={"ann": ConfiguredPeerFiles(quota=200)})
    disk = Disk()
    booked(it.book("bob", disk, 100))
    assert it.book("bob", disk, 1) == QUOTA
    assert isinstance(it.book("ann", disk, 200), Booking)
    assert it.book("ann", disk, 1) == QUOTA


def test_the_total_is_everybodys() -> None:
    it, disk = room(total=100), Disk()
    booked(it.book("bob", disk, 60))
    assert it.book("ann", disk, 41) == QUOTA
    assert isinstance(it.book("ann", disk, 40), Booking)


def test_what_is_dropped_makes_room() -> None:
    it, disk = room(quota=100), Disk()
    booking = booked(it.book("bob", disk, 80))
    booking.take(50)
    booking.release(dropped=50)
    assert isinstance(it.book("bob", disk, 100), Booking)
    assert disk.counts.count("used") == 1


def test_what_starts_over_is_promised_anew() -> None:
    it, disk = room(quota=100), Disk(mine=60)
    booking = booked(it.book("bob", disk, 100, 60))
    assert booking.start_over(60) is None
    assert disk.counts.count("used") == 1
    disk.mine = 0
    assert it.book("bob", disk, 1) == QUOTA
    booking.take(100)
    booking.release()
    disk.mine = 100
    assert it.book("bob", disk, 1) == QUOTA


def test_what_starts_over_may_not_fit_any_more() -> None:
    it, disk = room(), Disk(KEEP + 40)
    booking = booked(it.book("bob", disk, 100, 60))
    disk.space = KEEP + 60
    assert booking.start_over(60) == DISK_FULL


def test_of_the_files_that_may_be_open_a_peer_leaves_others_as_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(descriptors, "allowed", lambda: 64)
    shared = room()

    def open_all(peer: str) -> int:
        count = 0
        while shared.open_part(peer):
            count += 1
        return count

    assert [open_all(peer) for peer in ("bob", "carol", "dave")] == [16, 8, 4]
    assert shared.parts == 28
    shared.close_part("bob")
    assert shared.parts == 27
    assert open_all("bob") == 0, "others have opened some since"
    assert open_all("erin") == 3
