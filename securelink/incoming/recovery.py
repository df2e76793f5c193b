"""The receiving folder before anything comes: whether it can be used, and what a crash, or a peer
that never came back, has left in it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from securelink import landing
from securelink.clock import now_ms
from securelink.directory import ME
from securelink.errors import BadPlace, ConfigError
from securelink.landing import part_path
from securelink.store import inbox, partials
from securelink.store.database import Database
from securelink.threads import in_thread

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from securelink.landing import Found
    from securelink.node import Node
    from securelink.store.partials import Partial

DAY = 86_400_000
"""In ms."""

_log = logging.getLogger(__name__)


async def prepare(node: Node) -> None:
    """See that files can be put into the receiving folder, if any peer may send some.

    Raises:
        ConfigError: they can't; or as `Home.files_folder`.
    """
    if not node.config.files.accepts_any:
        return
    root = node.home.files_folder(node.config.files.folder)
    try:
        await in_thread(landing.prepare, root)
    except (OSError, BadPlace) as error:
        if isinstance(error, BadPlace):
            words = error.message
        elif isinstance(error, FileNotFoundError):
            words = "no folder can be made there"
        else:
            words = (error.strerror or str(error)).lower()
        raise ConfigError(
            f"files can't be received into {root}: {words}",
            hint="choose another folder with --folder or [files] folder; or take no files, with"
            " accept = false",
        ) from None


async def recover(node: Node) -> None:
    """Take in the files that were whole when a process of this node died; tidy up.

    A file may have got its name and not have been committed: that is done now, before its sender
    asks. Parts that are too small, or too old, to go on with are deleted. What a living process
    receives is left alone.

    Raises:
        StoreError: the store fails.
        ConfigError: as `Home.files_folder`.
    """
    now = now_ms()
    days = node.config.files.partial_days
    root = node.home.files_folder(node.config.files.folder)
    names = {peer.key.raw: peer.name for peer in (await node.directory()).peers}
    names[node.identity.public.raw] = ME
    try:
        found, old = await in_thread(
            _look, root, names, node.home.store_file, now - days * DAY if days else None
        )
        if not (found or old):
            return
        try:
            await node.store.run(_record, names, found, old, now)
        except BaseException:
            for each in found:
                each.release()
            raise
        await in_thread(_forget, found)
    except OSError as error:
        _log.warning("the folder %s can't be tidied: %s", root, error.strerror)


def _look(
    root: Path, names: dict[bytes, str], store_file: Path, before: int | None
) -> tuple[list[Found], list[Partial]]:
    """Delete what is of no use; return what is whole, and the rows whose parts were too old."""
    store = Database.open_reader(store_file)
    try:
        with store.snapshot() as conn:
            rows = partials.list_all(conn)
        old = [row for row in rows if before is not None and row.touched_at < before]
        keys = {(row.peer, row.id) for row in old}

        def keep(peer: bytes, message_id: bytes) -> bool:
            # Asked anew each time: a file may have begun, and been cut, since then.
            with store.snapshot() as conn:
                row = partials.get(conn, peer, message_id)
            return row is not None and (peer, message_id) not in keys

        # The parts of peers that were removed have to go as well.
        everybody = {row.peer: row.peer.hex() for row in rows} | names
        found = landing.recover(root, everybody, keep)
    finally:
        store.close()
    return found, [row for row in old if not part_path(root, row.peer, row.id).exists()]


def _record(
    conn: sqlite3.Connection,
    names: dict[bytes, str],
    found: Sequence[Found],
    old: Sequence[Partial],
    now: int,
) -> None:
    for each in found:
        row = partials.get(conn, each.peer, each.id)
        inbox.receive_file(
            conn,
            peer=each.peer,
            peer_name=names.get(each.peer, ""),
            message_id=each.id,
            name=each.name if row is None else row.name,
            path=str(each.path),
            size=each.size,
            sha256=None,
            received_at=now,
            kind="file",
        )
        partials.forget(conn, each.peer, each.id)
    for row in old:
        partials.forget(conn, row.peer, row.id)


def _forget(found: Sequence[Found]) -> None:
    for each in found:
        each.forget()
