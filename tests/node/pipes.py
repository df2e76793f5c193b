"""Pipes whose lines are sent as they come."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from securelink.items import LinesItem
from securelink.lines import Lines

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST = 10
"""Bytes of a line that is still taken."""


class Pipe:
    """A pipe whose ends a test closes when it likes."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()
        self._closed = False

    def write(self, data: bytes) -> None:
        assert os.write(self._writing, data) == len(data)

    def end(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._writing)

    def item(self, longest: int = LONGEST) -> LinesItem:
        return LinesItem(Lines(self.reading, longest), longest)


@contextmanager
def a_pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    try:
        yield pipe
    finally:
        pipe.end()
        os.close(pipe.reading)
