"""Two sessions that keep the rules: what they say, in which sizes, and when."""

from __future__ import annotations

import gc
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair import (
    ALICE,
    BOB,
    SIZES,
    Direction,
    Fixed,
    KeyLog,
    Pair,
    client_hello,
    frames,
    in_state,
    items,
)

from securelink.endpoints import Endpoint, Kind
from securelink.errors import LinkTruncated, LocalProtocolError
from securelink.hello import ClientHello
from securelink.limits import Limits
from securelink.messages import Announce, Deny, Ready, Receipt, Refused, Text
from securelink.session import (
    BATCH_SIZE,
    Closing,
    Ended,
    Introduced,
    Proven,
    Session,
    Verified,
)
from securelink.states import ENDED, TRANSITIONS, Input, State, after
from securelink.window import MESSAGES, SIZE

SIDES = ["client", "server"]
MIB = 1 << 20


def message_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def text(number: int, content: str = "hello") -> Text:
    return Text(message_id(number), 1_700_000_000_000, content)


def receipt(number: int) -> Receipt:
    return Receipt(message_id(number))


def both(pair: Pair, side: str) -> tuple[Session, Session, list, list]:
    """This side, the other, and what has happened at each."""
    if side == "client":
        return pair.client, pair.server, pair.at_client, pair.at_server
    return pair.server, pair.client, pair.at_server, pair.at_client


def other(side: str) -> str:
    return "server" if side == "client" else "client"


# ---- the table of states


@pytest.mark.parametrize(("state", "by"), list(itertools.product(State, Input)))
def test_every_state_with_every_input(state: State, by: Input) -> None:
    allowed = {
        (State.AWAIT_MESSAGE_1, Input.MESSAGE_1): State.AWAIT_MESSAGE_3,
        (State.AWAIT_MESSAGE_3, Input.MESSAGE_3): State.DECIDING,
        (State.DECIDING, Input.ADMIT): State.OPEN,
        (State.DECIDING, Input.DENY): State.CLOSED,
        (State.AWAIT_MESSAGE_2, Input.MESSAGE_2): State.VERIFIED,
        (State.VERIFIED, Input.PROCEED): State.AWAIT_READY,
        (State.AWAIT_READY, Input.READY): State.OPEN,
        (State.AWAIT_READY, Input.DENIED): State.CLOSED,
        (State.OPEN, Input.CLOSE): State.CLOSE_SENT,
        (State.OPEN, Input.CLOSE_RECEIVED): State.CLOSE_RECEIVED,
        (State.CLOSE_SENT, Input.CLOSE_RECEIVED): State.CLOSED,
        (State.CLOSE_RECEIVED, Input.CLOSE): State.CLOSED,
    }
    if by is Input.FAIL and state not in {State.CLOSED, State.FAILED}:
        assert after(state, by) is State.FAILED
    elif (state, by) in allowed:
        assert after(state, by) is allowed[state, by]
    else:
        with pytest.raises(LocalProtocolError):
            after(state, by)


def test_every_state_can_be_reached_and_left() -> None:
    starts = {State.AWAIT_MESSAGE_1, State.AWAIT_MESSAGE_2}
    assert {*TRANSITIONS.values(), *starts} == set(State)
    assert {state for state, _ in TRANSITIONS} == set(State) - ENDED


@pytest.mark.parametrize("state", State)
def test_calls_that_a_state_does_not_allow_change_nothing(state: State) -> None:
    calls = {
        "proceed": lambda session: session.proceed(),
        "admit": lambda session: session.admit("alice", 0),
        "deny": lambda session: session.deny(),
        "text": lambda session: session.send(text(1)),
        "announce": lambda session: session.send(Announce(())),
        # In no state here is there a text that owes a receipt.
        "receipt": lambda session: session.send(receipt(1)),
        "refused": lambda session: session.send(Refused(message_id(1), permanent=True, code=1)),
    }
    allowed = {
        State.VERIFIED: {"proceed"},
        State.DECIDING: {"admit", "deny"},
        State.OPEN: {"text", "announce"},
    }.get(state, set())
    for name in calls.keys() - allowed:
        session = in_state(state)
        with pytest.raises(LocalProtocolError):
            calls[name](session)
        assert session.state is state
        assert session.data_to_send(1000.0) == b""
    for name in allowed:
        session = in_state(state)
        calls[name](session)
        assert session.data_to_send(1000.0) != b""


