"""Records: packing and splitting at every boundary, and what no record may hold."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pair import item, items, pad

from securelink.errors import MalformedRecord
from securelink.records import (
    BODY_SIZES,
    ITEM_HEADER_SIZE,
    LARGEST,
    LARGEST_ITEM,
    MORE,
    SIZES,
    Assembler,
    Item,
    Packer,
    padded,
    unpack,
    write_header,
    write_item,
)

TEXT, RECEIPT, PING, CHUNK = 3, 4, 6, 20


def records_of(packer: Packer) -> list[bytes]:
    """All that waits, as records, written into a buffer full of what must not be seen."""
    found = []
    buffer = bytearray(b"\xaa" * LARGEST)
    while size := packer.fill(memoryview(buffer)):
        found.append(bytes(buffer[:size]))
        buffer[:] = b"\xaa" * LARGEST
    return found


def assembler(limit: int = 1 << 20) -> Assembler:
    return Assembler(limit=limit, splittable={TEXT}, between={RECEIPT, PING})


def piece(kind: int, body: bytes) -> Item:
    return Item(kind, more=True, body=body)


def end(kind: int, body: bytes) -> Item:
    return Item(kind, more=False, body=body)


def messages_of(records: list[bytes], limit: int = 1 << 20) -> list[tuple[int, bytes]]:
    pieces = assembler(limit)
    found = []
    for record in records:
        for part in unpack(memoryview(record)):
            whole = pieces.feed(part)
            if whole is not None:
                found.append((whole[0], bytes(whole[1])))
    assert not pieces.unfinished
    return found


def test_bodies_on_the_wire_have_six_sizes() -> None:
    assert sorted(BODY_SIZES) == [80, 272, 1040, 4112, 16400, 65535]


@pytest.mark.parametrize("size", SIZES)
def test_a_record_is_the_smallest_that_holds_its_items(size: int) -> None:
    place = SIZES.index(size)
    assert padded(size) == size
    assert padded(size - 1) == size
    if place + 1 < len(SIZES):
        assert padded(size + 1) == SIZES[place + 1]


def test_no_record_holds_more_than_the_largest() -> None:
    with pytest.raises(ValueError, match="65520"):
        padded(LARGEST + 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("off", [-2, -1, 0, 1])
def test_packing_one_message_around_every_record_size(size: int, off: int) -> None:
    body = b"x" * (size - ITEM_HEADER_SIZE + off)
    packer = Packer()
    packer.put(TEXT, body)
    found = records_of(packer)
    assert messages_of(found) == [(TEXT, body)]
    if size == LARGEST and off == 1:
        assert [len(record) for record in found] == [LARGEST, 64]
        assert items(found[0]) == [(TEXT | MORE, body[:-1])]
        assert items(found[1]) == [(TEXT, body[-1:])]
    else:
        assert [len(record) for record in found] == [padded(len(body) + ITEM_HEADER_SIZE)]


@pytest.mark.parametrize(("length", "size"), [(0, 64), (60, 64), (61, 64), (62, 256)])
def test_an_item_of_61_bytes_fills_the_smallest_record(length: int, size: int) -> None:
    packer = Packer()
    packer.put(TEXT, b"x" * length)
    (record,) = records_of(packer)
    assert len(record) == size
    assert record == pad(item(TEXT, b"x" * length))


@pytest.mark.parametrize(("length", "count"), [(65515, 1), (65516, 1), (65517, 2)])
def test_an_item_of_65516_bytes_fills_the_largest_record(length: int, count: int) -> None:
    packer = Packer()
    packer.put(TEXT, b"x" * length)
    found = records_of(packer)
    assert len(found) == count
    assert messages_of(found) == [(TEXT, b"x" * length)]


@pytest.mark.parametrize("pieces", [2, 3, 16])
@pytest.mark.parametrize("off", [-1, 0, 1])
def test_splitting_around_whole_numbers_of_pieces(pieces: int, off: int) -> None:
    body = bytes(LARGEST_ITEM * pieces + off)
    packer = Packer()
    packer.put(TEXT, body)
    found = records_of(packer)
    assert len(found) == pieces + (off > 0)
    assert messages_of(found) == [(TEXT, body)]


@pytest.mark.parametrize("first", range(LARGEST - 8, LARGEST - 2))
def test_a_long_message_begins_in_what_room_there_is(first: int) -> None:
    # The first message leaves LARGEST - 3 - first bytes; a piece needs 4 at least.
    packer = Packer()
    packer.put(TEXT, b"a" * first)
    packer.put(TEXT, b"b" * (LARGEST_ITEM + 1))
    found = records_of(packer)
    room = LARGEST - ITEM_HEADER_SIZE - first
    assert len(items(found[0])) == (2 if room > ITEM_HEADER_SIZE else 1)
    assert messages_of(found) == [(TEXT, b"a" * first), (TEXT, b"b" * (LARGEST_ITEM + 1))]


def test_a_message_that_fits_into_one_item_is_never_split() -> None:
    packer = Packer()
    packer.put(TEXT, b"a" * 40000)
    packer.put(TEXT, b"b" * LARGEST_ITEM)
    packer.put(TEXT, b"c")
    assert [[kind for kind, _ in items(record)] for record in records_of(packer)] == [
        [TEXT],
        [TEXT],
        [TEXT],
    ]


def test_what_waits_goes_into_one_record_in_its_order() -> None:
    packer = Packer()
    assert not packer
    for number in range(100):
        packer.put(TEXT, b"%d" % number)
    assert packer
    (record,) = records_of(packer)
    assert items(record) == [(TEXT, b"%d" % number) for number in range(100)]
    assert not packer


def test_urgent_items_overtake_all_else() -> None:
    packer = Packer()
    packer.put(TEXT, b"a")
    packer.put_urgent(RECEIPT, b"r")
    packer.put_urgent(RECEIPT, b"s")
    (record,) = records_of(packer)
    assert items(record) == [(RECEIPT, b"r"), (RECEIPT, b"s"), (TEXT, b"a")]


def test_urgent_items_go_between_the_pieces() -> None:
    packer = Packer()
    body = b"x" * (2 * LARGEST_ITEM)
    packer.put(TEXT, body)
    buffer = memoryview(bytearray(LARGEST))
    found = [bytes(buffer[: packer.fill(buffer)])]
    packer.put_urgent(RECEIPT, b"r")
    found += records_of(packer)
    assert [[kind for kind, _ in items(record)] for record in found] == [
        [TEXT | MORE],
        [RECEIPT],
        [TEXT],
    ]
    assert messages_of(found) == [(RECEIPT, b"r"), (TEXT, body)]


def test_urgent_items_beyond_one_record_keep_all_else_waiting() -> None:
    packer = Packer()
    packer.put(TEXT, b"a")
    receipts = [(RECEIPT, bytes(1000)) for _ in range(70)]
    for kind, body in receipts:
        packer.put_urgent(kind, body)
    found = records_of(packer)
    assert [len(items(record)) for record in found] == [65, 6]
    assert messages_of(found) == [*receipts, (TEXT, b"a")]


def test_whoever_waits_for_it_is_told_when_an_urgent_item_leaves() -> None:
    packer = Packer()
    left: list[int] = []
    for number in range(70):
        packer.put_urgent(RECEIPT, bytes(1000), partial(left.append, number))
    packer.put_urgent(PING, b"")
    packer.drop_unstarted()
    assert left == []
    buffer = memoryview(bytearray(LARGEST))
    packer.fill(buffer)
    assert left == list(range(65))
    packer.fill(buffer)
    assert left == list(range(70))


def test_only_what_has_begun_is_kept_when_the_rest_is_dropped() -> None:
    packer = Packer()
    packer.put(TEXT, b"x" * (LARGEST_ITEM + 1))
    packer.put(TEXT, b"never")
    buffer = memoryview(bytearray(LARGEST))
    packer.fill(buffer)
    packer.put_urgent(RECEIPT, b"r")
    packer.drop_unstarted()
    (record,) = records_of(packer)
    assert items(record) == [(RECEIPT, b"r"), (TEXT, b"x")]

    packer.put(TEXT, b"never")
    packer.drop_unstarted()
    assert not packer


class Rest:
    """Writes an item into what room it is given, and keeps how much that was."""

    def __init__(self, body: bytes = b"rest") -> None:
        self.body = body
        self.rooms: list[int] = []

    def __call__(self, room: memoryview) -> int:
        self.rooms.append(len(room))
        if len(room) < ITEM_HEADER_SIZE + len(self.body):
            return 0
        return write_item(room, 0, CHUNK, self.body)


def test_the_rest_comes_behind_all_that_waits() -> None:
    packer = Packer()
    packer.put(TEXT, b"a")
    packer.put_urgent(RECEIPT, b"r")
    buffer = bytearray(b"\xaa" * LARGEST)
    rest = Rest()
    size = packer.fill(memoryview(buffer), rest)
    assert items(bytes(buffer[:size])) == [(RECEIPT, b"r"), (TEXT, b"a"), (CHUNK, b"rest")]
    assert rest.rooms == [LARGEST - 8]
    assert size == 64


def test_the_rest_may_stand_alone_or_be_nothing() -> None:
    packer = Packer()
    buffer = memoryview(bytearray(b"\xaa" * LARGEST))
    size = packer.fill(buffer, Rest(bytes(LARGEST_ITEM)))
    assert size == LARGEST
    assert items(bytes(buffer[:size])) == [(CHUNK, bytes(LARGEST_ITEM))]
    assert packer.fill(buffer, lambda _: 0) == 0
    packer.put(TEXT, b"a")
    size = packer.fill(buffer, lambda _: 0)
    assert items(bytes(buffer[:size])) == [(TEXT, b"a")]


@pytest.mark.parametrize("left", range(6))
def test_the_rest_gets_what_room_is_left(left: int) -> None:
    packer = Packer()
    packer.put(TEXT, bytes(LARGEST_ITEM - left))
    buffer = memoryview(bytearray(LARGEST + 10))
    rest = Rest(b"")
    size = packer.fill(buffer, rest)
    assert rest.rooms == [left]
    assert size == LARGEST
    assert len(items(bytes(buffer[:size]))) == (2 if left >= ITEM_HEADER_SIZE else 1)


def test_while_anything_waits_the_rest_is_not_asked() -> None:
    packer = Packer()
    rest = Rest()
    buffer = memoryview(bytearray(LARGEST))
    # A message that has begun and not ended; one that waits for the next record; urgent ones.
    packer.put(TEXT, bytes(LARGEST_ITEM + 1))
    assert packer.fill(buffer, rest) == LARGEST
    packer.put(TEXT, bytes(LARGEST_ITEM))
    assert packer.fill(buffer, rest) == 64
    for _ in range(66):
        packer.put_urgent(RECEIPT, bytes(1000))
    assert packer.fill(buffer, rest) == LARGEST
    assert packer.fill(buffer, rest) == 1024
    assert rest.rooms == []
    assert packer.fill(buffer, rest) == LARGEST
    assert rest.rooms == [0]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(TEXT), st.integers(0, 300).map(bytes)),
            st.tuples(st.just(TEXT), st.integers(60_000, 200_000).map(bytes)),
            st.tuples(st.just(RECEIPT), st.binary(max_size=100)),
        ),
        max_size=30,
    )
)
def test_packing_loses_nothing_and_keeps_the_order(put: list[tuple[int, bytes]]) -> None:
    packer = Packer()
    for kind, body in put:
        (packer.put_urgent if kind == RECEIPT else packer.put)(kind, body)
    found = records_of(packer)
    assert all(len(record) in SIZES for record in found)
    got = messages_of(found)
    for kind in (TEXT, RECEIPT):
        assert [body for k, body in got if k == kind] == [body for k, body in put if k == kind]


def test_writing_an_item_in_one_go_or_around_its_body() -> None:
    record = memoryview(bytearray(b"\xaa" * 12))
    assert write_item(record, 2, TEXT, b"abc") == 8
    assert bytes(record) == b"\xaa\xaa\x03\x00\x03abc" + b"\xaa" * 4
    write_header(record[8:], CHUNK, 258)
    assert bytes(record[8:]) == b"\x14\x01\x02\xaa"


def test_unpacking_gives_views_and_tells_pieces_apart() -> None:
    record = pad(item(TEXT, b"abc", more=True) + item(PING))
    found = unpack(memoryview(record))
    assert found == [Item(TEXT, more=True, body=b"abc"), Item(PING, more=False, body=b"")]


@pytest.mark.parametrize("size", SIZES)
def test_a_record_may_be_full_to_the_last_byte(size: int) -> None:
    record = item(TEXT, b"x" * (size - ITEM_HEADER_SIZE))
    assert [len(found.body) for found in unpack(memoryview(record))] == [size - ITEM_HEADER_SIZE]


def test_a_record_may_be_larger_than_it_need_be() -> None:
    assert len(unpack(memoryview(pad(item(PING), 1024)))) == 1


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(bytes(64), id="nothing at all"),
        pytest.param(pad(item(PING))[:-1] + b"\x01", id="padding not zero at the end"),
        pytest.param(item(PING) + b"\0\x01" + bytes(59), id="padding not zero after a zero"),
        pytest.param(pad(b"\0\0\0"), id="type 0"),
        pytest.param(pad(b"\x80\0\0"), id="type 0 with more to follow"),
        pytest.param(pad(item(PING) + b"\x80\0\0"), id="type 0 with more, after an item"),
        pytest.param(item(TEXT, bytes(61))[:1] + b"\0\x3e" + bytes(61), id="one past the end"),
        pytest.param(b"\x03\xff\xff" + bytes(61), id="far past the end"),
        pytest.param(item(TEXT, b"x" * 58) + b"\x06\0\x01", id="one past, after an item"),
        pytest.param(item(TEXT, b"x" * 59) + b"\x06\0", id="the header cut after 2 bytes"),
        pytest.param(item(TEXT, b"x" * 60) + b"\x06", id="the header cut after 1 byte"),
    ],
)
def test_malformed_records(record: bytes) -> None:
    assert len(record) == 64
    with pytest.raises(MalformedRecord):
        unpack(memoryview(record))


def test_a_record_holds_no_more_items_than_receipts_and_a_heartbeat() -> None:
    full = item(RECEIPT, bytes(16)) * 3448 + item(PING)
    assert len(full) + len(item(RECEIPT, bytes(16))) > LARGEST
    assert len(unpack(memoryview(pad(full)))) == 3449
    with pytest.raises(MalformedRecord, match="too many"):
        unpack(memoryview(pad(item(PING) * 3450)))


@given(st.binary(min_size=64, max_size=64))
def test_random_bytes_are_items_or_malformed(record: bytes) -> None:
    try:
        found = unpack(memoryview(record))
    except MalformedRecord:
        return
    assert b"".join(item(i.type, bytes(i.body), more=i.more) for i in found).ljust(64, b"\0") == (
        record
    )


def test_a_message_in_pieces() -> None:
    pieces = assembler(limit=6)
    assert pieces.feed(piece(TEXT, b"ab")) is None
    assert (pieces.unfinished, pieces.held) == (True, 2)
    assert pieces.feed(end(RECEIPT, b"r")) == (RECEIPT, b"r")
    assert pieces.feed(piece(TEXT, b"cd")) is None
    assert pieces.feed(end(PING, b"")) == (PING, b"")
    assert pieces.feed(end(TEXT, b"ef")) == (TEXT, b"abcdef")
    assert (pieces.unfinished, pieces.held) == (False, 0)
    assert pieces.feed(end(TEXT, b"whole")) == (TEXT, b"whole")


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([piece(TEXT, b"ab"), end(8, b"x")], id="another whole"),
        pytest.param([piece(TEXT, b"ab"), piece(8, b"x")], id="another split"),
        pytest.param([piece(TEXT, b"ab"), piece(RECEIPT, b"x")], id="a part of a receipt"),
        pytest.param([piece(TEXT, b"")], id="first piece empty"),
        pytest.param([piece(TEXT, b"a"), piece(TEXT, b"")], id="a piece empty"),
        pytest.param([piece(TEXT, b"a"), end(TEXT, b"")], id="last piece empty"),
        pytest.param([piece(TEXT, b"abcdefg")], id="too long at once"),
        pytest.param([piece(TEXT, b"abcdef"), end(TEXT, b"g")], id="too long"),
        # Whether a second RECEIPT ended the first or stood between would be anyone's guess.
        pytest.param([piece(RECEIPT, b"ab")], id="what may stand between, split"),
        pytest.param([piece(PING, b"x")], id="a heartbeat, split"),
        pytest.param([piece(99, b"x")], id="a type never split"),
    ],
)
def test_pieces_that_do_not_belong_together(parts: list[Item]) -> None:
    pieces = assembler(limit=6)
    for part in parts[:-1]:
        assert pieces.feed(part) is None
    with pytest.raises(MalformedRecord):
        pieces.feed(parts[-1])
