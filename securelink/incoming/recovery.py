"""What a crash, or a peer that never came back, has left in the receiving folder."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from securelink import landing
from securelink.clock import now_ms
from securelink.directory import ME
from securelink.store import inbox, partials
from securelink.threads import in_thread

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from securelink.landing import Found
    from securelink.node import Node
    from securelink.store.partials import Partial

DAY = 86_400_000
"""In ms."""

_log = logging.getLogger(__name__)


async def recover(node: Node) -> None:
    """Take in the files that were whole when this node's last process died; tidy up.

    A file may have got its name and not have been committed: that is done now, before its sender
    asks. Parts that are too small, or too old, to go on with are deleted.

    Raises:
        StoreError: the store fails.
    """
    days = node.config.files.partial_days
    now = now_ms()
    directory = await node.directory()
    rows = {(row.peer, row.id): row for row in await node.store.read(partials.list_all)}
    old = {key for key, row in rows.items() if days and row.touched_at < now - days * DAY}
    names = {peer.key.raw: peer.name for peer in directory.peers}
    names[node.identity.public.raw] = ME
    # Of peers that were removed the parts are still deleted when they are old.
    for peer, _ in rows:
        names.setdefault(peer, peer.hex())
    root = node.home.files_folder(node.config.files.folder)

    def find() -> list[Found]:
        return list(landing.recover(root, names, lambda *key: key in rows and key not in old))

    def forget(found: Sequence[Found]) -> None:
        for each in found:
            each.forget()

    try:
        found = await in_thread(find)
        await node.store.run(_record, names, found, rows, old, now)
        await in_thread(forget, found)
    except OSError as error:
        _log.warning("the folder %s can't be tidied: %s", root, error.strerror)


def _record(
    conn: sqlite3.Connection,
    names: dict[bytes, str],
    found: Sequence[Found],
    rows: dict[tuple[bytes, bytes], Partial],
    old: set[tuple[bytes, bytes]],
    now: int,
) -> None:
    for each in found:
        row = rows.get((each.peer, each.id))
        inbox.receive_file(
            conn,
            peer=each.peer,
            peer_name=names[each.peer],
            message_id=each.id,
            name=each.name if row is None else row.name,
            path=str(each.path),
            size=each.size,
            sha256=None,
            received_at=now,
            kind="file",
        )
        partials.forget(conn, each.peer, each.id)
    for peer, message_id in old:
        partials.forget(conn, peer, message_id)