@pytest.mark.parametrize("state", State)
def test_what_no_state_has_anything_against(state: State) -> None:
    session = in_state(state)
    assert session.fits(1) == (state is State.OPEN)
    assert session.data_to_send(1000.0) == b""
    assert session.receive_data(b"", 1000.0) == []
    assert session.tick(1000.0) == []
    assert (session.deadline() is None) == (state in ENDED)


@pytest.mark.parametrize("state", State)
def test_the_end_of_the_stream(state: State) -> None:
    session = in_state(state)
    happened = session.receive_eof()
    if state in ENDED:
        assert happened == []
        assert session.state is state
    else:
        (ended,) = happened
        assert isinstance(ended.error, LinkTruncated)
        assert session.state is State.FAILED
    assert session.receive_eof() == []


@pytest.mark.parametrize("state", State)
def test_closing(state: State) -> None:
    session = in_state(state)
    happened = session.close()
    if state is State.OPEN:
        assert happened == []
        assert session.state is State.CLOSE_SENT
    elif state is State.CLOSE_RECEIVED:
        assert happened == [Ended(None)]
        assert session.state is State.CLOSED
    elif state in ENDED | {State.CLOSE_SENT}:
        assert happened == []
        assert session.state is state
        assert session.data_to_send(1000.0) == b""
    else:
        (ended,) = happened
        assert isinstance(ended.error, LinkTruncated)
        assert session.state is State.FAILED
        assert session.data_to_send(1000.0) == b""
    assert session.close() == []


# ---- the handshake


def test_the_handshake_and_its_sizes() -> None:
    pair = Pair(limits=Limits(max_message=5000), client_limits=Limits(max_message=7000))
    pair.settle()
    assert pair.at_server == [Proven()]
    assert pair.at_client == [Verified()]
    pair.client.proceed()
    pair.settle()
    hello = client_hello(max_message=7000)
    assert pair.at_server[1:] == [Introduced(BOB.public, hello)]
    pair.server.admit("alice", 3)
    pair.settle()
    assert pair.at_client[1:] == [Ready("alice", 3)]
    assert (pair.client.max_message, pair.server.max_message) == (5000, 7000)
    assert pair.client.features == pair.server.features == 1
    assert [len(frame) - 4 for frame in pair.to_server] == [4 + 1248, 320]
    assert [len(frame) - 4 for frame in pair.to_client] == [1216, 80]
    assert pair.to_server[0][4:8] == b"SL\x01\x01"


def test_a_pairing_looks_like_any_other_connection() -> None:
    plain, pairing = Pair().open(), Pair(token=b"t" * 16).shake_hands()
    assert pairing.at_server[-1].hello.token == b"t" * 16
    pairing.server.admit("alice", 0)
    pairing.settle()
    assert plain.client.state is pairing.client.state is State.OPEN
    assert [len(data) for data in pairing.to_server] == [1256, 324]
    assert [len(data) for data in pairing.to_client] == [1220, 84]


def test_the_public_constructors() -> None:
    now = 5.0
    client = Session.client(BOB, ALICE.public, client_hello(), limits=Limits(), now=now)
    server = Session.server(ALICE, limits=Limits(), now=now)
    assert server.receive_data(client.data_to_send(now), now) == [Proven()]
    assert client.receive_data(server.data_to_send(now), now) == [Verified()]


def test_a_client_that_cannot_say_its_name_is_never_made() -> None:
    hello = ClientHello("n" * 33, 0, 0)
    with pytest.raises(LocalProtocolError):
        Session.client(BOB, ALICE.public, hello, limits=Limits(), now=0.0)


