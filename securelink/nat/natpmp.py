"""Packets of the NAT Port Mapping Protocol (RFC 6886). All numbers are big-endian::

    address request (3.2):   0 | 0
    address response:        0 | 128 | result u16 | epoch u32 | external IPv4 address 4
    mapping request (3.3):   0 | opcode | zeros 2 | internal port u16 | external port u16
                             | lifetime u32
    mapping response:        0 | 128 + opcode | result u16 | epoch u32 | internal port u16
                             | external port u16 | lifetime u32

A failure may end after the epoch (3.5). What a router appends to a response is ignored.
"""

from __future__ import annotations

import enum
import ipaddress
import struct

import msgspec

from securelink.nat.terms import NotAnAnswer, Protocol, is_port

VERSION = 0
PORT = 5351

_RESPONSE = 128
_HEADER = struct.Struct(">BBHI")
_MAP_REQUEST = struct.Struct(">BBxxHHI")
_MAPPED = struct.Struct(">HHI")


class Opcode(enum.IntEnum):
    """Sections 3.2 and 3.3."""

    ADDRESS = 0
    MAP_UDP = 1
    MAP_TCP = 2


class ResultCode(enum.IntEnum):
    """Section 3.5."""

    SUCCESS = 0
    UNSUPPORTED_VERSION = 1
    NOT_AUTHORIZED = 2
    NETWORK_FAILURE = 3
    OUT_OF_RESOURCES = 4
    UNSUPPORTED_OPCODE = 5


class OtherVersion(ValueError):
    """The server does not speak NAT-PMP; a PCP server answers like that."""


class MapRequest(msgspec.Struct, frozen=True):
    """What a mapping request asks for; the internal address is the packet's own."""

    protocol: Protocol
    internal_port: int
    external_port: int
    """Only suggested; 0 to delete (section 3.4)."""
    lifetime: int
    """Seconds; 0 deletes."""


class Response(msgspec.Struct, frozen=True):
    """What every response tells."""

    result: int
    """A `ResultCode`, or a number that this version does not know."""
    epoch: int
    """Seconds since the router lost its mappings (section 3.6)."""


class AddressResponse(Response, frozen=True):
    """The router's external address; it means something on success only."""

    address: str


class MapResponse(Response, frozen=True):
    """The mapping; port and lifetime mean something on success only."""

    external_port: int
    lifetime: int
    """Seconds."""


def encode_address() -> bytes:
    """Return the request for the external address: 2 bytes."""
    return bytes([VERSION, Opcode.ADDRESS])


def encode_map(request: MapRequest) -> bytes:
    """Return a mapping request: 12 bytes.

    Raises:
        ValueError: for a port or a lifetime that none can be.
    """
    if not is_port(request.internal_port) or not 0 <= request.external_port <= 65535:
        raise ValueError("a port outside 1 to 65535")
    if not 0 <= request.lifetime < 1 << 32:
        raise ValueError("a lifetime that does not fit into 32 bits")
    return _MAP_REQUEST.pack(
        VERSION,
        _opcode(request.protocol),
        request.internal_port,
        request.external_port,
        request.lifetime,
    )


def decode_address(data: bytes) -> AddressResponse:
    """Read the response to the request for the external address.

    Raises:
        NotAnAnswer: it is none.
        OtherVersion: the server does not speak NAT-PMP.
    """
    header = _header(data, Opcode.ADDRESS)
    if header.result != ResultCode.SUCCESS:
        return AddressResponse(header.result, header.epoch, "")
    if len(data) < _HEADER.size + 4:
        raise NotAnAnswer("too short for an address")
    address = ipaddress.IPv4Address(data[_HEADER.size : _HEADER.size + 4])
    return AddressResponse(header.result, header.epoch, str(address))


def decode_map(data: bytes, request: MapRequest) -> MapResponse:
    """Read the response to *request*, matched by protocol and internal port.

    Raises:
        NotAnAnswer: it is none, or one to another request.
        OtherVersion: the server does not speak NAT-PMP.
    """
    header = _header(data, _opcode(request.protocol))
    if len(data) < _HEADER.size + _MAPPED.size:
        if header.result == ResultCode.SUCCESS:
            raise NotAnAnswer("too short for a mapping")
        return MapResponse(header.result, header.epoch, 0, 0)
    internal_port, external_port, lifetime = _MAPPED.unpack_from(data, _HEADER.size)
    if internal_port != request.internal_port:
        raise NotAnAnswer("a response to another request")
    if (
        header.result == ResultCode.SUCCESS
        and request.lifetime
        and not (external_port and lifetime)
    ):
        raise NotAnAnswer("a success without a port or a lifetime")
    return MapResponse(header.result, header.epoch, external_port, lifetime)


def _opcode(protocol: Protocol) -> Opcode:
    return Opcode.MAP_TCP if protocol is Protocol.TCP else Opcode.MAP_UDP


def _header(data: bytes, opcode: Opcode) -> Response:
    if len(data) < 4 or data[1] < _RESPONSE:
        raise NotAnAnswer("no response")
    if data[0] != VERSION:
        raise OtherVersion(f"a server of version {data[0]}")
    if len(data) < _HEADER.size:
        raise NotAnAnswer("too short for a response")
    _, response, result, epoch = _HEADER.unpack_from(data)
    if result == ResultCode.UNSUPPORTED_VERSION:
        raise OtherVersion("a server that refuses this version")
    if response != _RESPONSE + opcode:
        raise NotAnAnswer("a response to another opcode")
    return Response(result, epoch)
