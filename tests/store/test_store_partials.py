from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.store import inbox, partials
from securelink.store.partials import Partial

if TYPE_CHECKING:
    import sqlite3

BOB = b"b" * 32
EVE = b"e" * 32
GROUP = b"g" * 16
ONE = b"\1" * 16
TWO = b"\2" * 16


def begin(
    conn: sqlite3.Connection,
    message_id: bytes = ONE,
    *,
    peer: bytes = BOB,
    size: int = 5_000_000,
    now: int = 10,
) -> None:
    partials.begin(
        conn,
        peer=peer,
        message_id=message_id,
        group=GROUP,
        name="photos/ü.jpg",
        size=size,
        mtime=-17,
        boot="this run",
        now=now,
    )


def ids(found: list[Partial]) -> list[bytes]:
    return [each.id for each in found]


def test_a_file_that_has_begun_to_arrive(conn: sqlite3.Connection) -> None:
    assert partials.get(conn, BOB, ONE) is None
    begin(conn)
    assert partials.get(conn, BOB, ONE) == Partial(
        peer=BOB,
        id=ONE,
        group=GROUP,
        name="photos/ü.jpg",
        size=5_000_000,
        mtime=-17,
        boot="this run",
        synced=0,
        began_at=10,
        touched_at=10,
    )
    assert partials.get(conn, EVE, ONE) is None
    assert partials.get(conn, BOB, TWO) is None


def test_synced(conn: sqlite3.Connection) -> None:
    begin(conn)
    begin(conn, TWO)
    begin(conn, peer=EVE)
    partials.synced(conn, BOB, ONE, 4_000_000, "the next run", 20)
    row = partials.get(conn, BOB, ONE)
    assert row is not None
    assert (row.synced, row.boot, row.began_at, row.touched_at) == (
        4_000_000,
        "the next run",
        10,
        20,
    )
    assert [each.synced for each in partials.list_all(conn) if each != row] == [0, 0]


def test_what_begins_again_begins_at_nothing(conn: sqlite3.Connection) -> None:
    begin(conn)
    partials.synced(conn, BOB, ONE, 4_000_000, "this run", 20)
    begin(conn, size=6_000_000, now=30)
    (row,) = partials.list_all(conn)
    assert (row.size, row.synced, row.began_at, row.touched_at) == (6_000_000, 0, 30, 30)


def test_a_size_that_only_an_unsigned_integer_holds(conn: sqlite3.Connection) -> None:
    begin(conn, size=(1 << 64) - 1)
    assert partials.list_all(conn)[0].size == (1 << 63) - 1


def test_list(conn: sqlite3.Connection) -> None:
    assert partials.list_all(conn) == []
    begin(conn, TWO, now=10)
    begin(conn, ONE, now=20)
    assert ids(partials.list_all(conn)) == [TWO, ONE]


def test_forget(conn: sqlite3.Connection) -> None:
    begin(conn)
    begin(conn, TWO)
    begin(conn, peer=EVE)
    assert partials.forget(conn, BOB, ONE) is True
    assert partials.forget(conn, BOB, ONE) is False
    assert [(each.peer, each.id) for each in partials.list_all(conn)] == [(EVE, ONE), (BOB, TWO)]


def test_the_first_name_of_a_group_holds(conn: sqlite3.Connection) -> None:
    assert partials.landing_of(conn, BOB, GROUP) is None
    assert partials.land(conn, BOB, GROUP, "photos (2)", 10) == "photos (2)"
    assert partials.land(conn, BOB, GROUP, "photos (3)", 20) == "photos (2)"
    assert partials.land(conn, EVE, GROUP, "photos", 20) == "photos"
    assert partials.land(conn, BOB, b"h" * 16, "photos (4)", 20) == "photos (4)"
    assert partials.landing_of(conn, BOB, GROUP) == "photos (2)"
    assert partials.landing_of(conn, EVE, GROUP) == "photos"


def test_prune(conn: sqlite3.Connection) -> None:
    begin(conn, now=10)
    partials.land(conn, BOB, GROUP, "one", 10)
    partials.land(conn, EVE, GROUP, "two", 11)
    partials.prune(conn, 10 + partials.LANDINGS_KEPT)
    assert partials.landing_of(conn, BOB, GROUP) == "one"
    partials.prune(conn, 11 + partials.LANDINGS_KEPT)
    assert partials.landing_of(conn, BOB, GROUP) is None
    assert partials.landing_of(conn, EVE, GROUP) == "two"
    # A row tells that the part is worth keeping; how long, the configuration says.
    assert ids(partials.list_all(conn)) == [ONE]


def test_a_group_has_its_name_as_long_as_its_files_have_theirs() -> None:
    assert partials.LANDINGS_KEPT == inbox.SEEN_KEPT
