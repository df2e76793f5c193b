"""Message IDs: RFC 9562's version 7."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink import ids

times = st.integers(0, 2**48 - 1)
random_bytes = st.binary(min_size=ids.RANDOM_SIZE, max_size=ids.RANDOM_SIZE)


def test_the_example_of_the_rfc() -> None:
    # RFC 9562, appendix A.6: February 22, 2022, 2:22:22.00 PM GMT-05:00.
    randomness = (0xCC3 << 64 | 0x18C4DC0C0C07398F).to_bytes(10, "big")
    made = ids.uuid7(0x017F22E279B0, randomness)
    assert ids.to_text(made) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


@given(times, random_bytes)
def test_version_and_variant_whatever_is_random(now: int, randomness: bytes) -> None:
    made = ids.uuid7(now, randomness)
    value = uuid.UUID(bytes=made)
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert value.int >> 80 == now


@given(random_bytes, random_bytes)
def test_all_74_random_bits_count(one: bytes, other: bytes) -> None:
    fixed = 0xF << 76 | 0b11 << 62
    same = (int.from_bytes(one, "big") | fixed) == (int.from_bytes(other, "big") | fixed)
    assert (ids.uuid7(5, one) == ids.uuid7(5, other)) is same


@given(times, times, random_bytes, random_bytes)
def test_ids_sort_by_their_time(early: int, late: int, one: bytes, other: bytes) -> None:
    if early < late:
        assert ids.uuid7(early, one) < ids.uuid7(late, other)


@given(st.binary(min_size=16, max_size=16))
def test_the_text_form_comes_back(message_id: bytes) -> None:
    text = ids.to_text(message_id)
    assert len(text) == 36
    for written in (text, text.upper(), f"  {text}\n", text.replace("-", ""), f"{{{text}}}"):
        assert ids.from_text(written) == message_id


@pytest.mark.parametrize("text", ["", "hello", "017f22e2-79b0-7cc3-98c4-dc0c0c07398", "g" * 32])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - it is uuid's own, in several wordings
        ids.from_text(text)
