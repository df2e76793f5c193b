"""One large file, from the start of the sending process until it has landed, beside other programs.

    python tests/benchmarks/files.py --size 1GiB --rounds 5 --folder /dev/shm --disk-folder /tmp

Programs that are not installed are left out. Source and destination are in `--folder`, which ought
to be a tmpfs, with room for three times the size. Absolute figures say little: look at the ratios.
CPU time and peak memory are those of both sides (sshd's children are not watched for memory).
The last table is the transfer alone, over a link that is ready, to a destination that costs
nothing, beside bare TCP that reads no file at all. The file is once on a disk, and so in the
kernel's cache, and once on the tmpfs, whose small pages cost twice as much to read.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path

import null_destination
from contest import compete, ready, scratch, size, table
from contestants import CurlNginx, Scp, ScpAes, Securelink, Wormhole

CONTESTANTS = (Securelink, Scp, ScpAes, CurlNginx, Wormhole)


def make_file(path: Path, length: int) -> None:
    """A file of random bytes, so that nobody gains by packing it."""
    with path.open("wb") as file:
        while left := length - file.tell():
            file.write(os.urandom(min(left, 1 << 20)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=size, default=size("1GiB"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="on a tmpfs")
    parser.add_argument("--disk-folder", type=Path, default=Path("/tmp"), help="on a disk")
    parser.add_argument("--only", nargs="*", help="titles of the programs, securelink and scp ...")
    wanted = parser.parse_args()
    kinds = [each for each in CONTESTANTS if not wanted.only or each.title in wanted.only]
    with scratch(wanted.folder) as memory, scratch(wanted.disk_folder) as disk:
        sources = {where: where / "source.bin" for where in (disk, memory)}
        for source in sources.values():
            make_file(source, wanted.size)
        with ready(kinds, memory) as contestants:
            table(compete(contestants, sources[memory], wanted.rounds), wanted.size, "scp")
        print()
        named = {f"from {where.parent}": source for where, source in sources.items()}
        figures = null_destination.compete(named, wanted.rounds)
    print(f"{'to nowhere, alone':<22}{'MB/s':>9}{'CPU s':>8}   against TCP: speed")
    for title, each in figures.items():
        seconds = statistics.median(one.seconds for one in each)
        cpu = statistics.median(one.cpu for one in each)
        pairs = zip(each, figures["TCP"], strict=True)
        ratio = statistics.median(bare.seconds / one.seconds for one, bare in pairs)
        print(f"{title:<22}{wanted.size / seconds / 1e6:9.0f}{cpu:8.2f}   {ratio:.2f} x")


if __name__ == "__main__":
    main()
