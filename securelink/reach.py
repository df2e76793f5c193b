"""Where this node can be reached, as far as it knows by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink import interfaces
from securelink.endpoints import Endpoint, Kind, is_link_local, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securelink.config import ServerConfig
    from securelink.events import Address

_WIDEST_FIRST = (Kind.PUBLIC, Kind.LAN, Kind.LOOPBACK)
_LOOPBACK = ("127.0.0.1", "::1")
_ANY = {"0.0.0.0": ".", "::": ":"}  # noqa: S104 - recognised here, not listened on
"""Addresses that stand for all of a family, and what the family's addresses have in them."""


def own_endpoints(
    server: ServerConfig, port: int, mapped: Address | None = None
) -> tuple[Endpoint, ...]:
    """This node's endpoints when it listens on `port`, the most widely reachable first.

    An address that a person forwarded by hand stands before all, then the one that the router has
    `mapped`; then the default routes' own addresses and loopback, as far as `[server] host` lets
    the node listen there.
    """
    candidates = [*interfaces.local_addresses(), *_LOOPBACK]
    hosts = candidates
    if server.host:
        hosts = [
            host
            for listed in server.host
            for host in (
                [each for each in candidates if _ANY[listed] in each]
                if listed in _ANY
                else [listed]
            )
        ]
    found = [Endpoint(kind_of(host), host, port) for host in dict.fromkeys(hosts)]
    by_reach = sorted(found, key=lambda each: _WIDEST_FIRST.index(each.kind))
    forwarded = [server.public_endpoint(port)]
    if mapped is not None:
        forwarded.append(Endpoint(Kind.PUBLIC, mapped.host, mapped.port))
    return tuple(dict.fromkeys(each for each in (*forwarded, *by_reach) if each is not None))


def announced(own: Iterable[Endpoint], remote: str | None) -> tuple[Endpoint, ...]:
    """What a peer that is linked from the address `remote` may be told.

    Loopback and link-local addresses mean another machine there; those of the local network are
    only told to who comes from a private address.
    """
    near = remote is not None and kind_of(remote) is not Kind.PUBLIC
    return tuple(
        each
        for each in own
        if each.kind is Kind.PUBLIC
        or (near and each.kind is Kind.LAN and not is_link_local(each.host))
    )
