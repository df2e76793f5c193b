"""Which run of the machine this is."""

from __future__ import annotations

import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from securelink import boot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    boot.boot_id.cache_clear()
    yield
    boot.boot_id.cache_clear()


@pytest.mark.skipif(sys.platform not in {"linux", "darwin"}, reason="elsewhere nobody knows")
def test_two_processes_agree() -> None:
    other = subprocess.run(
        [sys.executable, "-c", "from securelink import boot; print(boot.boot_id())"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert uuid.UUID(other.stdout.strip()) == uuid.UUID(boot.boot_id())


def test_it_is_asked_for_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "boot_id"
    file.write_text("one\n")
    monkeypatch.setattr(boot.sys, "platform", "linux")
    monkeypatch.setattr(boot, "_LINUX", file)
    assert boot.boot_id() == "one"
    file.write_text("two\n")
    assert boot.boot_id() == "one"


def test_macos_is_asked_by_its_own_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot.sys, "platform", "darwin")
    monkeypatch.setattr(boot, "_MACOS", ("/bin/sh", "-c", "echo this-run"))
    assert boot.boot_id() == "this-run"


@pytest.mark.parametrize(
    ("platform", "name", "value"),
    [
        ("linux", "_LINUX", None),
        ("darwin", "_MACOS", ("/bin/sh", "-c", "exit 1")),
        ("darwin", "_MACOS", ("/no/such/program",)),
    ],
)
def test_it_may_be_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, name: str, value: object
) -> None:
    monkeypatch.setattr(boot.sys, "platform", platform)
    monkeypatch.setattr(boot, name, value or tmp_path / "nothing")
    assert boot.boot_id() == boot.UNKNOWN
