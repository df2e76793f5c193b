"""What stands in the outbox, for a person."""

from __future__ import annotations

import sqlite3

import pytest

from securelink.errors import UsageError
from securelink.ids import to_text, uuid7
from securelink.store import notices, outbox, outbox_files, outbox_list, tries
from securelink.store.file_terms import Kind, NewFile
from securelink.store.outbox import DAY, HANDED_KEPT, State
from securelink.store.outbox_list import Entry

BOB = b"b" * 32
EVE = b"e" * 32
NOW = 50_000


def number(value: int) -> bytes:
    return uuid7(value, value.to_bytes(10, "big"))


def put(
    conn: sqlite3.Connection,
    value: int = 1,
    text: str = "hello",
    *,
    peer: bytes = BOB,
    sent_at: int = 10_000,
    owner: str | None = None,
    life: int | None = None,
) -> int:
    return outbox.put(
        conn,
        message_id=number(value),
        peer=peer,
        text=text,
        sent_at=sent_at,
        owner=owner,
        life=life,
    )


def put_files(
    conn: sqlite3.Connection,
    *names: str,
    group: int = 100,
    peer: bytes = BOB,
    owner: str | None = None,
    kind: Kind = Kind.FILE,
    life: int | None = None,
    first: int = 1,
) -> list[int]:
    made = iter(range(group + first, group + 1000))
    files = [NewFile(name, f"/{group}/{name}".encode(), kind, 5, 1, 1, 0o600) for name in names]
    put = outbox_files.put(
        conn,
        peer=peer,
        files=files,
        group=number(group),
        new_id=lambda: number(next(made)),
        sent_at=20_000,
        owner=owner,
        life=life,
    )
    return [each.seq for each in put]


def one(conn: sqlite3.Connection, *, everything: bool = False) -> Entry:
    (entry,) = outbox_list.entries(conn, NOW, everything=everything)
    return entry


def receipt(conn: sqlite3.Connection, seq: int, peer: bytes = BOB) -> None:
    (found,) = conn.execute("SELECT id FROM outbox WHERE seq = ?", (seq,)).fetchone()
    outbox.delivered(conn, peer=peer, message_id=found, now=30_000)


def refuse(conn: sqlite3.Connection, seq: int, *, permanent: bool) -> None:
    (found,) = conn.execute("SELECT id FROM outbox WHERE seq = ?", (seq,)).fetchone()
    outbox.refused(
        conn, peer=BOB, message_id=found, permanent=permanent, reason="too long", now=30_000
    )


def test_nothing(conn: sqlite3.Connection) -> None:
    assert outbox_list.entries(conn, NOW) == []
    assert outbox_list.peers_with_queued(conn) == []
    assert outbox_list.queued(conn, BOB) == []


def test_a_text(conn: sqlite3.Connection) -> None:
    put(conn, text="x" * 1000)
    entry = one(conn)
    assert (entry.id, entry.peer, entry.kind, entry.name) == (number(1), BOB, "text", "")
    assert (entry.excerpt, entry.sent_at) == ("x" * outbox_list.EXCERPT, 10_000)
    assert (entry.state, entry.is_open, entry.owned) == (State.WAITING, True, False)
    assert (entry.files, entry.size, entry.tries) == (0, 0, 0)
    assert (entry.reason, entry.left) == (None, None)


def test_what_is_listed_and_what_only_with_all(conn: sqlite3.Connection) -> None:
    outbox.prune(conn, 0)
    seqs = [put(conn, value) for value in range(1, 7)]
    expiring = put(conn, 7, life=DAY)
    waiting, handed, delivered, refused, withdrawn, cancelled = seqs
    outbox.hand(conn, [handed, delivered, refused, cancelled], NOW)
    receipt(conn, delivered)
    refuse(conn, refused, permanent=True)
    outbox.withdraw(conn, withdrawn, NOW)
    outbox.cancel(conn, [cancelled], NOW)
    outbox.prune(conn, DAY)
    told = [State.WAITING, State.HANDED, State.REFUSED, State.UNCONFIRMED, State.EXPIRED]
    assert [each.state for each in outbox_list.entries(conn, NOW)] == told
    assert [each.state for each in outbox_list.entries(conn, NOW, everything=True)] == [
        State.WAITING,
        State.HANDED,
        State.DELIVERED,
        State.REFUSED,
        State.WITHDRAWN,
        State.UNCONFIRMED,
        State.EXPIRED,
    ]
    assert (waiting, expiring) == (1, 7)


def test_a_queued_file_that_was_dropped_is_listed(conn: sqlite3.Connection) -> None:
    (gone,) = put_files(conn, "gone", group=100)
    (cancelled,) = put_files(conn, "cancelled", group=200)
    outbox.withdraw(conn, gone, NOW)
    notices.add(conn, [gone], NOW)
    outbox.cancel(conn, [cancelled], NOW)
    entry = one(conn)
    assert (entry.name, entry.state) == ("gone", State.WITHDRAWN)


