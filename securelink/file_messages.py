"""What two nodes say to each other about files: typed, and their encoding.

A file goes as an OFFER, then CHUNKs, then an END. Its `number` stands for it on one link, in one
direction; its ID, of 16 bytes, stands for it for life, and is what RECEIPT and REFUSED answer.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from securelink.filenames import LONGEST_NAME

ID_SIZE = 16
DIGEST_SIZE = 32
"""SHA-256."""

LONGEST_PATH = LONGEST_NAME
"""Bytes of UTF-8 in the name of a file, its folders included."""

OWNER_MODE = 0o700
"""The permission bits that are sent: the owner's."""


class FileItem(enum.IntEnum):
    """The first byte of an item that belongs to a file."""

    OFFER = 16
    ACCEPT = 17
    PREFIX = 18
    BEGIN = 19
    CHUNK = 20
    END = 21
    CANCEL = 22


class OfferFlag(enum.IntFlag):
    """What kind of file is offered, and how."""

    FOLDER = 1
    STREAM = 2
    ASK = 4
    CHECKSUM = 8


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A file, a folder's own entry, or a stream is about to come.

    Attributes:
        id: 16 bytes, the file's for life.
        group: 16 bytes; all that one folder led to has the same.
        number: what it is called on this link; each is higher than those before it.
        name: components with slashes between them, the top-level name first.
        size: in bytes; None for a stream, whose length nobody knows yet; 0 for a folder.
        mtime: in nanoseconds since 1970.
        mode: the owner's permission bits.
        folder: it is a folder's own entry, and nothing follows.
        ask: some of it may be there from an earlier attempt; the sender waits for an answer.
        checksum: its END will bring the SHA-256 of the whole.
    """

    id: bytes
    group: bytes
    number: int
    name: str
    size: int | None
    mtime: int
    mode: int
    folder: bool = False
    ask: bool = False
    checksum: bool = False


class Accept(msgspec.Struct, frozen=True):
    """The receiver has the first `offset` bytes already; the sender answers with BEGIN."""

    number: int
    offset: int


class Prefix(msgspec.Struct, frozen=True):
    """The SHA-256 of the bytes that the receiver has."""

    number: int
    digest: bytes


class Begin(msgspec.Struct, frozen=True):
    """Chunks follow, from `offset` on: the accepted one, or 0 if the contents differ."""

    number: int
    offset: int


class Chunk(msgspec.Struct, frozen=True):
    """The next bytes of a file, at least one."""

    number: int
    data: memoryview | bytes


class End(msgspec.Struct, frozen=True):
    """The file is complete, with `size` bytes; `digest` is its SHA-256 if that was offered."""

    number: int
    size: int
    digest: bytes | None = None


class Cancel(msgspec.Struct, frozen=True):
    """The sender cannot, or need not, go on with this one."""

    number: int


FileMessage: TypeAlias = Offer | Accept | Prefix | Begin | Chunk | End | Cancel

_OFFER = struct.Struct(f">{ID_SIZE}s{ID_SIZE}sIBHqQ")
_NUMBER = struct.Struct(">I")
_OFFSET = struct.Struct(">IQ")
_PREFIX = struct.Struct(f">I{DIGEST_SIZE}s")

CHUNK_HEADER = _NUMBER
"""What stands before the bytes of a CHUNK: the number."""


def checked_id(value: bytes) -> bytes:
    """Return an ID; ValueError if it does not have 16 bytes."""
    # struct would cut a longer ID, and fill up a shorter one, without a word.
    if len(value) != ID_SIZE:
        raise ValueError("an ID has 16 bytes")
    return value


def _encode_offer(offer: Offer) -> bytes:
    flags = (
        (OfferFlag.FOLDER if offer.folder else 0)
        | (OfferFlag.STREAM if offer.size is None else 0)
        | (OfferFlag.ASK if offer.ask else 0)
        | (OfferFlag.CHECKSUM if offer.checksum else 0)
    )
    head = _OFFER.pack(
        checked_id(offer.id),
        checked_id(offer.group),
        offer.number,
        flags,
        offer.mode,
        offer.mtime,
        offer.size or 0,
    )
    body = head + offer.name.encode()
    _decode_offer(body)
    return body


def _decode_offer(body: bytes) -> Offer:
    file_id, group, number, flags, mode, mtime, size = _OFFER.unpack_from(body)
    name = body[_OFFER.size :]
    if not 1 <= len(name) <= LONGEST_PATH:
        raise ValueError("a file's name is empty or too long")
    if flags & ~sum(OfferFlag) or mode & ~OWNER_MODE:
        raise ValueError("an offer has unknown bits")
    folder, stream = flags & OfferFlag.FOLDER, flags & OfferFlag.STREAM
    if (folder or stream) and size:
        raise ValueError("only a file has a size")
    if (folder and flags != OfferFlag.FOLDER) or (stream and flags & OfferFlag.ASK):
        raise ValueError("an offer contradicts itself")
    return Offer(
        id=file_id,
        group=group,
        number=number,
        name=name.decode(),
        size=None if stream else size,
        mtime=mtime,
        mode=mode,
        folder=bool(folder),
        ask=bool(flags & OfferFlag.ASK),
        checksum=bool(flags & OfferFlag.CHECKSUM),
    )


def _encode_prefix(prefix: Prefix) -> bytes:
    return _PREFIX.pack(prefix.number, _checked_digest(prefix.digest))


def _encode_chunk(chunk: Chunk) -> bytes:
    if not chunk.data:
        raise ValueError("a chunk is empty")
    return CHUNK_HEADER.pack(chunk.number) + chunk.data


def _decode_chunk(body: bytes | memoryview) -> Chunk:
    (number,) = CHUNK_HEADER.unpack_from(body)
    if len(body) == CHUNK_HEADER.size:
        raise ValueError("a chunk is empty")
    return Chunk(number, memoryview(body)[CHUNK_HEADER.size :])


def _encode_end(end: End) -> bytes:
    digest = b"" if end.digest is None else _checked_digest(end.digest)
    return _OFFSET.pack(end.number, end.size) + digest


def _decode_end(body: bytes) -> End:
    number, size = _OFFSET.unpack_from(body)
    digest = body[_OFFSET.size :]
    return End(number, size, _checked_digest(digest) if digest else None)


def _checked_digest(digest: bytes) -> bytes:
    if len(digest) != DIGEST_SIZE:
        raise ValueError("a digest has 32 bytes")
    return digest


ENCODERS: dict[type, tuple[FileItem, Callable[..., bytes]]] = {
    Offer: (FileItem.OFFER, _encode_offer),
    Accept: (FileItem.ACCEPT, lambda accept: _OFFSET.pack(accept.number, accept.offset)),
    Prefix: (FileItem.PREFIX, _encode_prefix),
    Begin: (FileItem.BEGIN, lambda begin: _OFFSET.pack(begin.number, begin.offset)),
    Chunk: (FileItem.CHUNK, _encode_chunk),
    End: (FileItem.END, _encode_end),
    Cancel: (FileItem.CANCEL, lambda cancel: _NUMBER.pack(cancel.number)),
}
"""By each type of value: the item's type, and what makes its body; ValueError or struct.error."""

TYPES = frozenset(ENCODERS)
"""The types of all these values."""

DECODERS: dict[int, Callable[..., FileMessage]] = {
    FileItem.OFFER: _decode_offer,
    FileItem.ACCEPT: lambda body: Accept(*_OFFSET.unpack(body)),
    FileItem.PREFIX: lambda body: Prefix(*_PREFIX.unpack(body)),
    FileItem.BEGIN: lambda body: Begin(*_OFFSET.unpack(body)),
    FileItem.CHUNK: _decode_chunk,
    FileItem.END: _decode_end,
    FileItem.CANCEL: lambda body: Cancel(*_NUMBER.unpack(body)),
}
"""By the type of an item: what reads its body; ValueError or struct.error."""
