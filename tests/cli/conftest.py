from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from node_files import NodeFiles

from securelink.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class Called:
    """How a command ended and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def results(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> Any:
        (one,) = self.results
        return one


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NodeFiles:
    """The home of the node whose commands this process calls."""
    for variable in [name for name in os.environ if name.startswith("SECURELINK_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("SECURELINK_HOME", str(tmp_path / "node"))
    monkeypatch.setenv("NO_COLOR", "1")
    return NodeFiles(tmp_path / "node")


@pytest.fixture
def call(node: NodeFiles, capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """Call the command line in a pipe."""

    def call(*words: str) -> Called:
        capsys.readouterr()
        status = main(words)
        return Called(status, *capsys.readouterr())

    return call


@pytest.fixture
def call_on_terminal(node: NodeFiles, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Called]:
    """Call the command line with a terminal, 80 columns wide, as both outputs."""

    def call(*words: str, columns: int = 80) -> Called:
        out, err = _Terminal(), _Terminal()
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            status = main(words)
        return Called(status, out.getvalue(), err.getvalue())

    return call
