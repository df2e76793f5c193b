"""Another process that uses the same store, told what to do through pipes."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PROLOGUE = """
import asyncio, os, sys
from pathlib import Path
from securelink.store import inbox, outbox, peers, schema
from securelink.store.database import Database
from securelink.store.writer import Store

path = Path(sys.argv[1])

def say(word):
    print(word, flush=True)

def wait():
    if not sys.stdin.readline():
        sys.exit("the test is gone")
"""

HOLD_WRITE_LOCK = """
database = Database.open(path)
with database.transaction() as conn:
    inbox.raise_cursor(conn, "serve", 7)
    say("held")
    wait()
say("free")
wait()
database.close()
"""


class Child:
    """A running process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self.stdout = process.stdout

    def expect(self, word: str) -> None:
        """Wait until it says *word*."""
        assert self.stdout.readline() == f"{word}\n"

    def go_on(self) -> None:
        """End its `wait()`."""
        self._stdin.write("\n")
        self._stdin.flush()

    def end(self) -> None:
        """Wait for it to end well."""
        assert self.process.wait(30) == 0


@contextmanager
def child(path: Path, code: str) -> Iterator[Child]:
    """Run *code* in a process of its own; it has `path`, `say(word)` and `wait()`."""
    with subprocess.Popen(
        [sys.executable, "-c", _PROLOGUE + code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Child(process)
        finally:
            process.kill()
