"""The tree of exceptions, and the exit code that each stands for.

::

    SecurelinkError(message, *, hint=None)        1
    ├─ UsageError                                 2
    ├─ ConfigError                                2
    ├─ IdentityError                              1
    │  ├─ UnsafeKeyFile                           1
    │  └─ BadPeerId                               2
    ├─ InviteError                                2
    │  ├─ InviteTruncated, InviteMistyped, InviteNewer, InviteMalformed
    │  └─ OwnInvite
    ├─ ProtocolError                              1
    │  ├─ LocalProtocolError    our own bug
    │  └─ RemoteProtocolError   the peer's fault
    │     ├─ FrameTooLong, MalformedRecord, DecryptError
    │     └─ HandshakeError
    ├─ PeerError                                  5
    │  ├─ UnknownPeer                             2
    │  ├─ NotThem                                 4
    │  └─ PeerRefused                             5
    │     └─ Skipped                              5
    ├─ LinkError                                  3
    │  ├─ Unreachable                             3
    │  ├─ LinkClosed                              6
    │  └─ LinkTruncated                           6
    ├─ NoReceipt                                  6
    ├─ Cancelled                                  1
    ├─ StoreError                                 1
    │  ├─ StoreTooNew, StoreBusy, StoreFull       1
    ├─ TransferError                              1
    │  ├─ NotAllSent, NotAllTaken                 1
    │  ├─ SourceChanged, SourceUnreadable         1
    │  └─ PartInUse, FileExists, BadName, BadPlace, NoRoom
    ├─ AlreadyRunning, PortUnusable               1
    └─ NatError                                   7
       ├─ NoGateway, RouterSilent, RouterFailed, NoUsableAddress
       ├─ MappingRefused, PortTaken, SamePortOnly, PermanentOnly
       └─ UpnpMissing

An error's message is one line for the person at the keyboard; the hint, where there is one,
is the next step. Neither ever holds a key, a token or a text.
"""

from __future__ import annotations

import enum


class ExitCode(enum.IntEnum):
    """What a script reads from a command's exit status."""

    OK = 0
    ERROR = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_THEM = 4
    REFUSED = 5
    UNCONFIRMED = 6
    ROUTER = 7
    QUEUED = 75
    INTERRUPTED = 130
    TERMINATED = 143


class SecurelinkError(Exception):
    """The root of all errors that securelink raises on purpose.

    Args:
        message: one line for the user, without a full stop's worth of blame.
        hint: the next step, or None where there is none.
    """

    exit_code = ExitCode.ERROR

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(SecurelinkError):
    """The command was called in a way that cannot mean anything."""

    exit_code = ExitCode.USAGE


class ConfigError(SecurelinkError):
    """A configuration file, an environment variable or a flag holds what it must not."""

    exit_code = ExitCode.USAGE


class IdentityError(SecurelinkError):
    """The node's own key cannot be read, made or used."""


class UnsafeKeyFile(IdentityError):
    """The key file can be read by somebody else."""


class BadPeerId(IdentityError):
    """A text is not a peer ID, or bytes are not a usable public key."""

    exit_code = ExitCode.USAGE


class InviteError(SecurelinkError):
    """An invite that cannot be redeemed as it stands."""

    exit_code = ExitCode.USAGE


class InviteTruncated(InviteError):
    """The end of the invite is missing."""


class InviteMistyped(InviteError):
    """The invite's checksum or alphabet does not fit."""


class InviteNewer(InviteError):
    """The invite was made by a newer version of securelink."""


class InviteMalformed(InviteError):
    """The text is no invite, or one whose checksum fits and whose content breaks the rules."""


class OwnInvite(InviteError):
    """The invite was made by this very node."""


class ProtocolError(SecurelinkError):
    """The rules of the wire were broken."""


class LocalProtocolError(ProtocolError):
    """This program broke them: a bug of ours."""


class RemoteProtocolError(ProtocolError):
    """The other side broke them; its link ends."""


class FrameTooLong(RemoteProtocolError):
    """A frame announces a length that nothing in this state can have."""


