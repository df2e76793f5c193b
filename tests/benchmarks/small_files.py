"""Ten thousand small files in one folder, beside `tar c | ssh tar x`: on tmpfs, and on a disk.

    python tests/benchmarks/small_files.py --count 10000 --size 100KiB --disk-folder /tmp

Each ends when all have landed; securelink has then also told the disk to keep them, tar has not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from contest import compete, ready, scratch, size, table
from contestants import Scp, Securelink, TarSsh
from files import make_file

IN_A_FOLDER = 100


def make_folder(folder: Path, count: int, length: int) -> None:
    """So many files, a hundred in each folder."""
    for number in range(count):
        within = folder / f"{number // IN_A_FOLDER:04}"
        if number % IN_A_FOLDER == 0:
            within.mkdir(parents=True)
        make_file(within / f"{number:06}.bin", length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--size", type=size, default=size("100KiB"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="on a tmpfs")
    parser.add_argument("--disk-folder", type=Path, default=Path("/tmp"), help="on a disk")
    parser.add_argument("--with-scp", action="store_true")
    wanted = parser.parse_args()
    kinds = [Securelink, TarSsh, *([Scp] if wanted.with_scp else [])]
    with scratch(wanted.folder) as memory, scratch(wanted.disk_folder) as disk:
        source = memory / "source"
        make_folder(source, wanted.count, wanted.size)
        for folder in (memory, disk):
            # The source stays where reading costs least: what is compared is the landing.
            print(f"to {folder.parent}:")
            with ready(kinds, folder) as contestants:
                carried = compete(contestants, source, wanted.rounds)
                table(carried, wanted.count * wanted.size, TarSsh.title)


if __name__ == "__main__":
    main()
