"""First messages that come again: what a server remembers of those that it has answered."""

from __future__ import annotations

from collections import OrderedDict

MOST = 4096
"""First messages that are remembered, those that came last."""


class Replays:
    """The ephemeral keys of the newest valid first messages.

    A client draws a new one for each connection, so one that comes again was recorded by somebody;
    it is dropped before it costs an ML-KEM operation. All sessions of a server share one of these.
    """

    def __init__(self) -> None:
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def knows(self, key: bytes) -> bool:
        """Whether this key has come before; one that still comes is not forgotten."""
        if key not in self._keys:
            return False
        self._keys.move_to_end(key)
        return True

    def remember(self, key: bytes) -> None:
        """Note the key of a first message that has verified."""
        self._keys[key] = None
        if len(self._keys) > MOST:
            self._keys.popitem(last=False)
