"""Records: the plaintext of a frame.

A record holds items, each ``type u8 | length u16 big-endian | body``, then zeros up to one of
six sizes, so that the length of a frame tells little about what is in it. A message that does
not fit into one item is split: bit 0x80 of the type says that more of it follows.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Container
from typing import NamedTuple

from securelink.errors import MalformedRecord

SIZES = (64, 256, 1024, 4096, 16384, 65519)
TAG_SIZE = 16
BODY_SIZES = frozenset(size + TAG_SIZE for size in SIZES)
"""What a frame's body can measure once the handshake is over: a record and its tag."""

LARGEST = SIZES[-1]
ITEM_HEADER_SIZE = 3
LARGEST_ITEM = LARGEST - ITEM_HEADER_SIZE
MORE = 0x80

MOST_ITEMS = LARGEST // (ITEM_HEADER_SIZE + 16) + 1
"""No record holds more items than this: as many receipts, with bodies of 16 bytes, as fit, and one
PING. Some items of files are smaller; whoever sends them keeps to it all the same."""

_HEADER = struct.Struct(">BH")
_ZEROS = bytes(LARGEST)


class Item(NamedTuple):
    """One typed piece of a record; `more` says that its message goes on in a later item."""

    type: int
    more: bool
    body: memoryview | bytes


def padded(length: int) -> int:
    """The size of the smallest record that holds `length` bytes of items."""
    for size in SIZES:
        if length <= size:
            return size
    raise ValueError(f"{length} bytes of items do not fit into a record")


def unpack(record: memoryview) -> list[Item]:
    """The items of a record, as views into it.

    Raises:
        MalformedRecord: an item reaches past the end, there is none or over `MOST_ITEMS`, or the
            padding is not zero.
    """
    items: list[Item] = []
    at, end = 0, len(record)
    while at < end and record[at]:
        body = at + ITEM_HEADER_SIZE
        if body > end:
            raise MalformedRecord("an item's header reaches past the end of its record")
        kind, length = _HEADER.unpack_from(record, at)
        at = body + length
        if at > end:
            raise MalformedRecord("an item reaches past the end of its record")
        if kind == MORE:
            raise MalformedRecord("an item has no type")
        if len(items) == MOST_ITEMS:
            raise MalformedRecord("a record holds too many items")
        items.append(Item(kind & ~MORE, kind >= MORE, record[body:at]))
    if not items:
        raise MalformedRecord("a record holds no item")
    # Compared as bytes: memoryview's own comparison goes element by element.
    if bytes(record[at:]) != _ZEROS[: end - at]:
        raise MalformedRecord("a record's padding is not zero")
    return items


class Packer:
    """What waits to be sent, packed into as few records as it fits into.

    Urgent items overtake everything, even the pieces of a split message; all else keeps its
    order, and a split message is finished before the next begins.
    """

    __slots__ = ("_offset", "_urgent", "_waiting")

    def __init__(self) -> None:
        self._urgent: deque[tuple[int, bytes, Callable[[], object] | None]] = deque()
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._offset = 0

    def __bool__(self) -> bool:
        return bool(self._urgent or self._waiting)

    def put(self, kind: int, body: bytes) -> None:
        """Queue one message."""
        self._waiting.append((kind, body))

    def put_urgent(
        self, kind: int, body: bytes, packed: Callable[[], object] | None = None
    ) -> None:
        """Queue an urgent message, which must fit into one item (65,516 bytes).

        Args:
            packed: called when it leaves the queue for a record.
        """
        assert len(body) <= LARGEST_ITEM
        self._urgent.append((kind, body, packed))

    def drop_unstarted(self) -> None:
        """Forget every message that is not urgent and of which nothing has left yet."""
        keep = self._waiting[0] if self._offset else None
        self._waiting.clear()
        if keep:
            self._waiting.append(keep)

    def fill(self, record: memoryview, rest: Callable[[memoryview], int] | None = None) -> int:
        """Write one record into a buffer of at least 65,519 bytes; return its size.

        Returns 0, and writes nothing, when nothing waits.

        Args:
            rest: writes items into what is left when all that waits is in; returns their length.
        """
        at = 0
        while self._urgent and at + ITEM_HEADER_SIZE + len(self._urgent[0][1]) <= LARGEST:
            kind, body, packed = self._urgent.popleft()
            at = write_item(record, at, kind, body)
            if packed is not None:
                packed()
        while self._waiting and not self._urgent:
            kind, body = self._waiting[0]
            room = LARGEST - at - ITEM_HEADER_SIZE
            left = len(body) - self._offset
            if left <= room:
                at = write_item(record, at, kind, memoryview(body)[self._offset :])
                self._waiting.popleft()
                self._offset = 0
            elif room > 0 and left > LARGEST_ITEM:
                piece = memoryview(body)[self._offset : self._offset + room]
                at = write_item(record, at, kind | MORE, piece)
                self._offset += room
                break
            else:
                # It fits into the next record whole.
                break
        if rest is not None and not self:
            at += rest(record[at:LARGEST])
        if not at:
            return 0
        size = padded(at)
        record[at:size] = _ZEROS[: size - at]
        return size


def write_header(record: memoryview, kind: int, length: int) -> None:
    """Write the header of an item whose body has so many bytes."""
    _HEADER.pack_into(record, 0, kind, length)


def write_item(record: memoryview, at: int, kind: int, body: bytes | memoryview) -> int:
    """Write an item into a record at `at`; return where the next one begins."""
    start = at + ITEM_HEADER_SIZE
    _HEADER.pack_into(record, at, kind, len(body))
    record[start : start + len(body)] = body
    return start + len(body)


class Assembler:
    """Puts split messages together again.

    Args:
        limit: the largest body of a split message, in bytes.
        splittable: the types of messages that may come in pieces.
        between: the types of items that may stand between the pieces of one.
    """

    __slots__ = ("_between", "_kind", "_limit", "_pieces", "_splittable")

    def __init__(self, *, limit: int, splittable: Container[int], between: Container[int]) -> None:
        self._limit = limit
        self._splittable = splittable
        self._between = between
        self._kind = 0
        self._pieces = bytearray()

    @property
    def unfinished(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self._kind)

    @property
    def held(self) -> int:
        """How many bytes of it are here."""
        return len(self._pieces)

    def feed(self, item: Item) -> tuple[int, memoryview | bytes] | None:
        """Take an item; return the message that it completes, as type and body.

        The body is a view into the record, or bytes of its own if it came in pieces.

        Raises:
            MalformedRecord: pieces of two messages are mixed, one is empty, they are too long, or
                the message's type does not come in pieces.
        """
        if not self._kind and not item.more:
            return item.type, item.body
        if self._kind and item.type != self._kind:
            if item.more or item.type not in self._between:
                raise MalformedRecord("another message begins before a split one has ended")
            return item.type, item.body
        if item.type not in self._splittable:
            raise MalformedRecord(f"an item of type {item.type} does not come in pieces")
        if not item.body:
            raise MalformedRecord("a piece of a split message is empty")
        if len(self._pieces) + len(item.body) > self._limit:
            raise MalformedRecord("a split message is longer than this side takes")
        self._pieces += item.body
        if item.more:
            self._kind = item.type
            return None
        whole = bytes(self._pieces)
        self._kind = 0
        self._pieces = bytearray()
        return item.type, whole
