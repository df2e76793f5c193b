"""QR codes in a terminal, drawn with half blocks alone: no colours, so NO_COLOR changes nothing."""

from __future__ import annotations

from itertools import zip_longest

_QUIET = 4  # modules of empty border (ISO/IEC 18004, section 6.3.8)

# By whether the upper and the lower module is light. Light is what is drawn: on the usual dark
# terminal that is right, and scanners read the inverted code of a light one too.
_BLOCKS = {(True, True): "█", (True, False): "▀", (False, True): "▄", (False, False): " "}


def drawn(text: str) -> list[str]:
    """Return the lines of the QR code of *text*, all of the same width.

    Raises:
        ValueError: if *text* is too long for any.
    """
    import segno

    code = segno.make(text, error="l", micro=False)
    rows = [[not dark for dark in row] for row in code.matrix_iter(border=_QUIET)]
    border = [True] * len(rows[0])
    return [
        "".join(_BLOCKS[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip_longest(rows[::2], rows[1::2], fillvalue=border)
    ]
