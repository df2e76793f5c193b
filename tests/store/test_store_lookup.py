"""Messages by what a person types."""

from __future__ import annotations

import pytest

from securelink.errors import UsageError
from securelink.store import inbox, lookup

BOB = b"\1" * 32
EVE = b"\2" * 32
ONE = bytes.fromhex("019a4f2e00007000800000000000000a")
TWO = bytes.fromhex("019a4f2e00007000800000000000000b")


@pytest.fixture(autouse=True)
def _messages(conn):
    put(conn, ONE)
    put(conn, TWO)


def put(conn, message_id, *, peer=BOB, name="bob"):
    inbox.receive(
        conn,
        peer=peer,
        peer_name=name,
        message_id=message_id,
        sent_at=1,
        text="hello",
        received_at=1,
    )


@pytest.mark.parametrize(
    "typed",
    [
        "019a4f2e-0000-7000-8000-00000000000a",
        "019A4F2E-0000-7000-8000-00000000000A",
        " 019a4f2e00007000800000000000000a\n",
    ],
)
def test_a_whole_id(conn, typed):
    assert lookup.message(conn, typed) == (BOB, ONE)


def test_enough_of_an_id(conn):
    other = bytes.fromhex("02" + "ff" * 15)
    put(conn, other)
    assert lookup.message(conn, "02") == (BOB, other)
    assert lookup.message(conn, "02f") == (BOB, other)


def test_too_little_of_an_id(conn):
    for typed in ("0", "019a", "019a4f2e00007000800000000000000"):
        with pytest.raises(UsageError, match=f"several messages' IDs begin with {typed}"):
            lookup.message(conn, typed)


def test_an_id_that_two_peers_chose(conn):
    put(conn, ONE, peer=EVE)
    with pytest.raises(
        UsageError, match="messages of several peers have the ID 019a4f2e"
    ) as caught:
        lookup.message(conn, ONE.hex())
    assert "--from" in caught.value.hint
    assert lookup.message(conn, ONE.hex(), BOB) == (BOB, ONE)
    assert lookup.message(conn, ONE.hex(), EVE) == (EVE, ONE)
    with pytest.raises(UsageError, match="no message has the ID"):
        lookup.message(conn, TWO.hex(), EVE)
    # Of what two peers chose and what else begins so, more is asked for first.
    with pytest.raises(UsageError, match="several messages' IDs begin"):
        lookup.message(conn, "019a")
    put(conn, TWO, peer=EVE)
    with pytest.raises(UsageError, match="several messages' IDs begin"):
        lookup.message(conn, "019a")


@pytest.mark.parametrize("typed", ["", "-", "xyz", "%", ONE.hex() + "0", "019a4f2e_"])
def test_what_is_no_id(conn, typed):
    with pytest.raises(UsageError, match="not the ID of a message"):
        lookup.message(conn, typed)


@pytest.mark.parametrize("typed", ["019a4f2f", "019a4f2d", "019a4f2e00007000800000000000000c"])
def test_an_id_that_no_message_has(conn, typed):
    with pytest.raises(UsageError, match=f"no message has the ID {typed}"):
        lookup.message(conn, typed)


def test_senders_by_the_name_that_they_had(conn):
    put(conn, b"\3" * 16, peer=b"\3" * 32)
    put(conn, b"\4" * 16, peer=b"\4" * 32, name="carol")
    assert sorted(lookup.senders_called(conn, "bob")) == [b"\1" * 32, b"\3" * 32]
    assert lookup.senders_called(conn, "dave") == []
