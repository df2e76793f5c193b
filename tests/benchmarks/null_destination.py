"""A file over a link that is ready, to a destination that costs nothing, beside bare TCP."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from processes import Standing, run_for_output

RAW = [sys.executable, str(Path(__file__).with_name("raw_tcp.py"))]


@dataclass(frozen=True)
class Alone:
    """A transfer without what comes before and after; CPU time is that of both processes, whole."""

    seconds: float
    cpu: float


def raw_tcp(source: Path) -> Alone:
    """Bare TCP: 1 MiB at a time, from and to one buffer."""
    receiver = Standing([*RAW, "receive", "/dev/null"])
    try:
        said = run_for_output([*RAW, "send", receiver.line().strip(), str(source.stat().st_size)])
        seconds, cpu = map(float, said.split())
        return Alone(seconds, cpu + float(receiver.line()))
    finally:
        receiver.end()


def compete(source: Path, rounds: int) -> dict[str, list[Alone]]:
    """Both in turns."""
    figures: dict[str, list[Alone]] = {"TCP": []}
    for _ in range(rounds):
        figures["TCP"].append(raw_tcp(source))
    return figures
