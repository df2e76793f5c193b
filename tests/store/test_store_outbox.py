from __future__ import annotations

import itertools
import sqlite3
from typing import TYPE_CHECKING

import pytest

from securelink.errors import ExitCode, UsageError
from securelink.store import aging, inbox, notices, outbox, tries
from securelink.store.database import Database
from securelink.store.outbox import OutboxRow, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BOB = b"b" * 32
EVE = b"e" * 32
DAY = 86_400_000


def number(value: int) -> bytes:
    return value.to_bytes(16, "big")


def put(
    conn: sqlite3.Connection,
    value: int = 1,
    *,
    peer: bytes = BOB,
    text: str = "hello",
    owner: str | None = None,
    shared: bool = False,
    deadline: int | None = None,
    life: int | None = None,
) -> int:
    return outbox.put(
        conn,
        message_id=number(value),
        peer=peer,
        text=text,
        sent_at=10,
        owner=owner,
        shared=shared,
        deadline=deadline,
        life=life,
    )


def get(conn: sqlite3.Connection, seq: int) -> OutboxRow:
    row = outbox.get(conn, seq)
    assert row is not None
    return row


def delivered(conn: sqlite3.Connection, value: int = 1, *, now: int = 30) -> int | None:
    return outbox.delivered(conn, peer=BOB, message_id=number(value), now=now)


def refused(conn: sqlite3.Connection, value: int = 1, *, permanent: bool = True) -> int | None:
    return outbox.refused(
        conn, peer=BOB, message_id=number(value), permanent=permanent, reason="too long", now=30
    )


def test_put(conn: sqlite3.Connection) -> None:
    seq = put(conn, owner="me", deadline=99, text="nul \0 and 🎈")
    assert outbox.get(conn, seq) == OutboxRow(
        seq=seq,
        id=number(1),
        peer=BOB,
        text="nul \0 and 🎈",
        sent_at=10,
        state=State.WAITING,
        owner="me",
        shared=False,
        deadline=99,
        reason=None,
        handed_at=None,
    )
    assert outbox.get(conn, seq + 1) is None
    assert put(conn, 2) > seq


def test_put_again(conn: sqlite3.Connection) -> None:
    seq = put(conn, owner="first", deadline=99)
    assert put(conn, owner="second") == seq
    row = get(conn, seq)
    assert (row.owner, row.deadline, row.state) == ("second", None, State.WAITING)
    outbox.hand(conn, [seq], 20)
    assert put(conn) == seq
    row = get(conn, seq)
    assert (row.owner, row.state, row.handed_at) == (None, State.HANDED, 20)


def test_put_again_after_the_end(conn: sqlite3.Connection) -> None:
    seq = put(conn, owner="me")
    outbox.hand(conn, [seq], 20)
    refused(conn)
    put(conn, owner="me")
    row = get(conn, seq)
    assert (row.state, row.reason, row.text) == (State.WAITING, None, "hello")
    assert outbox.withdraw(conn, seq, 30)
    put(conn, owner="me")
    assert get(conn, seq).state is State.WAITING
    outbox.prune(conn, 40 * DAY)
    assert get(conn, seq).state is State.WAITING
    delivered(conn)
    assert put(conn, owner="other") == seq
    row = get(conn, seq)
    assert (row.state, row.owner) == (State.DELIVERED, "me")


@pytest.mark.parametrize("ended", [False, True])
def test_an_id_stands_for_one_text(conn: sqlite3.Connection, ended: bool) -> None:
    seq = put(conn)
    if ended:
        delivered(conn)
    with pytest.raises(UsageError, match="used before") as caught:
        put(conn, text="secret")
    assert caught.value.exit_code is ExitCode.USAGE
    assert "secret" not in str(caught.value)
    assert put(conn) == seq
    assert put(conn, peer=EVE, text="another") != seq


def test_hand(conn: sqlite3.Connection) -> None:
    seqs = [put(conn, value) for value in range(5)]
    outbox.withdraw(conn, seqs[1], 15)
    delivered(conn, 3)
    assert outbox.hand(conn, [seqs[4], *seqs[:4], 99], 20) == [seqs[4], seqs[0], seqs[2]]
    assert get(conn, seqs[0]).handed_at == 20
    assert outbox.hand(conn, seqs, 50) == [seqs[0], seqs[2], seqs[4]]
    assert get(conn, seqs[0]).handed_at == 20


