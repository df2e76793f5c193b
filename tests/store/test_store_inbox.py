from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Literal

import pytest

from securelink.store import inbox
from securelink.store.inbox import InboxFile, InboxMessage

if TYPE_CHECKING:
    from collections.abc import Iterator

BOB = b"b" * 32
EVE = b"e" * 32


def number(value: int) -> bytes:
    return value.to_bytes(16, "big")


def receive(
    conn: sqlite3.Connection,
    value: int,
    *,
    peer: bytes = BOB,
    peer_name: str = "bob",
    text: str = "hello",
    sent_at: int = 5,
    received_at: int = 1000,
) -> int | None:
    return inbox.receive(
        conn,
        peer=peer,
        peer_name=peer_name,
        message_id=number(value),
        sent_at=sent_at,
        text=text,
        received_at=received_at,
    )


def receive_file(
    conn: sqlite3.Connection,
    value: int,
    *,
    name: str = "photos/a.jpg",
    path: str = "/files/bob/photos/a.jpg",
    size: int = 5,
    sha256: bytes | None = None,
    received_at: int = 1000,
    kind: Literal["file", "folder"] = "file",
) -> int | None:
    return inbox.receive_file(
        conn,
        peer=BOB,
        peer_name="bob",
        message_id=number(value),
        name=name,
        path=path,
        size=size,
        sha256=sha256,
        received_at=received_at,
        kind=kind,
    )


def ids(messages: list[InboxMessage]) -> list[int]:
    return [int.from_bytes(message.id, "big") for message in messages]


