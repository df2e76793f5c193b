"""Which link receives which file: one at a time, and of several the newest.

A sender whose link was cut makes a new one and goes on, often before we have noticed that the old
one is dead. The file's part belongs to the old one until it has let go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

Key: TypeAlias = tuple[bytes, bytes]
"""A peer's key and a file's ID."""


class Claim(msgspec.Struct, frozen=True, eq=False):
    """One link's right to receive one file, held or waited for."""

    key: Key
    granted: Callable[[], None]
    """Called once, when the file is free for this link."""
    lost: Callable[[], None]
    """Called when a newer link wants the file: let go of it, and then `release` the claim."""


@dataclass(slots=True)
class _Place:
    holder: Claim
    waiting: Claim | None = None


class Claims:
    """All claims of a node; for its event loop alone."""

    def __init__(self) -> None:
        self._places: dict[Key, _Place] = {}

    def take(self, key: Key, *, granted: Callable[[], None], lost: Callable[[], None]) -> Claim:
        """Claim a file; `granted` is called at once if nobody else has it."""
        claim = Claim(key, granted, lost)
        place = self._places.get(key)
        if place is None:
            self._places[key] = _Place(claim)
            granted()
            return claim
        older, place.waiting = place.waiting, claim
        (older or place.holder).lost()
        return claim

    def release(self, claim: Claim) -> None:
        """Give a claim up, whether it was granted or not; whoever waits is granted his."""
        place = self._places.get(claim.key)
        if place is None:
            return
        if place.waiting is claim:
            place.waiting = None
        elif place.holder is claim and place.waiting is None:
            del self._places[claim.key]
        elif place.holder is claim:
            assert place.waiting is not None
            place.holder, place.waiting = place.waiting, None
            place.holder.granted()