def test_a_server_that_cannot_say_its_name_has_not_admitted() -> None:
    pair = Pair().shake_hands()
    with pytest.raises(LocalProtocolError):
        pair.server.admit("n" * 33, 0)
    assert pair.server.state is State.DECIDING
    pair.server.admit("n" * 32, 0)
    pair.settle()
    assert pair.at_client[-1] == Ready("n" * 32, 0)


def test_deny() -> None:
    pair = Pair().shake_hands()
    assert pair.server.deny() == [Ended(None)]
    pair.settle()
    assert pair.at_client == [Verified(), Deny(), Ended(None)]
    assert pair.client.state is pair.server.state is State.CLOSED
    assert [len(data) for data in pair.to_client] == [1220, 84]


def test_ready_stands_alone() -> None:
    log = KeyLog()
    pair = Pair(cipher=log).shake_hands()
    pair.server.admit("alice", 1)
    pair.server.send(text(1))
    pair.settle()
    one, two = (
        Direction(log.keys[-1]).open(frame) if n == 0 else frame
        for n, frame in enumerate(frames(pair.to_client[-1]))
    )
    assert items(one) == [(1, b"\x05alice\0\0\0\x01")]
    assert len(two) == 84
    assert pair.at_client[-2:] == [Ready("alice", 1), text(1)]


@pytest.mark.parametrize("side", SIDES)
def test_the_handshake_has_one_deadline(side: str) -> None:
    pair = Pair(limits=Limits(handshake_timeout=10))
    pair.settle()
    session = getattr(pair, side)
    assert session.deadline() == pair.now + 10
    assert session.tick(pair.now + 9.9) == []
    # What arrives in between buys no time.
    if side == "server":
        session.receive_data(b"\0\0", pair.now + 9.9)
    (ended,) = session.tick(pair.now + 10)
    assert "10 s" in ended.error.message
    assert session.state is State.FAILED
    assert session.deadline() is None
    assert session.tick(pair.now + 99) == []


def test_the_owners_thoughts_count_against_the_deadline() -> None:
    pair = Pair(limits=Limits(handshake_timeout=10)).shake_hands()
    assert pair.server.deadline() == pair.client.deadline() == pair.now + 10


# ---- messages and their sizes


def test_a_text_of_10_bytes_is_a_frame_of_84() -> None:
    pair = Pair().open()
    pair.client.send(text(1, "x" * 10))
    assert len(pair.client.data_to_send(pair.now)) == 84


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_texts_around_every_record_size(size: int, off: int) -> None:
    pair = Pair().open()
    sent = text(1, "x" * (size - 3 - 24 + off))
    pair.client.send(sent)
    pair.settle()
    (data,) = pair.to_server
    following = [*SIZES, None][SIZES.index(size) + 1]
    expected = [size] if off <= 0 else [following] if following else [size, 64]
    assert [len(frame) for frame in frames(data)] == [4 + 16 + each for each in expected]
    assert pair.at_server == [sent]


def test_all_kinds_of_messages_both_ways() -> None:
    pair = Pair().open()
    announce = Announce((Endpoint(Kind.LAN, "192.0.2.7", 24819),))
    for side in SIDES:
        here, there, at_here, at_there = both(pair.forget(), side)
        here.send(text(1, "héllo\0\n"))
        here.send(text(2, ""))
        here.send(announce)
        pair.settle()
        assert at_there == [text(1, "héllo\0\n"), text(2, ""), announce]
        there.send(receipt(1))
        there.send(Refused(message_id(2), permanent=True, code=200))
        pair.settle()
        assert at_here == [receipt(1), Refused(message_id(2), permanent=True, code=200)]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("limit", [1, 1000, 65_516 - 24, 65_517 - 24, 1 << 20])