@pytest.fixture
def five(conn: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    for value in range(1, 6):
        receive(conn, value, peer=EVE if value == 3 else BOB, received_at=1000 * value)
    return conn


def test_message_comes_back_as_it_came(conn: sqlite3.Connection) -> None:
    text = "tab\t nul\0 newline\r\n \u202e 🎈 e\u0301"
    seq = receive(conn, 1, text=text, sent_at=5, received_at=7)
    assert inbox.get(conn, BOB, number(1)) == InboxMessage(
        seq=1,
        id=number(1),
        peer=BOB,
        peer_name="bob",
        sent_at=5,
        received_at=7,
        text=text,
        read=False,
    )
    assert seq == 1


def test_taken_in_once(conn: sqlite3.Connection) -> None:
    assert receive(conn, 1) == 1
    assert receive(conn, 1, text="another") is None
    assert receive(conn, 2) == 2
    assert [message.text for message in inbox.after(conn, 0)] == ["hello", "hello"]


def test_ids_of_different_peers_do_not_meet(conn: sqlite3.Connection) -> None:
    receive(conn, 1, text="bob's")
    assert receive(conn, 1, peer=EVE, text="eve's") == 2
    first = inbox.get(conn, BOB, number(1))
    assert first is not None
    assert first.text == "bob's"
    assert inbox.delete(conn, [(EVE, number(1))]) == 1
    assert inbox.get(conn, EVE, number(1)) is None
    assert inbox.get(conn, BOB, number(1)) == first


def test_time_that_only_an_unsigned_integer_holds(conn: sqlite3.Connection) -> None:
    receive(conn, 1, sent_at=(1 << 64) - 1)
    (message,) = inbox.after(conn, 0)
    assert message.sent_at == (1 << 63) - 1


def test_after(five: sqlite3.Connection) -> None:
    assert ids(inbox.after(five, 0)) == [1, 2, 3, 4, 5]
    assert ids(inbox.after(five, 3)) == [4, 5]
    assert ids(inbox.after(five, 1, limit=2)) == [2, 3]
    assert inbox.after(five, 5) == []


def test_what_fits(five: sqlite3.Connection) -> None:
    assert ids(inbox.after(five, 0, peer=EVE)) == [3]
    assert ids(inbox.after(five, 0, since=4000)) == [4, 5]
    assert ids(inbox.after(five, 4, since=4000)) == [5]
    assert ids(inbox.after(five, 0, peer=BOB, since=2000, limit=2)) == [2, 4]


def test_before_the_newest(five: sqlite3.Connection) -> None:
    assert inbox.before_newest(five, 2) == 3
    assert inbox.before_newest(five, 4) == 1
    assert inbox.before_newest(five, 5) is None
    assert inbox.before_newest(five, 6) is None
    assert inbox.before_newest(five, 1, peer=BOB, since=2000) == 4
    assert inbox.before_newest(five, 1, peer=EVE) is None
    assert inbox.before_newest(five, 3, peer=BOB) == 1
    inbox.mark_read(five, [2, 4])
    assert inbox.before_newest(five, 1, peer=BOB, unread=True) == 1


def test_a_batch_is_bounded_by_its_size(
    conn: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "BATCH_SIZE", 10)
    for value, length in enumerate([4, 5, 1, 1, 99, 0], start=1):
        receive(conn, value, text="🎈" * length)
    assert ids(inbox.after(conn, 0)) == [1, 2, 3]
    assert ids(inbox.after(conn, 3)) == [4, 5]
    assert ids(inbox.after(conn, 4)) == [5]
    assert ids(inbox.after(conn, 5)) == [6]
    assert ids(inbox.after(conn, 0, limit=2)) == [1, 2]


def test_a_thousand_messages_at_once(conn: sqlite3.Connection) -> None:
    for value in range(1001):
        receive(conn, value)
    assert len(inbox.after(conn, 0)) == 1000


def test_unread(five: sqlite3.Connection) -> None:
    inbox.mark_read(five, [1, 2, 5, 99])
    assert ids(inbox.after(five, 0, unread=True)) == [3, 4]
    assert [message.read for message in inbox.after(five, 0)] == [True, True, False, False, True]
    assert ids(inbox.after(five, 0, unread=True, peer=BOB)) == [4]


def test_get_of_nothing(conn: sqlite3.Connection) -> None:
    assert inbox.get(conn, BOB, number(1)) is None


def test_deleting_never_reopens_an_id(five: sqlite3.Connection) -> None:
    assert inbox.delete(five, [(BOB, number(1)), (BOB, number(2)), (EVE, number(4))]) == 2
    assert inbox.delete_before(five, 4000) == 1
    assert ids(inbox.after(five, 0)) == [4, 5]
    assert receive(five, 1) is None
    assert receive(five, 3, peer=EVE) is None
    assert receive(five, 6) == 6


def test_seq_is_never_used_again(five: sqlite3.Connection) -> None:
    assert inbox.newest_seq(five) == 5
    inbox.delete_before(five, 10_000)
    assert inbox.newest_seq(five) == 5
    assert receive(five, 6) == 6


def test_newest_seq_of_an_empty_inbox(conn: sqlite3.Connection) -> None:
    assert inbox.newest_seq(conn) == 0


def test_prune_seen(five: sqlite3.Connection) -> None:
    assert inbox.prune_seen(five, 3000) == 2
    assert receive(five, 3, peer=EVE) is None
    assert receive(five, 2) == 6


def test_ids_are_kept_longer_than_any_outbox_tries() -> None:
    assert inbox.SEEN_KEPT == 90 * 24 * 3600 * 1000


def test_cursor_is_only_raised(conn: sqlite3.Connection) -> None:
    assert inbox.cursor(conn, "serve") is None
    inbox.raise_cursor(conn, "serve", 0)
    assert inbox.cursor(conn, "serve") == 0
    inbox.raise_cursor(conn, "serve", 5)
    inbox.raise_cursor(conn, "serve", 3)
    assert inbox.cursor(conn, "serve") == 5
    assert inbox.cursor(conn, "receive") is None


# ---- files


def test_file_comes_back_as_it_came(conn: sqlite3.Connection) -> None:
    digest = bytes(range(32))
    assert receive_file(conn, 1, sha256=digest, size=(1 << 63) - 1, received_at=7) == 1
    assert receive_file(conn, 2, kind="folder", name="photos", size=0) == 2
    receive(conn, 3)
    file, folder, text = inbox.after(conn, 0)
    assert file == InboxMessage(
        seq=1,
        id=number(1),
        peer=BOB,
        peer_name="bob",
        sent_at=7,
        received_at=7,
        text="",
        read=False,
        kind="file",
        file=InboxFile("photos/a.jpg", "/files/bob/photos/a.jpg", (1 << 63) - 1, digest),
    )
    assert inbox.get(conn, BOB, number(1)) == file
    assert (folder.kind, folder.file) == (
        "folder",
        InboxFile("photos", "/files/bob/photos/a.jpg", 0, None),
    )
    assert (text.kind, text.file, text.text) == ("text", None, "hello")


def test_path_that_is_not_unicode(conn: sqlite3.Connection) -> None:
    path = os.fsdecode(b"/files/\xff\xfe/a")
    receive_file(conn, 1, path=path)
    (message,) = inbox.after(conn, 0)
    assert message.file is not None
    assert message.file.path == path


def test_file_is_taken_in_once(conn: sqlite3.Connection) -> None:
    assert receive_file(conn, 1) == 1
    assert receive_file(conn, 1, path="/elsewhere") is None
    assert receive(conn, 1) is None
    assert receive(conn, 2) == 2
    assert receive_file(conn, 2) is None
    assert [message.kind for message in inbox.after(conn, 0)] == ["file", "text"]


def test_what_is_in_no_inbox_is_remembered_too(conn: sqlite3.Connection) -> None:
    assert not inbox.was_seen(conn, BOB, number(1))
    assert inbox.mark_seen(conn, BOB, number(1), 1000) is True
    assert inbox.mark_seen(conn, BOB, number(1), 2000) is False
    assert inbox.was_seen(conn, BOB, number(1))
    assert not inbox.was_seen(conn, EVE, number(1))
    assert receive_file(conn, 1) is None
    assert inbox.after(conn, 0) == []
    receive_file(conn, 2, received_at=2000)
    assert inbox.was_seen(conn, BOB, number(2))
    assert inbox.prune_seen(conn, 1001) == 1
    assert not inbox.was_seen(conn, BOB, number(1))


def test_files_stand_among_texts(conn: sqlite3.Connection) -> None:
    for value in range(1, 6):
        (receive_file if value % 2 else receive)(conn, value, received_at=1000 * value)
    assert ids(inbox.after(conn, 0, since=2000, peer=BOB, limit=3)) == [2, 3, 4]
    inbox.mark_read(conn, [1, 2])
    assert ids(inbox.after(conn, 0, unread=True)) == [3, 4, 5]
    assert inbox.before_newest(conn, 2, unread=True) == 3
    assert inbox.newest_seq(conn) == 5


def test_a_files_row_goes_with_its_message(conn: sqlite3.Connection) -> None:
    for value in range(1, 6):
        receive_file(conn, value, received_at=1000 * value)
    assert inbox.delete(conn, [(BOB, number(4)), (BOB, number(9))]) == 1
    assert inbox.delete_before(conn, 3000) == 2
    left = [seq for (seq,) in conn.execute("SELECT seq FROM inbox_files ORDER BY seq")]
    assert left == [3, 5] == ids(inbox.after(conn, 0))
    assert receive_file(conn, 4) is None
    assert receive_file(conn, 6) == 6
