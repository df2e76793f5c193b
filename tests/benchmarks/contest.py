"""Contestants measured side by side: interleaved rounds, medians, medians of the rounds' ratios."""

from __future__ import annotations

import filecmp
import re
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from contestants import Carried, Contestant
from processes import Failed

UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size(text: str) -> int:
    """A number of bytes as a person writes it: 1GiB, 100KiB, 5."""
    found = re.fullmatch(r"(\d+) ?(B|KiB|MiB|GiB|)", text)
    if found is None:
        raise ValueError(f"not a size: {text!r}")
    return int(found[1]) * UNITS[found[2]]


@contextmanager
def scratch(within: Path) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(mkdtemp(prefix="securelink-benchmark-", dir=within))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def ready(kinds: Sequence[type[Contestant]], folder: Path) -> Iterator[list[Contestant]]:
    """Those of the contestants that are installed, set up; the others are named."""
    made: list[Contestant] = []
    try:
        for kind in kinds:
            if missing := kind.missing():
                print(f"{kind.title}: left out, not installed: {', '.join(missing)}")
                continue
            made.append(kind(folder))
            made[-1].set_up()
        yield made
    finally:
        for contestant in made:
            contestant.end()


def compete(
    contestants: Sequence[Contestant], source: Path, rounds: int
) -> dict[str, list[Carried]]:
    """Carry the source in turns; once before that without a clock, and compare what has landed.

    Raises:
        Failed: what landed is something else.
    """
    for contestant in contestants:
        contestant.carry(source)
        if not equal(source, contestant.landed(source)):
            raise Failed(f"{contestant.title}: what landed is not what was sent")
        contestant.clear()
    carried: dict[str, list[Carried]] = {contestant.title: [] for contestant in contestants}
    for _ in range(rounds):
        for contestant in contestants:
            carried[contestant.title].append(contestant.carry(source))
            contestant.clear()
    return carried


def equal(one: Path, other: Path) -> bool:
    """Whether two files or folders hold the same bytes under the same names."""
    if one.is_file():
        return other.is_file() and filecmp.cmp(one, other, shallow=False)
    names = sorted(each.relative_to(one) for each in one.rglob("*"))
    if names != sorted(each.relative_to(other) for each in other.rglob("*")):
        return False
    return all(equal(one / name, other / name) for name in names if (one / name).is_file())


def table(carried: dict[str, list[Carried]], total: int, against: str) -> None:
    """Print the medians, and the medians of the ratios to one of them, round by round."""
    print(
        f"{'':<22}{'seconds':>9}{'MB/s':>8}{'CPU s':>8}{'sender':>9}{'receiver':>9}"
        f"   against {against}: speed, CPU"
    )
    for title, each in carried.items():
        seconds = _median(each, lambda one: one.seconds)
        line = f"{title:<22}{seconds:9.3f}{total / seconds / 1e6:8.0f}"
        line += f"{_median(each, lambda one: one.cpu):8.2f}"
        line += _memory([one.sender for one in each]) + _memory([one.receiver for one in each])
        if against in carried:
            pairs = list(zip(each, carried[against], strict=True))
            speed = statistics.median(its.seconds / one.seconds for one, its in pairs)
            cpu = statistics.median(one.cpu / its.cpu for one, its in pairs)
            line += f"   {speed:.2f} x, {cpu:.2f}"
        print(line)


def _median(carried: Sequence[Carried], figure: Callable[[Carried], float]) -> float:
    return statistics.median(figure(one) for one in carried)


def _memory(peaks: Sequence[int | None]) -> str:
    """The most of all rounds, for what is promised of memory holds each time."""
    known = [peak for peak in peaks if peak is not None]
    return f"{max(known) / (1 << 20):5.0f} MiB" if known else f"{'-':>9}"