def test_the_longest_text_and_one_byte_more(side: str, limit: int) -> None:
    # Two-byte characters, because it is bytes that count.
    pair = Pair(limits=Limits(max_message=limit)).open()
    here, _, _, at_there = both(pair, side)
    longest = text(1, "é" * (limit // 2) + "x" * (limit % 2))
    with pytest.raises(LocalProtocolError):
        here.send(text(1, longest.text + "x"))
    assert here.data_to_send(pair.now) == b""
    here.send(longest)
    pair.settle()
    assert at_there == [longest]


def test_what_was_refused_by_send_takes_no_room() -> None:
    pair = Pair(limits=Limits(max_message=10)).open()
    for wrong in (text(1, "x" * 11), Text(b"short", 0, ""), text(1, "\ud800")):
        with pytest.raises(LocalProtocolError):
            pair.client.send(wrong)
    assert len(pair.client.room()) == 0


def test_what_waits_together_goes_into_one_record() -> None:
    pair = Pair().open()
    for number in range(400):
        pair.client.send(text(number, "x" * 100))
    pair.settle()
    assert pair.at_server == [text(number, "x" * 100) for number in range(400)]
    (data,) = pair.to_server
    assert len(frames(data)) == 1


def test_much_leaves_in_batches() -> None:
    pair = Pair().open()
    sent = [text(number, "x" * MIB) for number in range(4)]
    for each in sent:
        pair.client.send(each)
    batches = []
    while data := pair.client.data_to_send(pair.now):
        batches.append(data)
    assert len(batches) > 4 * MIB // (BATCH_SIZE + 65539)
    assert all(len(batch) < BATCH_SIZE + 65539 for batch in batches)
    assert pair.server.receive_data(b"".join(batches), pair.now) == sent


@pytest.mark.parametrize("side", SIDES)
def test_receipts_and_heartbeats_between_the_pieces(side: str) -> None:
    log = KeyLog()
    pair = Pair(cipher=log).open()
    key = log.keys[-2] if side == "client" else log.keys[-1]
    here, there, _, at_there = both(pair, side)
    for number in range(3):
        there.send(text(number))
    pair.settle()
    here.send(text(9, "x" * (MIB - 1)))
    stream = bytes(here.data_to_send(pair.now))
    here.send(receipt(0))
    here.send(Refused(message_id(1), permanent=False, code=3))
    stream += here.data_to_send(pair.now)
    here.send(text(10))
    here.send(receipt(2))
    while data := here.data_to_send(pair.now):
        stream += data
    assert there.begun == 0
    there.receive_data(stream[:70000], pair.now)
    begun = there.begun
    assert 60_000 < begun < 70_000
    there.receive_data(stream[70000:140000], pair.now)
    assert begun < there.begun < 140_000
    happened = there.receive_data(stream[140000:], pair.now)
    assert there.begun == 0
    assert at_there == []
    assert happened == [
        receipt(0),
        Refused(message_id(1), permanent=False, code=3),
        receipt(2),
        text(9, "x" * (MIB - 1)),
        text(10),
    ]
    direction = Direction(key)
    direction.n = 1 if side == "server" else 0
    kinds = [[kind for kind, _ in items(direction.open(frame))] for frame in frames(stream)]
    assert [4, 5, 0x83] in kinds
    assert [4, 0x83] in kinds
    assert kinds[-1] == [3, 3]


# ---- the window


@pytest.mark.parametrize("side", SIDES)
def test_1024_texts_without_a_receipt(side: str) -> None:
    pair = Pair().open()
    here, there, _, at_there = both(pair, side)
    for number in range(MESSAGES):
        assert here.fits(5)
        here.send(text(number))
    assert not here.fits(5)
    with pytest.raises(LocalProtocolError):
        here.send(text(MESSAGES))
    pair.settle()
    assert len(at_there) == MESSAGES
    there.send(receipt(500))
    pair.settle()
    assert here.fits(5)
    here.send(text(500))
    assert not here.fits(5)
    pair.settle()
    assert at_there[-1] == text(500)


@pytest.mark.parametrize("side", SIDES)
def test_4_mib_without_a_receipt(side: str) -> None:
    pair = Pair().open()
    here, there, _, at_there = both(pair, side)
    for number in range(4):
        assert here.fits(MIB)
        here.send(text(number, "x" * MIB))
    assert not here.fits(1)
    assert here.fits(0)
    with pytest.raises(LocalProtocolError):
        here.send(text(4, "x"))
    pair.settle()
    there.send(Refused(message_id(0), permanent=False, code=5))
    pair.settle()
    assert here.fits(MIB)
    assert not here.fits(MIB + 1)
    assert len(at_there) == 4


def test_one_text_always_fits() -> None:
    pair = Pair(limits=Limits(max_message=SIZE + 10)).open()
    assert pair.client.fits(SIZE + 10)
    pair.client.send(text(1, "x" * (SIZE + 10)))
    assert not pair.client.fits(0)
    pair.settle()
    assert len(pair.at_server) == 1
    assert pair.server.state is State.OPEN


def test_the_room_is_a_copy() -> None:
    pair = Pair().open()
    pair.client.send(text(1))
    room = pair.client.room()
    assert message_id(1) in room
    for number in range(2, MESSAGES + 1):
        room.add(message_id(number), 0)
    assert not room.fits(0)
    assert pair.client.fits(0)
    room.remove(message_id(1))
    assert message_id(1) in pair.client.room()


@pytest.mark.parametrize("side", SIDES)
def test_one_id_is_under_way_once(side: str) -> None:
    pair = Pair().open()
    here, there, _, _ = both(pair, side)
    here.send(text(1))
    with pytest.raises(LocalProtocolError):
        here.send(text(1, "other"))
    pair.settle()
    with pytest.raises(LocalProtocolError):
        here.send(text(1))
    there.send(receipt(1))
    with pytest.raises(LocalProtocolError):
        there.send(receipt(1))
    pair.settle()
    here.send(text(1))


# ---- time


@pytest.mark.parametrize("side", SIDES)
def test_a_ping_after_10_seconds_without_sending(side: str) -> None:
    log = KeyLog()
    pair = Pair(cipher=log).open()
    here, there, _, at_there = both(pair, side)
    start = pair.now
    assert here.deadline() == start + 10
    assert here.tick(start + 9.999) == []
    assert here.data_to_send(start + 9.999) == b""
    assert here.tick(start + 10) == []
    pair.now = start + 10
    data = here.data_to_send(pair.now)
    direction = Direction(log.keys[-2] if side == "client" else log.keys[-1])
    direction.n = 0 if side == "client" else 1
    assert items(direction.open(bytes(data))) == [(6, b"")]
    # It asks for no answer, and moves both sides' clocks on.
    assert there.receive_data(data, pair.now) == at_there == []
    assert there.data_to_send(pair.now) == b""
    assert here.deadline() == start + 20
    assert there.deadline() == start + 10


def test_whoever_sends_owes_no_ping() -> None:
    pair = Pair().open()
    start = pair.now
    pair.now = start + 8
    pair.client.send(text(1))
    pair.settle()
    assert pair.client.deadline() == start + 18
    pair.client.tick(start + 10)
    assert pair.client.data_to_send(start + 10) == b""


@pytest.mark.parametrize("closing", [False, True])
def test_a_link_that_hears_nothing_for_25_seconds_is_dropped(*, closing: bool) -> None:
    pair = Pair().open()
    start = pair.now
    if closing:
        pair.client.close()
        pair.client.data_to_send(start)
        assert pair.client.deadline() == start + 25
    for second in range(25):
        assert pair.client.tick(start + second) == []
        sent = pair.client.data_to_send(start + second)
        assert bool(sent) == (second in {10, 20} and not closing)
    (ended,) = pair.client.tick(start + 25)
    assert isinstance(ended.error, LinkTruncated)
    assert ended.error.message == "nothing was received for 25 s"
    assert pair.client.state is State.FAILED
    assert pair.client.data_to_send(start + 25) == b""


def test_who_waits_for_a_slow_disk_before_closing_still_says_so() -> None:
    pair = Pair().open()
    pair.client.close()
    pair.settle()
    assert pair.at_server == [Closing()]
    start = pair.now
    pair.now = start + 10
    pair.server.tick(pair.now)
    pair.settle()
    assert pair.client.deadline() == start + 10 + 25
    assert pair.server.deadline() == start + 20


def test_a_connection_that_takes_no_more_gathers_no_pings() -> None:
    log = KeyLog()
    pair = Pair(cipher=log).open()
    start = pair.now
    for second in range(10, 25):
        due = pair.client.deadline()
        assert due is not None
        assert due > start + second - 1
        pair.client.tick(start + second)
    (frame,) = frames(bytes(pair.client.data_to_send(start + 25)))
    assert items(Direction(log.keys[-2]).open(frame)) == [(6, b"")]
    assert pair.client.data_to_send(start + 25) == b""


def test_what_waits_already_serves_as_a_ping() -> None:
    log = KeyLog()
    pair = Pair(cipher=log).open()
    pair.client.send(text(1))
    pair.client.tick(pair.now + 10)
    pair.settle()
    (frame,) = pair.to_server
    assert [kind for kind, _ in items(Direction(log.keys[-2]).open(frame))] == [3]


def test_times_come_from_the_limits() -> None:
    limits = Limits(handshake_timeout=3, heartbeat_interval=1, heartbeat_timeout=4)
    pair = Pair(limits=limits)
    assert pair.server.deadline() == pair.now + 3
    pair.open()
    assert pair.server.deadline() == pair.now + 1
    pair.server.tick(pair.now + 1)
    assert len(pair.server.data_to_send(pair.now + 3)) == 84
    assert pair.server.deadline() == pair.now + 4
    (ended,) = pair.server.tick(pair.now + 4)
    assert ended.error.message == "nothing was received for 4 s"


# ---- closing


@pytest.mark.parametrize("side", SIDES)
def test_an_orderly_end(side: str) -> None:
    log = KeyLog()
    pair = Pair(cipher=log).open()
    here, there, at_here, at_there = both(pair, side)
    there.send(text(1))
    pair.settle()
    here.send(receipt(1))
    assert here.close() == []
    assert here.state is State.CLOSE_SENT
    pair.settle()
    assert at_there == [receipt(1), Closing()]
    assert there.state is State.CLOSE_RECEIVED
    assert there.close() == [Ended(None)]
    pair.settle()
    assert at_here == [text(1), Ended(None)]
    assert here.state is there.state is State.CLOSED
    stream = b"".join(pair.to_server if side == "client" else pair.to_client)
    direction = Direction(log.keys[-2] if side == "client" else log.keys[-1])
    direction.n = 0 if side == "client" else 1
    records = [items(direction.open(frame)) for frame in frames(stream)]
    # READY, the server's record 0, counts as well.
    count = 2 if side == "client" else 3
    assert records == [[(4, message_id(1))], [(7, count.to_bytes(8, "big"))]]


def test_both_close_at_once() -> None:
    pair = Pair().open()
    pair.client.send(text(1))
    pair.server.send(text(2))
    pair.step()
    pair.client.send(receipt(2))
    pair.server.send(receipt(1))
    assert pair.client.close() == pair.server.close() == []
    pair.settle()
    assert pair.at_client == [text(2), receipt(1), Ended(None)]
    assert pair.at_server == [text(1), receipt(2), Ended(None)]


@pytest.mark.parametrize("side", SIDES)
def test_after_our_close_receipts_are_taken_and_all_else_is_dropped(side: str) -> None:
    pair = Pair().open()
    here, there, at_here, _ = both(pair, side)
    here.send(text(1))
    here.send(text(2))
    pair.settle()
    here.close()
    there.send(text(3))
    there.send(Announce(()))
    there.send(receipt(1))
    there.send(Refused(message_id(2), permanent=False, code=3))
    stream = there.data_to_send(pair.now)
    assert here.receive_data(stream, pair.now) == [
        receipt(1),
        Refused(message_id(2), permanent=False, code=3),
    ]
    pair.settle()
    there.close()
    pair.settle()
    assert at_here == [Ended(None)]


@pytest.mark.parametrize("side", SIDES)
def test_after_their_close_receipts_still_go(side: str) -> None:
    pair = Pair().open()
    here, there, _, at_there = both(pair, side)
    there.send(text(1))
    there.send(text(2))
    pair.settle()
    there.close()
    pair.settle()
    here.send(receipt(1))
    here.send(Refused(message_id(2), permanent=True, code=1))
    for message in (text(1), Announce(())):
        with pytest.raises(LocalProtocolError):
            here.send(message)
    here.close()
    pair.settle()
    refused = Refused(message_id(2), permanent=True, code=1)
    assert at_there == [receipt(1), refused, Ended(None)]


@pytest.mark.parametrize("side", SIDES)
def test_texts_that_have_not_left_are_dropped_by_closing(side: str) -> None:
    pair = Pair().open()
    here, there, _, at_there = both(pair, side)
    there.send(text(1))
    pair.settle()
    here.send(text(2))
    here.send(receipt(1))
    here.close()
    pair.settle()
    assert at_there == [receipt(1), Closing()]


@pytest.mark.parametrize("side", SIDES)
def test_a_text_that_has_left_in_part_is_finished_before_closing(side: str) -> None:
    pair = Pair().open()
    here, there, at_here, at_there = both(pair, side)
    long = text(1, "x" * MIB)
    here.send(long)
    here.send(text(2))
    first = here.data_to_send(pair.now)
    assert there.receive_data(first, pair.now) == []
    here.close()
    pair.settle()
    assert at_there == [long, Closing()]
    there.send(receipt(1))
    there.close()
    pair.settle()
    assert at_here == [receipt(1), Ended(None)]


# ---- however the stream is cut


class CutPair(Pair):
    """Carries whatever is said at once in two pieces."""

    def __init__(self, *, cut: int, fixed: tuple[Fixed, Fixed]) -> None:
        super().__init__(fixed=fixed)
        self.cut = cut

    def step(self) -> bool:
        for_server = bytes(self.client.data_to_send(self.now))
        for_client = bytes(self.server.data_to_send(self.now))
        for data, session, happened in (
            (for_server, self.server, self.at_server),
            (for_client, self.client, self.at_client),
        ):
            for piece in (data[: self.cut], data[self.cut :]):
                happened.extend(session.receive_data(piece, self.now))
        return bool(for_server or for_client)


def converse(pair: Pair) -> Pair:
    pair.shake_hands()
    pair.server.admit("alice", 1)
    pair.server.send(text(1))
    pair.settle()
    pair.client.send(receipt(1))
    pair.client.send(text(2, "x" * 200))
    pair.settle()
    pair.server.send(receipt(2))
    pair.server.tick(pair.now + 10)
    pair.settle()
    pair.client.close()
    pair.settle()
    pair.server.close()
    pair.settle()
    return pair


def test_a_handshake_cut_at_every_byte() -> None:
    fixed = Fixed(7), Fixed(8)
    whole = Pair(fixed=fixed).shake_hands()
    for cut in range(1, max(map(len, whole.to_server + whole.to_client))):
        pair = CutPair(cut=cut, fixed=fixed).shake_hands()
        assert pair.at_client == whole.at_client == [Verified()]
        assert pair.at_server == whole.at_server


def test_a_conversation_cut_at_every_byte() -> None:
    fixed = Fixed(7), Fixed(8)
    whole = converse(Pair(fixed=fixed))
    assert len(whole.at_client) == 5
    assert whole.at_client[-1] == Ended(None)
    assert len(whole.at_server) == 5
    assert whole.at_server[-1] == Closing()
    for cut in range(1, max(map(len, whole.to_server[2:] + whole.to_client[1:]))):
        pair = converse(CutPair(cut=cut, fixed=fixed))
        assert pair.at_client == whole.at_client
        assert pair.at_server == whole.at_server


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 120_000), min_size=1, max_size=30))
def test_a_long_text_cut_anywhere(sizes: list[int]) -> None:
    pair = Pair().open()
    sent = [text(1, "x" * MIB), text(2), text(3, "y" * 65_493), text(4, "z" * 200_000)]
    for each in sent:
        pair.client.send(each)
    stream = b""
    while data := pair.client.data_to_send(pair.now):
        stream += data
    happened = []
    for size in sizes:
        happened += pair.server.receive_data(stream[:size], pair.now)
        stream = stream[size:]
    happened += pair.server.receive_data(stream, pair.now)
    assert happened == sent


