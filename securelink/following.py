"""What arrives in the inbox, told by following its sequence, whichever process received it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec.structs import replace

from securelink import directory, events, ids
from securelink.identity import PublicKey
from securelink.store import inbox, notices

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from securelink.config import ConfiguredPeer
    from securelink.directory import Directory
    from securelink.store.inbox import InboxFile, InboxMessage
    from securelink.store.notices import Notice


def named(known: Directory, messages: Sequence[InboxMessage]) -> list[InboxMessage]:
    """The messages under the names that their senders have now.

    Whoever is known no more keeps the name that it had when the message came.
    """
    named = []
    for message in messages:
        sender = known.by_key(PublicKey(message.peer))
        named.append(message if sender is None else replace(message, peer_name=sender.name))
    return named


def event_of(message: InboxMessage) -> events.Message | events.File:
    """What is told of a message in the inbox."""
    if message.file is not None:
        return _file_event(message, message.file)
    return events.Message(
        id=ids.to_text(message.id),
        seq=message.seq,
        peer=message.peer_name,
        peer_id=PublicKey(message.peer).peer_id,
        sent_at=events.rfc3339(message.sent_at),
        received_at=events.rfc3339(message.received_at),
        text=message.text,
    )


def messages_after(
    conn: sqlite3.Connection, configured: Mapping[str, ConfiguredPeer], seq: int
) -> list[InboxMessage]:
    """The next messages of the inbox, under the names that their senders have now."""
    messages = inbox.after(conn, seq)
    return named(directory.read(conn, configured), messages) if messages else []


def notices_after(
    conn: sqlite3.Connection, configured: Mapping[str, ConfiguredPeer], seq: int
) -> list[tuple[str, Notice]]:
    """The next notices of what was not delivered, each with the name of its recipient."""
    found = notices.after(conn, seq)
    known = directory.read(conn, configured) if found else None
    named = []
    for notice in found:
        key = PublicKey(notice.peer)
        peer = known.by_key(key) if known is not None else None
        named.append((peer.name if peer is not None else key.short, notice))
    return named


def notice_event(name: str, notice: Notice) -> events.Undelivered:
    """What is told of something that was queued and ended undelivered."""
    return events.Undelivered(
        id=ids.to_text(notice.id),
        seq=notice.seq,
        peer=name,
        peer_id=PublicKey(notice.peer).peer_id,
        at=events.rfc3339(notice.at),
        item=notice.name or "text",
        status=notice.state,
        reason=notice.reason,
    )


def _file_event(message: InboxMessage, file: InboxFile) -> events.File:
    return events.File(
        id=ids.to_text(message.id),
        seq=message.seq,
        peer=message.peer_name,
        peer_id=PublicKey(message.peer).peer_id,
        received_at=events.rfc3339(message.received_at),
        name=file.name,
        # JSON has no form for a folder's name that is not UTF-8.
        path=os.fsencode(file.path).decode(errors="backslashreplace"),
        size=file.size,
        kind=message.kind,
        sha256=None if file.sha256 is None else file.sha256.hex(),
    )
