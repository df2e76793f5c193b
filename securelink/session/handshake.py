"""The handshake as it stands on the wire: header, frames, and what both sides say in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.errors import HandshakeError
from securelink.framing import frame
from securelink.hello import ClientHello, ServerHello
from securelink.identity import KEY_SIZE, PublicKey
from securelink.noise import PATTERNS, HandshakeState

if TYPE_CHECKING:
    from securelink.identity import Identity
    from securelink.noise import CipherState
    from securelink.session.replays import Replays

HEADER = b"SL\x01\x01"
"""Magic, version 1, suite 1 (Noise_XKhfs_25519+MLKEM768_AESGCM_SHA256)."""

PROLOGUE = b"securelink" + HEADER


def initiator(identity: Identity, server: PublicKey) -> HandshakeState:
    """The client's side of a handshake with the holder of one key."""
    return HandshakeState(
        PATTERNS["XKhfs"], initiator=True, prologue=PROLOGUE, s=identity.private, rs=server.raw
    )


def responder(identity: Identity) -> HandshakeState:
    """The server's side of a handshake."""
    return HandshakeState(PATTERNS["XKhfs"], initiator=False, prologue=PROLOGUE, s=identity.private)


class Handshake:
    """One side's three messages, each with its frame, in the order of the methods.

    Reading raises DecryptError or HandshakeError (both RemoteProtocolError) for a message that
    does not verify, or whose payload is not of its form.

    Args:
        state: `initiator` or `responder`.
        hello: what this side says of itself; LocalProtocolError if it has no encoding.
    """

    __slots__ = ("_payload", "_state")

    def __init__(self, state: HandshakeState, hello: ClientHello | ServerHello) -> None:
        self._state = state
        self._payload = hello.encode()

    def write_1(self) -> bytes:
        """Client: the first frame."""
        return frame(HEADER + self._state.write_message())

    def read_1(self, body: bytes, replays: Replays) -> None:
        """Server: verify that the client knows our public key, and has not said this before."""
        if body[: len(HEADER)] != HEADER:
            raise HandshakeError("the first frame is not of this protocol")
        message = body[len(HEADER) :]
        ephemeral = message[:KEY_SIZE]
        if replays.knows(ephemeral):
            raise HandshakeError("a first message has come before")
        self._state.read_message(message)
        replays.remember(ephemeral)

    def write_2(self) -> bytes:
        """Server: the second frame."""
        return frame(self._state.write_message(self._payload))

    def read_2(self, body: bytes) -> ServerHello:
        """Client: verify that the server holds its key."""
        return ServerHello.decode(self._state.read_message(body))

    def write_3(self) -> bytes:
        """Client: the third frame."""
        return frame(self._state.write_message(self._payload))

    def read_3(self, body: bytes) -> tuple[PublicKey, ClientHello]:
        """Server: verify that the client holds the key that is returned."""
        hello = ClientHello.decode(self._state.read_message(body))
        assert self._state.rs is not None
        return PublicKey(self._state.rs), hello

    def split(self) -> tuple[CipherState, CipherState]:
        """The ciphers for the records: client to server, server to client."""
        return self._state.split()
