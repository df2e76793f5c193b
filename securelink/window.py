"""What may be under way without a receipt, in one direction of a link.

The sender keeps to it and the receiver holds it to it, so neither side ever has to stop reading
because of the other's texts.
"""

from __future__ import annotations

MESSAGES = 1024
SIZE = 4 << 20
"""Bytes of text."""


class Window:
    """The messages that were sent and have no receipt yet: at most 1,024, or 4 MiB of them.

    One message always fits, however long.
    """

    __slots__ = ("_sizes", "_total")

    def __init__(self) -> None:
        self._sizes: dict[bytes, int] = {}
        self._total = 0

    def __contains__(self, message_id: bytes) -> bool:
        return message_id in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)

    def copy(self) -> Window:
        """Another window with the same messages under way."""
        other = Window()
        other._sizes = dict(self._sizes)
        other._total = self._total
        return other

    def fits(self, size: int) -> bool:
        """Whether a message of `size` bytes may go now."""
        if not self._sizes:
            return True
        return len(self._sizes) < MESSAGES and self._total + size <= SIZE

    def add(self, message_id: bytes, size: int) -> None:
        """Count a message of `size` bytes as under way; its ID must be new here."""
        self._sizes[message_id] = size
        self._total += size

    def remove(self, message_id: bytes) -> bool:
        """Take a message out, because it has its receipt or refusal; False if it is not in."""
        size = self._sizes.pop(message_id, None)
        if size is None:
            return False
        self._total -= size
        return True
