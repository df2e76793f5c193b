"""The words that all of this package shares."""

from __future__ import annotations

import enum
import ipaddress
import typing

import msgspec

from securelink.events import Address

LARGEST_PORT = 65535

LONGEST_LEASE = 604_800
"""Seconds: a week, the longest that UPnP IGD:2 allows (WANIPConnection:2, section 2.3.16)."""


class Method(enum.StrEnum):
    """How a router is asked; in the order of preference."""

    PCP = "pcp"
    NAT_PMP = "nat-pmp"
    UPNP = "upnp"

    @property
    def label(self) -> str:
        """As people write it."""
        return {Method.PCP: "PCP", Method.NAT_PMP: "NAT-PMP", Method.UPNP: "UPnP"}[self]


class Protocol(enum.StrEnum):
    """What a mapping forwards."""

    TCP = "tcp"
    UDP = "udp"

    @property
    def number(self) -> int:
        """The number that IANA gave it."""
        return {Protocol.TCP: 6, Protocol.UDP: 17}[self]


class NotAnAnswer(ValueError):
    """A packet that is no answer to what was asked: whoever waits goes on waiting."""


def is_port(port: int) -> bool:
    """Whether *port* can be mapped: 1 to 65535."""
    return 1 <= port <= LARGEST_PORT


def packed_ipv4(address: str) -> bytes:
    """Return the 4 bytes of an IPv4 address.

    Raises:
        ValueError: it is none.
    """
    return ipaddress.IPv4Address(address).packed


class Wanted(msgspec.Struct, frozen=True):
    """A mapping that is asked for."""

    protocol: Protocol
    local: Address
    external_port: int
    """Where possible; a router may grant another."""
    lease: int
    """Seconds."""
    nonce: bytes
    """PCP's proof that a mapping is ours: 12 bytes."""
    description: str
    """What the router's own page shows; letters, digits, blanks and dashes, 40 at most."""
    kept_as: str = ""
    """What the router made of that the last time; empty: not known."""


class Granted(msgspec.Struct, frozen=True):
    """A mapping that the router says it has."""

    external: Address
    lease: int
    """Seconds from now; 0: it has no end."""
    description: str = ""
    """As the router keeps it."""
    restarted: bool = False
    """The router has lost its state since it was last heard of."""
    borrowed: bool = False
    """Somebody else made it, for this very port of this machine: it is not ours to delete."""


class Client(typing.Protocol):
    """One way of asking a router that has answered; all of it raises NatError."""

    method: Method

    async def external_address(self) -> str | None:
        """The router's outer address, "" if it has none; None where this method can't ask."""

    async def map(self, wanted: Wanted) -> Granted:
        """Make or renew a mapping; what is returned is there."""

    async def unmap(self, wanted: Wanted, external_port: int) -> None:
        """Delete the mapping if it is there and its address, port and description are ours."""

    def close(self) -> None:
        """End what belongs to this client; mappings stay."""
