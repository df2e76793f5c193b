"""Files that come over a link: whole, byte for byte, once, and receipted when they are safe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bringing import MIB, MTIME, content, receiver

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("size", [0, 1, 64_999, 65_001, 3 * MIB + 7, 9 * MIB])
async def test_a_file_comes_byte_for_byte(tmp_path: Path, size: int) -> None:
    async with receiver(tmp_path) as it:
        data = content(size)
        sender = it.link()
        offer = sender.bring("a.bin", data, mode=0o700)
        await sender.receipt(offer)
        path = it.path("a.bin")
        assert path.read_bytes() == data
        assert path.stat().st_mtime_ns == MTIME
        assert path.stat().st_mode & 0o777 == 0o700
        assert it.inbox() == [("a.bin", str(path), size, "file")]
        await sender.incoming.aclose()
        assert (it.parts(), it.rows()) == ([], [])
