"""The search for UPnP routers, by multicast and straight at the gateway."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from securelink.nat import ssdp
from securelink.nat.terms import NotAnAnswer
from securelink.nat.timing import RETRANSMISSIONS

if TYPE_CHECKING:
    from securelink.nat.clock import Clock
    from securelink.nat.route import Gateway

_TTL = 2  # UPnP Device Architecture 2.0, 1.3.2
GRACE = 0.25
"""Seconds in which the gateway may still answer after another device did."""

MOST_LOCATIONS = 8
"""So many descriptions are remembered, of the gateway and of others; a home has one or two."""


async def search(gateway: Gateway, clock: Clock) -> list[str]:
    """Return the URLs of routers' descriptions, those at the gateway first; none in 2 s: none.

    Returns as soon as the gateway has answered, and shortly after anybody else has.
    """
    try:
        transport, answers = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: _Answers(gateway.host), sock=_socket(gateway.local)
        )
    except OSError:
        return []
    try:
        for wait in RETRANSMISSIONS:
            for host, port in gateway.search:
                for target in ssdp.SEARCH_TARGETS:
                    transport.sendto(ssdp.encode_search(target, host, port), (host, port))
            if await clock.wait(answers.first, wait):
                await clock.wait(answers.at_gateway, GRACE)
                break
    finally:
        transport.close()
    return [*answers.gateways, *answers.others]


def _socket(local: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.settimeout(0)
        # Out of the interface that we chose, also where another one has the default route.
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(local))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _TTL)
        sock.bind((local, 0))
    except BaseException:
        sock.close()
        raise
    return sock


class _Answers(asyncio.DatagramProtocol):
    def __init__(self, gateway: str) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.at_gateway: asyncio.Future[None] = loop.create_future()
        self.gateways: list[str] = []
        self.others: list[str] = []
        self._gateway = gateway

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        try:
            location = ssdp.decode_answer(data, addr[0])
        except NotAnAnswer:
            return
        found = self.gateways if addr[0] == self._gateway else self.others
        if location not in found and len(found) < MOST_LOCATIONS:
            found.append(location)
        if not self.first.done():
            self.first.set_result(None)
        if self.gateways and not self.at_gateway.done():
            self.at_gateway.set_result(None)
