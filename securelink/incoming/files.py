"""One file on its way, as the disk thread knows it."""

from __future__ import annotations

import enum
import errno
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from securelink.admission import BAD_NAME, BUSY, DISK_FULL, EXISTS, TOO_LARGE
from securelink.boot import UNKNOWN, boot_id
from securelink.errors import BadName, FileExists, NoRoom

if TYPE_CHECKING:
    import threading

    from securelink.admission import Booking, Refusal
    from securelink.file_messages import Offer
    from securelink.landing import Landed, Part
    from securelink.store.partials import Partial

RESUMABLE = 4 << 20
"""Files of so many bytes have a row in the store, and go on where they were cut."""

_BY_ERRNO = {
    errno.ENOSPC: DISK_FULL,
    errno.EDQUOT: DISK_FULL,
    errno.EFBIG: TOO_LARGE,
    errno.ENAMETOOLONG: BAD_NAME,
    errno.EILSEQ: BAD_NAME,
}


class NotTaken(Exception):
    """A file is not taken: the way out to where its sender is told why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class Stage(enum.Enum):
    """Where a file stands."""

    KNOWN = "it was taken in before"
    COMPARING = "the sender was told what is here, and owes a BEGIN"
    WRITING = "its bytes are written"
    SAME = "it lies here already, whole"
    WHOLE = "it is to be put under its name"
    LANDED = "the store takes note of it"


AT_ITS_END = frozenset({Stage.WHOLE, Stage.LANDED})
"""Nothing more is needed of the sender."""


@dataclass(slots=True, eq=False)
class File:
    """One file, from its offer until the thread has let go of it."""

    offer: Offer
    components: tuple[str, ...]
    stage: Stage = Stage.WRITING
    part: Part | None = None
    """None for a folder, and for what is only compared."""
    booking: Booking | None = None
    hash: Any = None
    """Of all its bytes so far; None if nobody wants their digest."""
    has_row: bool = False
    """It is in the table of files that can go on."""
    noted: threading.Event | None = None
    """Set once the row is in the store; None if nobody need wait for that."""
    synced: int = 0
    """Bytes that are certainly on the disk."""
    told: int = 0
    """Bytes that the sender was told to be here."""
    digesting: bool = False
    """Another thread reads it."""
    dropped: bool = False
    """It is over, and only waits for that thread."""
    landed: Landed | None = None

    @property
    def number(self) -> int:
        """What it is called on its link."""
        return self.offer.number

    @property
    def is_large(self) -> bool:
        """Whether it is worth going on with later."""
        return self.offer.size is not None and self.offer.size >= RESUMABLE

    @property
    def own_part(self) -> Part:
        """The part, which it must have."""
        assert self.part is not None
        return self.part

    @property
    def digest(self) -> bytes | None:
        """The SHA-256 of its bytes so far, if anybody wants it."""
        return None if self.hash is None else bytes(self.hash.digest())

    def start_over(self) -> None:
        """Its bytes come from the first on."""
        self.own_part.truncate(0)
        self.synced = 0
        if self.hash is not None:
            self.hash = hashlib.sha256()


def trusted(part: Part, row: Partial | None, offer: Offer) -> int:
    """How many bytes of a part are certainly what an earlier attempt has written.

    What the kernel has taken it keeps, whatever becomes of this process; but not when the machine
    is restarted: then what was put on the disk counts.
    """
    if row is None or row.size != offer.size:
        return 0
    same_run = row.boot == boot_id() != UNKNOWN
    return min(part.size, row.size, part.size if same_run else row.synced)


def refusal_for(error: Exception) -> Refusal:
    """What to tell the sender when our disk, our store or a name fails us."""
    match error:
        case NotTaken():
            return error.refusal
        case NoRoom():
            return DISK_FULL
        case FileExists():
            return EXISTS
        case BadName():
            return BAD_NAME
        case OSError():
            return _BY_ERRNO.get(error.errno or 0, BUSY)
    return BUSY
