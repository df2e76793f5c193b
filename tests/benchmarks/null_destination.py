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


def compete(sources: dict[str, Path], rounds: int) -> dict[str, list[Alone]]:
    """All in turns, and bare TCP with as many bytes; once before that without being counted.

    Args:
        sources: files of one size, each under the title that its figures get.
    """
    size = next(iter(sources.values())).stat().st_size
    figures: dict[str, list[Alone]] = {title: [] for title in (*sources, "TCP")}
    for _ in range(rounds + 1):
        for title, source in sources.items():
            figures[title].append(carry("bare_link.py", str(source)))
        figures["TCP"].append(carry("raw_tcp.py", str(size)))
    return {title: each[1:] for title, each in figures.items()}
