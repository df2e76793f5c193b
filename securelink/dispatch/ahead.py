"""Rows of the store on their way to a link: read, opened, noted as begun; or dropped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from securelink import sources
from securelink.clock import now_ms
from securelink.errors import StoreError, TransferError
from securelink.store import notices, outbox, outbox_files
from securelink.store.file_terms import Kind
from securelink.store.outbox import State
from securelink.threads import in_thread_or

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from securelink.node import Node
    from securelink.store.outbox_files import FileRow

SMALL = 1 << 20
"""A file of at most so many bytes is handed as soon as it is opened."""


class Which(msgspec.Struct, frozen=True):
    """Which rows are to go.

    Attributes:
        own: those of this process.
        queued: tells whether those of nobody may go too; None if they never do.
        stream: the descriptor that a row of a stream stands for.
        checksum: whether each brings the digest of the whole.
    """

    own: bool = True
    queued: Callable[[], bool] | None = None
    stream: int | None = None
    checksum: bool = False


class Opened(NamedTuple):
    """A row whose file can be sent."""

    row: FileRow
    descriptor: int | None
    """None for a folder."""
    handed: bool
    """The row is committed as handed."""


class Ahead:
    """The rows for one peer that are to go over one link.

    Args:
        node: the node.
        peer: the recipient's key, 32 bytes.
        which: the rows that are to go.
    """

    def __init__(self, node: Node, peer: bytes, which: Which) -> None:
        self._node = node
        self._peer = peer
        self._which = which
        self._after = {"own": 0, "queued": 0}
        self._noting: Sequence[FileRow] = ()

    def start_over(self) -> None:
        """There may be new rows, or old ones that may go again."""
        self._after = {"own": 0, "queued": 0}

    @property
    def unfinished(self) -> list[int]:
        """The rows that may have been handed by an `open` that was cancelled."""
        return [row.seq for row in self._noting if row.state is State.WAITING]

    async def rows(self, most: int) -> list[FileRow]:
        """Return the next rows, the queued ones first; some of them may be under way.

        Raises:
            StoreError: the store does not tell.
        """
        store, found = self._node.store, []
        if self._which.queued is not None and self._which.queued():
            found = await store.read(outbox_files.queued, self._peer, self._after["queued"], most)
            if found:
                self._after["queued"] = found[-1].seq
        if not found and self._which.own:
            found = await store.read(
                outbox_files.own, self._node.owner, self._peer, self._after["own"], most
            )
            if found:
                self._after["own"] = found[-1].seq
        return found

    async def open(
        self, rows: Sequence[FileRow]
    ) -> tuple[list[Opened], list[tuple[FileRow, TransferError]]]:
        """Open what the rows stand for, and hand the small ones.

        Returns:
            Those that can be sent, and those that can't, with the reason. What was withdrawn
            meanwhile is in neither.

        Raises:
            StoreError: the store fails; nothing is open.
        """
        opened = await in_thread_or(_close_all, _open_all, rows, self._which.stream)
        good = [(row, it) for row, it in opened if not isinstance(it, TransferError)]
        self._noting = [row for row, _ in good if _is_small(row)]
        try:
            handed = await self._node.store.run(_note, [row for row, _ in good])
        except BaseException as error:
            _close_all(good)
            if isinstance(error, StoreError):
                self._noting = ()
            raise
        self._noting = ()
        ready = []
        for row, descriptor in good:
            if row.seq in handed or not _is_small(row):
                ready.append(Opened(row, descriptor, row.seq in handed))
            else:
                _close(row, descriptor)
        return ready, [(row, it) for row, it in opened if isinstance(it, TransferError)]

    async def drop(self, failed: Sequence[tuple[FileRow, TransferError]]) -> None:
        """End the rows of files that can't be sent: no END of theirs has left.

        Raises:
            StoreError: the store fails; then they are found again.
        """
        await self._node.store.run(_withdraw, self._peer, failed)


def _is_small(row: FileRow) -> bool:
    return row.kind is Kind.FOLDER or (row.kind is Kind.FILE and (row.size or 0) <= SMALL)


def _open_all(
    rows: Sequence[FileRow], stream: int | None
) -> list[tuple[FileRow, int | TransferError | None]]:
    """Open what the rows stand for; in a thread."""
    opened: list[tuple[FileRow, int | TransferError | None]] = []
    for row in rows:
        try:
            match row.kind:
                case Kind.FILE:
                    opened.append((row, sources.open_source(row)))
                case Kind.STREAM:
                    opened.append((row, stream))
                case Kind.FOLDER:
                    opened.append((row, None))
        except TransferError as error:
            opened.append((row, error))
    return opened


def _close(row: FileRow, descriptor: int | TransferError | None) -> None:
    if row.kind is Kind.FILE and isinstance(descriptor, int):
        os.close(descriptor)


def _close_all(opened: Iterable[tuple[FileRow, int | TransferError | None]]) -> None:
    for row, descriptor in opened:
        _close(row, descriptor)


def _note(conn: sqlite3.Connection, rows: Sequence[FileRow]) -> set[int]:
    """Note that these begin, and hand the small ones; return those that are handed."""
    outbox_files.begin(conn, [row.seq for row in rows])
    return set(outbox.hand(conn, [row.seq for row in rows if _is_small(row)], now_ms()))


def _withdraw(
    conn: sqlite3.Connection, peer: bytes, failed: Sequence[tuple[FileRow, TransferError]]
) -> None:
    now = now_ms()
    for row, error in failed:
        # Handed or not, what would complete it has not left: it waits again, and is given up.
        outbox.refused(
            conn,
            peer=peer,
            message_id=row.id,
            permanent=False,
            reason=error.message,
            now=now,
        )
        outbox.withdraw(conn, row.seq, now)
    # Whose row has an owner is told by it.
    notices.add(conn, [row.seq for row, _ in failed], now)
