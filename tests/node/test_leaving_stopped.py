"""A file on its way out whose receiver stops it, to compare what it has."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from securelink.file_messages import Accept, Begin, Prefix
from securelink.leaving import Leaving
from securelink.session import Data
from securelink.store.file_terms import Kind
from securelink.store.outbox import State
from securelink.store.outbox_files import FileRow
from securelink.transfer.sending import State as Stage

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"0123456789"


def leaving(path: Path) -> Leaving:
    path.write_bytes(CONTENT)
    found = path.stat()
    row = FileRow(
        seq=1,
        id=bytes(16),
        group=bytes(16),
        peer=bytes(32),
        name=path.name,
        path=os.fsencode(path),
        kind=Kind.FILE,
        size=len(CONTENT),
        mtime=found.st_mtime_ns,
        inode=found.st_ino,
        mode=0o600,
        state=State.WAITING,
        owner=None,
        began=False,
        reason=None,
        lasting=False,
    )
    return Leaving(
        row,
        1,
        os.open(path, os.O_RDONLY),
        lambda: None,
        lambda *_: None,
        checksum=False,
        handed=True,
    )


async def test_bytes_that_the_session_was_told_of_do_not_go_any_more(tmp_path: Path) -> None:
    it = leaving(tmp_path / "a")
    told = it.data()
    assert isinstance(told, Data)
    it.transfer.accept(Accept(1, len(CONTENT)))
    room = memoryview(bytearray(100))
    assert told.read(room) == 0
    it.transfer.prefix(Prefix(1, hashlib.sha256(b"another").digest()))
    it.compared(*it.compare())
    assert told.read(room) == 0
    assert it.transfer.begin() == Begin(1, 0)
    it.began()
    # What was told before comes before the BEGIN, and must not hold bytes of what follows it.
    assert told.read(room) == 0
    again = it.data()
    assert isinstance(again, Data)
    assert again.read(room) == len(CONTENT)
    assert room[: len(CONTENT)] == CONTENT
    assert it.transfer.state is Stage.WHOLE
    it.close()
