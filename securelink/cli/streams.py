"""Standard output and standard error: a terminal, a pipe, or nothing at all."""

from __future__ import annotations

import contextlib
import enum
import io
import os
import select
import shutil
from typing import TYPE_CHECKING, NamedTuple, TextIO

from securelink.cli.text import escape, escape_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

_ODD_CHARACTERS = "backslashreplace"


class Style(enum.StrEnum):
    """How a part of a line looks where colours are wanted; each value is its SGR parameter."""

    BOLD = "1"
    DIM = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"


class Styled(NamedTuple):
    """A part of a line, with its style beside it."""

    text: str
    style: Style


class _Nowhere(io.StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


class Stream:
    """Standard output or standard error, and what is on its other end."""

    def __init__(self, stream: TextIO | None, environ: Mapping[str, str]) -> None:
        # Python has no stream at all where a process was started with the descriptor closed.
        self._stream: TextIO = stream if stream is not None else _Nowhere()
        if isinstance(self._stream, io.TextIOWrapper) and self._stream.errors != _ODD_CHARACTERS:
            # A character that the terminal's encoding lacks must not cost the line.
            self._stream.reconfigure(errors=_ODD_CHARACTERS)
        self.is_terminal = self._stream.isatty()
        self.guard: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        self.can_redraw = self.is_terminal and environ.get("TERM", "dumb") != "dumb"
        self._coloured = (
            self.is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        )

    @property
    def columns(self) -> int:
        return shutil.get_terminal_size().columns

    @property
    def present_columns(self) -> int:
        """The width of this very terminal at this moment; `columns` is what tables keep to."""
        with contextlib.suppress(OSError):
            if columns := os.get_terminal_size(self._stream.fileno()).columns:
                return columns
        return self.columns

    @property
    def takes_more(self) -> bool:
        """Whether this terminal takes a line at once, and from us.

        It doesn't after Ctrl-S; and it belongs to somebody else while we are in the background.
        """
        try:
            descriptor = self._stream.fileno()
            with contextlib.suppress(OSError):  # it may not be the terminal that controls us
                if os.tcgetpgrp(descriptor) != os.getpgrp():
                    return False
            return bool(select.select([], [descriptor], [], 0)[1])
        except (OSError, ValueError):
            # No descriptor, or one that can't be asked.
            return True

    def fit(self, text: str) -> str:
        """Return *text* as one line of what the stream can show, so that it can be measured."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return escape_line(text).encode(encoding, _ODD_CHARACTERS).decode(encoding)

    def render(self, part: str | Styled) -> str:
        text = escape(text_of(part)) if self.is_terminal else text_of(part)
        if isinstance(part, Styled) and self._coloured:
            return f"\x1b[{part.style}m{text}\x1b[0m"
        return text

    def write(self, text: str) -> None:
        with self.guard():
            self.draw(text)

    def draw(self, text: str) -> None:
        """Write *text* without looking for what else stands there."""
        self._stream.write(text)
        self._stream.flush()

    def write_bytes(self, data: bytes) -> None:
        buffer = getattr(self._stream, "buffer", None)
        if buffer is None:
            self.write(data.decode())
            return
        with self.guard():
            self._stream.flush()
            buffer.write(data)
            buffer.flush()

    def abandon(self) -> None:
        """Go on without this stream: nobody reads it any more."""
        self._stream = _Nowhere()


def text_of(part: str | Styled) -> str:
    """Return *part* without its style."""
    return part.text if isinstance(part, Styled) else part
