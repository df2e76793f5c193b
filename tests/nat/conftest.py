from __future__ import annotations

from pathlib import Path

import pytest
from held import HeldClock
from nat_home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def held() -> HeldClock:
    return HeldClock()
