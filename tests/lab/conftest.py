from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hosts import lacking
from lab import Labs


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Labs]:
    """Makes routers with networks around them, which end with the test."""
    if reason := lacking():
        if os.environ.get("SECURELINK_LAB") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    labs = Labs(tmp_path)
    yield labs
    for each in labs.made:
        each.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    labs = getattr(item, "funcargs", {}).get("lab")
    if labs is not None and call.when == "call" and report.failed:
        for each in labs.made:
            report.sections += each.told().items()
            for host in each.hosts.values():
                for machine in host.machines:
                    for process in machine.processes:
                        title = f"{host.name}, {process.title} (pid {process.pid})"
                        report.sections.append((title, process.told()))
    return report