@pytest.mark.parametrize("delivered", [False, True])
def test_of_a_folder_sent_again_the_newest_attempt_counts(
    conn: sqlite3.Connection, delivered: bool
) -> None:
    names = ["photos", "photos/a", "photos/b"]
    for attempt in (1, 2):
        seqs = put_files(conn, *names, first=attempt * 10)
        outbox.hand(conn, seqs, NOW)
        refuse(conn, seqs[2], permanent=True)
        for seq in seqs[:2] if attempt == 1 or delivered else []:
            receipt(conn, seq)
    entry = one(conn)
    assert (entry.name, entry.files, entry.size) == ("photos", 3, 15)
    expected = {State.REFUSED: 1} | ({State.DELIVERED: 2} if delivered else {State.HANDED: 2})
    assert entry.states == expected


def test_only_those_for_one_peer(conn: sqlite3.Connection) -> None:
    put(conn, 1)
    put(conn, 1, peer=EVE)
    put_files(conn, "a", peer=EVE)
    found = outbox_list.entries(conn, NOW, peer=EVE)
    assert [(each.peer, each.kind) for each in found] == [(EVE, "text"), (EVE, "file")]


def test_a_single_file_goes_by_its_own_id(conn: sqlite3.Connection) -> None:
    put_files(conn, "a.jpg")
    entry = one(conn)
    assert (entry.id, entry.kind, entry.name) == (number(101), "file", "a.jpg")
    assert (entry.files, entry.size) == (1, 5)


@pytest.mark.parametrize("names", [["photos/b"], ["photos/b", "photos/c", "photos/2026/d"]])
def test_a_folder_is_one_entry_under_its_group(conn: sqlite3.Connection, names: list[str]) -> None:
    put_files(conn, *names)
    entry = one(conn)
    assert (entry.id, entry.kind, entry.name) == (number(100), "folder", "photos")
    assert (entry.files, entry.size) == (len(names), 5 * len(names))
    assert entry.states == {State.WAITING: len(names)}


def test_an_empty_folder(conn: sqlite3.Connection) -> None:
    put_files(conn, "photos", kind=Kind.FOLDER)
    entry = one(conn)
    assert (entry.id, entry.kind, entry.name, entry.files) == (number(100), "folder", "photos", 0)


def test_a_folder_half_gone(conn: sqlite3.Connection) -> None:
    names = [f"photos/{name}" for name in "abcd"]
    arrived, handed, refused, _ = put_files(conn, *names)
    outbox.hand(conn, [arrived, handed, refused], NOW)
    receipt(conn, arrived)
    refuse(conn, refused, permanent=True)
    entry = one(conn)
    assert entry.states == {
        State.DELIVERED: 1,
        State.HANDED: 1,
        State.REFUSED: 1,
        State.WAITING: 1,
    }
    # What may still move stands for all, and why other parts of it have ended does not count.
    assert (entry.state, entry.reason, entry.files) == (State.WAITING, None, 4)
    outbox.cancel(conn, outbox_list.rows_of(conn, entry), NOW)
    assert (one(conn).state, one(conn).reason) == (State.REFUSED, "too long")


def test_what_has_arrived_as_a_whole_is_not_listed(conn: sqlite3.Connection) -> None:
    for seq in put_files(conn, "photos/a", "photos/b"):
        receipt(conn, seq)
    assert outbox_list.entries(conn, NOW) == []
    assert one(conn, everything=True).states == {State.DELIVERED: 2}


def test_attempts_and_why_the_last_was_in_vain(conn: sqlite3.Connection) -> None:
    tries.note_failure(conn, BOB, "before its time", 1)
    seq = put(conn)
    assert one(conn).tries == 0
    outbox.hand(conn, [seq], NOW)
    tries.note_failure(conn, BOB, "no answer", 2)
    tries.note_failure(conn, BOB, "no answer at all", 3)
    assert (one(conn).tries, one(conn).reason) == (3, "no answer at all")
    # Its own reason says more.
    refuse(conn, seq, permanent=False)
    assert (one(conn).tries, one(conn).reason) == (3, "too long")
    refuse(conn, seq, permanent=True)
    tries.note_failure(conn, BOB, "after its end", 4)
    assert (one(conn).tries, one(conn).reason) == (3, "too long")


def test_no_reason_once_the_peer_was_reached(conn: sqlite3.Connection) -> None:
    put(conn)
    tries.note_failure(conn, BOB, "no answer", 1)
    tries.note_success(conn, BOB)
    assert (one(conn).tries, one(conn).reason) == (1, None)


def test_when_it_ends_by_itself(conn: sqlite3.Connection) -> None:
    outbox.prune(conn, 0)
    seq = put(conn, life=DAY)
    assert one(conn).left == DAY - NOW
    outbox.hand(conn, [seq], NOW)
    assert one(conn).left == DAY - NOW
    outbox.cancel(conn, [seq], NOW)
    assert one(conn).left is None


