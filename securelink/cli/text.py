"""Text on a terminal: what must not get there, how wide it is, and cutting it."""

from __future__ import annotations

import re
import unicodedata

# What can move the cursor, reorder a line or hide: Unicode's Cc, Cs, Zl, Zp, Bidi_Control,
# Default_Ignorable_Code_Point, and interlinear annotation. Not newline and tab; and not the
# joiners (U+200C, U+200D) and the two selectors (U+FE0E, U+FE0F), without which Persian, the
# scripts of India and most emoji come apart.
_UNSAFE = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b"
    r"\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0d\ufeff\uffa0"
    r"\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_NARROWEST = 20
"""Columns under which wrapping makes nothing more readable."""

_UNSAFE_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_UNSAFE_IN_LINE = re.compile(rf"[{_UNSAFE}\t\n]")


def escape(text: str) -> str:
    r"""Return *text* fit for a terminal: what could move, reorder or hide is shown as `\x1b`.

    Newlines, tabs, joiners and emoji selectors are kept.
    """
    return _UNSAFE_IN_TEXT.sub(_escaped, text)


def escape_line(text: str) -> str:
    r"""Return *text* as `escape` does, on one line: newlines and tabs are escaped too."""
    return _UNSAFE_IN_LINE.sub(_escaped, text)


def one_line(text: str) -> str:
    """Return how *text* begins, on one line: whatever space is between words is one blank."""
    return " ".join(text.split())


def width(text: str) -> int:
    """Return how many columns the one line *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.category(char) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(char) in ("W", "F")
        else 1
        for char in text
    )


def shorten(text: str, columns: int) -> str:
    """Return *text*, cut and ended with an ellipsis if it takes more than *columns*."""
    if width(text) <= columns:
        return text
    kept = text
    while kept and width(kept) > columns - 1:
        kept = kept[:-1]
    return f"{kept}…"


def wrap(text: str, columns: int | None, *, before: int = 0) -> str:
    """Return *text* with line ends between words, so that a terminal cuts none of them.

    Args:
        columns: how wide a line may be; None for any.
        before: how much of that is taken already; further lines begin below what follows.
    """
    if columns is None or width(text) <= columns - before:
        return text
    room = max(columns - before, _NARROWEST)
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and width(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return f"\n{' ' * before}".join(lines)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
