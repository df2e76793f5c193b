from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.endpoints import Endpoint, Kind
from securelink.store import links, tries
from securelink.store.links import LinkRow
from securelink.store.tries import Tries

if TYPE_CHECKING:
    import sqlite3

BOB, CAROL = b"b" * 32, b"c" * 32
LAN = Endpoint(Kind.LAN, "192.168.1.20", 24819)


def link(
    owner: str, number: int, peer: bytes = BOB, *, since: int = 1, takes_files: bool = False
) -> LinkRow:
    return LinkRow(
        owner, number, peer, dialled=False, takes_files=takes_files, endpoint=LAN, since=since
    )


def test_links_come_and_go(conn: sqlite3.Connection) -> None:
    one, other, carols = link("x", 1, since=5), link("y", 1, since=3), link("x", 2, CAROL)
    for each in (one, other, carols):
        links.up(conn, each)
    assert links.list_all(conn) == [carols, other, one]
    assert links.of_peer(conn, BOB) == [other, one]
    assert links.down(conn, "x", 1)
    assert not links.down(conn, "x", 1)
    assert links.of_peer(conn, BOB) == [other]


def test_a_row_written_again_is_replaced(conn: sqlite3.Connection) -> None:
    links.up(conn, link("x", 1))
    links.up(conn, link("x", 1, takes_files=True))
    assert links.list_all(conn) == [link("x", 1, takes_files=True)]


def test_the_links_of_a_dead_process(conn: sqlite3.Connection) -> None:
    links.up(conn, link("x", 1))
    links.up(conn, link("x", 2))
    links.up(conn, link("y", 1))
    assert links.owners(conn) == ["x", "y"]
    links.bury_owner(conn, "x")
    assert links.owners(conn) == ["y"]


def test_tries(conn: sqlite3.Connection) -> None:
    assert (tries.get(conn, BOB), tries.count(conn, BOB)) == (None, 0)
    tries.note_success(conn, BOB)
    assert tries.get(conn, BOB) is None
    tries.note_failure(conn, BOB, "no answer", 5)
    tries.note_failure(conn, BOB, "refused", 9)
    assert tries.get(conn, BOB) == Tries(2, 9, "refused")
    tries.note_success(conn, BOB)
    assert tries.get(conn, BOB) == Tries(2, 9, None)
    assert tries.count(conn, CAROL) == 0
    tries.forget(conn, BOB)
    assert tries.count(conn, BOB) == 0
