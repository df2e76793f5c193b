from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from receiving_disk import KEY, Parts, descriptors

from securelink.landing import Landing

NOBODY = 65534


@pytest.fixture(autouse=True)
def _no_descriptor_is_lost() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The receiving folder, not made yet."""
    return tmp_path / "received"


@pytest.fixture
def parts_in() -> Iterator[Callable[..., Parts]]:
    """Makes what makes parts, of a peer, in a folder."""
    made: list[Parts] = []

    def make(root: Path, name: str = "bob", key: bytes = KEY) -> Parts:
        made.append(Parts(Landing(root, name, key)))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def parts(root: Path, parts_in: Callable[..., Parts]) -> Parts:
    """Makes parts of bob."""
    return parts_in(root)


@pytest.fixture
def landing(parts: Parts) -> Landing:
    """The folder of bob."""
    return parts.landing


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of somebody whom modes keep out, who this process is for the time being."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    if user == 0:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield folder
    os.seteuid(user)
    shutil.rmtree(folder, ignore_errors=True)
