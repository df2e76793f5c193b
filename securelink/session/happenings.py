"""What a session tells its owner, beside the messages themselves."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from securelink.errors import SecurelinkError
from securelink.file_messages import FileMessage
from securelink.hello import ClientHello
from securelink.identity import PublicKey
from securelink.messages import Announce, Deny, Ready, Receipt, Refused, Text


class Proven(msgspec.Struct, frozen=True):
    """Server: the client knows our public key."""


class Verified(msgspec.Struct, frozen=True):
    """Client: the server holds the pinned key; `proceed` sends message 3."""


class Introduced(msgspec.Struct, frozen=True):
    """Server: the client holds `key`; the owner calls `admit` or `deny`."""

    key: PublicKey
    hello: ClientHello


class Closing(msgspec.Struct, frozen=True):
    """The other side has sent its last; the owner finishes what it has read, then closes."""


class Ended(msgspec.Struct, frozen=True):
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
