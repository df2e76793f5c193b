"""STUN's Binding (RFC 8489): from which address a server on the internet sees us.

A message is a header of 20 bytes and attributes, each padded to 4 bytes (sections 5 and 14)::

    header:     type u16 | length of the rest u16 | magic cookie u32 | transaction ID 12
    attribute:  type u16 | length u16 | value, padding
"""

from __future__ import annotations

import ipaddress
import struct
import zlib
from collections.abc import Iterator

import msgspec

from securelink.nat.terms import NotAnAnswer

PORT = 3478
TRANSACTION_ID_SIZE = 12

_MAGIC_COOKIE = 0x2112A442
_BINDING_REQUEST = 0x0001
_BINDING_SUCCESS = 0x0101
_BINDING_ERROR = 0x0111

_MAPPED_ADDRESS = 0x0001
_ERROR_CODE = 0x0009
_XOR_MAPPED_ADDRESS = 0x0020
_FINGERPRINT = 0x8028
_FINGERPRINT_XOR = 0x5354554E

# Servers that still speak RFC 3489 add SOURCE-ADDRESS and CHANGED-ADDRESS.
_UNDERSTOOD = frozenset({_MAPPED_ADDRESS, 0x0004, 0x0005, _ERROR_CODE, _XOR_MAPPED_ADDRESS})
_COMPREHENSION_OPTIONAL = 0x8000

_HEADER = struct.Struct(">HHI12s")
_ATTRIBUTE = struct.Struct(">HH")


class BindingSuccess(msgspec.Struct, frozen=True):
    """The server has seen our packet come from here."""

    host: str
    port: int


class BindingError(msgspec.Struct, frozen=True):
    """The server refused to say."""

    code: int
    """Section 14.8: 300 to 699."""


def encode_request(transaction_id: bytes) -> bytes:
    """Return a Binding request: 20 bytes. *transaction_id*: 12 random bytes.

    Raises:
        ValueError: for an ID of another size.
    """
    if len(transaction_id) != TRANSACTION_ID_SIZE:
        raise ValueError(f"a transaction ID that is not of {TRANSACTION_ID_SIZE} bytes")
    return _HEADER.pack(_BINDING_REQUEST, 0, _MAGIC_COOKIE, transaction_id)


def decode_response(data: bytes, transaction_id: bytes) -> BindingSuccess | BindingError:
    """Read the response to the request with *transaction_id*.

    Raises:
        NotAnAnswer: it is none, is damaged, or holds what must be understood and is not
            (section 6.3.3).
    """
    if len(data) < _HEADER.size:
        raise NotAnAnswer("too short for STUN")
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if cookie != _MAGIC_COOKIE or transaction != transaction_id:
        raise NotAnAnswer("a response to another request")
    if kind not in (_BINDING_SUCCESS, _BINDING_ERROR):
        raise NotAnAnswer("no response to a Binding request")
    if length % 4 or length != len(data) - _HEADER.size:
        raise NotAnAnswer("a length that does not fit")
    # The first of a kind counts, others are ignored (section 14).
    found: dict[int, bytes] = {}
    for position, attribute, value in _attributes(data):
        if attribute == _FINGERPRINT:
            _check_fingerprint(data[:position], value)
        elif attribute < _COMPREHENSION_OPTIONAL and attribute not in _UNDERSTOOD:
            raise NotAnAnswer("an attribute that must be understood")
        found.setdefault(attribute, value)
    if kind == _BINDING_ERROR:
        return BindingError(_error_code(found.get(_ERROR_CODE, b"")))
    if _XOR_MAPPED_ADDRESS in found:
        pad = data[4:20]  # the cookie, then the transaction ID (section 14.2)
        return _address(found[_XOR_MAPPED_ADDRESS], pad)
    return _address(found.get(_MAPPED_ADDRESS, b""), bytes(16))


def _attributes(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the position, the type and the value of each attribute."""
    position = _HEADER.size
    while position < len(data):
        # Whole words remain, so a header always fits.
        attribute, length = _ATTRIBUTE.unpack_from(data, position)
        start = position + _ATTRIBUTE.size
        if start + length > len(data):
            raise NotAnAnswer("an attribute that is cut off")
        yield position, attribute, data[start : start + length]
        position = start + (length + 3) // 4 * 4


def _check_fingerprint(before: bytes, value: bytes) -> None:
    # Section 14.7. It is the last attribute, so the header's length is that of the whole message.
    if value != ((zlib.crc32(before) ^ _FINGERPRINT_XOR).to_bytes(4, "big")):
        raise NotAnAnswer("a fingerprint that does not fit")


def _error_code(value: bytes) -> int:
    if len(value) < 4 or not 3 <= value[2] & 7 <= 6 or value[3] > 99:
        raise NotAnAnswer("an error without a code")
    return (value[2] & 7) * 100 + value[3]


def _address(value: bytes, pad: bytes) -> BindingSuccess:
    size = {(8, 1): 4, (20, 2): 16}.get((len(value), value[1] if len(value) > 1 else 0))
    if size is None:
        raise NotAnAnswer("a success without an address")
    port = int.from_bytes(value[2:4], "big") ^ int.from_bytes(pad[:2], "big")
    raw = bytes(a ^ b for a, b in zip(value[4:], pad, strict=False))
    return BindingSuccess(str(ipaddress.ip_address(raw)), port)
