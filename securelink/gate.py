"""Who may wait at the server's door, and who must make room: strangers never shut a peer out.

Three bounds: connections that have proven nothing, in total and for each address; and those that
have sent a valid handshake message 1 and not finished. A newcomer is always let in, and the
oldest of the bound that it breaks is put out.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from securelink.limits import Limits

C = TypeVar("C", bound=Hashable)


def group_of(host: str) -> str | None:
    """What counts as one address: an IPv4 address or an IPv6 /64; None for loopback."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return group_of(str(address.ipv4_mapped))
        if not address.is_loopback:
            return str(ipaddress.ip_network((address, 64), strict=False))
    return None if address.is_loopback else str(address)


class Gate(Generic[C]):
    """The connections whose handshake is not finished, oldest first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._unproven: OrderedDict[C, str | None] = OrderedDict()
        self._groups: dict[str, OrderedDict[C, None]] = {}
        self._unfinished: OrderedDict[C, None] = OrderedDict()

    def enter(self, connection: C, host: str) -> C | None:
        """Let a connection from `host` in; return the one that must go for it, if any."""
        group = group_of(host)
        self._unproven[connection] = group
        out = None
        if group is not None:
            members = self._groups.setdefault(group, OrderedDict())
            members[connection] = None
            if len(members) > self._limits.unproven_per_address:
                out = next(iter(members))
        if out is None and len(self._unproven) > self._limits.unproven:
            out = next(iter(self._unproven))
        if out is not None:
            self.leave(out)
        return out

    def prove(self, connection: C) -> C | None:
        """A valid message 1 has come; return the one that must go for it, if any."""
        self.leave(connection)
        self._unfinished[connection] = None
        if len(self._unfinished) <= self._limits.unfinished:
            return None
        return self._unfinished.popitem(last=False)[0]

    def leave(self, connection: C) -> None:
        """Forget a connection: it has finished its handshake, or is gone."""
        self._unfinished.pop(connection, None)
        group = self._unproven.pop(connection, None)
        if group is not None:
            members = self._groups[group]
            del members[connection]
            if not members:
                del self._groups[group]
