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
    """A peer has connected."""

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


class Invite(_Event, frozen=True, kw_only=True, tag="invite"):
    """The invite of `ready`, with the endpoints as they are now: the same token."""

    invite: str
    endpoints: tuple[Endpoint, ...]


Event: TypeAlias = Ready | Paired | LinkUp | LinkDown | Message | Invite


def rfc3339(time: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC, with milliseconds and `Z`."""
    seconds, milliseconds = divmod(time, 1000)
    try:
        moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        # A peer may claim any time; the last one that has a form stands for all beyond.
        moment = datetime.datetime.max.replace(tzinfo=datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds:03}Z"