def test_hand_after_the_deadline(conn: sqlite3.Connection) -> None:
    late, exact, early, gone = (
        put(conn, value, deadline=deadline) for value, deadline in enumerate([19, 20, 21, 21])
    )
    outbox.hand(conn, [gone], 5)
    assert outbox.hand(conn, [late, exact, early, gone], 20) == [early, gone]
    row = get(conn, late)
    assert (row.state, row.reason) == (State.WITHDRAWN, "not handed over in time")
    assert get(conn, exact).state is State.WITHDRAWN
    # What may have left already goes on whatever its deadline.
    assert outbox.hand(conn, [early, gone], 1000) == [early, gone]


def test_delivered(conn: sqlite3.Connection) -> None:
    seq = put(conn)
    put(conn, peer=EVE)
    outbox.hand(conn, [seq], 20)
    assert delivered(conn) == seq
    row = get(conn, seq)
    assert (row.state, row.text) == (State.DELIVERED, "")
    assert delivered(conn) is None
    assert delivered(conn, 9) is None
    assert outbox.count_queued(conn, EVE) == 1


def test_receipt_is_the_truth_whatever_was_given_up(conn: sqlite3.Connection) -> None:
    seqs = [put(conn, value) for value in range(2)]
    outbox.withdraw(conn, seqs[0], 20)
    refused(conn, 1)
    assert [delivered(conn, value) for value in range(2)] == seqs
    assert {get(conn, seq).state for seq in seqs} == {State.DELIVERED}
    assert get(conn, seqs[1]).reason is None


def test_refused_for_good(conn: sqlite3.Connection) -> None:
    seq = put(conn)
    outbox.hand(conn, [seq], 20)
    assert refused(conn) == seq
    row = get(conn, seq)
    assert (row.state, row.reason, row.text) == (State.REFUSED, "too long", "hello")
    assert refused(conn) is None
    assert list(outbox.queued(conn, BOB)) == []


def test_refused_for_now(conn: sqlite3.Connection) -> None:
    seq = put(conn)
    outbox.hand(conn, [seq], 20)
    assert refused(conn, permanent=False) == seq
    row = get(conn, seq)
    assert (row.state, row.reason, row.handed_at) == (State.WAITING, "too long", 20)
    assert list(outbox.queued(conn, BOB)) == [row]
    assert outbox.withdraw(conn, seq, 40)
    assert refused(conn, permanent=False) is None


def test_refusal_after_the_receipt(conn: sqlite3.Connection) -> None:
    seq = put(conn)
    delivered(conn)
    assert refused(conn) is None
    assert refused(conn, permanent=False) is None
    assert refused(conn, 9) is None
    assert get(conn, seq).state is State.DELIVERED


def test_withdraw(conn: sqlite3.Connection) -> None:
    seq = put(conn)
    assert outbox.withdraw(conn, seq, 20) is True
    assert outbox.withdraw(conn, seq, 20) is False
    assert outbox.hand(conn, [seq], 30) == []
    assert get(conn, seq).state is State.WITHDRAWN


def test_withdraw_loses_against_handing(conn: sqlite3.Connection) -> None:
    seq = put(conn)
    outbox.hand(conn, [seq], 20)
    assert outbox.withdraw(conn, seq, 20) is False
    assert get(conn, seq).state is State.HANDED


def test_queue(conn: sqlite3.Connection) -> None:
    first = put(conn, 1)
    put(conn, 2, owner="me")
    third = put(conn, 3)
    put(conn, 4, peer=EVE)
    handed = put(conn, 5)
    outbox.hand(conn, [handed], 20)
    put(conn, 6)
    delivered(conn, 6)
    outbox.withdraw(conn, put(conn, 7), 20)
    assert [row.seq for row in outbox.queued(conn, BOB)] == [first, third, handed]
    assert next(outbox.queued(conn, BOB)).seq == first
    assert outbox.count_queued(conn, BOB) == 3
    assert outbox.count_queued(conn, b"x" * 32) == 0


