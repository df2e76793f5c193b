"""Lines that somebody else can cause: some are written, the rest is counted."""

from __future__ import annotations

import logging

import pytest
from parties import until

from securelink import sparing
from securelink.sparing import Sparing

LOG = logging.getLogger("securelink.test")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records]


async def test_some_lines_and_then_how_many_more(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparing, "INTERVAL", 0.05)
    denials = Sparing(LOG, 2, "%d more")
    for number in range(5):
        denials.write(logging.WARNING, "number %d", number)
    assert lines(caplog) == ["number 0", "number 1"]
    await until(lambda: len(lines(caplog)) == 3)
    denials.write(logging.ERROR, "number %d", 5)
    denials.close()
    assert lines(caplog) == ["number 0", "number 1", "3 more", "number 5"]
    assert caplog.records[-1].levelno == logging.ERROR


async def test_the_end_tells_of_the_rest_at_once(caplog: pytest.LogCaptureFixture) -> None:
    denials = Sparing(LOG, 1, "%d more")
    denials.close()
    for _ in range(3):
        denials.write(logging.WARNING, "line")
    denials.close()
    denials.close()
    assert lines(caplog) == ["line", "2 more"]
