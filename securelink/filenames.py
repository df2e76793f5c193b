"""Names of files: what is made of a name that a peer sends, so that it can do no harm here.

A name on the wire is components with slashes between them. What could lead out of the folder is
refused; what is only awkward, on this system or on another that reads the same disk, is replaced.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

LONGEST_NAME: Final = 4096
"""Bytes of UTF-8 in a name with its folders."""

LONGEST_COMPONENT: Final = 240
"""Bytes of UTF-8 in one component: file systems take 255, and a number may be added."""

MOST_COMPONENTS: Final = 100

OWN_FOLDER: Final = ".partial"
"""Where unfinished files lie, beside the folders of the peers."""

_FILE_SYSTEM_LIMIT: Final = 255
_DIGEST: Final = 8
_REPLACEMENT: Final = "_"

# Unicode's Cc, Cs, Zl, Zp, Bidi_Control, Default_Ignorable_Code_Point, interlinear annotation,
# the empty Braille pattern, and the characters that Windows refuses: a disk may be read there, and
# a drive letter needs a colon. Not the joiners and emoji selectors, see below.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f"
    r"\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    r'\\:*?"<>|]'
)
# Without these Persian, the scripts of India and most emoji come apart. They are invisible, so
# they stay only where they have a meaning: a selector after what is no ASCII, a joiner between.
_STRAY_SELECTOR = re.compile(r"(?<![^\x00-\x7f\u200c\u200d\ufe0e\ufe0f])[\ufe0e\ufe0f]")
_STRAY_JOINER = re.compile(
    r"(?<![^\x00-\x7f\u200c\u200d])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f\u200c-\u200d\ufe0e\ufe0f])"
)
_JOINERS: Final = "\u200c\u200d"
# Nobody sees them at an end; and Windows drops dots there, so that two names become one.
_ENDS = re.compile(r"^\s+|[\s.]+$")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?", re.I)
# With a letter in it: the end of `v1.2` and of `photos.2026` is none.
_EXTENSION = re.compile(r"(?:\.tar)?\.(?=[0-9]*[^\W\d_])[^\W_]{1,16}$")


def components(name: str) -> tuple[str, ...]:
    """Return the safe components of *name*; joined by slashes they give themselves again.

    Raises:
        ValueError: it is absolute, holds `.`, `..` or nothing between two slashes, or is too
            long or too deep.
    """
    if "\0" in name:
        raise ValueError("a file's name holds a zero byte")
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        raise ValueError(f"a file's name is longer than {LONGEST_NAME} bytes")
    parts = name.split("/")
    if len(parts) > MOST_COMPONENTS:
        raise ValueError(f"a file lies more than {MOST_COMPONENTS} folders deep")
    if not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError("a file's name leads elsewhere")
    top, *below = map(_safe, parts)
    if top.casefold() == OWN_FOLDER:
        top = _REPLACEMENT + top
    return (top, *below)


def numbered(component: str, number: int) -> str:
    """Return *component* with a number before its extension, as in `a (2).txt`.

    It is cut where that would make it longer than file systems take.
    """
    stem, extension = _split(component)
    end = f" ({number}){extension}"
    return _cut(stem, _FILE_SYSTEM_LIMIT - len(end.encode())) + end


def _safe(part: str) -> str:
    plain = _UNSAFE.sub(_REPLACEMENT, part)
    plain = _ENDS.sub(lambda end: _REPLACEMENT * len(end[0]), plain)
    # Only now: what the ends held may have been all that a selector belonged to.
    if not plain.isascii():
        plain = _STRAY_JOINER.sub(_REPLACEMENT, _STRAY_SELECTOR.sub(_REPLACEMENT, plain))
    if _DEVICE.fullmatch(plain):
        plain = _REPLACEMENT + plain
    raw = plain.encode()
    if len(raw) <= LONGEST_COMPONENT:
        return plain
    # Two long names that begin alike stay apart.
    stem, extension = _split(plain)
    end = f"~{hashlib.sha256(raw).hexdigest()[:_DIGEST]}{extension}"
    return _cut(stem, LONGEST_COMPONENT - len(end.encode())) + end


def _split(component: str) -> tuple[str, str]:
    """Return what stands before the extension, at least a character, and the extension."""
    found = _EXTENSION.search(component, 1)
    at = found.start() if found else len(component)
    return component[:at], component[at:]


def _cut(stem: str, size: int) -> str:
    """Return as much of *stem* as fits into *size* bytes, and ends in what can be seen."""
    raw = stem.encode()
    return stem if len(raw) <= size else raw[:size].decode(errors="ignore").rstrip(f". {_JOINERS}")
