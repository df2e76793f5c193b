"""What a node tells its user, its scripts and its hooks: the same values for all of them.

As JSON each is one object with the key `event`; keys are only ever added.
"""

from __future__ import annotations

import datetime
from typing import TypeAlias

import msgspec

from securelink.endpoints import Endpoint


class Address(msgspec.Struct, frozen=True):
    """One end of a connection."""

    host: str
    port: int


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    pass


class Ready(_Event, frozen=True, kw_only=True, tag="ready"):
    """The node listens. `id` is its own peer ID."""

    id: str
    name: str
    port: int
    endpoints: tuple[Endpoint, ...]
    invite: str | None = None


class Paired(_Event, frozen=True, kw_only=True, tag="paired"):
    """A peer was added by an invite; `calls_itself` is the name it gave."""

    peer: str
    id: str
    calls_itself: str


class LinkUp(_Event, frozen=True, kw_only=True, tag="link-up"):
    """A link with a peer is ready; `address` is the peer's end of it."""

    peer: str
    address: Address | None


class LinkDown(_Event, frozen=True, kw_only=True, tag="link-down"):
    """A peer's link has ended, and why."""

    peer: str
    address: Address | None
    reason: str


class Message(_Event, frozen=True, kw_only=True, tag="message"):
    """A text is in the inbox. `seq` grows by message and never repeats, this event might."""

    id: str
    seq: int
    peer: str
    peer_id: str
    sent_at: str
    received_at: str
    text: str


class File(_Event, frozen=True, kw_only=True, tag="file"):
    """A file is in the inbox and, whole, at `path`. `seq` is of one row with those of texts.

    `name` is what the sender calls it; `size` is in bytes; `sha256`, in hexadecimal, is there if
    `[files] checksum` asks for it; `kind` is `file` or `folder`, which is the folder itself alone.
    """

    id: str
    seq: int
    peer: str
    peer_id: str
    received_at: str
    name: str
    path: str
    size: int
    kind: str
    sha256: str | None = None


class Undelivered(_Event, frozen=True, kw_only=True, tag="undelivered"):
    """What was queued for a peer ended without a receipt; nobody else is told.

    `item` is `text` or a file's name, `status` is `refused`, `expired`, `unconfirmed` or
    `withdrawn`. `seq` grows by such event and never repeats, the event might.
    """

    id: str
    seq: int
    peer: str
    peer_id: str
    at: str
    item: str
    status: str
    reason: str | None


class Invite(_Event, frozen=True, kw_only=True, tag="invite"):
    """The invite of `ready`, with the endpoints as they are now: the same token."""

    invite: str
    endpoints: tuple[Endpoint, ...]


class Mapped(_Event, frozen=True, kw_only=True, tag="mapping"):
    """The router forwards `external` to `local`; nobody outside has tried it yet.

    `good_until` is when the mapping ends if it is not renewed; null: never.
    """

    method: str
    protocol: str
    external: Address
    local: Address
    good_until: str | None
    note: str | None = None


class MappingFailed(_Event, frozen=True, kw_only=True, tag="mapping-failed"):
    """No mapping that would be of use; `sentence` says why, `hint` the next step."""

    verdict: str
    reason: str
    sentence: str
    hint: str | None


class MappingLost(_Event, frozen=True, kw_only=True, tag="mapping-lost"):
    """The mapping that was told of holds no longer; another try follows."""

    reason: str


class PublicAddress(_Event, frozen=True, kw_only=True, tag="public-address"):
    """What the router, a STUN server or this machine's own interface gives as its address.

    `source` is `pcp`, `nat-pmp`, `upnp`, `stun` or `interface`; `kind` tells whether it is one:
    `public`, `private`, `shared` (100.64.0.0/10), `empty` or `reserved`. `note` is there if nobody
    outside gets through to it, and says why.
    """

    host: str
    source: str
    kind: str
    note: str | None = None


class PublicAddressUnknown(_Event, frozen=True, kw_only=True, tag="public-address-unknown"):
    """No public address was found; `sentence` says why, `hint` the next step."""

    sentence: str
    hint: str | None


Event: TypeAlias = (
    Ready
    | Paired
    | LinkUp
    | LinkDown
    | Message
    | File
    | Undelivered
    | Invite
    | Mapped
    | MappingFailed
    | MappingLost
    | PublicAddress
    | PublicAddressUnknown
)


def rfc3339(time: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC, with milliseconds and `Z`."""
    seconds, milliseconds = divmod(time, 1000)
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        # A peer may claim any time; the last one that has a form stands for all beyond.
        moment = datetime.datetime.max.replace(tzinfo=datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds:03}Z"
