"""How long to wait before the next attempt: one generator for all who repeat something."""

from __future__ import annotations

from collections.abc import Callable, Iterator

JITTER = 0.25
"""A delay is up to this fraction shorter, so that many who failed together do not return so."""


def delays(first: float, longest: float, random: Callable[[], float]) -> Iterator[float]:
    """Seconds to wait, doubling from `first` to `longest`, for ever.

    Args:
        first: the first delay, in seconds.
        longest: the bound of all, in seconds.
        random: gives numbers from 0 to 1.
    """
    delay = first
    while True:
        yield delay * (1 - JITTER * random())
        delay = min(delay * 2, longest)
