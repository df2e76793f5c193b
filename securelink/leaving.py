"""One file on its way out: its row, its transfer on the link, and the bytes still to be read."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from securelink import sources
from securelink.errors import SourceChanged, SourceUnreadable, TransferError
from securelink.file_messages import OWNER_MODE, Offer
from securelink.reading import FileReader, StreamReader
from securelink.session import Data
from securelink.store.file_terms import Kind
from securelink.transfer.sending import Outbound, State

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.file_messages import End
    from securelink.store.outbox_files import FileRow

READ_SIZE = 1 << 20


class Leaving:
    """A file, folder or stream of which something goes next.

    Args:
        row: what the store says of it.
        number: what it is called on its link.
        descriptor: the open file; None for a folder.
        ready: called in the event loop when bytes are here that were awaited.
        sent: told how many bytes have gone.
        checksum: whether END brings the digest of the whole.

    Attributes:
        row: its row in the outbox.
        transfer: where it stands on the link.
        handed: the row is committed as handed.
        handing: that is under way.
    """

    def __init__(
        self,
        row: FileRow,
        number: int,
        descriptor: int | None,
        ready: Callable[[], None],
        sent: Callable[[FileRow, int], None],
        *,
        checksum: bool,
        handed: bool,
    ) -> None:
        is_file = row.kind is Kind.FILE
        self.row = row
        self.handed = handed
        self.handing = False
        self.transfer = Outbound(
            Offer(
                id=row.id,
                group=row.group,
                number=number,
                name=row.name,
                size=row.size if is_file else 0 if row.kind is Kind.FOLDER else None,
                mtime=row.mtime,
                mode=row.mode & OWNER_MODE,
                folder=row.kind is Kind.FOLDER,
                ask=is_file and row.began,
                checksum=checksum and row.kind is not Kind.FOLDER,
            )
        )
        self._descriptor = descriptor
        self._ready = ready
        self._sent = sent
        self._reader: FileReader | StreamReader | None = None
        self._hash: Any = hashlib.sha256() if self.transfer.offer.checksum else None

    @property
    def left(self) -> int | None:
        """Bytes that are still to go; None if nobody knows."""
        size = self.transfer.offer.size
        return None if size is None else size - self.transfer.offset

    def data(self) -> Data | None:
        """What to send next in SENDING; None while it is awaited, or when a stream has ended.

        Raises:
            TransferError: the file is not what it was, or can't be read.
        """
        reader = self._reader or self._open_reader()
        if reader.error is not None:
            reason = (reader.error.strerror or str(reader.error)).lower()
            raise SourceUnreadable(f"{self.label} cannot be read: {reason}")
        if reader.ended:
            if self.left is not None:
                raise self._changed()
            self.transfer.exhausted()
            return None
        return Data(self.transfer.offer.number, self._read) if reader.is_ready else None

    def end(self) -> End:
        """All has gone: say so.

        Raises:
            SourceChanged: the file is not what it was when it was offered.
        """
        if self.row.kind is Kind.FILE:
            assert self._descriptor is not None
            if not sources.unchanged(self._descriptor, self.row):
                raise self._changed()
        return self.transfer.end(None if self._hash is None else self._hash.digest())

    def compare(self) -> tuple[int, Any]:
        """Digest what the receiver has; runs in a thread.

        Returns:
            The file, opened anew, and the hash object.

        Raises:
            TransferError: the file is not what it was, or can't be read.
        """
        descriptor = sources.open_source(self.row)
        digest = hashlib.sha256()
        left, offset = self.transfer.accepted, 0
        try:
            while left and self.transfer.state is State.COMPARING:
                block = os.pread(descriptor, min(READ_SIZE, left), offset)
                if not block:
                    raise self._changed()
                digest.update(block)
                offset += len(block)
                left -= len(block)
        except OSError as error:
            os.close(descriptor)
            reason = (error.strerror or str(error)).lower()
            raise SourceUnreadable(f"{self.label} cannot be read: {reason}") from None
        except TransferError:
            os.close(descriptor)
            raise
        return descriptor, digest

    def compared(self, descriptor: int, digest: Any) -> None:
        """Take what `compare` returned."""
        self.close()
        if self.transfer.state is not State.COMPARING:
            os.close(descriptor)
            return
        self._descriptor = descriptor
        if self._hash is not None:
            self._hash = digest
        self.transfer.digested(digest.digest())

    def began(self) -> None:
        """BEGIN goes: the next bytes are those at the transfer's offset."""
        if self._hash is not None and not self.transfer.offset:
            self._hash = hashlib.sha256()

    def close(self) -> None:
        """Let go of the file; it can still be compared."""
        if self._reader is not None:
            self._reader.close()
        elif self._descriptor is not None and self.row.kind is not Kind.STREAM:
            os.close(self._descriptor)
        self._reader = self._descriptor = None

    @property
    def label(self) -> str:
        """What to call it in a sentence."""
        return self.row.name

    # ---- inside

    def _open_reader(self) -> FileReader | StreamReader:
        assert self._descriptor is not None
        self._reader = (
            StreamReader(self._descriptor, self._ready)
            if self.row.kind is Kind.STREAM
            else FileReader(self._descriptor, self.transfer.offset, self._ready)
        )
        return self._reader

    def _read(self, room: memoryview) -> int:
        # The receiver may have asked to compare since the session was told of these bytes.
        if self.transfer.state is not State.SENDING or self._reader is None:
            return 0
        left = self.left
        room = room if left is None else room[:left]
        count = self._reader.read_into(room)
        if count:
            if self._hash is not None:
                self._hash.update(room[:count])
            self.transfer.sent(count)
            self._sent(self.row, count)
        return count

    def _changed(self) -> SourceChanged:
        return SourceChanged(f"{self.label} has changed while it was sent")