@pytest.mark.parametrize("side", SIDES)
def test_truncated_at_every_byte_it_is_an_error_and_nothing_partial_is_taken(side: str) -> None:
    pair = Pair().open()
    here, there, _, _ = both(pair, side)
    stream = b""
    ends = []
    for number in range(5):
        here.send(text(number))
        stream += here.data_to_send(pair.now)
        ends.append(len(stream))
    here.close()
    stream += here.data_to_send(pair.now)
    for at, byte in enumerate(stream):
        delivered = sum(end <= at for end in ends)
        assert len(pair.at_client) + len(pair.at_server) == delivered
        (pair.at_client if side == "server" else pair.at_server).extend(
            there.receive_data(bytes([byte]), pair.now)
        )
    assert there.state is State.CLOSE_RECEIVED

    for cut in range(0, len(stream), 7):
        pair = Pair().open()
        here, there, _, _ = both(pair, side)
        mine = b""
        for number in range(5):
            here.send(text(number))
            mine += here.data_to_send(pair.now)
        here.close()
        mine += here.data_to_send(pair.now)
        *texts, ended = there.receive_data(mine[:cut], pair.now) + there.receive_eof()
        assert texts == [text(n) for n in range(sum(end <= cut for end in ends))]
        assert isinstance(ended.error, LinkTruncated)
        assert there.state is State.FAILED


