"""From which address the internet sees us, by STUN: asked only if servers are configured."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from securelink import endpoints
from securelink.errors import NatError, RouterFailed, RouterSilent
from securelink.nat import stun
from securelink.nat.datagrams import ask

if TYPE_CHECKING:
    from securelink.nat.clock import Clock


async def seen_from_outside(servers: Iterable[str], local: str, clock: Clock) -> str | None:
    """Return the IPv4 address that the first server to answer sees, None if none answers.

    Args:
        servers: HOST[:PORT] each.
        local: the IPv4 address to send from.
    """
    for server in servers:
        try:
            return await _ask(server, local, clock)
        except NatError:
            continue
    return None


async def _ask(server: str, local: str, clock: Clock) -> str:
    host, port = endpoints.parse(server, default_port=stun.PORT)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM
        )
    except OSError as error:
        raise RouterSilent(f"{host} is unknown: {error.strerror}") from error
    transaction_id = os.urandom(stun.TRANSACTION_ID_SIZE)
    answer = await ask(
        stun.encode_request(transaction_id),
        lambda data: stun.decode_response(data, transaction_id),
        to=(str(found[0][4][0]), port),
        local=local,
        clock=clock,
    )
    if isinstance(answer, stun.BindingError):
        raise RouterFailed(f"{host} refused with STUN error {answer.code}")
    if not isinstance(ipaddress.ip_address(answer.host), ipaddress.IPv4Address):
        raise RouterFailed(f"{host} was asked by IPv4 and sees an IPv6 address")
    return answer.host
