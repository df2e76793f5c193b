"""Whom a node knows: the store's peers and the configuration's, as one list."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from parties import at

from securelink import directory
from securelink.announced import AnnouncedEndpoint
from securelink.config import ConfiguredPeer
from securelink.endpoints import Endpoint, Kind
from securelink.errors import UnknownPeer
from securelink.identity import Identity, PublicKey
from securelink.store import addresses, peers
from securelink.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALICE, BOB, CAROL = (Identity.from_private_bytes(bytes([n]) * 32).public for n in (11, 12, 13))
LAN = Endpoint(Kind.LAN, "192.168.1.20", 1)
PUBLIC = Endpoint(Kind.PUBLIC, "home.example", 2)


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(Database.open(tmp_path / "securelink.db")) as database:
        yield database.connection


def pair(conn: sqlite3.Connection, key, name: str, *, pending: bool = False) -> None:
    peers.add_pending(conn, key=key.raw, name_wanted=name, taken=(), now=5)
    if not pending:
        peers.confirm(conn, key.raw, calls_itself=f"{name}'s own", now=7)


def learn(conn: sqlite3.Connection, key, *endpoints: Endpoint) -> None:
    addresses.set_endpoints(conn, key.raw, addresses.Source.ANNOUNCED, endpoints, 1)


def test_paired_peers_by_name(conn: sqlite3.Connection) -> None:
    pair(conn, BOB, "bob")
    pair(conn, ALICE, "alice")
    learn(conn, BOB, LAN)
    known = directory.read(conn, {})
    assert [peer.name for peer in known.peers] == ["alice", "bob"]
    assert known.names == {"alice", "bob"}
    bob = known.by_name("bob")
    assert bob == known.by_key(BOB)
    assert (bob.key, bob.endpoints, bob.calls_itself) == (BOB, (LAN,), "bob's own")
    assert (bob.configured, bob.paired_at, bob.last_seen) == (False, 7, 7)
    assert BOB in known
    assert CAROL not in known
    assert known.by_key(CAROL) is None


def test_a_pending_peer_is_nobody(conn: sqlite3.Connection) -> None:
    pair(conn, BOB, "bob", pending=True)
    known = directory.read(conn, {})
    assert known.peers == ()
    with pytest.raises(UnknownPeer):
        known.by_name("bob")


def test_a_configured_peer_needs_no_row(conn: sqlite3.Connection) -> None:
    learn(conn, BOB, LAN)
    known = directory.read(conn, {"bob": ConfiguredPeer(key=BOB, endpoints=(PUBLIC,))})
    bob = known.by_name("bob")
    assert bob.configured
    # What the configuration says comes first, what was learned after it.
    assert bob.endpoints == (PUBLIC, LAN)
    assert (bob.calls_itself, bob.paired_at, bob.last_seen) == ("", None, None)


def test_a_name_that_the_configuration_gives_is_no_mere_announcement(
    conn: sqlite3.Connection,
) -> None:
    learn(conn, BOB, PUBLIC, LAN)
    known = directory.read(conn, {"bob": ConfiguredPeer(key=BOB, endpoints=(PUBLIC,))})
    kinds = [type(each) for each in known.by_name("bob").endpoints]
    assert kinds == [Endpoint, AnnouncedEndpoint]


def test_a_peer_in_both_has_the_configurations_name_and_all_endpoints_once(
    conn: sqlite3.Connection,
) -> None:
    pair(conn, BOB, "old")
    learn(conn, BOB, LAN, PUBLIC)
    known = directory.read(conn, {"bob": ConfiguredPeer(key=BOB, endpoints=(PUBLIC,))})
    (bob,) = known.peers
    assert (bob.name, bob.endpoints, bob.configured) == ("bob", (PUBLIC, LAN), True)
    assert (bob.calls_itself, bob.paired_at, bob.last_seen) == ("old's own", 7, 7)


def test_a_pending_peer_that_is_configured_is_known(conn: sqlite3.Connection) -> None:
    pair(conn, BOB, "bob", pending=True)
    known = directory.read(conn, {"robert": ConfiguredPeer(key=BOB)})
    assert [peer.name for peer in known.peers] == ["robert"]


def test_a_paired_peer_gives_way_to_a_configured_name(conn: sqlite3.Connection) -> None:
    pair(conn, BOB, "alice")
    pair(conn, CAROL, "alice-2")
    known = directory.read(conn, {"alice": ConfiguredPeer(key=ALICE)})
    assert known.by_name("alice").key == ALICE
    assert {peer.key: peer.name for peer in known.peers} == {
        ALICE: "alice",
        BOB: "alice-2",
        CAROL: "alice-2-2",
    }


def test_by_peer_id(conn: sqlite3.Connection) -> None:
    pair(conn, BOB, "bob")
    assert directory.read(conn, {}).by_name(BOB.peer_id).name == "bob"


def with_short_id_of(key) -> PublicKey:
    """Another key that is shown as that one is."""
    return PublicKey(key.raw[:31] + bytes([key.raw[31] ^ 1]))


def test_by_short_id(conn: sqlite3.Connection) -> None:
    pair(conn, BOB, "bob")
    pair(conn, ALICE, "alice")
    known = directory.read(conn, {})
    for typed in (BOB.short, BOB.short.lower(), BOB.peer_id.lower()):
        assert known.by_name(typed).name == "bob"
    with pytest.raises(UnknownPeer):
        known.by_name(CAROL.short)


def test_a_name_wins_over_a_short_id(conn: sqlite3.Connection) -> None:
    pair(conn, BOB, "bob")
    pair(conn, ALICE, BOB.short.lower())
    known = directory.read(conn, {})
    assert known.by_name(BOB.short.lower()).key == ALICE
    # A name has no capitals.
    assert known.by_name(BOB.short).key == BOB


def test_a_short_id_of_two_is_nobodys(conn: sqlite3.Connection) -> None:
    other = with_short_id_of(BOB)
    assert other.short == BOB.short
    pair(conn, BOB, "bob")
    pair(conn, other, "eve")
    with pytest.raises(UnknownPeer, match=f"no peer is called {BOB.short}") as several:
        directory.read(conn, {}).by_name(BOB.short)
    assert several.value.hint == f"bob, eve have the ID {BOB.short}: give a name"


def test_unknown_names_have_a_next_step(conn: sqlite3.Connection) -> None:
    with pytest.raises(UnknownPeer, match="no peer is called bob") as nobody:
        directory.read(conn, {}).by_name("bob")
    assert "securelink join" in str(nobody.value.hint)
    pair(conn, ALICE, "alice")
    known = directory.read(conn, {})
    with pytest.raises(UnknownPeer) as near:
        known.by_name("alise")
    assert near.value.hint == "did you mean alice?"
    with pytest.raises(UnknownPeer) as far:
        known.by_name("zz")
    assert "securelink peers" in str(far.value.hint)


def test_equal_endpoints_are_one(conn: sqlite3.Connection) -> None:
    pair(conn, BOB, "bob")
    learn(conn, BOB, at(1))
    known = directory.read(conn, {"bob": ConfiguredPeer(key=BOB, endpoints=(at(1), at(2)))})
    assert known.by_name("bob").endpoints == (at(1), at(2))
