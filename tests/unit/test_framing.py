"""Frames are cut from a stream however it arrives, and a bad length is seen from its 4 bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.errors import FrameTooLong, MalformedRecord
from securelink.framing import LARGEST_BODY, SCRATCH_SIZE, FrameReader, frame

LENGTHS = frozenset({0, 3, 80, LARGEST_BODY})


def feed(reader: FrameReader, data: bytes) -> list[bytes]:
    bodies = []
    rest = memoryview(data)
    while rest:
        buffer = reader.get_buffer()
        count = min(len(buffer), len(rest))
        buffer[:count] = rest[:count]
        reader.buffer_updated(count)
        while (body := reader.next_frame(LENGTHS)) is not None:
            bodies.append(bytes(body))
        reader.keep_rest()
        rest = rest[count:]
    return bodies


def test_a_frame_is_its_length_and_its_body() -> None:
    assert frame(b"abc") == b"\0\0\0\x03abc"
    assert frame(bytes(LARGEST_BODY))[:4] == b"\0\0\xff\xff"


def test_a_stream_cut_at_every_byte() -> None:
    bodies = [b"abc", b"", bytes(range(80)), b"xyz"]
    stream = b"".join(map(frame, bodies))
    for cut in range(len(stream) + 1):
        reader = FrameReader()
        assert feed(reader, stream[:cut]) + feed(reader, stream[cut:]) == bodies


@given(
    st.lists(st.sampled_from([b"", b"abc", bytes(80), b"\xff" * LARGEST_BODY]), max_size=12),
    st.lists(st.integers(min_value=1, max_value=200_000), max_size=12),
)
def test_any_pieces_give_the_same_bodies(bodies: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(map(frame, bodies))
    reader = FrameReader()
    found = []
    for size in sizes:
        found += feed(reader, stream[:size])
        stream = stream[size:]
    assert found + feed(reader, stream) == bodies


@pytest.mark.parametrize("length", [LARGEST_BODY + 1, 1 << 24, 0xFFFFFFFF])
def test_a_length_over_all_others_is_refused_from_its_four_bytes(length: int) -> None:
    reader = FrameReader()
    assert feed(reader, length.to_bytes(4, "big")[:3]) == []
    with pytest.raises(FrameTooLong):
        feed(reader, length.to_bytes(4, "big")[3:])


@pytest.mark.parametrize("length", [1, 2, 4, 79, 81, LARGEST_BODY - 1])
def test_a_length_between_the_others_is_refused_from_its_four_bytes(length: int) -> None:
    with pytest.raises(MalformedRecord):
        feed(FrameReader(), length.to_bytes(4, "big"))


def test_where_no_frame_may_come_every_length_is_refused() -> None:
    for length in (0, 1, 80):
        reader = FrameReader()
        reader.get_buffer()[:4] = length.to_bytes(4, "big")
        reader.buffer_updated(4)
        with pytest.raises((FrameTooLong, MalformedRecord)):
            reader.next_frame(frozenset())


def test_where_no_frame_may_come_not_even_one_byte_may() -> None:
    reader = FrameReader()
    reader.get_buffer()[:1] = b"\0"
    reader.buffer_updated(0)
    assert reader.next_frame(frozenset()) is None
    reader.buffer_updated(1)
    with pytest.raises(MalformedRecord):
        reader.next_frame(frozenset())


def test_there_is_always_room_for_the_largest_frame() -> None:
    reader = FrameReader()
    stream = frame(bytes(LARGEST_BODY))
    assert feed(reader, stream[:-1]) == []
    assert len(reader.get_buffer()) >= 4 + LARGEST_BODY
    assert feed(reader, stream[-1:]) == [bytes(LARGEST_BODY)]


def test_many_readers_share_one_scratch_buffer() -> None:
    scratch = bytearray(SCRATCH_SIZE)
    one, two = FrameReader(scratch), FrameReader(scratch)
    assert feed(one, frame(b"abc")[:5]) == []
    assert feed(two, frame(b"xyz")[:6]) == []
    assert feed(one, frame(b"abc")[5:]) == [b"abc"]
    assert feed(two, frame(b"xyz")[6:]) == [b"xyz"]