def test_a_shared_row_is_sent_by_others_and_dies_with_its_owner(conn: sqlite3.Connection) -> None:
    waiting, handed, kept = (put(conn, value, owner="dead", shared=True) for value in range(3))
    assert [row.seq for row in outbox.queued(conn, BOB)] == [waiting, handed, kept]
    assert (outbox.count_queued(conn, BOB), outbox.peers_with_queued(conn)) == (3, [BOB])
    assert outbox.owners(conn) == ["dead"]
    outbox.hand(conn, [handed], 20)
    # The same message again, by a process that dials: then it alone sends it.
    put(conn, 2, owner="alive")
    assert [row.seq for row in outbox.queued(conn, BOB)] == [waiting, handed]
    put(conn, 2, owner="dead", shared=True)
    assert outbox.bury_owner(conn, "dead", 30) == (1, 2)
    assert [row.seq for row in outbox.queued(conn, BOB)] == [handed]
    assert get(conn, waiting).state is State.WITHDRAWN
    assert outbox.owners(conn) == []


def test_release(conn: sqlite3.Connection) -> None:
    seq = put(conn, owner="me")
    outbox.hand(conn, [seq], 20)
    assert list(outbox.queued(conn, BOB)) == []
    outbox.release(conn, seq)
    assert [row.seq for row in outbox.queued(conn, BOB)] == [seq]


def test_peers_with_queued(conn: sqlite3.Connection) -> None:
    owned = b"z" * 32
    put(conn, 1, peer=owned, owner="me")
    put(conn, 2, peer=EVE)
    put(conn, 3, peer=BOB)
    put(conn, 4, peer=EVE)
    assert outbox.peers_with_queued(conn) == [BOB, EVE]
    delivered(conn, 3)
    assert outbox.peers_with_queued(conn) == [EVE]
    delivered_to_eve = outbox.delivered(conn, peer=EVE, message_id=number(2), now=30)
    assert delivered_to_eve
    assert outbox.peers_with_queued(conn) == [EVE]
    outbox.cancel_peer(conn, EVE, 30)
    assert outbox.peers_with_queued(conn) == []


def test_what_a_server_asks_for_at_each_commit_does_not_read_the_queues(
    conn: sqlite3.Connection,
) -> None:
    conn.execute("BEGIN")
    for number in range(2000):
        put(conn, number, peer=BOB)
    put(conn, 3000, owner="me")
    for number in range(4000, 6000):
        seq = put(conn, number, life=DAY)
        outbox.hand(conn, [seq], 10)
        delivered(conn, number)
    conn.execute("COMMIT")
    asked = 0

    def count() -> None:
        nonlocal asked
        asked += 1

    conn.set_progress_handler(count, 100)  # called for every 100 steps of SQLite's machine
    assert outbox.peers_with_queued(conn) == [BOB]
    assert outbox.owners(conn) == ["me"]
    assert not outbox.has_expired(conn, 10)
    conn.set_progress_handler(None, 0)
    assert asked < 5


def test_dead_owner(conn: sqlite3.Connection) -> None:
    handed = put(conn, 1, owner="dead")
    outbox.hand(conn, [handed], 20)
    waiting = put(conn, 2, owner="dead")
    put(conn, 3, owner="dead")
    delivered(conn, 3)
    alive = put(conn, 4, owner="alive")
    queued = put(conn, 5)
    assert outbox.owners(conn) == ["alive", "dead"]
    assert outbox.bury_owner(conn, "dead", 30) == (1, 1)
    assert outbox.owners(conn) == ["alive"]
    assert [row.seq for row in outbox.queued(conn, BOB)] == [handed, queued]
    row = get(conn, waiting)
    assert (row.state, row.reason) == (State.WITHDRAWN, "the process that sent it died")
    assert get(conn, alive).owner == "alive"
    assert outbox.bury_owner(conn, "dead", 30) == (0, 0)


def test_cancel_peer(conn: sqlite3.Connection) -> None:
    seqs = [put(conn, 1), put(conn, 2, owner="me"), put(conn, 3), put(conn, 4)]
    outbox.hand(conn, [seqs[0], seqs[3]], 20)
    delivered(conn, 3)
    refused(conn, 4, permanent=False)
    other = put(conn, 1, peer=EVE)
    assert outbox.cancel_peer(conn, BOB, 30) == 3
    assert [get(conn, seq).state for seq in seqs] == [
        State.UNCONFIRMED,
        State.WITHDRAWN,
        State.DELIVERED,
        State.UNCONFIRMED,
    ]
    assert get(conn, seqs[0]).reason == "the peer was removed"
    assert get(conn, other).state is State.WAITING
    assert outbox.cancel_peer(conn, BOB, 30) == 0


