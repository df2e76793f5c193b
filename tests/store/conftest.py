from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from securelink.store.database import Database

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "securelink.db"


@pytest.fixture
def conn(path: Path) -> Iterator[sqlite3.Connection]:
    database = Database.open(path)
    yield database.connection
    database.close()
