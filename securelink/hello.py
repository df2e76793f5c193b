"""The payloads of handshake messages 2 and 3: what each side can do, and who the client is.

Both are padded with zeros to one length, so that a first pairing, which carries a token, looks
like any later connection.
"""

from __future__ import annotations

import hashlib
import struct
from typing import ClassVar

import msgspec

from securelink import messages
from securelink.errors import HandshakeError, LocalProtocolError

SERVER_HELLO_SIZE = 64
CLIENT_HELLO_SIZE = 256
TOKEN_SIZE = 16

FILES = 1
"""Feature bit: the node knows the items of files. Whether it takes any is another matter."""

FEATURES = FILES
"""The feature bits that this version sets; unknown ones of the other side are ignored."""

_TOKEN = 1
_STANDING = 2
_TAKES_FILES = 4

_SERVER = struct.Struct(">QI")
_CLIENT = struct.Struct(">QIB")


class ServerHello(msgspec.Struct, frozen=True):
    """What the server tells whoever holds its public key.

    Attributes:
        features: feature bits, u64.
        max_message: the longest text it takes, in bytes of UTF-8.
    """

    features: int
    max_message: int

    takes_files: ClassVar[bool] = True
    """A server that takes none refuses them one by one."""

    def encode(self) -> bytes:
        """64 bytes; LocalProtocolError if a field has no place in them."""
        try:
            head = _SERVER.pack(self.features, self.max_message)
        except struct.error:
            raise LocalProtocolError("this hello cannot be encoded") from None
        return head.ljust(SERVER_HELLO_SIZE, b"\0")

    @classmethod
    def decode(cls, payload: bytes) -> ServerHello:
        """Raises HandshakeError when the payload is not 64 bytes of this form."""
        if len(payload) != SERVER_HELLO_SIZE or any(payload[_SERVER.size :]):
            raise HandshakeError("the payload of handshake message 2 is not of its form")
        return cls(*_SERVER.unpack_from(payload))


class ClientHello(msgspec.Struct, frozen=True):
    """What the client tells the server along with its key.

    Attributes:
        name: what the client calls itself, at most 32 bytes of UTF-8.
        features: feature bits, u64.
        max_message: the longest text it takes, in bytes of UTF-8.
        token: an invite's 16 bytes, or None.
        standing: the link is meant to last.
        takes_files: files may be sent to the client on this link.
    """

    name: str
    features: int
    max_message: int
    token: bytes | None = None
    standing: bool = False
    takes_files: bool = False

    @property
    def token_hash(self) -> bytes | None:
        """SHA-256 of the token, which is all that a server looks at; None without one."""
        return None if self.token is None else hashlib.sha256(self.token).digest()

    def encode(self) -> bytes:
        """256 bytes; LocalProtocolError if a field has no place in them."""
        if self.token is not None and len(self.token) != TOKEN_SIZE:
            raise LocalProtocolError("a token has 16 bytes")
        flags = (
            (_TOKEN if self.token else 0)
            | (_STANDING if self.standing else 0)
            | (_TAKES_FILES if self.takes_files else 0)
        )
        try:
            head = _CLIENT.pack(self.features, self.max_message, flags)
            name = messages.encode_name(self.name)
        except (ValueError, struct.error):
            raise LocalProtocolError("this hello cannot be encoded") from None
        return (head + (self.token or b"") + name).ljust(CLIENT_HELLO_SIZE, b"\0")

    @classmethod
    def decode(cls, payload: bytes) -> ClientHello:
        """Raises HandshakeError when the payload is not 256 bytes of this form."""
        if len(payload) != CLIENT_HELLO_SIZE:
            raise HandshakeError("the payload of handshake message 3 has a wrong length")
        features, max_message, flags = _CLIENT.unpack_from(payload)
        at = _CLIENT.size
        token = None
        if flags & _TOKEN:
            token = payload[at : at + TOKEN_SIZE]
            at += TOKEN_SIZE
        try:
            name, used = messages.decode_name(payload[at:])
        except ValueError:
            raise HandshakeError("the client's name is not of its form") from None
        if any(payload[at + used :]) or flags & ~(_TOKEN | _STANDING | _TAKES_FILES):
            raise HandshakeError("the payload of handshake message 3 is not of its form")
        return cls(
            name=name,
            features=features,
            max_message=max_message,
            token=token,
            standing=bool(flags & _STANDING),
            takes_files=bool(flags & _TAKES_FILES),
        )

    def __repr__(self) -> str:
        # The token must not reach a log by way of a value that happens to be printed.
        return f"ClientHello(name={self.name!r}, standing={self.standing})"