# ---- keys and nonces


@pytest.mark.parametrize("side", SIDES)
def test_rekeying_at_records_1024_and_2048(side: str) -> None:
    log = KeyLog()
    pair = Pair(cipher=log).open()
    direction = Direction(log.keys[-2] if side == "client" else log.keys[-1])
    first = direction.key
    direction.n = 0 if side == "client" else 1
    here, there, _, _ = both(pair, side)
    for number in range(2100):
        sent = text(number)
        here.send(sent)
        (frame,) = frames(bytes(here.data_to_send(pair.now)))
        # Noise's REKEY, computed here a second time, opens what the session has sealed.
        ((kind, body),) = items(direction.open(frame))
        assert (kind, body[:16]) == (3, sent.id)
        assert there.receive_data(frame, pair.now) == [sent]
        there.send(Receipt(sent.id))
        if number % 512 == 0:
            pair.settle()
        else:
            here.receive_data(there.data_to_send(pair.now), pair.now)
    assert here.state is there.state is State.OPEN
    assert direction.key != first
    # Two new keys for each direction, made once by each side.
    assert len(set(log.keys[-8:])) == 4


@pytest.mark.parametrize("end", ["open", "fail", "deny", "close"])
def test_no_key_outlives_its_use(end: str) -> None:
    log = KeyLog()
    pair = Pair(cipher=log).shake_hands()
    match end:
        case "deny":
            pair.server.deny()
            pair.settle()
        case "fail":
            pair.server.receive_eof()
            pair.client.receive_eof()
        case _:
            pair.server.admit("alice", 0)
            pair.settle()
    if end == "close":
        pair.server.close()
        pair.client.close()
        pair.settle()
    gc.collect()
    # Of an open link those of two directions are left, at two sides: the handshake's are gone.
    assert len(log.made) == (4 if end == "open" else 0)


def test_no_nonce_is_ever_used_twice() -> None:
    log = KeyLog()
    pair = converse(Pair(cipher=log))
    assert pair.client.state is pair.server.state is State.CLOSED
    pair = Pair(cipher=log).open()
    for number in range(1200):
        pair.client.send(text(number))
        pair.server.send(text(number))
        pair.step()
        pair.client.send(receipt(number))
        pair.server.send(receipt(number))
        if number % 3:
            pair.client.tick(pair.now + 10)
            pair.settle()
    pair.client.send(text(0, "x" * MIB))
    pair.step()
    pair.client.close()
    pair.server.close()
    pair.settle()
    assert pair.client.state is pair.server.state is State.CLOSED
    transport = [nonce for _, nonce in log.nonces if nonce < (1 << 32).to_bytes(12, "big")]
    assert len(transport) > 3 * 1024
