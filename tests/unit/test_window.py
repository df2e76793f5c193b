"""What may be under way without a receipt."""

from __future__ import annotations

from securelink.window import MESSAGES, SIZE, Window


def test_the_bounds_are_those_of_the_wire() -> None:
    assert (MESSAGES, SIZE) == (1024, 4 * 1024 * 1024)


def test_as_many_messages_as_there_may_be() -> None:
    window = Window()
    for number in range(MESSAGES):
        assert window.fits(0)
        window.add(b"%d" % number, 0)
    assert not window.fits(0)
    assert len(window) == MESSAGES
    assert window.remove(b"7")
    assert window.fits(0)


def test_as_many_bytes_as_there_may_be() -> None:
    window = Window()
    window.add(b"a", SIZE - 10)
    assert window.fits(10)
    assert not window.fits(11)
    window.add(b"b", 10)
    assert not window.fits(1)
    assert window.fits(0)
    assert window.remove(b"a")
    assert window.fits(SIZE - 10)
    assert not window.fits(SIZE - 9)


def test_one_message_always_fits() -> None:
    window = Window()
    assert window.fits(SIZE + 1)
    window.add(b"a", SIZE + 1)
    assert not window.fits(0)
    window.remove(b"a")
    assert window.fits(SIZE + 1)


def test_what_is_not_in_cannot_be_taken_out() -> None:
    window = Window()
    assert not window.remove(b"a")
    window.add(b"a", 1)
    assert b"a" in window
    assert window.remove(b"a")
    assert b"a" not in window
    assert not window.remove(b"a")
    assert len(window) == 0


def test_a_copy_goes_its_own_way() -> None:
    window = Window()
    window.add(b"a", SIZE - 10)
    copy = window.copy()
    assert b"a" in copy
    assert not copy.fits(11)
    copy.add(b"b", 10)
    assert window.fits(10)
    assert copy.remove(b"a")
    assert b"a" in window
