"""A disk that fills up while files come: they are refused in time, and go on once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import Machines, until
from proxy import CuttingProxy
from trees import MIB, digest_tree, make_file, make_tree, names, same


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def settings(disk: Path) -> dict[str, str]:
    """Files go to that disk, and may fill it."""
    return {"SECURELINK_FILES_FOLDER": str(disk / "in"), "SECURELINK_FILES_KEEP_FREE": "0"}


def parts(disk: Path) -> list[Path]:
    return sorted((disk / "in" / ".partial").glob("*.part"))


def fill(disk: Path) -> None:
    """Leave nothing free."""
    with (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(bytes(4096))
            except OSError:
                return


def test_a_file_that_fills_the_disk_goes_on_once_there_is_room(
    machines: Machines, disk: Path, tmp_path: Path
) -> None:
    _, serving, bob = machines.pair(**settings(disk))
    file = make_file(tmp_path / "a.bin", 12 * MIB)
    proxy = CuttingProxy(serving.port, [6 * MIB], lambda: fill(disk))
    try:
        words = ("--endpoint", f"127.0.0.1:{proxy.port}", "--file", str(file))
        done = bob.send(*words)
    finally:
        proxy.close()
    assert done.code == 5, done
    assert done.result["status"] == "failed"
    assert "disk" in done.result["error"]
    (part,) = parts(disk)
    size = part.stat().st_size
    assert 0 < size < 8 * MIB
    assert bob.send("texts go on").code == 0
    assert names(disk / "in" / "bob") == []

    (disk / "filler").unlink()
    done = bob.send("--file", str(file))
    assert done.code == 0, done
    assert done.result["resumed"] == size
    assert same(file, disk / "in" / "bob" / "a.bin")
    assert parts(disk) == []


def test_a_file_for_which_there_is_no_room_is_not_begun(
    machines: Machines, disk: Path, tmp_path: Path
) -> None:
    _, _, bob = machines.pair(**settings(disk))
    file = make_file(tmp_path / "a.bin", 20 * MIB)
    done = bob.send("--file", str(file))
    assert done.code == 5, done
    assert "disk" in done.result["error"]
    assert names(disk / "in") == []


def test_a_stream_that_fills_the_disk_leaves_nothing(machines: Machines, disk: Path) -> None:
    _, _, bob = machines.pair(**settings(disk))
    with Path("/dev/zero").open("rb") as endless:
        words = ("send", "--json", "--file", "-", "--name", "a.bin")
        done = bob.start(*words, stdin=endless.fileno()).finish()
    assert done.code == 5, done
    assert "disk" in done.result["error"]
    until(lambda: parts(disk) == [], "the part of a stream is dropped")
    assert names(disk / "in") == []
    assert bob.send("texts go on").code == 0


def test_a_folder_that_fills_the_disk_goes_on_once_there_is_room(
    machines: Machines, disk: Path, tmp_path: Path
) -> None:
    _, _, bob = machines.pair(**settings(disk))
    folder = make_tree(tmp_path / "photos", 30)
    for number in range(10):
        make_file(folder / f"large {number}.bin", MIB, 100 + number)
    (disk / "filler").write_bytes(bytes(8 * MIB))
    done = bob.send("--file", str(folder))
    assert done.code == 5, done
    assert "disk" in done.result["error"]
    (disk / "filler").unlink()
    done = bob.send("--file", str(folder))
    assert done.code == 0, done
    assert digest_tree(disk / "in" / "bob" / "photos") == digest_tree(folder)
    assert [each.name for each in (disk / "in" / "bob").iterdir()] == ["photos"]