class MalformedRecord(RemoteProtocolError):
    """A record's items or padding do not follow the format."""


class DecryptError(RemoteProtocolError):
    """An authentication tag did not verify."""


class HandshakeError(RemoteProtocolError):
    """A handshake message holds what the handshake does not allow."""


class PeerError(SecurelinkError):
    """Something about one peer."""

    exit_code = ExitCode.REFUSED


class UnknownPeer(PeerError):
    """No peer has that name."""

    exit_code = ExitCode.USAGE


class NotThem(PeerError):
    """Whoever answered does not hold the pinned key."""

    exit_code = ExitCode.NOT_THEM


class PeerRefused(PeerError):
    """The right peer answered, and refused.

    Attributes:
        reason: why, in words that are equal for all that it refuses alike; empty if there are none.
    """

    def __init__(self, message: str, *, reason: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class Skipped(PeerRefused):
    """The peer has a file of that name, and was told to keep it."""


class LinkError(SecurelinkError):
    """A connection could not be made, or did not hold."""

    exit_code = ExitCode.UNREACHABLE


class Unreachable(LinkError):
    """Nobody answered at any endpoint."""


class LinkClosed(LinkError):
    """The link ended in an orderly way before the work was done."""

    exit_code = ExitCode.UNCONFIRMED


class LinkTruncated(LinkError):
    """The link ended without a CLOSE: cut, reset, or fallen silent."""

    exit_code = ExitCode.UNCONFIRMED


class NoReceipt(SecurelinkError):
    """The message left, and no receipt came back in time."""

    exit_code = ExitCode.UNCONFIRMED


class Cancelled(SecurelinkError):
    """A person has taken the message out of the outbox before it left."""


class StoreError(SecurelinkError):
    """The store on disk could not be read or written."""


class StoreTooNew(StoreError):
    """The store was written by a newer version; it is left untouched."""


class StoreBusy(StoreError):
    """Another process held the store's write lock for too long."""


class StoreFull(StoreError):
    """The disk, or a quota on it, is full."""


class TransferError(SecurelinkError):
    """A file could not be carried over."""


class NotAllSent(TransferError):
    """Some of what is in a folder could not be read or named, and was not sent."""


class NotAllTaken(TransferError):
    """Not everything that waited for this node was taken."""


class SourceChanged(TransferError):
    """The file to send is gone, or is not what it was when it was looked at."""


class SourceUnreadable(TransferError):
    """The file to send can't be read."""


class PartInUse(TransferError):
    """Another process receives the same file at present."""


class FileExists(TransferError):
    """There is something of that name already."""


class BadName(TransferError):
    """The file system can't have a file of that name, or at the end of such a long path."""


class BadPlace(TransferError):
    """A file can't be put where it belongs, such as below a symbolic link."""


class NoRoom(TransferError):
    """The disk, or a quota on it, is full."""


class AlreadyRunning(SecurelinkError):
    """Another process of this node already does this."""


class PortUnusable(SecurelinkError):
    """The port to listen on is in use, or not for this user."""


class NatError(SecurelinkError):
    """The router refused, there is none, or it can't help."""

    exit_code = ExitCode.ROUTER


class NoGateway(NatError):
    """This machine has no IPv4 gateway, or none in the network that was chosen."""


class RouterSilent(NatError):
    """The router did not answer in time."""


class RouterFailed(NatError):
    """The router answered that it failed, or with something that makes no sense."""


class NoUsableAddress(NatError):
    """The router has no external address at present."""


class MappingRefused(NatError):
    """The router allows this machine no mapping."""


class PortTaken(NatError):
    """The external port belongs to somebody else; `owner` says to whom, if that is known."""

    def __init__(self, message: str, *, owner: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.owner = owner


class SamePortOnly(NatError):
    """The router maps a port to the same port only."""


class PermanentOnly(NatError):
    """The router grants mappings without an end only."""


class UpnpMissing(NatError):
    """UPnP needs the package miniupnpc, which is not installed."""
