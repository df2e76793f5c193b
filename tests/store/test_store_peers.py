from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from securelink.endpoints import Endpoint, Kind
from securelink.errors import ExitCode, UnknownPeer, UsageError
from securelink.store import addresses, inbox, invites, outbox, peers
from securelink.store.addresses import Source
from securelink.store.database import Database
from securelink.store.peers import Enrolment, Peer, Verdict

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection
    from pathlib import Path

ALICE = b"a" * 32
BOB = b"b" * 32
TOKEN = b"t" * 32
HOUR = 3_600_000


def invite(
    conn: sqlite3.Connection, *, name: str | None = None, uses: int = 1, token: bytes = TOKEN
) -> None:
    invites.add(conn, token_hash=token, name=name, uses=uses, created_at=0, expires_at=24 * HOUR)


def enrol(
    conn: sqlite3.Connection,
    key: bytes = BOB,
    *,
    calls_itself: str = "Bob's Laptop",
    token_hash: bytes | None = TOKEN,
    taken: Collection[str] = (),
    now: int = HOUR,
) -> Enrolment:
    return peers.enrol(
        conn, key=key, calls_itself=calls_itself, token_hash=token_hash, taken=taken, now=now
    )


def pair(conn: sqlite3.Connection, key: bytes, name: str) -> Peer:
    peers.add_pending(conn, key=key, name_wanted=name, taken=(), now=1)
    return peers.confirm(conn, key, calls_itself=name, now=1)


def uses_left(conn: sqlite3.Connection) -> int:
    stored = invites.get(conn, TOKEN)
    assert stored is not None
    return stored.uses_left


# Joining: the client's side.


def test_join(conn: sqlite3.Connection) -> None:
    pending = peers.add_pending(conn, key=ALICE, name_wanted="Alice PC", taken=(), now=5)
    assert pending == Peer(ALICE, "alice-pc", "", 5, None, None, pending=True)
    peer = peers.confirm(conn, ALICE, calls_itself="alice", now=9)
    assert peer == Peer(ALICE, "alice-pc", "alice", 9, 9, None, pending=False)
    assert peers.list_all(conn) == [peer]


def test_pending_is_nobodys_recipient(conn: sqlite3.Connection) -> None:
    pending = peers.add_pending(conn, key=ALICE, name_wanted="alice", taken=(), now=5)
    assert peers.list_all(conn) == []
    assert peers.by_key(conn, ALICE) is None
    assert peers.by_name(conn, "alice") is None
    assert peers.list_all(conn, pending=True) == [pending]
    assert peers.by_key(conn, ALICE, pending=True) == pending
    assert peers.by_name(conn, "alice", pending=True) == pending


def test_join_repeated_while_pending(conn: sqlite3.Connection) -> None:
    first = peers.add_pending(conn, key=ALICE, name_wanted="alice", taken=(), now=5)
    again = peers.add_pending(conn, key=ALICE, name_wanted="alice", taken=(), now=6)
    assert again.name == first.name
    other = peers.add_pending(conn, key=ALICE, name_wanted="home", taken=(), now=7)
    assert other.name == "home"
    assert peers.list_all(conn, pending=True) == [other]


def test_join_of_a_known_key_keeps_its_name(conn: sqlite3.Connection) -> None:
    paired = pair(conn, ALICE, "alice")
    again = peers.add_pending(conn, key=ALICE, name_wanted="other", taken=(), now=6)
    assert again == paired
    peer = peers.confirm(conn, ALICE, calls_itself="new name", now=8)
    assert (peer.name, peer.calls_itself, peer.paired_at, peer.last_seen) == (
        "alice",
        "new name",
        1,
        8,
    )


def test_taken_names_get_a_number(conn: sqlite3.Connection) -> None:
    def wanted(key: bytes) -> str:
        peer = peers.add_pending(conn, key=key, name_wanted="box", taken=["box-3"], now=1)
        return peer.name

    assert [wanted(bytes([n]) * 32) for n in range(1, 4)] == ["box", "box-2", "box-4"]


def test_confirm_of_a_peer_removed_meanwhile(conn: sqlite3.Connection) -> None:
    peers.add_pending(conn, key=ALICE, name_wanted="alice", taken=(), now=5)
    peers.remove(conn, "alice", 6)
    with pytest.raises(UnknownPeer, match="removed while joining"):
        peers.confirm(conn, ALICE, calls_itself="alice", now=7)


