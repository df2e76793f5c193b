"""Messages about files, and their encoding."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from securelink.errors import LocalProtocolError, MalformedRecord
from securelink.file_messages import (
    DECODERS,
    ENCODERS,
    LONGEST_PATH,
    TYPES,
    Accept,
    Begin,
    Cancel,
    Chunk,
    End,
    FileItem,
    FileMessage,
    Offer,
    Prefix,
)
from securelink.messages import decode, encode
from securelink.records import LARGEST_ITEM

ID = bytes(range(16))
GROUP = bytes(range(16, 32))
DIGEST = bytes(range(32))
FOLDER, STREAM, ASK, CHECKSUM = 1, 2, 4, 8

ids = st.binary(min_size=16, max_size=16)
digests = st.binary(min_size=32, max_size=32)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
modes = st.integers(0, 7).map(lambda bits: bits << 6)
paths = st.text(min_size=1, max_size=300).filter(lambda name: len(name.encode()) <= LONGEST_PATH)


def offers(**kwargs: st.SearchStrategy) -> st.SearchStrategy[Offer]:
    return st.builds(
        Offer, id=ids, group=ids, number=u32, name=paths, mtime=i64, mode=modes, **kwargs
    )


any_message = st.one_of(
    offers(size=u64, ask=st.booleans(), checksum=st.booleans()),
    offers(size=st.none(), checksum=st.booleans()),
    offers(size=st.just(0), folder=st.just(value=True)),
    st.builds(Accept, u32, u64),
    st.builds(Prefix, u32, digests),
    st.builds(Begin, u32, u64),
    st.builds(Chunk, u32, st.binary(min_size=1, max_size=300)),
    st.builds(End, u32, u64, st.none() | digests),
    st.builds(Cancel, u32),
)


def offer(**changes: object) -> Offer:
    plain = Offer(id=ID, group=GROUP, number=7, name="a/b", size=258, mtime=-1, mode=0o600)
    return replace(plain, **changes)


def body(
    *, flags: int = 0, mode: int = 0o600, mtime: int = 0, size: int = 0, name: bytes = b"a"
) -> bytes:
    return ID + GROUP + struct.pack(">IBHqQ", 7, flags, mode, mtime, size) + name


@given(any_message)
def test_decoding_is_the_inverse_of_encoding(message: FileMessage) -> None:
    kind, encoded = encode(message)
    assert decode(kind, encoded) == message


@given(st.sampled_from(FileItem), st.binary(max_size=200))
def test_random_bytes_are_a_message_in_its_one_form_or_malformed(
    kind: FileItem, encoded: bytes
) -> None:
    try:
        message = decode(kind, encoded)
    except MalformedRecord:
        return
    assert encode(message) == (kind, encoded)


@given(st.integers(0, 255), st.integers(0, 2**16 - 1), u64, st.binary(max_size=20))
def test_any_offer_is_one_in_its_one_form_or_malformed(
    flags: int, mode: int, size: int, name: bytes
) -> None:
    encoded = body(flags=flags, mode=mode & 0o1700, size=size % 2, name=name)
    try:
        message = decode(FileItem.OFFER, encoded)
    except MalformedRecord:
        return
    assert encode(message) == (FileItem.OFFER, encoded)


@pytest.mark.parametrize(
    ("message", "kind", "encoded"),
    [
        (
            offer(),
            16,
            ID + GROUP + b"\0\0\0\x07\x00\x01\x80" + b"\xff" * 8 + bytes(6) + b"\x01\x02a/b",
        ),
        (
            offer(mtime=1, ask=True, checksum=True),
            16,
            body(flags=12, mtime=1, size=258, name=b"a/b"),
        ),
        (offer(mtime=0, size=0, name="é"), 16, body(name=b"\xc3\xa9")),
        (offer(mtime=0, size=None, checksum=True), 16, body(flags=10, name=b"a/b")),
        (
            offer(mtime=0, size=0, folder=True, mode=0o700),
            16,
            body(flags=1, mode=0o700, name=b"a/b"),
        ),
        (Accept(7, 258), 17, b"\0\0\0\x07" + bytes(6) + b"\x01\x02"),
        (Prefix(7, DIGEST), 18, b"\0\0\0\x07" + DIGEST),
        (Begin(7, 258), 19, b"\0\0\0\x07" + bytes(6) + b"\x01\x02"),
        (Chunk(7, b"data"), 20, b"\0\0\0\x07data"),
        (End(7, 258), 21, b"\0\0\0\x07" + bytes(6) + b"\x01\x02"),
        (End(7, 258, DIGEST), 21, b"\0\0\0\x07" + bytes(6) + b"\x01\x02" + DIGEST),
        (Cancel(7), 22, b"\0\0\0\x07"),
    ],
    ids=lambda value: type(value).__name__ if type(value) in TYPES else "",
)
def test_the_bytes_are_those_of_the_wire(message: FileMessage, kind: int, encoded: bytes) -> None:
    assert encode(message) == (kind, encoded)
    assert decode(kind, encoded) == message


def test_every_item_has_an_encoder_and_a_decoder() -> None:
    assert {kind for kind, _ in ENCODERS.values()} == set(FileItem) == set(DECODERS)
    assert set(ENCODERS) == TYPES


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(body(flags=FOLDER, size=1), id="a folder with a size"),
        pytest.param(body(flags=STREAM, size=1), id="an unknown size that is known"),
        pytest.param(body(flags=FOLDER | STREAM), id="a folder of unknown size"),
        pytest.param(body(flags=FOLDER | ASK), id="a folder, some of it here"),
        pytest.param(body(flags=FOLDER | CHECKSUM), id="a folder with a checksum"),
        pytest.param(body(flags=STREAM | ASK), id="a stream, some of it here"),
        *(pytest.param(body(flags=1 << bit), id=f"flag {1 << bit}") for bit in range(4, 8)),
        *(
            pytest.param(body(mode=1 << bit), id=f"mode {1 << bit:o}")
            for bit in range(16)
            if not 1 << bit & 0o700
        ),
        pytest.param(body(name=b""), id="no name"),
        pytest.param(body(name=b"n" * 4097), id="a name that is too long"),
        pytest.param(body(name=b"\xff"), id="a name not in UTF-8"),
        pytest.param(body(name=b"\xed\xa0\x80"), id="a name with half a character"),
        pytest.param(body(name=b"")[:-1], id="cut short"),
        pytest.param(b"", id="empty"),
    ],
)
def test_offers_not_of_their_form(encoded: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode(FileItem.OFFER, encoded)


@pytest.mark.parametrize(
    "flags",
    [0, ASK, CHECKSUM, ASK | CHECKSUM, STREAM, STREAM | CHECKSUM, FOLDER],
)
def test_flags_that_go_together(flags: int) -> None:
    found = decode(FileItem.OFFER, body(flags=flags))
    assert isinstance(found, Offer)
    assert found.folder == bool(flags & FOLDER)
    assert found.size == (None if flags & STREAM else 0)
    assert found.ask == bool(flags & ASK)
    assert found.checksum == bool(flags & CHECKSUM)


@pytest.mark.parametrize(
    ("kind", "encoded"),
    [
        *((kind, bytes(length)) for kind in (17, 19) for length in (0, 11, 13)),
        *((18, bytes(length)) for length in (0, 4, 35, 37)),
        *((20, bytes(length)) for length in (0, 3, 4)),
        *((21, bytes(length)) for length in (0, 11, 13, 43, 45)),
        *((22, bytes(length)) for length in (0, 3, 5)),
        (15, b""),
        (23, bytes(4)),
        (31, bytes(4)),
    ],
)
def test_bodies_not_of_their_form(kind: int, encoded: bytes) -> None:
    with pytest.raises(MalformedRecord):
        decode(kind, encoded)


@pytest.mark.parametrize(
    "message",
    [
        offer(id=ID[:15]),
        offer(id=ID + b"\0"),
        offer(group=GROUP[:15]),
        offer(group=GROUP + b"\0"),
        offer(number=-1),
        offer(number=2**32),
        offer(name=""),
        offer(name="é" * 2049),
        offer(name="\udcff"),
        offer(size=-1),
        offer(size=2**64),
        offer(mtime=2**63),
        offer(mode=0o644),
        offer(mode=-1),
        offer(folder=True),
        offer(folder=True, size=None),
        offer(folder=True, size=0, ask=True),
        offer(folder=True, size=0, checksum=True),
        offer(size=None, ask=True),
        Accept(7, -1),
        Accept(2**32, 0),
        Prefix(7, DIGEST[:31]),
        Prefix(7, DIGEST + b"\0"),
        Begin(7, 2**64),
        Chunk(7, b""),
        Chunk(7, memoryview(b"")),
        Chunk(-1, b"x"),
        End(7, -1),
        End(7, 0, b""),
        End(7, 0, DIGEST[:31]),
        Cancel(2**32),
    ],
)
def test_what_has_no_encoding_is_our_own_mistake(message: FileMessage) -> None:
    with pytest.raises(LocalProtocolError):
        encode(message)


def test_the_longest_name_and_the_longest_chunk() -> None:
    longest = offer(name="é" * 2048)
    assert decode(*encode(longest)) == longest
    # What docs/protocol.md says a chunk holds at most.
    kind, encoded = encode(Chunk(7, b"x" * 65_512))
    assert len(encoded) == LARGEST_ITEM
    found = decode(kind, encoded)
    assert isinstance(found, Chunk)
    assert len(found.data) == 65_512


def test_a_chunk_is_a_view_and_nothing_is_copied() -> None:
    encoded = b"\0\0\0\x07data"
    found = decode(FileItem.CHUNK, encoded)
    assert isinstance(found, Chunk)
    assert isinstance(found.data, memoryview)
    assert found.data.obj is encoded


def test_a_name_is_not_judged_here() -> None:
    # Who receives it makes it safe, or refuses it: that is an answer, not the end of the link.
    for name in ("..", "/", "a//b", "\0", "con", "a\nb"):
        assert decode(*encode(offer(name=name))) == offer(name=name)


def test_an_error_quotes_nothing_of_a_name() -> None:
    with pytest.raises(MalformedRecord) as caught:
        decode(FileItem.OFFER, body(name=b"secret\xff"))
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
