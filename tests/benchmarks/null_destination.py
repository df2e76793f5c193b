"""A file over a link that is ready, to a destination that costs nothing, beside bare TCP."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from processes import Standing, run_for_output

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Alone:
    """A transfer without all that comes before and after it.

    Attributes:
        seconds: from the first byte to the receiver's answer.
        cpu: seconds of user and system time of both sides.
    """

    seconds: float
    cpu: float


def carry(script: str, what: str) -> Alone:
    """Start a script twice, once to receive and once to send what is named."""
    words = [sys.executable, HERE / script]
    receiver = Standing([*words, "receive"])
    try:
        said = run_for_output([*words, "send", *receiver.line().split(), what])
        seconds, cpu = map(float, said.split())
        return Alone(seconds, cpu + float(receiver.line()))
    finally:
        receiver.end()


def compete(source: Path, rounds: int) -> dict[str, list[Alone]]:
    """Both in turns, once before that without being counted."""
    figures: dict[str, list[Alone]] = {"securelink": [], "TCP": []}
    for _ in range(rounds + 1):
        figures["securelink"].append(carry("bare_link.py", str(source)))
        figures["TCP"].append(carry("raw_tcp.py", str(source.stat().st_size)))
    return {title: each[1:] for title, each in figures.items()}
