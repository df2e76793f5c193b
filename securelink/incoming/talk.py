"""What the event loop and a link's disk thread tell each other.

Whatever belongs to one transfer carries its number on the link.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from securelink.file_messages import Begin, Cancel, Chunk, End, Offer
from securelink.store import inbox, partials

if TYPE_CHECKING:
    import sqlite3
    import threading
    from typing import Literal

    from securelink.admission import Refusal
    from securelink.directory import KnownPeer

# ---- from the loop to the thread, beside what the sender says


class Drop(msgspec.Struct, frozen=True):
    """A newer link wants this file: let go of it."""

    number: int


class Named(msgspec.Struct, frozen=True):
    """Under which name a group lands, or why that could not be written down."""

    group: bytes
    free_name: str
    """The one that was proposed."""
    name: str | Refusal


class Settled(msgspec.Struct, frozen=True):
    """The store has taken note of it, or has not: then it must not lie under its name."""

    number: int
    stays: bool


class Digested(msgspec.Struct, frozen=True):
    """What is here of a file is digested; None if it could not be read, or need not."""

    number: int
    digest: bytes | None


class HangUp(msgspec.Struct, frozen=True):
    """The link has ended: nothing more comes."""


Job: TypeAlias = Offer | Begin | Chunk | End | Cancel | Drop | Named | Settled | Digested | HangUp

JOB_COST = 256
OFFER_COST = 2048
"""Bytes of memory that a job, and a file, take beside what they carry: a chunk of one byte is not
free."""


def cost(job: Job) -> int:
    """What a job that a sender has caused takes in memory while it waits, about, in bytes."""
    match job:
        case Chunk():
            return JOB_COST + len(job.data)
        case Offer():
            return OFFER_COST + len(job.name)
        case Begin() | End() | Cancel() | Drop():
            return JOB_COST
    return 0


# ---- from the thread to the loop


class Worked(msgspec.Struct, frozen=True):
    """So much of what was handed over, as `cost` counts it, is done with."""

    cost: int


class Refuse(msgspec.Struct, frozen=True):
    """It is not taken."""

    number: int
    refusal: Refusal


class Known(msgspec.Struct, frozen=True):
    """It was taken in before."""

    number: int


class Here(msgspec.Struct, frozen=True):
    """So many bytes of it, or of what it is compared with, are here."""

    number: int
    size: int


class Digest(msgspec.Struct, frozen=True):
    """The SHA-256 of what is here."""

    number: int
    digest: bytes


class Gone(msgspec.Struct, frozen=True):
    """The thread has let go of it: its part is closed, and its ID may come again."""

    number: int


# ---- the same, for the store


class Landed(msgspec.Struct, frozen=True):
    """A file or folder lies whole under its name."""

    number: int
    id: bytes
    name: str
    path: str
    size: int
    sha256: bytes | None
    kind: Literal["file", "folder"]

    def record(self, conn: sqlite3.Connection, peer: KnownPeer, now: int) -> bool:
        """Take it in; False if it was taken in before."""
        partials.forget(conn, peer.key.raw, self.id)
        seq = inbox.receive_file(
            conn,
            peer=peer.key.raw,
            peer_name=peer.name,
            message_id=self.id,
            name=self.name,
            path=self.path,
            size=self.size,
            sha256=self.sha256,
            received_at=now,
            kind=self.kind,
        )
        return seq is not None


class Same(msgspec.Struct, frozen=True):
    """Exactly this lies here already, from somewhere else: nothing was landed."""

    number: int
    id: bytes

    def record(self, conn: sqlite3.Connection, peer: KnownPeer, now: int) -> bool:
        """Remember that it owes a receipt, whenever it comes."""
        partials.forget(conn, peer.key.raw, self.id)
        inbox.mark_seen(conn, peer.key.raw, self.id, now)
        return True


class Began(msgspec.Struct, frozen=True):
    """A large file begins to arrive, from its first byte on.

    `noted` is set when its row is in the store, or can't be.
    """

    offer: Offer
    boot: str
    noted: threading.Event

    def record(self, conn: sqlite3.Connection, peer: KnownPeer, now: int) -> bool:
        """Make its row."""
        offer = self.offer
        assert offer.size is not None
        partials.begin(
            conn,
            peer=peer.key.raw,
            message_id=offer.id,
            group=offer.group,
            name=offer.name,
            size=offer.size,
            mtime=offer.mtime,
            boot=self.boot,
            now=now,
        )
        return True


class Synced(msgspec.Struct, frozen=True):
    """The first bytes of a large file are on the disk, whatever happens to the machine."""

    id: bytes
    offset: int
    boot: str

    def record(self, conn: sqlite3.Connection, peer: KnownPeer, now: int) -> bool:
        """Write that into its row."""
        partials.synced(conn, peer.key.raw, self.id, self.offset, self.boot, now)
        return True


class Forgotten(msgspec.Struct, frozen=True):
    """The part of a large file is deleted."""

    id: bytes

    def record(self, conn: sqlite3.Connection, peer: KnownPeer, now: int) -> bool:
        """Delete its row."""
        return partials.forget(conn, peer.key.raw, self.id)


class NameGroup(msgspec.Struct, frozen=True):
    """This name is free for a group."""

    group: bytes
    name: str

    def record(self, conn: sqlite3.Connection, peer: KnownPeer, now: int) -> str:
        """Choose it, or learn which name was chosen before."""
        return partials.land(conn, peer.key.raw, self.group, self.name, now)


Note: TypeAlias = Landed | Same | Began | Synced | Forgotten | NameGroup
"""What goes into the store."""

Result: TypeAlias = Worked | Refuse | Known | Here | Digest | Gone | Note
