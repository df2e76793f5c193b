"""This machine's own addresses, as its routes give them."""

from __future__ import annotations

import contextlib
import socket

from securelink.endpoints import Kind, address_of, kind_of

# Addresses for documentation (RFC 5737 and RFC 3849): somewhere outside, and nobody's. Connecting
# a UDP socket sends no packet; it only has the kernel choose a route and the address to go with it.
_OUTSIDE_IPV4 = (socket.AF_INET, "192.0.2.1")
_OUTSIDE_IPV6 = (socket.AF_INET6, "2001:db8::1")
_DISCARD_PORT = 9


def local_addresses() -> list[str]:
    """Return the default route's IPv4 address, then one global IPv6 address, those that exist.

    The IPv4 address is a LAN address behind a home router, and a public one on a rented server.
    Without a network the list is empty.
    """
    addresses = []
    ipv4 = _source_address(*_OUTSIDE_IPV4)
    if ipv4 is not None and kind_of(ipv4) is not Kind.LOOPBACK:
        addresses.append(ipv4)
    ipv6 = _source_address(*_OUTSIDE_IPV6)
    if ipv6 is not None and kind_of(ipv6) is Kind.PUBLIC:
        addresses.append(ipv6)
    return addresses


def is_own(host: str) -> bool:
    """Tell whether the IP address *host* is one of this machine's, whatever its kind.

    Nothing is sent. For a name the answer is no.
    """
    address = address_of(host)
    if address is None:
        return False
    family, outside = _OUTSIDE_IPV4 if address.version == 4 else _OUTSIDE_IPV6
    if _source_address(family, str(address)) == str(address):
        return True
    # A second address of a network is reached from its first one, but only an own one is bound;
    # unless the system lets everything be bound, as some do that take others' addresses over.
    return _can_bind(family, str(address)) and not _can_bind(family, outside)


def _can_bind(family: socket.AddressFamily, address: str) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.socket(family, socket.SOCK_DGRAM) as probe,
    ):
        probe.bind((address, 0))
        return True
    return False


def _source_address(family: socket.AddressFamily, destination: str) -> str | None:
    """Return the address from which this machine would send to *destination*, if it could."""
    with (
        contextlib.suppress(OSError),
        socket.socket(family, socket.SOCK_DGRAM) as probe,
    ):
        probe.connect((destination, _DISCARD_PORT))
        address: str = probe.getsockname()[0]
        return address
    return None
