from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import Machines
from proxy import Proxy

ROUNDS = int(os.environ.get("TEST_ROUNDS", "8"))
"""How often the tests that kill processes do so; thorough is: TEST_ROUNDS=50 pytest tests/system"""


@pytest.fixture
def rounds() -> int:
    """How often to kill something."""
    return ROUNDS


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Makes nodes, whose processes end with the test."""
    machines = Machines(tmp_path)
    yield machines
    for process in machines.processes:
        process.clean_up()


@pytest.fixture
def proxy() -> Iterator[Callable[..., Proxy]]:
    """Makes proxies, which end with the test."""
    made: list[Proxy] = []

    def make(port: int = 0) -> Proxy:
        made.append(Proxy(port))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    machines = getattr(item, "funcargs", {}).get("machines")
    if machines is not None and call.when == "call" and report.failed:
        for process in machines.processes:
            report.sections.append((f"{process.title} (pid {process.pid})", process.told()))
    return report