def test_drop_pending(conn: sqlite3.Connection) -> None:
    peers.add_pending(conn, key=ALICE, name_wanted="alice", taken=(), now=5)
    addresses.set_endpoints(conn, ALICE, Source.INVITE, [Endpoint(Kind.LAN, "10.0.0.1", 1)], 5)
    paired = pair(conn, BOB, "bob")
    addresses.set_endpoints(conn, BOB, Source.INVITE, [Endpoint(Kind.LAN, "10.0.0.2", 1)], 5)
    peers.drop_pending(conn, ALICE)
    peers.drop_pending(conn, BOB)
    peers.drop_pending(conn, b"x" * 32)
    assert peers.list_all(conn, pending=True) == [paired]
    assert addresses.endpoints(conn, ALICE) == []
    assert len(addresses.endpoints(conn, BOB)) == 1


# Enrolling: the server's side.


def test_enrol(conn: sqlite3.Connection) -> None:
    invite(conn)
    peer = Peer(BOB, "bob-s-laptop", "Bob's Laptop", HOUR, HOUR, TOKEN, pending=False)
    assert enrol(conn) == Enrolment(Verdict.ENROLLED, peer)
    assert peers.by_key(conn, BOB) == peer
    assert uses_left(conn) == 0


def test_name_chosen_by_the_invite(conn: sqlite3.Connection) -> None:
    invite(conn, name="bob", uses=3)
    found = [enrol(conn, bytes([n]) * 32, taken=["bob-2"]).peer for n in range(1, 4)]
    assert [peer.name for peer in found if peer] == ["bob", "bob-3", "bob-4"]
    assert uses_left(conn) == 0


def test_repeated_after_a_lost_answer(conn: sqlite3.Connection) -> None:
    invite(conn, uses=2)
    first = enrol(conn)
    again = enrol(conn, calls_itself="renamed", now=2 * HOUR)
    assert again.verdict is Verdict.KNOWN
    assert again.peer is not None
    assert first.peer is not None
    assert again.peer.name == first.peer.name
    assert again.peer.calls_itself == "renamed"
    assert again.peer.paired_at == HOUR
    assert again.peer.last_seen == 2 * HOUR
    assert uses_left(conn) == 1


@pytest.mark.parametrize("token_hash", [None, TOKEN, b"?" * 32])
def test_known_key_needs_no_token_and_uses_none(
    conn: sqlite3.Connection, token_hash: bytes | None
) -> None:
    invite(conn)
    pair(conn, BOB, "bob")
    invites.revoke(conn, TOKEN)
    assert enrol(conn, token_hash=token_hash).verdict is Verdict.KNOWN
    assert uses_left(conn) == 1


def test_refusals(conn: sqlite3.Connection) -> None:
    invite(conn)
    assert enrol(conn, token_hash=None) == Enrolment(Verdict.NO_INVITE, None)
    assert enrol(conn, token_hash=b"?" * 32) == Enrolment(Verdict.UNKNOWN_INVITE, None)
    assert enrol(conn, now=24 * HOUR) == Enrolment(Verdict.EXPIRED, None)
    assert uses_left(conn) == 1
    assert enrol(conn, now=24 * HOUR - 1).verdict is Verdict.ENROLLED
    assert enrol(conn, ALICE) == Enrolment(Verdict.USED, None)
    invites.revoke(conn, TOKEN)
    assert enrol(conn, ALICE) == Enrolment(Verdict.REVOKED, None)
    assert [peer.key for peer in peers.list_all(conn, pending=True)] == [BOB]


def test_both_join_each_other_at_once(conn: sqlite3.Connection) -> None:
    invite(conn)
    peers.add_pending(conn, key=BOB, name_wanted="bob", taken=(), now=5)
    assert enrol(conn, token_hash=None).verdict is Verdict.NO_INVITE
    assert enrol(conn).verdict is Verdict.ENROLLED
    peer = peers.confirm(conn, BOB, calls_itself="bob", now=9)
    assert not peer.pending
    assert peer.invite == TOKEN
    assert len(peers.list_all(conn)) == 1


