from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.store import notices, outbox, outbox_files
from securelink.store.file_terms import Kind, NewFile

if TYPE_CHECKING:
    import sqlite3

BOB = b"b" * 32


def put(conn: sqlite3.Connection, value: int, owner: str | None = None) -> int:
    return outbox.put(
        conn, message_id=bytes([value]) * 16, peer=BOB, text="x", sent_at=1, owner=owner
    )


def test_only_what_is_queued_gets_one(conn: sqlite3.Connection) -> None:
    queued, owned = put(conn, 1), put(conn, 2, "a process")
    notices.add(conn, [queued, owned, 99], 7)
    (notice,) = notices.after(conn, 0)
    assert (notice.seq, notice.at, notice.id, notice.state) == (1, 7, b"\1" * 16, "waiting")


def test_a_file_is_told_by_its_name(conn: sqlite3.Connection) -> None:
    file = NewFile("photos/a.jpg", b"/photos/a.jpg", Kind.FILE, 3, 1, 1, 0o600)
    (made,) = outbox_files.put(
        conn,
        peer=BOB,
        files=[file],
        group=b"g" * 16,
        new_id=lambda: b"i" * 16,
        sent_at=1,
        owner=None,
    )
    notices.add(conn, [made.seq], 7)
    (notice,) = notices.after(conn, 0)
    assert (notice.kind, notice.name) == ("file", "photos/a.jpg")


def test_following_and_forgetting(conn: sqlite3.Connection) -> None:
    assert notices.newest_seq(conn) == 0
    for value in range(1, 6):
        notices.add(conn, [put(conn, value)], value)
    assert [each.seq for each in notices.after(conn, 2, limit=2)] == [3, 4]
    notices.prune(conn, notices.KEPT + 6)
    assert notices.after(conn, 0) == []
    assert notices.newest_seq(conn) == 5
    notices.add(conn, [put(conn, 6)], 6)
    assert [each.seq for each in notices.after(conn, 0)] == [6]
