"""A terminal as a person sees it: a pseudo-terminal, and what is on its screen."""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import struct
import termios
import threading
import time
from collections.abc import Callable
from typing import TextIO, TypeVar

from securelink.cli.text import width

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds until something that should have been shown counts as never shown."""

_PIECE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]|.", re.DOTALL)


class Terminal:
    """A pseudo-terminal whose other end is read by a thread.

    Attributes:
        slave: the descriptor for a process.
        drawn: every state of a line that was written anew.
        overflowed: those that went beyond the last column but one.
    """

    def __init__(self, columns: int = 80, encoding: str = "utf-8") -> None:
        self._master, self.slave = os.openpty()
        self._columns = columns
        self.resize(columns)
        self.drawn: list[str] = []
        self.overflowed: list[str] = []
        self._encoding = encoding
        self._lines = [""]
        self._column = 0
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def resize(self, columns: int) -> None:
        """Make it wider or narrower; what is on the screen stays."""
        self._columns = columns
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def stream(self) -> TextIO:
        """Return a stream for this very process, such as `sys.stderr` is."""
        return os.fdopen(os.dup(self.slave), "w", encoding=self._encoding)

    @property
    def lines(self) -> list[str]:
        """What is on the screen; the last line is the one with the cursor."""
        with self._changed:
            return list(self._lines)

    def wait(self, find: Callable[[list[str]], T | None], what: str) -> T:
        """Wait until *find* finds something in the lines on the screen, and return it."""
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while (found := find(self._lines)) is None:
                left = deadline - time.monotonic()
                assert left > 0, f"no {what} on the screen: {self._lines}, but {self.drawn}"
                self._changed.wait(left)
        return found

    def shows(self, pattern: str) -> re.Match[str]:
        """Wait until *pattern* is found in one of the lines."""

        def find(lines: list[str]) -> re.Match[str] | None:
            return next((found for line in lines if (found := re.search(pattern, line))), None)

        return self.wait(find, pattern)

    def close(self) -> None:
        """End it, after the processes that use it."""
        os.close(self.slave)
        self._thread.join()
        os.close(self._master)

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder(self._encoding)()
        rest = ""
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the other end any more
                return
            text = rest + decoder.decode(data)
            rest = ""
            if (started := re.search(r"\x1b(\[[0-9;]*)?\Z", text)) is not None:
                text, rest = text[: started.start()], started[0]
            with self._changed:
                for piece in _PIECE.findall(text):
                    self._take(piece)
                self._changed.notify_all()

    def _take(self, piece: str) -> None:
        match piece:
            case "\r":
                self._column = 0
            case "\n":
                self._lines.append("")
                self._column = 0
            case "\x1b[K":
                self._lines[-1] = self._lines[-1][: self._column]
                if self._column:
                    self.drawn.append(self._lines[-1])
                if width(self._lines[-1]) >= self._columns:
                    self.overflowed.append(self._lines[-1])
            case _ if piece.startswith("\x1b"):
                pass  # a colour
            case _:
                line = self._lines[-1]
                self._lines[-1] = line[: self._column] + piece + line[self._column + 1 :]
                self._column += 1