def test_a_handed_row_ends_before_the_receiver_forgets_its_id(conn: sqlite3.Connection) -> None:
    seq = put(conn, 0)
    outbox.hand(conn, [seq], 20)
    outbox.prune(conn, 20 + outbox.HANDED_KEPT)
    row = outbox.get(conn, seq)
    assert row is not None
    assert row.state is State.HANDED
    outbox.prune(conn, 21 + outbox.HANDED_KEPT)
    row = outbox.get(conn, seq)
    assert row is not None
    assert (row.state, row.reason) == (State.UNCONFIRMED, "no receipt ever came")
    assert outbox.HANDED_KEPT < inbox.SEEN_KEPT


def test_a_refused_row_that_waits_for_nobody_ends_as_well(conn: sqlite3.Connection) -> None:
    queued, owned, never = put(conn, 0), put(conn, 1, owner="alive"), put(conn, 2)
    outbox.hand(conn, [queued, owned], 20)
    refused(conn, 0, permanent=False)
    refused(conn, 1, permanent=False)
    outbox.prune(conn, 20 + outbox.HANDED_KEPT)
    assert get(conn, queued).state is State.WAITING
    outbox.prune(conn, 21 + outbox.HANDED_KEPT)
    assert get(conn, queued).state is State.UNCONFIRMED
    assert get(conn, owned).state is State.WAITING
    assert get(conn, never).state is State.WAITING


def test_prune(conn: sqlite3.Connection) -> None:
    waiting, overdue, handed, withdrawn, gone, cancelled, no = (
        put(conn, value, deadline=50 if value == 1 else None) for value in range(7)
    )
    outbox.hand(conn, [handed], 20)
    outbox.withdraw(conn, withdrawn, 30)
    delivered(conn, 4, now=30)
    outbox.bury_owner(conn, "nobody", 30)
    put(conn, 5, owner="dead")
    outbox.bury_owner(conn, "dead", 30)
    refused(conn, 6)

    def left() -> list[int]:
        rows = conn.execute("SELECT seq FROM outbox ORDER BY seq").fetchall()
        return [seq for (seq,) in rows]

    outbox.prune(conn, 30 + DAY)
    assert left() == [waiting, overdue, handed, withdrawn, gone, cancelled, no]
    assert get(conn, overdue).state is State.WITHDRAWN
    outbox.prune(conn, 31 + DAY)
    assert left() == [waiting, overdue, handed, no]
    outbox.prune(conn, 31 + 2 * DAY)
    assert left() == [waiting, handed, no]
    outbox.prune(conn, 30 + 30 * DAY)
    assert left() == [waiting, handed, no]
    outbox.prune(conn, 31 + 30 * DAY)
    assert left() == [waiting, handed]
    outbox.cancel_peer(conn, BOB, 31 + 30 * DAY)
    outbox.prune(conn, 32 + 31 * DAY)
    assert left() == [handed]
    outbox.prune(conn, 32 + 61 * DAY)
    assert left() == []


def expire(conn: sqlite3.Connection) -> None:
    put(conn, life=0)
    outbox.prune(conn, 20)


STEPS: dict[tuple[State, State], Callable[[sqlite3.Connection, int], object]] = {
    (State.WAITING, State.HANDED): lambda conn, seq: outbox.hand(conn, [seq], 20),
    (State.WAITING, State.DELIVERED): lambda conn, _: delivered(conn),
    (State.WAITING, State.REFUSED): lambda conn, _: refused(conn),
    (State.WAITING, State.WITHDRAWN): lambda conn, seq: outbox.withdraw(conn, seq, 20),
    (State.HANDED, State.DELIVERED): lambda conn, _: delivered(conn),
    (State.HANDED, State.REFUSED): lambda conn, _: refused(conn),
    (State.HANDED, State.WAITING): lambda conn, _: refused(conn, permanent=False),
    (State.WAITING, State.UNCONFIRMED): lambda conn, _: outbox.cancel_peer(conn, BOB, 20),
    (State.WAITING, State.EXPIRED): lambda conn, _: expire(conn),
    (State.EXPIRED, State.WAITING): lambda conn, _: put(conn),
    (State.EXPIRED, State.DELIVERED): lambda conn, _: delivered(conn),
    (State.REFUSED, State.WAITING): lambda conn, _: put(conn),
    (State.REFUSED, State.DELIVERED): lambda conn, _: delivered(conn),
    (State.WITHDRAWN, State.WAITING): lambda conn, _: put(conn),
    (State.WITHDRAWN, State.DELIVERED): lambda conn, _: delivered(conn),
    (State.HANDED, State.UNCONFIRMED): lambda conn, _: outbox.prune(conn, 21 + outbox.HANDED_KEPT),
    (State.UNCONFIRMED, State.WAITING): lambda conn, _: put(conn),
    (State.UNCONFIRMED, State.DELIVERED): lambda conn, _: delivered(conn),
}


