"""What a keeper tells of its mapping: each thing once, and taken back when it holds no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from securelink import events
from securelink.nat.diagnosis import Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.nat.diagnosis import Diagnosis
    from securelink.nat.mapping import Mapping


class Telling:
    """What was told last, and so what is news.

    Args:
        tell: takes events: `Mapped`, `MappingFailed`, `MappingLost`, `PublicAddress`.
    """

    def __init__(self, tell: Callable[[events.Event], None]) -> None:
        self._tell = tell
        self._told: events.Event | None = None
        self._told_address: events.PublicAddress | None = None

    def lost(self, reason: str) -> None:
        """What was told of holds no longer."""
        if isinstance(self._told, events.Mapped):
            self._told = events.MappingLost(reason=reason)
            self._tell(self._told)

    def concluded(self, event: events.Event | None) -> None:
        """An attempt has come to this, or to nothing that is worth telling."""
        if event is not None and _lasting(event) != _lasting(self._told):
            self._tell(event)
        self._told = event

    def address(self, event: events.PublicAddress | None) -> None:
        """This is the address outside, as far as it is known."""
        if event is not None and event != self._told_address:
            self._told_address = event
            self._tell(event)


def event_of(mapping: Mapping | None, diagnosis: Diagnosis) -> events.Event | None:
    """Return what an attempt came to, as its event."""
    if diagnosis.verdict is not Verdict.MAPPED:
        return events.MappingFailed(
            verdict=diagnosis.verdict,
            reason=diagnosis.reason,
            sentence=diagnosis.sentence,
            hint=diagnosis.hint,
        )
    if mapping is None:
        return None
    good_until = mapping.good_until
    return events.Mapped(
        method=mapping.method,
        protocol=mapping.protocol,
        external=mapping.external,
        local=mapping.local,
        good_until=None if good_until is None else events.rfc3339(good_until),
        note=None if diagnosis.reason is Reason.MAPPED else diagnosis.sentence,
    )


def _lasting(event: events.Event | None) -> events.Event | None:
    """The event without what changes with each renewal."""
    if isinstance(event, events.Mapped):
        return msgspec.structs.replace(event, good_until=None)
    return event
