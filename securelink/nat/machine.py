"""What this machine itself says of how it is reached; no router is asked."""

from __future__ import annotations

import asyncio
import socket

from securelink import interfaces
from securelink.nat.diagnosis import kind_of
from securelink.nat.rungs import Found, Place, Result

CONNECT_TIMEOUT = 2.0
"""Seconds in which our own `serve` must take a connection."""


async def port(place: Place) -> Found:
    """See whether the port is ours, or could be."""
    number, pid = place.port, place.pid
    if pid is not None:
        return Result.OK, f"{number}, held by this node's serve (process {pid})"
    try:
        for host in place.hosts or ("",):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            socket.create_server((host, number), family=family).close()
    except OSError as error:
        return Result.FAILED, f"{number} can't be used here: {_why(error)}"
    return Result.OK, f"{number}, free"


async def listening(place: Place, address: str | None) -> Found:
    """See whether our own `serve` takes connections where a router would forward them to.

    Args:
        place: where it listens.
        address: this machine's own in its network; None: loopback has to do.
    """
    if place.pid is None:
        return Result.ABSENT, "serve is not running"
    where = f"{address or '127.0.0.1'}:{place.port}"
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, writer = await asyncio.open_connection(address or "127.0.0.1", place.port)
    except OSError as error:  # a timeout is one too
        return Result.FAILED, f"serve takes no connection at {where}: {_why(error)}"
    writer.close()
    return Result.OK, f"serve takes connections at {where}"


def lan_address() -> str | None:
    """Return this machine's IPv4 address on the way out, without a look for a router."""
    return next((each for each in interfaces.local_addresses() if ":" not in each), None)


async def lan(address: str | None) -> Found:
    """Tell this machine's own IPv4 address."""
    if address is None:
        return Result.FAILED, "none: there is no default route for IPv4"
    return Result.OK, f"{address}, {kind_of(address)}"


async def ipv6() -> Found:
    """Tell a global IPv6 address, with which no mapping is needed."""
    found = next((each for each in interfaces.local_addresses() if ":" in each), None)
    return (Result.OK, f"{found}, global") if found else (Result.ABSENT, "no global address")


def _why(error: OSError) -> str:
    return (error.strerror or "no answer in time").lower()
