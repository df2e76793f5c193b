"""The log: everything in order while somebody reads, and nobody held up when nobody does."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator

import pytest

from securelink.cli import logs
from securelink.cli.logs import LogThread


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for each in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(each)


def logger(thread: LogThread) -> logging.Logger:
    log = logging.Logger("test")  # noqa: LOG001 - one that no other test knows
    thread.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    log.addHandler(thread)
    return log


def read(descriptor: int, lines: int) -> list[str]:
    data = b""
    while data.count(b"\n") < lines:
        data += os.read(descriptor, 65536)
    return data.decode().splitlines()


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    thread = LogThread(writing)
    log = logger(thread)
    for number in range(100):
        log.warning("number %d \udc80é", number)
    thread.say("the end")
    thread.flush()
    os.set_blocking(reading, False)
    expected = [f"WARNING number {number} \\udc80é" for number in range(100)]
    assert read(reading, 101) == [*expected, "the end"]


def test_a_reader_that_stands_still_holds_up_nobody_and_is_told_what_it_missed(
    pipe: tuple[int, int],
) -> None:
    reading, writing = pipe
    thread = LogThread(writing)
    log = logger(thread)
    # One that no pipe holds, so that it is known where the thread stands.
    log.warning("x" * 2_000_000)
    begun = os.read(reading, 1000)
    for number in range(logs.MOST + 20):
        log.warning("number %d", number)
    before = time.monotonic()
    thread.flush()
    assert logs.PATIENCE <= time.monotonic() - before < logs.PATIENCE + 2
    lines = read(reading, logs.MOST + 2)
    assert len(begun) + len(lines[0]) == len("WARNING ") + 2_000_000
    expected = [f"WARNING number {number}" for number in range(logs.MOST)]
    missing = "WARNING 20 more lines came faster than they could be written"
    assert lines[1:] == [*expected, missing]
    log.warning("again")
    assert read(reading, 1) == ["WARNING again"]


def test_a_reader_that_is_gone_is_no_trouble(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.close(reading)
    thread = LogThread(writing)
    log = logger(thread)
    for _ in range(3):
        log.warning("nobody reads this")
        thread.flush()


def test_without_standard_error_nothing_is_written() -> None:
    thread = LogThread(None)
    logger(thread).warning("nobody reads this")
    thread.flush()
