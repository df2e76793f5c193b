"""Names of files: what is made of a name that a peer sends, so that it can do no harm here.

A name on the wire is components with slashes between them. What could lead out of the folder is
refused; what is only awkward, on this system or on another that reads the same disk, is replaced.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

LONGEST_NAME: Final = 4096
"""Bytes of UTF-8 in a name with its folders."""

LONGEST_COMPONENT: Final = 240
"""Bytes of UTF-8 in one component: file systems take 255, and a number may be added."""

MOST_COMPONENTS: Final = 100

OWN_FOLDER: Final = ".partial"
"""Where unfinished files lie, beside the folders of the peers."""

_DIGEST: Final = 8
_REPLACEMENT: Final = "_"
# The characters that Windows refuses: a disk may be read there, and a drive letter needs a colon.
_AWKWARD = re.compile(r'[\\:*?"<>|]')
_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?")
_EXTENSION = re.compile(r"(?:\.tar)?\.[^.\s]{1,16}$")


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
    if any(part in {"", ".", ".."} for part in parts):
        raise ValueError("a file's name leads elsewhere")
    return tuple(_safe(part) for part in parts)


def numbered(component: str, number: int) -> str:
    """Return *component* with a number before its extension, as in `a (2).txt`."""
    found = _EXTENSION.search(component, 1)
    at = found.start() if found else len(component)
    return f"{component[:at]} ({number}){component[at:]}"


def _safe(part: str) -> str:
    plain = "".join(_REPLACEMENT if _is_invisible(char) else char for char in part)
    plain = _AWKWARD.sub(_REPLACEMENT, plain)
    stripped = plain.lstrip(" ")
    plain = _REPLACEMENT * (len(plain) - len(stripped)) + stripped
    # Windows drops dots and spaces at the end, so that two names become one.
    stripped = plain.rstrip(". ")
    plain = stripped + _REPLACEMENT * (len(plain) - len(stripped))
    if _DEVICE.fullmatch(plain):
        plain = _REPLACEMENT + plain
    if plain.casefold() == OWN_FOLDER:
        plain = _REPLACEMENT + plain
    return _shortened(plain)


def _is_invisible(char: str) -> bool:
    """Whether a character controls, reorders or hides, or separates without being a space."""
    return char != " " and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}


def _shortened(component: str) -> str:
    raw = component.encode()
    if len(raw) <= LONGEST_COMPONENT:
        return component
    # Two long names that begin alike stay apart.
    mark = "~" + hashlib.sha256(raw).hexdigest()[:_DIGEST]
    found = _EXTENSION.search(component, 1)
    end = mark + (found[0] if found else "")
    kept = raw[: LONGEST_COMPONENT - len(end.encode())].decode(errors="ignore").rstrip(". ")
    return kept + end
