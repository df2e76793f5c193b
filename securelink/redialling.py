"""When a peer that could not be reached is dialled again, by those who never give up.

The one place where that is decided; `connect.dial` is for somebody who waits at the keyboard.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from securelink import backoff
from securelink.errors import NotThem, PeerRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securelink.errors import SecurelinkError

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
"""Seconds between two attempts while nobody answers."""

LONGEST_REFUSED = 300.0
"""Seconds between two attempts while somebody else answers, or the peer does not take us: that
changes by a person's hand alone."""


class Redial:
    """The delays of one peer, from one ready link to the next.

    Args:
        draw: gives numbers from 0 to 1.
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._kind: str | None = None
        self._reached = FIRST_DELAY
        self._begins_anew = False
        self._delays: Iterator[float] = iter(())

    def after(self, error: SecurelinkError) -> tuple[float, bool]:
        """Return the seconds to wait after a failed attempt, and whether a person should be told.

        Of failures of one kind in a row only the first is worth a line. One of another kind does
        not shorten the delay: else a peer that fails in turns would have us knock at its pace.
        """
        kind = type(error).__name__
        is_news = kind != self._kind
        longest = LONGEST_REFUSED if isinstance(error, NotThem | PeerRefused) else LONGEST_DELAY
        if self._begins_anew:
            self._reached = FIRST_DELAY
        if is_news or self._begins_anew:
            self._begins_anew = False
            self._reached = min(self._reached, longest)
            self._delays = backoff.delays(self._reached, longest, self._draw)
            self._kind = kind
        self._reached = min(2 * self._reached, longest)
        return next(self._delays), is_news

    def hasten(self) -> None:
        """Something is different now: begin with short delays again, but tell nothing twice."""
        self._begins_anew = True

    def ready(self) -> None:
        """A link was ready: what comes next begins anew."""
        self._kind = None
        self._begins_anew = True
