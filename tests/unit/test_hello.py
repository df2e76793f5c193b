"""What both sides say in the handshake."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.errors import HandshakeError, LocalProtocolError
from securelink.hello import ClientHello, ServerHello

u64, u32 = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)
names = st.text(max_size=32).filter(lambda name: len(name.encode()) <= 32)
tokens = st.none() | st.binary(min_size=16, max_size=16)


@given(u64, u32)
def test_a_servers_hello_comes_back(features: int, max_message: int) -> None:
    hello = ServerHello(features, max_message)
    assert len(hello.encode()) == 64
    assert ServerHello.decode(hello.encode()) == hello


@given(names, u64, u32, tokens, st.booleans(), st.booleans())
def test_a_clients_hello_comes_back(
    name: str, features: int, max_message: int, token: bytes | None, standing: bool, files: bool
) -> None:
    hello = ClientHello(name, features, max_message, token, standing, files)
    assert len(hello.encode()) == 256
    assert ClientHello.decode(hello.encode()) == hello


def test_the_bytes_are_those_of_the_wire() -> None:
    assert ServerHello(1, 2).encode() == bytes(7) + b"\x01\0\0\0\x02" + bytes(52)
    hello = ClientHello("bob", 1, 2, token=b"t" * 16, standing=True, takes_files=True)
    head = bytes(7) + b"\x01\0\0\0\x02\x07" + b"t" * 16 + b"\x03bob"
    assert hello.encode() == head.ljust(256, b"\0")
    assert ClientHello("", 0, 0).encode() == bytes(256)


@given(st.binary(max_size=70) | st.binary(min_size=64, max_size=64))
def test_random_bytes_are_a_servers_hello_or_an_error(payload: bytes) -> None:
    try:
        hello = ServerHello.decode(payload)
    except HandshakeError:
        return
    assert hello.encode() == payload


@given(st.binary(max_size=60), st.integers(0, 7))
def test_random_bytes_are_a_clients_hello_or_an_error(start: bytes, flags: int) -> None:
    payload = (bytes(12) + bytes([flags]) + start).ljust(256, b"\0")
    try:
        hello = ClientHello.decode(payload)
    except HandshakeError:
        return
    assert hello.encode() == payload


PLAIN = ClientHello("bob", 0, 0).encode()


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(PLAIN[:-1], id="short"),
        pytest.param(PLAIN + b"\0", id="long"),
        pytest.param(PLAIN[:-1] + b"\x01", id="something after the name"),
        pytest.param(PLAIN[:12] + b"\x08" + PLAIN[13:], id="an unknown flag"),
        pytest.param(PLAIN[:13] + b"\x21" + b"a" * 33 + bytes(209), id="a long name"),
        pytest.param(PLAIN[:13] + b"\x01\xff" + bytes(241), id="a name not in UTF-8"),
    ],
)
def test_a_clients_hello_not_of_its_form(payload: bytes) -> None:
    with pytest.raises(HandshakeError) as caught:
        ClientHello.decode(payload)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("payload", [bytes(63), bytes(65), bytes(63) + b"\x01"])
def test_a_servers_hello_not_of_its_form(payload: bytes) -> None:
    with pytest.raises(HandshakeError):
        ServerHello.decode(payload)


@pytest.mark.parametrize(
    "hello",
    [
        ClientHello("n" * 33, 0, 0),
        ClientHello("bob", 0, 0, token=b""),
        ClientHello("bob", 0, 0, token=bytes(15)),
        ClientHello("bob", 0, 0, token=bytes(17)),
        ClientHello("bob", 2**64, 0),
        ClientHello("bob", 0, 2**32),
        ClientHello("\ud800", 0, 0),
        ServerHello(0, 2**32),
        ServerHello(-1, 0),
    ],
)
def test_what_has_no_encoding_is_our_own_mistake(hello: ClientHello | ServerHello) -> None:
    with pytest.raises(LocalProtocolError):
        hello.encode()


def test_a_server_looks_at_the_hash_of_a_token_alone() -> None:
    assert ClientHello("bob", 0, 0).token_hash is None
    hello = ClientHello("bob", 0, 0, token=bytes(16))
    assert hello.token_hash == hashlib.sha256(bytes(16)).digest()


def test_a_token_is_not_shown() -> None:
    hello = ClientHello("bob", 0, 0, token=b"0123456789abcdef", standing=True)
    assert "0123" not in repr(hello)
    assert "bob" in repr(hello)
