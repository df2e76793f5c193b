"""What a session tells its owner, beside the messages themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from securelink.errors import SecurelinkError
from securelink.file_messages import FileMessage
from securelink.hello import ClientHello
from securelink.identity import PublicKey
from securelink.messages import Announce, Deny, Ready, Receipt, Refused, Text


@dataclass(frozen=True, slots=True)
class Proven:
    """Server: the client knows our public key."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Client: the server holds the pinned key; `proceed` sends message 3."""


@dataclass(frozen=True, slots=True)
class Introduced:
    """Server: the client holds `key`; the owner calls `admit` or `deny`."""

    key: PublicKey
    hello: ClientHello


@dataclass(frozen=True, slots=True)
class Closing:
    """The other side has sent its last; the owner finishes what it has read, then closes."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes or goes; `error` is None after an orderly end. Always the last."""

    error: SecurelinkError | None


Happening: TypeAlias = (
    Proven
    | Verified
    | Introduced
    | Ready
    | Deny
    | Text
    | Receipt
    | Refused
    | Announce
    | FileMessage
    | Closing
    | Ended
)
