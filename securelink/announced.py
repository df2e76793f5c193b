"""What a peer says of where it is: which addresses it may have this machine dial.

A person's word is taken as it is. A peer's is held to where the peer was met: else it could have
this machine knock at doors that it can't reach itself, and learn from the time that takes which
of them are open. A name says nothing of where it leads, so its addresses are judged by the same
rule, whenever it is looked up.
"""

from __future__ import annotations

import ipaddress
from itertools import islice
from typing import TYPE_CHECKING

from securelink.endpoints import Endpoint, Kind, address_of, is_one_machine, kind_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securelink.endpoints import IPAddress

MOST_ANNOUNCED = 8
"""Endpoints that are taken from one announcement."""

MOST_OF_A_NAME = 8
"""Addresses that one announced name may stand for; further ones are not dialled."""

_ALLOWED = {
    Kind.LOOPBACK: frozenset(Kind),
    Kind.LAN: frozenset({Kind.LAN, Kind.PUBLIC}),
    Kind.PUBLIC: frozenset({Kind.PUBLIC}),
}
"""By the kind of the address at which a peer was met: the kinds that it may announce."""

# No machine has one: RFC 1122, section 3.2.1.3, and RFC 1112, section 4. And RFC 6890, table 7:
# between this machine or its router and the provider.
_NOWHERE = tuple(map(ipaddress.IPv4Network, ("0.0.0.0/8", "240.0.0.0/4", "192.0.0.0/24")))

# All that has been given out of IPv6's global addresses (RFC 4291, section 2.4), and all that is
# meant by "private" (RFC 4193). What else there is, such as fec0::/10, leads nowhere or too near.
_IPV6 = tuple(map(ipaddress.IPv6Network, ("2000::/3", "fc00::/7")))

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052, section 2.1


class AnnouncedEndpoint(Endpoint, frozen=True):
    """An endpoint that a peer said it has.

    Attributes:
        met: the kind of the address at which the peer was met when it said so; `LOOPBACK` for
            all addresses of this machine.
    """

    met: Kind


def usable(endpoints: Iterable[Endpoint], met: Kind) -> list[AnnouncedEndpoint]:
    """Return what is taken of an announcement.

    Args:
        endpoints: what the peer said, the most important first.
        met: the kind of the address at which it is met.
    """
    taken = (
        AnnouncedEndpoint(each.kind, each.host, each.port, met)
        for each in endpoints
        if each.kind in _ALLOWED[met] and may_announce(each.host, met)
    )
    return list(islice(taken, MOST_ANNOUNCED))


def usable_addresses(endpoint: Endpoint, addresses: Iterable[str]) -> list[str]:
    """Return those of the addresses to which an endpoint's name leads that are dialled for it."""
    if not isinstance(endpoint, AnnouncedEndpoint):
        return list(addresses)
    allowed = (each for each in addresses if address_of(each) and may_announce(each, endpoint.met))
    return list(islice(allowed, MOST_OF_A_NAME))


def is_from_elsewhere(endpoint: Endpoint) -> bool:
    """Tell whether an endpoint was announced by a peer that was not met at this machine.

    Then none of this machine's addresses may be dialled for it, not those in networks either:
    which they are is not known here.
    """
    return isinstance(endpoint, AnnouncedEndpoint) and endpoint.met is not Kind.LOOPBACK


def may_announce(host: str, met: Kind) -> bool:
    """Tell whether a peer may have this machine dial *host*: an IP address, or a name as such.

    Whoever is met at this machine may name anything in it, or in its network. Others can't name
    what means this machine, or another one in each network; and what belongs to a local network,
    only who was met in one.

    Args:
        host: its scope, if it has one, is part of it.
        met: the kind of the address at which the peer was met.
    """
    address = address_of(host)
    if address is None:
        return kind_of(host) in _ALLOWED[met]
    if met is Kind.LOOPBACK:
        return is_one_machine(address)
    return all(
        kind_of(str(each)) in _ALLOWED[met] and _is_somewhere(each) for each in _all_of(address)
    )


def _is_somewhere(address: IPAddress) -> bool:
    """Tell whether an address means one machine, and the same one on every link."""
    if not is_one_machine(address) or address.is_link_local:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOWHERE)
    is_translated = address in _NAT64
    return address.scope_id is None and (
        is_translated or any(address in network for network in _IPV6)
    )


def _all_of(address: IPAddress) -> tuple[IPAddress, ...]:
    """Return an address, and the IPv4 address to which a translator on the way would lead."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return address, ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address.sixtofour is not None:
            return address, address.sixtofour
    return (address,)
