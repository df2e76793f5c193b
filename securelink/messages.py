"""What two nodes say to each other once a link is open: typed, and their encoding.

Two tables, `_ENCODERS` and `_DECODERS`, tie each value to its item type: a new message is a new
row in each.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from securelink import endpoints, file_messages
from securelink.endpoints import Endpoint
from securelink.errors import LocalProtocolError, MalformedRecord
from securelink.file_messages import ID_SIZE, FileItem, FileMessage, checked_id

TEXT_HEADER_SIZE = ID_SIZE + 8
"""What a TEXT carries before its UTF-8."""

LONGEST_NAME = 32
"""Bytes of UTF-8 in the name that a node gives itself."""


class ItemType(enum.IntEnum):
    """The first byte of an item."""

    READY = 1
    DENY = 2
    TEXT = 3
    RECEIPT = 4
    REFUSED = 5
    PING = 6
    CLOSE = 7
    ANNOUNCE = 8


URGENT = frozenset({ItemType.RECEIPT, ItemType.REFUSED, ItemType.PING})
"""These overtake others, and may stand between the pieces of a split message."""

SPLITTABLE = frozenset({ItemType.TEXT, ItemType.ANNOUNCE})
"""These may be longer than an item, and then come in pieces; none of them is urgent."""


class RefusalCode(enum.IntEnum):
    """Why a message was refused; a number that is not here is a later version's."""

    TOO_LONG = 1
    NOT_ALLOWED = 2
    DISK_FULL = 3
    QUOTA = 4
    BUSY = 5
    TOO_LARGE = 6
    EXISTS = 7
    BAD_NAME = 8


class Ready(msgspec.Struct, frozen=True):
    """The server takes the link. `waiting` texts wait for the client."""

    name: str
    waiting: int


class Deny(msgspec.Struct, frozen=True):
    """The server does not take the link, and does not say why."""


class Text(msgspec.Struct, frozen=True):
    """A text; `id` is 16 bytes, `sent_at` in milliseconds since 1970."""

    id: bytes
    sent_at: int
    text: str


class Receipt(msgspec.Struct, frozen=True):
    """The message with this ID is on the receiver's disk."""

    id: bytes


class Refused(msgspec.Struct, frozen=True):
    """The message with this ID was not taken, for good or for now."""

    id: bytes
    permanent: bool
    code: int


class Ping(msgspec.Struct, frozen=True):
    """Nothing, so that the other side hears something."""


class Close(msgspec.Struct, frozen=True):
    """The sender's last record; `count` is how many it sent, this one included."""

    count: int


class Announce(msgspec.Struct, frozen=True):
    """Where the sender can be reached from now on; replaces what it announced before."""

    endpoints: tuple[Endpoint, ...]


Message: TypeAlias = Ready | Deny | Text | Receipt | Refused | Ping | Close | Announce | FileMessage


def encode_name(name: str) -> bytes:
    """A node's own name, its length before it.

    Raises:
        ValueError: the name is over 32 bytes of UTF-8.
    """
    raw = name.encode()
    if len(raw) > LONGEST_NAME:
        raise ValueError("a node's name is at most 32 bytes of UTF-8")
    return bytes([len(raw)]) + raw


def decode_name(data: bytes) -> tuple[str, int]:
    """A name at the start of `data`, and how many bytes it took; ValueError if there is none."""
    if not data or data[0] > LONGEST_NAME or len(data) <= data[0]:
        raise ValueError("a name is cut short or too long")
    return data[1 : data[0] + 1].decode(), data[0] + 1


_READY_WAITING = struct.Struct(">I")
_TEXT = struct.Struct(f">{ID_SIZE}sQ")
_REFUSED = struct.Struct(f">{ID_SIZE}sBB")
_CLOSE = struct.Struct(">Q")


def _encode_ready(ready: Ready) -> bytes:
    return encode_name(ready.name) + _READY_WAITING.pack(min(ready.waiting, 2**32 - 1))


def _decode_ready(body: bytes) -> Ready:
    name, used = decode_name(body)
    return Ready(name, *_READY_WAITING.unpack(body[used:]))


def _encode_text(text: Text) -> bytes:
    return _TEXT.pack(checked_id(text.id), text.sent_at) + text.text.encode()


def _decode_text(body: bytes) -> Text:
    message_id, sent_at = _TEXT.unpack_from(body)
    return Text(message_id, sent_at, body[TEXT_HEADER_SIZE:].decode())


def _decode_receipt(body: bytes) -> Receipt:
    return Receipt(checked_id(body))


def _encode_refused(refused: Refused) -> bytes:
    return _REFUSED.pack(checked_id(refused.id), refused.permanent, refused.code)


def _decode_refused(body: bytes) -> Refused:
    message_id, permanent, code = _REFUSED.unpack(body)
    if permanent > 1:
        raise ValueError("a refusal is permanent, or it is not")
    return Refused(message_id, bool(permanent), code)


def _decode_announce(body: bytes) -> Announce:
    announced, used = endpoints.decode(body)
    if used != len(body):
        raise ValueError("something follows the endpoints")
    return Announce(announced)


def _empty(value: type[Deny | Ping]) -> Callable[[bytes], Deny | Ping]:
    def decode_empty(body: bytes) -> Deny | Ping:
        if body:
            raise ValueError("this item has no body")
        return value()

    return decode_empty


_ENCODERS: dict[type, tuple[ItemType | FileItem, Callable[..., bytes]]] = {
    Ready: (ItemType.READY, _encode_ready),
    Deny: (ItemType.DENY, lambda _: b""),
    Text: (ItemType.TEXT, _encode_text),
    Receipt: (ItemType.RECEIPT, lambda receipt: checked_id(receipt.id)),
    Refused: (ItemType.REFUSED, _encode_refused),
    Ping: (ItemType.PING, lambda _: b""),
    Close: (ItemType.CLOSE, lambda close: _CLOSE.pack(close.count)),
    Announce: (ItemType.ANNOUNCE, lambda announce: endpoints.encode(announce.endpoints)),
    **file_messages.ENCODERS,
}

_DECODERS: dict[int, Callable[..., Message]] = {
    ItemType.READY: _decode_ready,
    ItemType.DENY: _empty(Deny),
    ItemType.TEXT: _decode_text,
    ItemType.RECEIPT: _decode_receipt,
    ItemType.REFUSED: _decode_refused,
    ItemType.PING: _empty(Ping),
    ItemType.CLOSE: lambda body: Close(*_CLOSE.unpack(body)),
    ItemType.ANNOUNCE: _decode_announce,
    **file_messages.DECODERS,
}


def encode(message: Message) -> tuple[ItemType | FileItem, bytes]:
    """A message as the type and the body of an item (of several, when it is long).

    Raises:
        LocalProtocolError: a field of the message has no place in its encoding.
    """
    kind, encoder = _ENCODERS[type(message)]
    try:
        return kind, encoder(message)
    except (ValueError, struct.error):
        # UnicodeEncodeError, a ValueError, quotes the text; none of that may reach a log.
        raise LocalProtocolError(f"this {kind.name} cannot be encoded") from None


def decode(kind: int, body: bytes | memoryview) -> Message:
    """The message that an item's type and body stand for.

    Raises:
        MalformedRecord: the type is unknown, or the body is not of its form.
    """
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise MalformedRecord(f"an item has the unknown type {kind}")
    try:
        return decoder(body)
    except (ValueError, struct.error):
        # UnicodeDecodeError, a ValueError, quotes the bytes; none of that may reach a log.
        raise MalformedRecord(f"an item of type {kind} is not of its form") from None