def test_every_transition_in_the_table_happens(conn: sqlite3.Connection) -> None:
    table = {(old, new) for old, news in outbox.TRANSITIONS.items() for new in news}
    assert set(STEPS) == table
    for (old, new), step in STEPS.items():
        conn.execute("DELETE FROM outbox")
        seq = put(conn)
        if (old, new) == (State.WAITING, State.UNCONFIRMED):
            STEPS[State.WAITING, State.HANDED](conn, seq)
            STEPS[State.HANDED, State.WAITING](conn, seq)
        elif old is State.UNCONFIRMED:
            STEPS[State.WAITING, State.HANDED](conn, seq)
            STEPS[State.HANDED, old](conn, seq)
        elif old is not State.WAITING:
            STEPS[State.WAITING, old](conn, seq)
        assert get(conn, seq).state is old
        step(conn, seq)
        assert get(conn, seq).state is new


def test_what_has_waited_for_too_long_ends_and_is_told(conn: sqlite3.Connection) -> None:
    outbox.prune(conn, 0)
    never = put(conn, 1)
    short, left = put(conn, 2, life=10 * DAY), put(conn, 3, life=10 * DAY)
    owned = put(conn, 4, life=10 * DAY, owner="a process")
    outbox.hand(conn, [left], 5)
    for day in range(1, 10):
        outbox.prune(conn, day * DAY)
    assert {get(conn, seq).state for seq in (short, owned)} == {State.WAITING}
    outbox.prune(conn, 10 * DAY)
    assert [get(conn, seq).state for seq in (never, short, left, owned)] == [
        State.WAITING,
        State.EXPIRED,
        State.UNCONFIRMED,
        State.EXPIRED,
    ]
    assert [(each.id, each.state, each.reason) for each in notices.after(conn, 0)] == [
        (number(2), "expired", "it has waited for too long"),
        (number(3), "unconfirmed", "it has waited for too long"),
    ]


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("life", [20_000, 90_000, 3 * DAY])
def test_that_a_row_has_expired_is_known(conn: sqlite3.Connection, life: int, left: bool) -> None:
    outbox.prune(conn, 0)
    seq = put(conn, life=life)
    if left:
        outbox.hand(conn, [seq], 5)
    step = max(life // 50, 1000)
    for number, now in enumerate(itertools.count(0, step)):
        has_expired = outbox.has_expired(conn, now)
        if has_expired or number % 10 == 0:
            outbox.prune(conn, now)
        has_ended = get(conn, seq).state not in {State.WAITING, State.HANDED}
        assert has_ended == has_expired
        if has_ended:
            break
    assert life <= now <= life + step + aging.LEAST_AT_ONCE, "exact to the minute"
    assert len(notices.after(conn, 0)) == 1
    assert not outbox.has_expired(conn, now), "once"


def test_what_is_past_its_life_is_not_handed_over(conn: sqlite3.Connection) -> None:
    outbox.prune(conn, 0)
    never_left, left, lives = (put(conn, value, life=DAY) for value in (1, 2, 3))
    conn.execute("UPDATE outbox SET lives_until = lives_until + 1 WHERE seq = ?", (lives,))
    assert outbox.hand(conn, [left], 5) == [left]
    assert outbox.hand(conn, [never_left, left, lives], DAY) == [lives]
    assert get(conn, never_left).state is State.EXPIRED
    assert get(conn, left).state is State.UNCONFIRMED
    assert [each.id for each in notices.after(conn, 0)] == [number(1), number(2)]


def test_cancel(conn: sqlite3.Connection) -> None:
    waiting, owned, handed, refused_once, done, other = (
        put(conn, value, owner="a process" if value == 2 else None) for value in range(1, 7)
    )
    outbox.hand(conn, [handed, refused_once, done], 20)
    refused(conn, 4, permanent=False)
    delivered(conn, 5)
    outbox.cancel(conn, [waiting, owned, handed, refused_once, done], 40)
    assert [
        get(conn, seq).state for seq in (waiting, owned, handed, refused_once, done, other)
    ] == [
        State.WITHDRAWN,
        State.WITHDRAWN,
        State.UNCONFIRMED,
        State.UNCONFIRMED,
        State.DELIVERED,
        State.WAITING,
    ]
    assert get(conn, owned).reason == get(conn, handed).reason == outbox.CANCELLED
    assert get(conn, done).reason is None
    # A person has done it, and need not be told.
    assert notices.after(conn, 0) == []
    assert outbox.hand(conn, [waiting, owned, handed], 41) == []
    assert [row.seq for row in outbox.queued(conn, BOB)] == [other]


def test_put_again_it_lives_anew(conn: sqlite3.Connection) -> None:
    seq = put(conn, life=1000)
    outbox.prune(conn, 0)
    outbox.prune(conn, DAY)
    assert get(conn, seq).state is State.EXPIRED
    assert put(conn, life=1000) == seq
    outbox.prune(conn, DAY)
    assert get(conn, seq).state is State.WAITING


def test_what_was_to_wait_outlives_who_put_it(conn: sqlite3.Connection) -> None:
    now_or_never, lasting = put(conn, 1, owner="dead"), put(conn, 2, owner="dead", life=DAY)
    left, other = put(conn, 3, owner="dead", life=DAY), put(conn, 4, owner="alive", life=DAY)
    outbox.hand(conn, [left], 20)
    assert outbox.bury_owner(conn, "dead", 30) == (2, 1)
    assert get(conn, now_or_never).state is State.WITHDRAWN
    assert [row.seq for row in outbox.queued(conn, BOB)] == [lasting, left]
    assert get(conn, other).owner == "alive"


def test_a_refusal_of_what_is_queued_is_told(conn: sqlite3.Connection) -> None:
    put(conn, 1, owner="a process")
    put(conn, 2)
    put(conn, 3)
    refused(conn, 1)
    refused(conn, 2)
    refused(conn, 3, permanent=False)
    (notice,) = notices.after(conn, 0)
    assert (notice.peer, notice.id, notice.kind, notice.name) == (BOB, number(2), "text", None)
    assert (notice.state, notice.reason, notice.at) == ("refused", "too long", 30)


def test_a_row_knows_how_often_it_was_handed_and_its_peer_tried(conn: sqlite3.Connection) -> None:
    tries.note_failure(conn, BOB, "no answer", 1)
    seq = put(conn)
    outbox.hand(conn, [seq], 20)
    refused(conn, permanent=False)
    outbox.hand(conn, [seq], 21)
    found = conn.execute("SELECT hands, tries_before FROM outbox").fetchone()
    assert found == (2, 1)


def attempts(conn: sqlite3.Connection, seq: int) -> tuple[int, int]:
    """How often the row was handed, or tried in vain before its end; and what counts from."""
    found: tuple[int, int] = conn.execute(
        "SELECT hands, tries_before FROM outbox WHERE seq = ?", (seq,)
    ).fetchone()
    return found


def test_tries_after_its_end_are_not_those_of_a_row(conn: sqlite3.Connection) -> None:
    outbox.prune(conn, 0)
    cancelled, expired, no, again = put(conn, 1), put(conn, 2, life=DAY), put(conn, 3), put(conn, 4)
    for at in (1, 2):
        tries.note_failure(conn, BOB, "no answer", at)
    outbox.cancel(conn, [cancelled], 3)
    outbox.hand(conn, [no], 3)
    refused(conn, 3)
    outbox.prune(conn, DAY)
    tries.note_failure(conn, BOB, "no answer", DAY)
    assert [attempts(conn, seq)[0] for seq in (cancelled, expired, no)] == [2, 2, 3]
    assert put(conn, 4) == again
    assert attempts(conn, again) == (0, 3)
    # A peer that was removed and paired again is counted anew.
    tries.forget(conn, BOB)
    outbox.cancel(conn, [again], DAY)
    assert attempts(conn, again)[0] == 0


def test_two_processes_race_for_a_row(path: Path) -> None:
    ours, theirs = Database.open(path), Database.open(path)
    with ours.transaction() as conn:
        seq = put(conn)
    with ours.transaction() as conn:
        assert outbox.hand(conn, [seq], 20) == [seq]
        # Their snapshot is older, but their UPDATE waits for our commit.
        assert get(theirs.connection, seq).state is State.WAITING
    with theirs.transaction() as conn:
        assert outbox.withdraw(conn, seq, 20) is False
    ours.close()
    theirs.close()