@pytest.mark.parametrize("uses", [1, 3])
def test_parallel_redemptions(path: Path, uses: int) -> None:
    database = Database.open(path)
    with database.transaction() as conn:
        invite(conn, uses=uses)
    barrier = threading.Barrier(20)

    def redeem(number: int) -> Verdict:
        mine = Database.open(path)
        barrier.wait()
        with mine.transaction() as conn:
            verdict = enrol(conn, bytes([number]) * 32).verdict
        mine.close()
        return verdict

    with ThreadPoolExecutor(20) as pool:
        verdicts = list(pool.map(redeem, range(20)))
    assert verdicts.count(Verdict.ENROLLED) == uses
    assert verdicts.count(Verdict.USED) == 20 - uses
    winners = [number for number in range(20) if verdicts[number] is Verdict.ENROLLED]
    assert {peer.key[0] for peer in peers.list_all(database.connection)} == set(winners)
    database.close()


# Afterwards.


def test_list_is_sorted_by_name(conn: sqlite3.Connection) -> None:
    pair(conn, ALICE, "zoe")
    pair(conn, BOB, "bob")
    assert [peer.name for peer in peers.list_all(conn)] == ["bob", "zoe"]


def test_touch(conn: sqlite3.Connection) -> None:
    pair(conn, BOB, "bob")
    peers.touch(conn, BOB, 70)
    peer = peers.by_key(conn, BOB)
    assert peer is not None
    assert (peer.last_seen, peer.calls_itself) == (70, "bob")
    peers.touch(conn, BOB, 80, "robert")
    peer = peers.by_key(conn, BOB)
    assert peer is not None
    assert (peer.last_seen, peer.calls_itself, peer.name) == (80, "robert", "bob")


def test_rename(conn: sqlite3.Connection) -> None:
    pair(conn, BOB, "bob")
    pair(conn, ALICE, "alice")
    peers.add_pending(conn, key=b"c" * 32, name_wanted="carol", taken=(), now=1)
    assert peers.rename(conn, "bob", "robert", ()).key == BOB
    assert peers.rename(conn, "robert", "robert", ()).name == "robert"
    for name in ("alice", "carol", "dave"):
        with pytest.raises(UsageError, match=f"another peer is called {name} already"):
            peers.rename(conn, "robert", name, ["dave"])
    for name in ("me", "Bob", ""):
        with pytest.raises(UsageError):
            peers.rename(conn, "robert", name, ())
    with pytest.raises(UnknownPeer) as caught:
        peers.rename(conn, "bob", "b", ())
    assert caught.value.exit_code is ExitCode.USAGE


def test_remove(conn: sqlite3.Connection) -> None:
    invite(conn, uses=2)
    peer = enrol(conn, calls_itself="bob").peer
    assert peer is not None
    pair(conn, ALICE, "alice")
    addresses.set_endpoints(conn, BOB, Source.PERSON, [Endpoint(Kind.LAN, "10.0.0.1", 1)], 5)
    for key in (BOB, ALICE):
        outbox.put(conn, message_id=b"1" * 16, peer=key, text="x", sent_at=1)
        seq = outbox.put(conn, message_id=b"2" * 16, peer=key, text="y", sent_at=1)
        outbox.hand(conn, [seq], 1)
        outbox.put(conn, message_id=b"3" * 16, peer=key, text="z", sent_at=1)
        outbox.delivered(conn, peer=key, message_id=b"3" * 16, now=1)
    inbox.receive(
        conn,
        peer=BOB,
        peer_name="bob",
        message_id=b"m" * 16,
        sent_at=1,
        text="kept",
        received_at=1,
    )

    removed = peers.remove(conn, "bob", 50)

    assert removed == peers.Removed(peer, cancelled=2, invite_revoked=True)
    assert peers.by_key(conn, BOB, pending=True) is None
    assert addresses.endpoints(conn, BOB) == []
    assert outbox.count_queued(conn, BOB) == 0
    assert outbox.count_queued(conn, ALICE) == 2
    assert [message.text for message in inbox.after(conn, 0)] == ["kept"]
    assert enrol(conn, calls_itself="bob").verdict is Verdict.REVOKED
    with pytest.raises(UnknownPeer, match="no peer is called bob"):
        peers.remove(conn, "bob", 60)


def test_remove_without_an_invite_to_revoke(conn: sqlite3.Connection) -> None:
    pair(conn, ALICE, "alice")
    assert peers.remove(conn, "alice", 5).invite_revoked is False
    invite(conn)
    enrol(conn, calls_itself="bob")
    invites.revoke(conn, TOKEN)
    assert peers.remove(conn, "bob", 5).invite_revoked is False
