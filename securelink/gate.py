"""Who may wait at the server's door, and who must make room: strangers never shut a peer out.

Four bounds: connections that have proven nothing, and those that have sent a valid handshake
message 1 and not finished; each in total, and for each address. A newcomer is always let in, and
the oldest of the bound that it breaks is put out.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from itertools import chain, islice
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


class _Waiting(Generic[C]):
    """Connections in the order in which they came, of which each group may have some only."""

    def __init__(self, most: int, most_of_a_group: int) -> None:
        self._most = most
        self._most_of_a_group = most_of_a_group
        self._all: OrderedDict[C, str | None] = OrderedDict()
        self._groups: dict[str, OrderedDict[C, None]] = {}

    def __iter__(self) -> Iterator[C]:
        return iter(self._all)

    def add(self, connection: C, group: str | None) -> list[C]:
        """Take in the newest; return whom it puts out."""
        self._all[connection] = group
        out: list[C] = []
        if group is not None:
            members = self._groups.setdefault(group, OrderedDict())
            members[connection] = None
            if len(members) > self._most_of_a_group:
                out = [next(iter(members))]
        if not out and len(self._all) > self._most:
            out = [next(iter(self._all))]
        for each in out:
            self.discard(each)
        return out

    def discard(self, connection: C) -> None:
        """Forget one, if it is here."""
        group = self._all.pop(connection, None)
        if group is not None:
            members = self._groups[group]
            del members[connection]
            if not members:
                del self._groups[group]


class Gate(Generic[C]):
    """The connections whose handshake is not finished, oldest first.

    Whom a method returns has been forgotten, and must be put out.
    """

    def __init__(self, limits: Limits) -> None:
        self._unproven: _Waiting[C] = _Waiting(limits.unproven, limits.unproven_per_address)
        self._unfinished: _Waiting[C] = _Waiting(limits.unfinished, limits.unfinished_per_address)

    def enter(self, connection: C, host: str) -> list[C]:
        """Let a connection from `host` in; return the one that must go for it, if any."""
        return self._unproven.add(connection, group_of(host))

    def prove(self, connection: C, host: str) -> list[C]:
        """A valid message 1 has come from `host`; return the one that must go for it, if any."""
        self.leave(connection)
        return self._unfinished.add(connection, group_of(host))

    def oldest(self, count: int) -> list[C]:
        """Return those who must go when there is no room at all: first who has proven nothing."""
        out = list(islice(chain(self._unproven, self._unfinished), count))
        for each in out:
            self.leave(each)
        return out

    def leave(self, connection: C) -> None:
        """Forget a connection: it has finished its handshake, or is gone."""
        self._unproven.discard(connection)
        self._unfinished.discard(connection)
