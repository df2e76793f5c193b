"""Whom this node knows: the peers of the store and those of the configuration, as one list.

A peer that stands in both keeps the name and the endpoints that the configuration gives it, and
is reached at the others too.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from securelink import names
from securelink.errors import UnknownPeer
from securelink.identity import PublicKey
from securelink.store import addresses, peers

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from securelink.config import ConfiguredPeer
    from securelink.endpoints import Endpoint

ME = "me"


class KnownPeer(msgspec.Struct, frozen=True):
    """One peer.

    Attributes:
        name: what we call it.
        key: its public key.
        endpoints: where it can be reached, the most trusted first.
        calls_itself: the name that it gives itself, "" when it has not said.
        configured: it stands in the configuration.
        paired_at: when it was paired by an invite, in ms since 1970.
        last_seen: when a link with it last was ready, in ms since 1970.
    """

    name: str
    key: PublicKey
    endpoints: tuple[Endpoint, ...] = ()
    calls_itself: str = ""
    configured: bool = False
    paired_at: int | None = None
    last_seen: int | None = None


class Directory:
    """A snapshot of everybody this node knows, sorted by name."""

    def __init__(self, known: Iterable[KnownPeer]) -> None:
        self.peers = tuple(sorted(known, key=lambda peer: peer.name))
        self._by_key = {peer.key.raw: peer for peer in self.peers}
        self._by_name = {peer.name: peer for peer in self.peers}

    def __contains__(self, key: PublicKey) -> bool:
        return key.raw in self._by_key

    @property
    def names(self) -> frozenset[str]:
        """Every name that is taken."""
        return frozenset(self._by_name)

    def by_key(self, key: PublicKey) -> KnownPeer | None:
        """The peer with that key."""
        return self._by_key.get(key.raw)

    def by_name(self, name: str) -> KnownPeer:
        """The peer with that name, else whose peer ID it is, whole or its first group, in any case.

        Raises:
            UnknownPeer: nobody has it, or several have that first group; the hint names the
                nearest, or those several.
        """
        peer = self._by_name.get(name)
        if peer is not None:
            return peer
        typed = name.upper()
        meant = [each for each in self.peers if typed in {each.key.short, each.key.peer_id}]
        if len(meant) == 1:
            return meant[0]
        near = difflib.get_close_matches(name, self._by_name, n=1)
        if meant:
            hint = f"{', '.join(each.name for each in meant)} have the ID {typed}: give a name"
        elif near:
            hint = f"did you mean {near[0]}?"
        elif self.peers:
            hint = "`securelink peers` lists those that there are"
        else:
            hint = "pair first: `securelink invite` there, `securelink join` here"
        raise UnknownPeer(f"no peer is called {name}", hint=hint)


def read(conn: sqlite3.Connection, configured: Mapping[str, ConfiguredPeer]) -> Directory:
    """Everybody who is paired or configured; pending peers are nobody yet."""
    known = {}
    for peer in peers.list_all(conn):
        known[peer.key] = KnownPeer(
            name=peer.name,
            key=PublicKey(peer.key),
            endpoints=tuple(addresses.endpoints(conn, peer.key)),
            calls_itself=peer.calls_itself,
            paired_at=peer.paired_at,
            last_seen=peer.last_seen,
        )
    for name, entry in configured.items():
        stored = known.get(entry.key.raw)
        learned = stored.endpoints if stored else addresses.endpoints(conn, entry.key.raw)
        last_seen, calls_itself = peers.contact(conn, entry.key.raw) or (None, "")
        known[entry.key.raw] = KnownPeer(
            name=name,
            key=entry.key,
            endpoints=tuple(dict.fromkeys((*entry.endpoints, *learned))),
            calls_itself=stored.calls_itself if stored else calls_itself,
            configured=True,
            paired_at=stored.paired_at if stored else None,
            last_seen=stored.last_seen if stored else last_seen,
        )
    return Directory(_apart(known.values()))


def note_seen(
    conn: sqlite3.Connection, peer: KnownPeer, now: int, calls_itself: str | None = None
) -> None:
    """Note that a peer was here at *now*, in ms since 1970, and what it calls itself if it said."""
    if not peers.touch(conn, peer.key.raw, now, calls_itself) and peer.configured:
        peers.touch_contact(conn, peer.key.raw, now, calls_itself)


def _apart(known: Iterable[KnownPeer]) -> Iterable[KnownPeer]:
    """A paired peer gives way when the configuration uses its name for another key."""
    everyone = sorted(known, key=lambda peer: not peer.configured)
    taken: set[str] = set()
    for peer in everyone:
        name = names.free(peer.name, taken)
        taken.add(name)
        yield peer if name == peer.name else replace(peer, name=name)
