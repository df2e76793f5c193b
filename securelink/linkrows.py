"""What the store is to say of this process's links: rows that come, and are struck out again."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from securelink import directory
from securelink.clock import now_ms
from securelink.errors import StoreError
from securelink.hello import FILES
from securelink.store import addresses, links, tries
from securelink.store.links import LinkRow

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from securelink.connect import Connected
    from securelink.directory import KnownPeer
    from securelink.endpoints import Endpoint
    from securelink.node import Node

MOST_GONE = 1024
"""Links that are remembered as gone while the store can't be told: a peer may make ever new."""


@dataclass(frozen=True, slots=True)
class _Gone:
    """A link that is no more."""

    row: LinkRow
    peer: KnownPeer
    at: int
    """When it ended, in ms since 1970."""


class LinkRows:
    """The rows of one process.

    Args:
        node: whose links they are.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._numbers = itertools.count(1)
        self._gone: dict[int, _Gone] = {}  # and not struck out yet, oldest first

    def new(self, peer: bytes, endpoint: Endpoint, *, dialled: bool, takes_files: bool) -> LinkRow:
        """What is to be said of a new link; whoever admits it, writes it down.

        Args:
            peer: the other side's key, 32 bytes.
            endpoint: the other side's.
            dialled: it was this node that dialled.
            takes_files: files may be sent over it to the peer.
        """
        return LinkRow(
            owner=self._node.owner,
            number=next(self._numbers),
            peer=peer,
            dialled=dialled,
            takes_files=takes_files,
            endpoint=endpoint,
            since=now_ms(),
        )

    async def write_dialled(self, connected: Connected, peer: KnownPeer) -> LinkRow:
        """Write down that the peer has proven its key where we dialled it, and that it is linked.

        Raises:
            StoreError: that could not be written.
        """
        takes_files = bool(connected.link.session.features & FILES)
        row = self.new(peer.key.raw, connected.endpoint, dialled=True, takes_files=takes_files)
        await self._node.store.run(_note_dialled, peer, connected.ready.name, row)
        return row

    async def strike_out(self, row: LinkRow, peer: KnownPeer) -> None:
        """Note that a link is no more; if that can't be written, with the next one that is."""
        self._gone[row.number] = _Gone(row, peer, now_ms())
        await self.strike_out_gone()

    async def strike_out_gone(self) -> None:
        """Note which links are no more, as far as that could not be written before."""
        while len(self._gone) > MOST_GONE:
            # It stands there until this process ends.
            del self._gone[next(iter(self._gone))]
        gone = [*self._gone.values()]
        if gone:
            with contextlib.suppress(StoreError):
                await self._node.store.run(_strike_out, gone)
                for each in gone:
                    self._gone.pop(each.row.number, None)


def _note_dialled(
    conn: sqlite3.Connection, peer: KnownPeer, calls_itself: str, row: LinkRow
) -> None:
    now = now_ms()
    directory.note_seen(conn, peer, now, calls_itself)
    addresses.used_endpoint(conn, row.peer, row.endpoint, now)
    tries.note_success(conn, row.peer)
    links.up(conn, row)


def _strike_out(conn: sqlite3.Connection, gone: Iterable[_Gone]) -> None:
    for each in gone:
        links.down(conn, each.row.owner, each.row.number)
        directory.note_seen(conn, each.peer, each.at)
