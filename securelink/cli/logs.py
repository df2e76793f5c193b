"""The log on standard error, written by a thread: a reader that stands still holds up nobody."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

MOST = 1000
"""Lines that may wait to be written; what comes on top of them is counted."""

PATIENCE = 0.5
"""Seconds for which the end of the process waits for what has not been written yet."""


class LogThread(logging.Handler):
    """Writes lines to a descriptor, in a thread of its own.

    The descriptor itself, not the stream that Python has on it: a thread that is stuck inside a
    stream keeps the interpreter from ending.
    """

    def __init__(self, descriptor: int | None) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lines: deque[str] = deque()
        self._lost = 0
        self._writing = False
        self._guard: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
        self._changed = threading.Condition()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take what was logged."""
        self.say(self.format(record))

    def say(self, line: str) -> None:
        """Take a line; it is written soon, or counted."""
        with self._changed:
            if len(self._lines) < MOST:
                self._lines.append(line)
            else:
                self._lost += 1
            self._changed.notify_all()

    @contextlib.contextmanager
    def kept_clear(self, guard: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
        """Write inside of *guard* for as long as the context lasts, as `Output.keep_clear` does."""
        self._guard = guard
        try:
            yield
        finally:
            self._guard = contextlib.nullcontext

    def flush(self) -> None:
        """Wait until all lines are written, but not for ever; `logging` does so at the end."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._lines or self._writing), PATIENCE)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines)
                lines = [*self._lines]
                self._lines.clear()
                if self._lost:
                    lines.append(self._missing(self._lost))
                    self._lost = 0
                self._writing = True
            self._write("".join(f"{line}\n" for line in lines))

    def _missing(self, count: int) -> str:
        line = "%d more lines came faster than they could be written"
        return self.format(
            logging.LogRecord(__name__, logging.WARNING, __file__, 0, line, (count,), None)
        )

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "backslashreplace")
        try:
            with self._guard():
                while data and self._descriptor is not None:
                    data = data[os.write(self._descriptor, data) :]
        except OSError:
            # Nobody reads the log, or the disk is full: nothing that could be told to anybody.
            return


def log_to_stderr(level: str, verbose: int) -> LogThread:
    """Have the log written to standard error, if there is one.

    Args:
        level: the least that is written, one of the configuration's `LOG_LEVELS`.
        verbose: how many times `-v` was given; once shows "info", more often everything.
    """
    wanted = {0: logging.getLevelNamesMapping()[level.upper()], 1: logging.INFO}
    handler = LogThread(None if sys.stderr is None else sys.stderr.fileno())
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    )
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(wanted.get(verbose, logging.DEBUG))
    # asyncio's own debug lines are about file descriptors, not about this node.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    return handler
