"""Names of peers: what a person may choose, and what is made of anybody else's choice.

A name is 1 to 32 characters of `[a-z0-9._-]` and begins with a letter, a digit or `_`: so it can
be typed on a command line without quotes, is never taken for an option, and is a plain TOML key
or file name.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

from securelink.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Container

MAX_NAME = 32

RESERVED = frozenset({"me", "all"})
"""What `--to` understands by itself: this node, and every peer."""

_FALLBACK = "peer"
_ALLOWED = re.compile(r"[a-z0-9_][a-z0-9._-]*")


def clean(text: str) -> str:
    """Return the name that *text*, such as a host name or a peer's own word, is turned into.

    Accents are dropped and other characters become dashes. The result always passes `check`: it
    is never empty and never reserved.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9._]+", "-", plain).lstrip(".-")[:MAX_NAME].rstrip(".-")
    if not name:
        return _FALLBACK
    return f"{name}-{_FALLBACK}" if name in RESERVED else name


def check(text: str) -> str:
    """Return *text*, a name that a person chose, unchanged.

    Raises:
        UsageError: if it can't be a name; the hint says what would do.
    """
    if not text:
        raise UsageError("a name can't be empty", hint="choose one, such as alice")
    if text in RESERVED:
        meaning = "this node itself" if text == "me" else "every peer"
        raise UsageError(f"the name {text} is reserved: it means {meaning}", hint=_suggestion(text))
    if text[0] in ".-":
        raise UsageError(f"a name can't begin with {text[0]!r}", hint=_suggestion(text))
    if not _ALLOWED.fullmatch(text):
        wrong = next(char for char in text if not re.fullmatch(r"[a-z0-9._-]", char))
        raise UsageError(
            f"a name can't hold {wrong!a}, only a-z, 0-9 and . _ -", hint=_suggestion(text)
        )
    if len(text) > MAX_NAME:
        raise UsageError(
            f"a name has {MAX_NAME} characters at most, this has {len(text)}",
            hint=_suggestion(text),
        )
    return text


def free(name: str, taken: Container[str]) -> str:
    """Return *name*, or with the first of `-2`, `-3`, ... that is not *taken*, kept within 32."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        suffix = f"-{number}"
        candidate = name[: MAX_NAME - len(suffix)] + suffix
    return candidate


def _suggestion(text: str) -> str:
    return f"{clean(text)} would do"
