"""Whatever arrives from outside: it delivers nothing of its own, and ends the link at most."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pair import (
    ALICE,
    READY,
    Fixed,
    Pair,
    RawPeer,
    client_hello,
    frames,
    in_state,
    item,
    pad,
    text_body,
    text_items,
)

from securelink.errors import (
    DecryptError,
    FrameTooLong,
    HandshakeError,
    LinkTruncated,
    LocalProtocolError,
    MalformedRecord,
    RemoteProtocolError,
)
from securelink.file_messages import TYPES as FILE_TYPES
from securelink.hello import ServerHello
from securelink.identity import Identity
from securelink.limits import Limits
from securelink.messages import Announce, Deny, Receipt, Refused, Text
from securelink.noise import HandshakeState
from securelink.session import (
    Closing,
    Ended,
    Introduced,
    Proven,
    Replays,
    Session,
    Verified,
    replays,
)
from securelink.states import ENDED, State

SIDES = ["client", "server"]
MIB = 1 << 20
TEXT, RECEIPT, REFUSED, PING, CLOSE, ANNOUNCE = 3, 4, 5, 6, 7, 8
NOW = 1000.0


def assert_failed(
    session: Session, happened: list, error: type[Exception] = RemoteProtocolError
) -> None:
    """The session has ended, says nothing more, and takes nothing more."""
    (ended,) = happened
    assert isinstance(ended, Ended)
    assert isinstance(ended.error, error)
    assert session.state is State.FAILED
    assert session.data_to_send(NOW) == b""
    assert session.receive_data(bytes(100), NOW) == []


def close_item(count: int) -> bytes:
    return item(CLOSE, count.to_bytes(8, "big"))


def raw_peer(side: str, **kwargs) -> RawPeer:
    """A peer that plays this side, against a session that plays the other."""
    return RawPeer(initiator=side == "client", **kwargs)


def texts_in(happened: list) -> list[int]:
    return [int.from_bytes(each.id, "big") for each in happened if isinstance(each, Text)]


# ---- random bytes


@pytest.mark.parametrize("state", State)
@settings(max_examples=30, deadline=None)
@given(
    st.binary(min_size=1, max_size=2000)
    | st.binary(min_size=80, max_size=80).map(lambda body: b"\0\0\0\x50" + body)
)
def test_random_bytes_in_every_state(state: State, data: bytes) -> None:
    session = in_state(state)
    happened = session.receive_data(data, NOW)
    if state in ENDED:
        assert happened == []
        assert session.state is state
    elif happened:
        assert_failed(session, happened)
    else:
        # It waits for the rest of a length, or of a frame that this state allows.
        assert session.state is state
        assert len(data) < 4 or int.from_bytes(data[:4], "big") in LENGTHS[state]


SILENT = [State.VERIFIED, State.DECIDING, State.CLOSE_RECEIVED]


@pytest.mark.parametrize("state", SILENT)
@pytest.mark.parametrize("data", [b"\0", b"\0\0\0\x50", bytes(84)])
def test_where_nothing_may_come_the_first_byte_ends_it(state: State, data: bytes) -> None:
    session = in_state(state)
    assert_failed(session, session.receive_data(data, NOW))


def test_the_clients_first_byte_after_message_3_ends_it_even_in_one_piece() -> None:
    pair = Pair()
    pair.settle()
    pair.client.proceed()
    data = bytes(pair.client.data_to_send(NOW)) + b"\0"
    introduced, ended = pair.server.receive_data(data, NOW)
    assert isinstance(introduced, Introduced)
    assert isinstance(ended.error, RemoteProtocolError)


LENGTHS = {
    State.AWAIT_MESSAGE_1: {1252},
    State.AWAIT_MESSAGE_2: {1216},
    State.AWAIT_MESSAGE_3: {320},
    State.AWAIT_READY: {80, 272, 1040, 4112, 16400, 65535},
    State.OPEN: {80, 272, 1040, 4112, 16400, 65535},
    State.CLOSE_SENT: {80, 272, 1040, 4112, 16400, 65535},
}


@pytest.mark.parametrize("state", LENGTHS)
def test_lengths_are_judged_before_a_byte_of_the_body(state: State) -> None:
    near = {length + off for length in LENGTHS[state] for off in (-1, 0, 1)}
    for length in sorted(near | {0, 1, 15, 16, 17, 64, 65536, 1 << 24, 0xFFFFFFFF}):
        session = in_state(state)
        header = length.to_bytes(4, "big")
        assert session.receive_data(header[:3], NOW) == []
        happened = session.receive_data(header[3:], NOW)
        if length in LENGTHS[state]:
            assert happened == []
            assert session.state is state
        else:
            too_long = length > max(LENGTHS[state])
            assert_failed(session, happened, FrameTooLong if too_long else MalformedRecord)


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"SSH-2.0-OpenSSH_9.9\r\n", b"\x16\x03\x01\x02\0\x01"],
)
def test_other_protocols_get_no_answer(data: bytes) -> None:
    session = in_state(State.AWAIT_MESSAGE_1)
    assert_failed(session, session.receive_data(data, NOW), FrameTooLong)


# ---- the handshake


FIXED = Fixed(7), Fixed(8)


@pytest.fixture(scope="module")
def handshake_frames() -> tuple[bytes, bytes, bytes]:
    pair = Pair(fixed=FIXED).shake_hands()
    return pair.to_server[0], pair.to_client[0], pair.to_server[1]


def flips(frame: bytes) -> list[bytes]:
    """The frame with one bit wrong, in every byte of it."""
    return [
        frame[:at] + bytes([frame[at] ^ 1 << at % 8]) + frame[at + 1 :] for at in range(len(frame))
    ]


def test_every_byte_of_message_1_is_held_to(handshake_frames: tuple[bytes, ...]) -> None:
    for wrong in flips(handshake_frames[0]):
        session = Pair().server
        assert_failed(session, session.receive_data(wrong, NOW))


def test_every_byte_of_message_2_is_held_to(handshake_frames: tuple[bytes, ...]) -> None:
    for wrong in flips(handshake_frames[1]):
        session = Pair(fixed=FIXED).client
        assert session.data_to_send(NOW) == handshake_frames[0]
        assert_failed(session, session.receive_data(wrong, NOW))
        with pytest.raises(LocalProtocolError):
            session.proceed()


def test_every_byte_of_message_3_is_held_to(handshake_frames: tuple[bytes, ...]) -> None:
    for wrong in flips(handshake_frames[2]):
        session = Pair(fixed=FIXED).server
        assert session.receive_data(handshake_frames[0], NOW) == [Proven()]
        assert session.data_to_send(NOW) == handshake_frames[1]
        assert_failed(session, session.receive_data(wrong, NOW))


def test_the_frames_that_were_flipped_are_good_ones(handshake_frames: tuple[bytes, ...]) -> None:
    one, two, three = handshake_frames
    pair = Pair(fixed=FIXED)
    assert pair.server.receive_data(one, NOW) == [Proven()]
    assert isinstance(pair.server.receive_data(three, NOW)[0], Introduced)
    assert pair.client.receive_data(two, NOW) == [Verified()]


@pytest.mark.parametrize("header", [b"SL\x02\x01", b"SL\x01\x02", b"sl\x01\x01", b"HTTP"])
def test_another_version_or_suite(header: bytes, handshake_frames: tuple[bytes, ...]) -> None:
    session = in_state(State.AWAIT_MESSAGE_1)
    frame = handshake_frames[0][:4] + header + handshake_frames[0][8:]
    assert_failed(session, session.receive_data(frame, NOW), HandshakeError)


def test_a_server_without_the_pinned_key() -> None:
    mallory = Identity.from_private_bytes(bytes([3]) * 32)
    server = Session.server(mallory, limits=Limits(), now=NOW)
    client = Pair().client
    assert_failed(server, server.receive_data(client.data_to_send(NOW), NOW), DecryptError)


@pytest.mark.parametrize(
    ("side", "payload"),
    [
        ("server", bytes(63) + b"\x01"),
        ("client", bytes(255) + b"\x01"),
        ("client", b"\0" * 12 + b"\x08" + bytes(243)),
        ("client", b"\0" * 13 + b"\x01\xff" + bytes(241)),
    ],
)
def test_a_hello_not_of_its_form(side: str, payload: bytes) -> None:
    peer = raw_peer(side, payload=payload)
    assert_failed(peer.session, peer.happened, HandshakeError)


def test_a_session_that_was_recorded_delivers_nothing_when_played_again() -> None:
    pair = Pair().open()
    recorded = Pair().shake_hands()
    recorded.server.admit("alice", 0)
    recorded.settle()
    recorded.client.send(Text(bytes(16), 0, "transfer 100"))
    recorded.settle()
    assert len(recorded.to_server) == 3
    happened = []
    for data in recorded.to_server:
        happened += pair.server.receive_data(data, NOW)
    assert_failed(pair.server, happened)

    server = in_state(State.AWAIT_MESSAGE_1)
    one, three, text = recorded.to_server
    # Whoever replays message 1 learns no more than that somebody is there.
    assert server.receive_data(one, NOW) == [Proven()]
    assert server.data_to_send(NOW) != recorded.to_client[0]
    assert_failed(server, server.receive_data(three + text, NOW), DecryptError)

    client = in_state(State.AWAIT_MESSAGE_2)
    assert_failed(client, client.receive_data(b"".join(recorded.to_client), NOW), DecryptError)


def test_a_first_message_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MOST", 3)
    known = Replays()

    def server() -> Session:
        return Session.server(ALICE, limits=Limits(), now=NOW, replays=known)

    one, *others = (bytes(Pair().client.data_to_send(NOW)) for _ in range(5))
    # What does not verify is not remembered: nobody can spoil a message that he does not know.
    spoiled = server()
    assert_failed(spoiled, spoiled.receive_data(one[:-1] + bytes([one[-1] ^ 1]), NOW))
    assert server().receive_data(one, NOW) == [Proven()]
    for other in others:
        assert server().receive_data(other, NOW) == [Proven()]
        again = server()
        assert_failed(again, again.receive_data(one, NOW), HandshakeError)
    # Of those that do not come again, the oldest is forgotten.
    assert server().receive_data(others[0], NOW) == [Proven()]


def test_a_replay_costs_no_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Replays()
    one = bytes(Pair().client.data_to_send(NOW))
    Session.server(ALICE, limits=Limits(), now=NOW, replays=known).receive_data(one, NOW)
    monkeypatch.setattr(HandshakeState, "read_message", None)
    monkeypatch.setattr(HandshakeState, "write_message", None)
    again = Session.server(ALICE, limits=Limits(), now=NOW, replays=known)
    assert_failed(again, again.receive_data(one, NOW), HandshakeError)


@pytest.mark.parametrize("side", SIDES)
def test_what_we_say_ourselves_does_not_come_back_as_theirs(side: str) -> None:
    pair = Pair().open()
    session = getattr(pair, side)
    session.send(Text(bytes(16), 0, "hello"))
    assert_failed(session, session.receive_data(session.data_to_send(NOW), NOW), DecryptError)


# ---- before READY


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(pad(READY + item(PING)), id="something after READY"),
        pytest.param(pad(item(PING) + READY), id="something before READY"),
        pytest.param(pad(READY + READY), id="READY twice"),
        pytest.param(pad(item(2) + item(2)), id="DENY twice"),
        pytest.param(pad(item(PING)), id="a heartbeat"),
        pytest.param(pad(item(TEXT, text_body(1))), id="a text"),
        pytest.param(pad(item(TEXT, text_body(1), more=True)), id="a part of a text"),
        pytest.param(pad(READY + item(TEXT, b"x", more=True)), id="a part of a text after READY"),
        pytest.param(pad(item(TEXT, b"x", more=True) + READY), id="a part of a text before"),
        pytest.param(pad(item(1, READY[3:], more=True)), id="a part of READY"),
        pytest.param(pad(close_item(1)), id="CLOSE"),
        pytest.param(pad(item(RECEIPT, bytes(16))), id="a receipt"),
        pytest.param(pad(item(ANNOUNCE, b"\0")), id="an announcement"),
        pytest.param(pad(item(1)), id="READY not of its form"),
        pytest.param(pad(item(2, b"x")), id="DENY not of its form"),
        pytest.param(bytes(64), id="nothing"),
    ],
)
def test_the_first_record_is_ready_or_deny_alone(record: bytes) -> None:
    server = raw_peer("server")
    happened = server.feed(server.sending.seal(record))
    assert_failed(server.session, happened, MalformedRecord)


def test_deny_is_the_end() -> None:
    server = raw_peer("server")
    assert server.say(item(2)) == [Deny(), Ended(None)]
    assert server.session.state is State.CLOSED
    assert server.say(READY) == []
    assert server.session.state is State.CLOSED


def test_ready_in_a_larger_record_than_need_be() -> None:
    server = raw_peer("server")
    (ready,) = server.say(READY, size=1024)
    assert (ready.name, ready.waiting) == ("alice", 0)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("again", [READY, item(2)], ids=["READY", "DENY"])
def test_ready_and_deny_come_once(side: str, again: bytes) -> None:
    peer = raw_peer(side).open()
    assert_failed(peer.session, peer.say(again), MalformedRecord)


# ---- records that hold what they must not

MALFORMED = [
    pytest.param(bytes(64), id="no item"),
    pytest.param(pad(item(PING))[:-1] + b"\x01", id="padding not zero"),
    pytest.param(pad(b"\x80\0\0"), id="type 0 with more to follow"),
    pytest.param(b"\x03\0\x3e" + bytes(61), id="an item past the end"),
    pytest.param(pad(item(PING) + item(PING)), id="two heartbeats"),
    pytest.param(pad(item(PING) * 21_839), id="nothing but heartbeats"),
    pytest.param(pad(item(9)), id="an unknown type"),
    pytest.param(pad(item(16, b"x")), id="an offer not of its form"),
    pytest.param(pad(item(23, bytes(4))), id="an unknown type of the files"),
    pytest.param(pad(item(127, b"x")), id="the last type"),
    pytest.param(pad(item(9, b"x", more=True)), id="a part of an unknown type"),
    pytest.param(pad(item(PING, b"x")), id="a heartbeat with a body"),
    pytest.param(pad(item(PING, b"x", more=True)), id="a part of a heartbeat"),
    pytest.param(pad(item(RECEIPT, bytes(8), more=True)), id="a part of a receipt"),
    pytest.param(pad(item(CLOSE, bytes(4), more=True)), id="a part of CLOSE"),
    pytest.param(pad(item(TEXT, b"", more=True)), id="an empty part"),
    pytest.param(pad(item(TEXT, bytes(23))), id="a text without its head"),
    pytest.param(pad(item(TEXT, text_body(1, b"\xff"))), id="a text not in UTF-8"),
    pytest.param(pad(item(RECEIPT, bytes(16))), id="a receipt for what was not sent"),
    pytest.param(pad(item(REFUSED, bytes(18))), id="a refusal of what was not sent"),
    pytest.param(pad(close_item(0)), id="CLOSE without a count"),
    pytest.param(pad(close_item(99)), id="CLOSE with a wrong count"),
    pytest.param(pad(item(ANNOUNCE, b"\x01")), id="an announcement cut short"),
    pytest.param(pad(b"".join(text_items([5, 5]))), id="one ID twice"),
]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("record", MALFORMED)
def test_malformed_records_end_the_link(side: str, record: bytes) -> None:
    peer = raw_peer(side).open()
    assert texts_in(peer.say(*text_items([1, 2]))) == [1, 2]
    happened = peer.feed(peer.sending.seal(record) + peer.sending.seal(pad(item(PING))))
    assert_failed(peer.session, happened, MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("record", MALFORMED)
def test_and_after_our_own_close_too(side: str, record: bytes) -> None:
    peer = raw_peer(side).open()
    peer.session.close()
    peer.take()
    assert_failed(peer.session, peer.feed(peer.sending.seal(record)), MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
def test_of_a_records_announcements_only_the_last_is_read(side: str) -> None:
    peer = raw_peer(side).open()
    broken = item(ANNOUNCE, b"\x01")
    happened = peer.say(broken, item(ANNOUNCE, b"\0"), *text_items([1]), item(ANNOUNCE, b"\0"))
    assert [type(each) for each in happened] == [Text, Announce]
    assert_failed(peer.session, peer.say(item(ANNOUNCE, b"\0"), broken), MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
def test_a_malformed_record_delivers_none_of_its_items(side: str) -> None:
    peer = raw_peer(side).open()
    record = b"".join(text_items([1, 2])) + item(PING, b"x") + b"".join(text_items([3]))
    assert_failed(peer.session, peer.say(record), MalformedRecord)


random_items = st.lists(
    st.tuples(
        st.sampled_from([*range(10), *range(16, 24), 127]),
        st.booleans(),
        st.binary(max_size=40)
        | st.integers(1, 3).map(text_body)
        | st.integers(0, 4).map(lambda count: count.to_bytes(8, "big")),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=80, deadline=None)
@given(records=st.lists(random_items, max_size=6), close_at=st.integers(0, 12))
def test_random_items_are_delivered_or_end_the_link(
    side: str, records: list[list[tuple[int, bool, bytes]]], close_at: int
) -> None:
    peer = raw_peer(side).open()
    for number, record in enumerate(records):
        if number == close_at:
            peer.session.close()
        before = peer.session.state
        happened = peer.say(b"".join(item(kind, body, more=more) for kind, more, body in record))
        for each in happened:
            assert isinstance(each, Text | Receipt | Refused | Announce | Closing | Ended) or (
                type(each) in FILE_TYPES
            )
        ended = [each for each in happened if isinstance(each, Ended)]
        assert (peer.session.state in ENDED and before not in ENDED) == bool(ended)
        assert ended == happened[-1:] or not ended
        if ended and ended[0].error is not None:
            assert isinstance(ended[0].error, RemoteProtocolError)
        if before in ENDED:
            assert happened == []


# ---- split messages


@pytest.mark.parametrize("side", SIDES)
def test_what_may_stand_between_the_pieces(side: str) -> None:
    peer = raw_peer(side).open()
    for number in (1, 2):
        peer.session.send(Text(number.to_bytes(16, "big"), 0, "x"))
    peer.take()
    body = text_body(7, b"abc")
    assert peer.say(item(TEXT, body[:10], more=True)) == []
    between = [
        item(PING),
        item(RECEIPT, (1).to_bytes(16, "big")),
        item(REFUSED, (2).to_bytes(16, "big") + b"\0\x01"),
    ]
    assert len(peer.say(*between)) == 2
    assert texts_in(peer.say(item(PING), item(TEXT, body[10:]))) == [7]
    assert peer.session.state is State.OPEN


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "between",
    [
        pytest.param(item(ANNOUNCE, b"\0"), id="an announcement"),
        pytest.param(item(ANNOUNCE, b"\0", more=True), id="a part of an announcement"),
        pytest.param(close_item(2), id="CLOSE"),
        pytest.param(READY, id="READY"),
        pytest.param(item(2), id="DENY"),
    ],
)
def test_what_may_not_stand_between_the_pieces(side: str, between: bytes) -> None:
    peer = raw_peer(side).open()
    body = text_body(7, b"abc")
    assert peer.say(item(TEXT, body[:10], more=True)) == []
    assert_failed(peer.session, peer.say(between), MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
def test_another_text_between_the_pieces_becomes_part_of_the_first(side: str) -> None:
    # Nothing on the wire tells them apart; their tags vouch for both coming from the peer.
    peer = raw_peer(side).open()
    body = text_body(7, b"abc")
    assert peer.say(item(TEXT, body[:10], more=True)) == []
    assert texts_in(peer.say(item(TEXT, body[10:]))) == [7]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("limit", [10, 70_000, MIB])
def test_the_longest_text_is_taken_and_one_byte_more_is_not(side: str, limit: int) -> None:
    for length in (limit, limit + 1):
        peer = raw_peer(side, limits=Limits(max_message=limit)).open()
        body = text_body(1, b"x" * length)
        happened = []
        while len(body) > 65_516:
            happened += peer.say(item(TEXT, body[:65_516], more=True))
            body = body[65_516:]
        happened += peer.say(item(TEXT, body))
        if length == limit:
            assert texts_in(happened) == [1]
        else:
            assert_failed(peer.session, happened, MalformedRecord)


def test_a_message_without_an_end_is_not_hoarded() -> None:
    peer = raw_peer("client", limits=Limits(max_message=100_000)).open()
    happened = []
    for _ in range(3):
        happened += peer.say(item(TEXT, bytes(65_516), more=True))
    assert_failed(peer.session, happened, MalformedRecord)


# ---- the window


@pytest.mark.parametrize("side", SIDES)
def test_more_than_1024_texts_without_a_receipt(side: str) -> None:
    peer = raw_peer(side).open()
    happened = peer.say(*text_items(range(1024)))
    assert texts_in(happened) == list(range(1024))
    peer.session.send(Receipt((3).to_bytes(16, "big")))
    peer.hear()
    assert texts_in(peer.say(*text_items([2000]))) == [2000]
    assert_failed(peer.session, peer.say(*text_items([2001])), MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("read", [True, False])
def test_a_receipt_makes_room_only_once_it_has_left(side: str, read: bool) -> None:
    peer = raw_peer(side).open()
    assert texts_in(peer.say(*text_items(range(1024)))) == list(range(1024))
    peer.session.send(Receipt((0).to_bytes(16, "big")))
    peer.session.send(Refused((1).to_bytes(16, "big"), permanent=False, code=5))
    if read:
        assert len(peer.hear()) == 2
        assert texts_in(peer.say(*text_items([0, 1]))) == [0, 1]
    else:
        assert_failed(peer.session, peer.say(*text_items([1024])), MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
def test_an_id_is_free_again_once_its_receipt_has_left(side: str) -> None:
    peer = raw_peer(side).open()
    assert texts_in(peer.say(*text_items([1]))) == [1]
    peer.session.send(Receipt((1).to_bytes(16, "big")))
    assert_failed(peer.session, peer.say(*text_items([1])), MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("excess", [0, 1])
def test_more_than_4_mib_without_a_receipt(side: str, excess: int) -> None:
    peer = raw_peer(side).open()
    happened = []
    for number in range(64):
        happened += peer.say(*text_items([number], b"x" * 65_492))
    assert len(happened) == 64
    left = 4 * MIB - 64 * 65_492
    happened = peer.say(*text_items([64], b"x" * (left + excess)))
    if excess:
        assert_failed(peer.session, happened, MalformedRecord)
    else:
        assert texts_in(happened) == [64]
        assert_failed(peer.session, peer.say(*text_items([65], b"x")), MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
def test_one_id_twice_without_a_receipt_between(side: str) -> None:
    peer = raw_peer(side).open()
    assert texts_in(peer.say(*text_items([1]))) == [1]
    peer.session.send(Receipt((1).to_bytes(16, "big")))
    peer.hear()
    assert texts_in(peer.say(*text_items([1]))) == [1]
    assert_failed(peer.session, peer.say(*text_items([1])), MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
def test_texts_after_our_close_fill_the_window_too(side: str) -> None:
    peer = raw_peer(side).open()
    peer.session.close()
    assert peer.say(*text_items(range(1024))) == []
    assert_failed(peer.session, peer.say(*text_items([1024])), MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
def test_a_receipt_comes_once(side: str) -> None:
    peer = raw_peer(side).open()
    peer.session.send(Text(bytes(16), 0, "x"))
    peer.hear()
    assert peer.say(item(RECEIPT, bytes(16))) == [Receipt(bytes(16))]
    assert_failed(peer.session, peer.say(item(RECEIPT, bytes(16))), MalformedRecord)


# ---- closing


@pytest.mark.parametrize("side", SIDES)
def test_close_counts_its_records(side: str) -> None:
    for off in (-1, 0, 1):
        peer = raw_peer(side).open()
        peer.say(item(PING))
        happened = peer.say(close_item(peer.sending.n + 1 + off))
        if off:
            assert_failed(peer.session, happened, MalformedRecord)
        else:
            assert happened == [Closing()]


@pytest.mark.parametrize("side", SIDES)
def test_items_before_close_in_its_record_count(side: str) -> None:
    peer = raw_peer(side).open()
    happened = peer.say(*text_items([1]), close_item(peer.sending.n + 1))
    assert texts_in(happened) == [1]
    assert happened[-1] == Closing()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("closed_before", [False, True])
@pytest.mark.parametrize("after", [item(PING), close_item(1), item(TEXT, b"x", more=True)])
def test_nothing_follows_close_in_its_record(
    side: str, *, closed_before: bool, after: bytes
) -> None:
    peer = raw_peer(side).open()
    if closed_before:
        peer.session.close()
        peer.take()
    happened = peer.say(close_item(peer.sending.n + 1), after)
    assert_failed(peer.session, happened, MalformedRecord)


@pytest.mark.parametrize("side", SIDES)
def test_nothing_follows_close_in_another_record(side: str) -> None:
    peer = raw_peer(side).open()
    stream = peer.sending.seal(pad(close_item(peer.sending.n + 1)))
    closing, ended = peer.feed(stream + peer.sending.seal(pad(item(PING))))
    assert closing == Closing()
    assert isinstance(ended.error, RemoteProtocolError)
    assert peer.session.state is State.FAILED


@pytest.mark.parametrize("side", SIDES)
def test_the_stream_may_not_end_before_close(side: str) -> None:
    peer = raw_peer(side).open()
    peer.say(item(TEXT, text_body(1), more=True))
    (ended,) = peer.session.receive_eof("the connection was cut (reset by peer)")
    assert isinstance(ended.error, LinkTruncated)
    assert "reset" in ended.error.message


# ---- frames on their way


def five_texts(side: str) -> tuple[Session, list[bytes]]:
    """A session that waits, and five frames for it with one text each."""
    pair = Pair().open()
    here, there = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
    sealed = []
    for number in range(5):
        here.send(Text(number.to_bytes(16, "big"), 0, "hello"))
        sealed += frames(bytes(here.data_to_send(NOW)))
    assert len(sealed) == 5
    return there, sealed


def assert_ends_after(session: Session, stream: bytes, count: int) -> None:
    """The first `count` texts are delivered, nothing after them, and the link has ended."""
    happened = session.receive_data(stream, NOW) or []
    assert texts_in(happened) == list(range(count))
    assert_failed(session, happened[count:])


@pytest.mark.parametrize("side", SIDES)
def test_frames_swapped(side: str) -> None:
    for one in range(5):
        for two in range(one + 1, 5):
            session, sealed = five_texts(side)
            sealed[one], sealed[two] = sealed[two], sealed[one]
            assert_ends_after(session, b"".join(sealed), one)


@pytest.mark.parametrize("side", SIDES)
def test_frames_dropped(side: str) -> None:
    for which in range(4):
        session, sealed = five_texts(side)
        del sealed[which]
        assert_ends_after(session, b"".join(sealed), which)


@pytest.mark.parametrize("side", SIDES)
def test_the_last_frame_dropped_shows_at_the_end(side: str) -> None:
    session, sealed = five_texts(side)
    assert texts_in(session.receive_data(b"".join(sealed[:4]), NOW)) == [0, 1, 2, 3]
    assert_failed(session, session.receive_eof(), LinkTruncated)


@pytest.mark.parametrize("side", SIDES)
def test_frames_repeated(side: str) -> None:
    for which in range(5):
        for after in range(which, 5):
            session, sealed = five_texts(side)
            sealed.insert(after + 1, sealed[which])
            assert_ends_after(session, b"".join(sealed), after + 1)


@pytest.mark.parametrize("side", SIDES)
def test_frames_flipped_in_every_byte(side: str) -> None:
    for at in range(84):
        session, sealed = five_texts(side)
        frame = bytearray(sealed[2])
        frame[at] ^= 1 << (at % 8)
        sealed[2] = bytes(frame)
        assert_ends_after(session, b"".join(sealed), 2)


@pytest.mark.parametrize("side", SIDES)
def test_frames_cut_at_every_byte(side: str) -> None:
    for at in range(1, 84):
        session, sealed = five_texts(side)
        sealed[2] = sealed[2][:at]
        assert_ends_after(session, b"".join(sealed), 2)


def test_a_frame_of_another_link() -> None:
    _, sealed = five_texts("client")
    session, _ = five_texts("client")
    assert_ends_after(session, b"".join(sealed), 0)


def test_a_server_hello_of_a_later_version() -> None:
    peer = raw_peer("server", payload=ServerHello(0xFF << 56, 77).encode()).open()
    assert peer.session.features == 0
    assert peer.session.max_message == 77


def test_the_key_of_whoever_introduces_itself_is_proven() -> None:
    pair = Pair().shake_hands()
    introduced = pair.at_server[-1]
    assert introduced.hello == client_hello()
    assert introduced.key != ALICE.public
