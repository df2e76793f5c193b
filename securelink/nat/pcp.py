"""Packets of the Port Control Protocol (RFC 6887), of which two opcodes are used.

ANNOUNCE (section 14.1) asks nothing but whether a server is there. MAP (section 11) makes, renews
and, with a lifetime of 0, deletes a mapping; for the last two the nonce must be that of the
first. All numbers are big-endian; IPv4 addresses stand as ::ffff:a.b.c.d (section 5)::

    request:   version u8 | opcode u8 | zeros 2 | lifetime u32 | client's address 16
    response:  version u8 | 0x80 + opcode u8 | zero | result u8 | lifetime u32
               | epoch u32 | zeros 12
    MAP:       nonce 12 | protocol u8 | zeros 3 | internal port u16 | external port u16
               | external address 16
"""

from __future__ import annotations

import enum
import ipaddress
import struct

import msgspec

from securelink.nat.terms import NotAnAnswer, Protocol, is_port, packed_ipv4

VERSION = 2
PORT = 5351
NONCE_SIZE = 12
LONGEST_PACKET = 1100  # section 7

_RESPONSE = 0x80
_V4_MAPPED = bytes(10) + b"\xff\xff"
_REQUEST_HEADER = struct.Struct(">BBxxI16s")
_RESPONSE_HEADER = struct.Struct(">BBxBII12x")
_MAP = struct.Struct(">12sB3xHH16s")


class Opcode(enum.IntEnum):
    """Section 19.2."""

    ANNOUNCE = 0
    MAP = 1


class ResultCode(enum.IntEnum):
    """Section 7.4."""

    SUCCESS = 0
    UNSUPP_VERSION = 1
    NOT_AUTHORIZED = 2
    MALFORMED_REQUEST = 3
    UNSUPP_OPCODE = 4
    UNSUPP_OPTION = 5
    MALFORMED_OPTION = 6
    NETWORK_FAILURE = 7
    NO_RESOURCES = 8
    UNSUPP_PROTOCOL = 9
    USER_EX_QUOTA = 10
    CANNOT_PROVIDE_EXTERNAL = 11
    ADDRESS_MISMATCH = 12
    EXCESSIVE_REMOTE_PEERS = 13


class OtherVersion(ValueError):
    """The server does not speak this version of PCP; a NAT-PMP server answers like that."""


class MapRequest(msgspec.Struct, frozen=True):
    """What a MAP request asks for."""

    client: str
    """The IPv4 address that the packet leaves from, which is the internal address."""
    nonce: bytes
    """12 random bytes."""
    protocol: Protocol
    internal_port: int
    external_port: int
    """Only suggested."""
    lifetime: int
    """Seconds; 0 deletes."""


class Response(msgspec.Struct, frozen=True):
    """What every response tells."""

    result: int
    """A `ResultCode`, or a number that this version does not know."""
    lifetime: int
    """Seconds: of the mapping, or for how long the error will stay."""
    epoch: int
    """Seconds since the server lost its state (section 8.5)."""


class MapResponse(Response, frozen=True):
    """The response to a MAP request; the external end means something on success only."""

    external_address: str
    external_port: int


def encode_announce(client: str) -> bytes:
    """Return an ANNOUNCE request from the IPv4 address *client*: 24 bytes."""
    return _REQUEST_HEADER.pack(VERSION, Opcode.ANNOUNCE, 0, _V4_MAPPED + packed_ipv4(client))


def encode_map(request: MapRequest) -> bytes:
    """Return a MAP request: 60 bytes.

    Raises:
        ValueError: for a port, a lifetime, a nonce or an address that none can be.
    """
    if not is_port(request.internal_port) or not 0 <= request.external_port <= 65535:
        raise ValueError("a port outside 1 to 65535")
    if len(request.nonce) != NONCE_SIZE:
        raise ValueError(f"a nonce that is not of {NONCE_SIZE} bytes")
    if not 0 <= request.lifetime < 1 << 32:
        raise ValueError("a lifetime that does not fit into 32 bits")
    header = _REQUEST_HEADER.pack(
        VERSION, Opcode.MAP, request.lifetime, _V4_MAPPED + packed_ipv4(request.client)
    )
    return header + _MAP.pack(
        request.nonce,
        request.protocol.number,
        request.internal_port,
        request.external_port,
        _V4_MAPPED + bytes(4),  # "any IPv4 address", section 11.1
    )


def decode_announce(data: bytes) -> Response:
    """Read the response to an ANNOUNCE request.

    Raises:
        NotAnAnswer: it is none.
        OtherVersion: the server does not speak this version.
    """
    return _header(data, Opcode.ANNOUNCE)


def decode_map(data: bytes, request: MapRequest) -> MapResponse:
    """Read the response to *request*, matched by nonce, protocol and internal port (section 11.4).

    Raises:
        NotAnAnswer: it is none, or one to another request.
        OtherVersion: the server does not speak this version.
    """
    header = _header(data, Opcode.MAP)
    if len(data) < _RESPONSE_HEADER.size + _MAP.size:
        raise NotAnAnswer("too short for a MAP response")
    nonce, protocol, internal_port, external_port, external_address = _MAP.unpack_from(
        data, _RESPONSE_HEADER.size
    )
    if (nonce, protocol, internal_port) != (
        request.nonce,
        request.protocol.number,
        request.internal_port,
    ):
        raise NotAnAnswer("a response to another request")
    address = ""
    if external_address.startswith(_V4_MAPPED):
        address = str(ipaddress.IPv4Address(external_address[-4:]))
    if (
        header.result == ResultCode.SUCCESS
        and request.lifetime
        and not (address and external_port and header.lifetime)
    ):
        raise NotAnAnswer("a success without an IPv4 address, a port or a lifetime")
    return MapResponse(header.result, header.lifetime, header.epoch, address, external_port)


def _header(data: bytes, opcode: Opcode) -> Response:
    # Section 8.3 and, for servers of NAT-PMP, whose shortest response has 8 bytes, appendix A.
    if len(data) < 4 or not data[1] & _RESPONSE:
        raise NotAnAnswer("no response")
    if data[0] != VERSION:
        raise OtherVersion(f"a server of version {data[0]}")
    if not _RESPONSE_HEADER.size <= len(data) <= LONGEST_PACKET or len(data) % 4:
        raise NotAnAnswer("a length that no PCP response has")
    _, response, result, lifetime, epoch = _RESPONSE_HEADER.unpack_from(data)
    if result == ResultCode.UNSUPP_VERSION:
        raise OtherVersion("a server that refuses this version")
    if response != _RESPONSE | opcode:
        raise NotAnAnswer("a response to another opcode")
    return Response(result, lifetime, epoch)
