"""Sizes as people write them: `500 MB`, `1 GiB`, or whole bytes."""

from __future__ import annotations

import math
import re
from fractions import Fraction

LARGEST_SIZE = (1 << 63) - 1
"""Bytes; the store's integers end here."""

_DECIMAL = {unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb", "pb"))}
_BINARY = {unit: 1024**power for power, unit in enumerate(("kib", "mib", "gib", "tib", "pib"), 1)}
_UNITS = _DECIMAL | _BINARY
# Not k, M and G alone: half of the programs mean 1000 by it, the other half 1024.
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?([a-z]{1,3})?", re.IGNORECASE)


def parse(text: str) -> int | None:
    """Return the number of bytes that *text* stands for; None if it is no size.

    A part of a byte counts as a whole one, so that only zero itself is 0.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    unit = _UNITS.get((match[2] or "b").lower())
    return None if unit is None else math.ceil(Fraction(match[1]) * unit)
