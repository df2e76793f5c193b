"""One link without its connection: bytes in, happenings out.

A session does no I/O and reads no clock: its owner hands in bytes and the time (seconds on a
monotonic clock), and takes out bytes and happenings. Where it stands is in the table of `states`.

Wire format: docs/protocol.md. Handshake: Noise revision 34 with the HFS extension, see `noise`.
"""

from __future__ import annotations

from securelink.messages import Announce, Deny, Ready, Receipt, Refused, Text
from securelink.session.channel import REKEY_AFTER, Channel, Scratch
from securelink.session.core import BATCH_SIZE, Session
from securelink.session.files import Data, FileSource
from securelink.session.handshake import HEADER, PROLOGUE
from securelink.session.happenings import (
    Closing,
    Ended,
    Happening,
    Introduced,
    Proven,
    Verified,
)
from securelink.session.replays import Replays

__all__ = [
    "BATCH_SIZE",
    "HEADER",
    "PROLOGUE",
    "REKEY_AFTER",
    "Announce",
    "Channel",
    "Closing",
    "Data",
    "Deny",
    "Ended",
    "FileSource",
    "Happening",
    "Introduced",
    "Proven",
    "Ready",
    "Receipt",
    "Refused",
    "Replays",
    "Scratch",
    "Session",
    "Text",
    "Verified",
]
