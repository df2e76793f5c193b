"""Message IDs: UUIDv7, so that they sort by the time they were made (RFC 9562, section 5.7).

Python has `uuid.uuid7` from 3.14 on only.
"""

from __future__ import annotations

import uuid

ID_SIZE = 16
RANDOM_SIZE = 10


def uuid7(now: int, randomness: bytes) -> bytes:
    """The 16 bytes of a UUIDv7, from milliseconds since 1970 and 10 random bytes."""
    value = now << 80 | int.from_bytes(randomness[:RANDOM_SIZE], "big")
    value &= ~(0xF << 76) & ~(0b11 << 62)
    value |= 7 << 76 | 0b10 << 62
    return value.to_bytes(ID_SIZE, "big")


def to_text(message_id: bytes) -> str:
    """The 36 characters in which a person sees an ID."""
    return str(uuid.UUID(bytes=message_id))


def from_text(text: str) -> bytes:
    """The 16 bytes of an ID in any of the forms that people write; ValueError if it is none."""
    return uuid.UUID(text.strip()).bytes