def test_what_has_left_ends_after_sixty_days_of_the_clock(conn: sqlite3.Connection) -> None:
    seq = put(conn)
    outbox.hand(conn, [seq], NOW - 1000)
    assert one(conn).left == HANDED_KEPT - 1000
    outbox.take_back(conn, [seq])
    assert one(conn).left == HANDED_KEPT - 1000
    conn.execute("UPDATE outbox SET owner = 'a process'")
    assert (one(conn).left, one(conn).owned) == (None, True)
    (late,) = outbox_list.entries(conn, NOW + 99 * DAY)
    assert late.left is None


def test_of_a_folder_the_first_end_counts(conn: sqlite3.Connection) -> None:
    outbox.prune(conn, 0)
    put_files(conn, "photos/a", life=3 * DAY)
    put_files(conn, "photos/b", life=2 * DAY, first=50)
    assert one(conn).left == 2 * DAY - NOW


# ---- by what a person types


def find(conn: sqlite3.Connection, typed: str, peer: bytes | None = None) -> Entry:
    return outbox_list.find(conn, NOW, typed, peer)


def test_found_by_the_beginning_of_an_id(conn: sqlite3.Connection) -> None:
    put(conn, 1)
    put(conn, 2)
    put_files(conn, "photos/a", "photos/b")
    for value in (1, 2, 100):
        text = to_text(number(value))
        assert find(conn, text).id == number(value)
        assert find(conn, f" {text.upper()[:14]} ").id == number(value)
        assert find(conn, text.replace("-", "")).id == number(value)


@pytest.mark.parametrize("typed", ["", "-", "000", "00-0-", " 000 ", "xyz"])
def test_too_short_to_be_meant(conn: sqlite3.Connection, typed: str) -> None:
    put(conn, 1)
    with pytest.raises(UsageError) as raised:
        find(conn, typed)
    assert raised.value.message == (
        f"{typed.strip()!r} is too short: give at least 4 characters of the ID"
    )
    assert raised.value.hint == "see them with: securelink outbox --verbose"
    assert find(conn, "0000").id == number(1)


@pytest.mark.parametrize("typed", ["deadbeef", "wxyz", to_text(number(101))])
def test_not_found(conn: sqlite3.Connection, typed: str) -> None:
    put(conn, 1)
    put_files(conn, "photos/a", "photos/b")
    with pytest.raises(UsageError, match="nothing in the outbox has the ID") as raised:
        find(conn, typed)
    assert raised.value.hint == "see them with: securelink outbox --verbose"


def test_several_begin_like_that(conn: sqlite3.Connection) -> None:
    first, _ = put(conn, 1), put(conn, 2)
    with pytest.raises(UsageError, match="several IDs begin with 0000"):
        find(conn, "0000")
    # What has ended stands in the way of nobody.
    receipt(conn, first)
    assert find(conn, "0000").id == number(2)


def test_the_same_id_for_several_peers(conn: sqlite3.Connection) -> None:
    put(conn, 1)
    put(conn, 1, peer=EVE)
    with pytest.raises(UsageError, match="is for several peers") as raised:
        find(conn, to_text(number(1)))
    assert raised.value.hint == "say whose with --to NAME"
    assert find(conn, to_text(number(1)), EVE).peer == EVE


def test_the_rows_of_an_entry(conn: sqlite3.Connection) -> None:
    text = put(conn, 1)
    put(conn, 1, peer=EVE)
    first, second, third = put_files(conn, "photos/a", "photos/b", "photos/c")
    (single,) = put_files(conn, "a", group=2000)
    receipt(conn, second)
    rows = [outbox_list.rows_of(conn, each) for each in outbox_list.entries(conn, NOW, peer=BOB)]
    assert rows == [[text], [first, third], [single]]


# ---- what can be tried now


def test_what_is_queued_and_nobody_waits_for(conn: sqlite3.Connection) -> None:
    put(conn, 1, "to eve", peer=EVE)
    put(conn, 2, "owned", owner="a process")
    put(conn, 3, "first")
    left = put(conn, 4, "left")
    refused, expired = put(conn, 5, "refused"), put(conn, 6, "expired", life=0)
    outbox.hand(conn, [left], NOW)
    refuse(conn, refused, permanent=True)
    outbox.prune(conn, 0)
    put_files(conn, "photos/a")
    put_files(conn, "b", group=2000, owner="a process")
    assert outbox_list.peers_with_queued(conn) == [EVE, BOB]
    rows = outbox_list.queued(conn, BOB)
    assert [(row.excerpt or row.name) for row in rows] == ["first", "left", "photos/a"]
    assert [row.group for row in rows] == [None, None, number(100)]
    assert [row.size for row in rows] == [0, 0, 5]
    assert expired not in [row.seq for row in rows]
