"""What arrives in the inbox, told by following its sequence, whichever process received it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink import events, ids
from securelink.identity import PublicKey
from securelink.store import inbox

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from securelink.store.inbox import InboxMessage
    from securelink.store.writer import Store


async def follow(
    store: Store, changed: asyncio.Event, seq: int
) -> AsyncIterator[list[InboxMessage]]:
    """Every message after `seq`, whichever process of this node receives it, as it comes.

    Args:
        changed: set whenever the store may have changed, and once at first.
    """
    while True:
        await changed.wait()
        changed.clear()
        while messages := await store.read(inbox.after, seq):
            yield messages
            seq = messages[-1].seq


def event_of(message: InboxMessage) -> events.Message:
    """What is told of a message in the inbox."""
    return events.Message(
        id=ids.to_text(message.id),
        seq=message.seq,
        peer=message.peer_name,
        peer_id=PublicKey(message.peer).peer_id,
        sent_at=events.rfc3339(message.sent_at),
        received_at=events.rfc3339(message.received_at),
        text=message.text,
    )
