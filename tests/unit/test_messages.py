"""Messages and their encoding."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.endpoints import Endpoint, Kind
from securelink.errors import LocalProtocolError, MalformedRecord
from securelink.messages import (
    Announce,
    Close,
    Deny,
    ItemType,
    Message,
    Ping,
    Ready,
    Receipt,
    RefusalCode,
    Refused,
    Text,
    decode,
    decode_name,
    encode,
    encode_name,
)

ID = bytes(range(16))
ids = st.binary(min_size=16, max_size=16)
u64 = st.integers(0, 2**64 - 1)
names = st.text(max_size=32).filter(lambda name: len(name.encode()) <= 32)
endpoints = st.builds(
    Endpoint,
    st.sampled_from(list(Kind)),
    st.sampled_from(["192.0.2.7", "2001:db8::1", "home.example", "127.0.0.1"]),
    st.integers(1, 65535),
)
any_message = st.one_of(
    st.builds(Ready, names, st.integers(0, 2**32 - 1)),
    st.just(Deny()),
    st.builds(Text, ids, u64, st.text()),
    st.builds(Receipt, ids),
    st.builds(Refused, ids, st.booleans(), st.integers(0, 255)),
    st.just(Ping()),
    st.builds(Close, u64),
    st.builds(Announce, st.lists(endpoints, max_size=8).map(tuple)),
)


@given(any_message)
def test_decoding_is_the_inverse_of_encoding(message: Message) -> None:
    kind, body = encode(message)
    assert decode(kind, body) == message


@given(st.sampled_from(ItemType), st.binary(max_size=200))
def test_random_bytes_are_a_message_in_its_one_form_or_malformed(
    kind: ItemType, body: bytes
) -> None:
    try:
        message = decode(kind, body)
    except MalformedRecord:
        return
    assert encode(message) == (kind, body)


@pytest.mark.parametrize(
    ("message", "kind", "body"),
    [
        (Ready("al", 258), 1, b"\x02al\0\0\x01\x02"),
        (Deny(), 2, b""),
        (Text(ID, 1, "hé"), 3, ID + bytes(7) + b"\x01h\xc3\xa9"),
        (Receipt(ID), 4, ID),
        (Refused(ID, permanent=True, code=3), 5, ID + b"\x01\x03"),
        (Ping(), 6, b""),
        (Close(5), 7, bytes(7) + b"\x05"),
        (Announce(()), 8, b"\0"),
    ],
)
def test_the_bytes_are_those_of_the_wire(message: Message, kind: int, body: bytes) -> None:
    assert encode(message) == (kind, body)
    assert decode(kind, body) == message


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (0, b""),
        (9, b""),
        (127, b"x"),
        (1, b""),
        (1, b"\x02al\0\0\0"),
        (1, b"\x02al\0\0\0\0\0"),
        (1, b"\x21" + b"a" * 33 + bytes(4)),
        (1, b"\x01\xff" + bytes(4)),
        (2, b"\0"),
        (3, b""),
        (3, ID + bytes(7)),
        (3, ID + bytes(8) + b"\xff"),
        (3, ID + bytes(8) + b"\xed\xa0\x80"),
        (4, ID[:15]),
        (4, ID + b"\0"),
        (5, ID + b"\x02\x01"),
        (5, ID + b"\x01"),
        (5, ID + b"\x01\x01\x01"),
        (6, b"\0"),
        (7, bytes(7)),
        (7, bytes(9)),
        (8, b""),
        (8, b"\x01"),
        (8, b"\0\0"),
    ],
)
def test_bodies_not_of_their_form(kind: int, body: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode(kind, body)


def test_an_error_quotes_nothing_of_a_text() -> None:
    with pytest.raises(MalformedRecord) as caught:
        decode(ItemType.TEXT, ID + bytes(8) + b"secret\xff")
    assert "secret" not in str(caught.value)
    # Whoever logs the error with its traceback must not log the bytes either.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "message",
    [
        Ready("n" * 33, 0),
        Ready("n", -1),
        Text(ID[:15], 0, "hello"),
        Text(ID + b"\0", 0, "hello"),
        Text(ID, -1, "hello"),
        Text(ID, 2**64, "hello"),
        Text(ID, 0, "\ud800"),
        Receipt(ID[:15]),
        Refused(ID[:15], permanent=False, code=0),
        Refused(ID, permanent=False, code=256),
        Close(2**64),
        Announce((Endpoint(Kind.LAN, "192.0.2.7", 0),)),
    ],
)
def test_what_has_no_encoding_is_our_own_mistake(message: Message) -> None:
    with pytest.raises(LocalProtocolError):
        encode(message)


def test_more_waiting_texts_than_can_be_said() -> None:
    kind, body = encode(Ready("alice", 2**40))
    assert decode(kind, body) == Ready("alice", 2**32 - 1)


def test_a_refusal_of_a_later_version_keeps_its_code() -> None:
    assert decode(5, ID + b"\0\xc8") == Refused(ID, permanent=False, code=200)
    assert RefusalCode.DISK_FULL == 3


@given(names, st.binary(max_size=10))
def test_a_name_carries_its_length(name: str, rest: bytes) -> None:
    encoded = encode_name(name)
    assert decode_name(encoded + rest) == (name, len(encoded))


def test_names_that_are_none() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        encode_name("é" * 17)
    for data in (b"", b"\x01", b"\x21" + b"a" * 33, b"\x05abcd", b"\x01\xff"):
        with pytest.raises(ValueError, match=r"name|decode"):
            decode_name(data)
