"""Memory that is used again: never while anybody still looks at it."""

from __future__ import annotations

from securelink.session.batch import LARGE, Batch
from securelink.session.buffers import Buffers, is_free


def test_a_buffer_is_free_when_nobody_sees_it() -> None:
    buffer = bytearray(b"abc")
    view = memoryview(buffer)[1:]
    assert not is_free(buffer)
    del view
    assert is_free(buffer)
    assert buffer == b"abc"


def test_a_buffer_comes_again_once_its_view_is_gone() -> None:
    buffers = Buffers(8, 2)
    first, second = buffers.get(), buffers.get()
    first[:] = b"firstone"
    third = buffers.get()
    third[:] = b"thirdone"
    assert bytes(first) == b"firstone", "a third is made while both are seen"
    again = first.obj
    del first
    assert buffers.get().obj is again
    assert len(second) == 8


def test_a_batch_keeps_what_others_still_see() -> None:
    batch = Batch()
    batch.frame(LARGE)[:4] = b"once"
    sent = batch.take()
    batch.frame(LARGE)[:4] = b"more"
    assert bytes(sent[4:8]) == b"once"
    assert len(batch) == 4 + LARGE
    assert bytes(batch.take()[4:8]) == b"more"


def test_a_batch_uses_its_buffer_again() -> None:
    batch = Batch()
    batch.frame(LARGE)
    taken = batch.take()
    assert isinstance(taken, memoryview)
    buffer = taken.obj
    del taken
    batch.frame(LARGE)
    again = batch.take()
    assert isinstance(again, memoryview)
    assert again.obj is buffer


def test_a_small_batch_keeps_nothing() -> None:
    batch = Batch()
    batch.append(b"abc")
    batch.append(b"de")
    assert batch.take() == b"abcde"
    assert batch.take() == b""
    assert len(batch) == 0
