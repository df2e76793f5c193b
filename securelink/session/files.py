"""What a session knows of files: which IDs owe an answer, and what to send when texts are quiet.

Files go last: a chunk is made only when its record has room left, straight into that record, so
that nothing of a file ever stands before a text that is sent later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from securelink import messages, records
from securelink.errors import MalformedRecord
from securelink.file_messages import (
    CHUNK_HEADER,
    Accept,
    Cancel,
    FileItem,
    FileMessage,
    Offer,
    Prefix,
)

MOST_OPEN = 256
"""Files in one direction that may owe an answer at the same time."""

SMALLEST_CHUNK = 1024
"""With less room than this left in a record a chunk waits for the next one, in bytes."""

MOST_ITEMS = 512
"""Items of files in one record. Beside all texts and answers that may be under way they stay
below `records.MOST_ITEMS`, also when a stream comes byte by byte."""


class Data(NamedTuple):
    """Bytes of a file that are to go next.

    `read(room)` writes at most so many bytes into the buffer `room` and returns how many; 0 if
    there are none after all, and then `FileSource.next` has something else to say.
    """

    number: int
    read: Callable[[memoryview], int]


class FileSource(Protocol):
    """Where a session gets the items of files from, in order.

    It offers no more than `MOST_OPEN` files that owe an answer, and nothing that has no encoding.
    """

    def next(self) -> FileMessage | Data | None:
        """Return what goes next, and None when nothing does at present.

        Data is asked for again as long as it is the next; every other message is given once.
        """


class Files:
    """Both directions' files on one link.

    Args:
        wanted: whether the other side may send any.
    """

    __slots__ = ("_answered", "_numbers", "_offered", "_owed", "_pending", "_wanted", "source")

    def __init__(self, *, wanted: bool) -> None:
        self.source: FileSource | None = None
        self._wanted = wanted
        self._pending: FileMessage | Data | None = None
        self._offered: set[bytes] = set()
        self._owed: dict[bytes, int] = {}
        self._numbers: dict[int, bytes] = {}
        self._answered: set[bytes] = set()

    def take(self, message: FileMessage) -> None:
        """The other side says something about a file.

        Raises:
            MalformedRecord: this side takes no files, or sends none; this file, or too many, have
                no answer yet.
        """
        if isinstance(message, Accept | Prefix):
            if self.source is None:
                raise MalformedRecord("an answer to a file although none are sent")
        elif not self._wanted:
            raise MalformedRecord("files come to a side that takes none")
        elif isinstance(message, Offer):
            self._take_offer(message)
        elif isinstance(message, Cancel):
            self._take_cancel(message.number)

    def _take_offer(self, offer: Offer) -> None:
        if offer.id in self._owed:
            raise MalformedRecord("a file is offered twice at the same time")
        if len(self._owed) == MOST_OPEN:
            raise MalformedRecord("too many files are offered at the same time")
        self._owed[offer.id] = offer.number
        self._numbers[offer.number] = offer.id

    def _take_cancel(self, number: int) -> None:
        """It owes no answer any more, unless there is one that has not left yet."""
        file_id = self._numbers.pop(number, None)
        if file_id is not None and file_id not in self._answered:
            del self._owed[file_id]

    def answer(self, file_id: bytes) -> bool:
        """We answer an offer of theirs; False if that ID owes no answer."""
        if file_id not in self._owed or file_id in self._answered:
            return False
        self._answered.add(file_id)
        return True

    def answered(self, file_id: bytes) -> None:
        """Our answer leaves: only now, or else answers pile up for a peer that reads nothing."""
        self._answered.discard(file_id)
        self._numbers.pop(self._owed.pop(file_id), None)

    def take_answer(self, file_id: bytes) -> bool:
        """They answer an offer of ours; False if that ID owes no answer.

        One that we cancelled may get one still, which has crossed with our CANCEL.
        """
        if file_id not in self._offered:
            return False
        self._offered.remove(file_id)
        return True

    def fill(self, room: memoryview) -> int:
        """Write items into what is left of a record; return how many bytes they take."""
        at = count = 0
        while count < MOST_ITEMS and (message := self._next()) is not None:
            count += 1
            left = len(room) - at - records.ITEM_HEADER_SIZE
            if isinstance(message, Data):
                if left < SMALLEST_CHUNK:
                    break
                self._pending = None
                at += self._fill_chunk(room[at:], message)
                continue
            kind, body = messages.encode(message)
            if len(body) > left:
                break
            self._pending = None
            if isinstance(message, Offer):
                self._offered.add(message.id)
            at = records.write_item(room, at, kind, body)
        return at

    def _next(self) -> FileMessage | Data | None:
        if self._pending is None and self.source is not None:
            self._pending = self.source.next()
        return self._pending

    @staticmethod
    def _fill_chunk(room: memoryview, data: Data) -> int:
        start = records.ITEM_HEADER_SIZE + CHUNK_HEADER.size
        count = data.read(room[start : records.LARGEST])
        if not count:
            return 0
        records.write_header(room, FileItem.CHUNK, CHUNK_HEADER.size + count)
        CHUNK_HEADER.pack_into(room, records.ITEM_HEADER_SIZE, data.number)
        return start + count
