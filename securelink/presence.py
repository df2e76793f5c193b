"""Who is there: the links that processes of this node have at this moment, and what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from securelink.locks import is_held
from securelink.store import inbox, links, outbox_list

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from securelink.endpoints import Endpoint
    from securelink.home import Home


class Presence(msgspec.Struct, frozen=True):
    """One peer at this moment."""

    since: int | None
    """Since when it is linked without a break, in ms since 1970; None if it is not."""
    endpoint: Endpoint | None
    """Where its newest link leads, or comes from; None if there is none."""
    outgoing: int
    """Texts and files that wait here for it, and folders in which there are none."""
    unread: int
    """Messages from it that no person was shown."""


def read(conn: sqlite3.Connection, home: Home, peers: Iterable[bytes]) -> dict[bytes, Presence]:
    """Return how each of the peers, given by their keys, is at this moment.

    What processes that were killed have written down does not count.
    """
    rows = links.list_all(conn)
    alive = {owner for owner in {row.owner for row in rows} if is_held(home.owner_lock(owner))}
    unread = inbox.count_unread(conn)
    found = {}
    for peer in peers:
        own = [row for row in rows if row.peer == peer and row.owner in alive]
        found[peer] = Presence(
            since=own[0].since if own else None,
            endpoint=own[-1].endpoint if own else None,
            outgoing=outbox_list.count_open(conn, peer, queued=True),
            unread=unread.get(peer, 0),
        )
    return found
