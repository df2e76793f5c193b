from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

import pytest
from store_child import child

from securelink.errors import StoreBusy, StoreError, StoreFull, StoreTooNew
from securelink.store import inbox, outbox, outbox_files, schema
from securelink.store.database import Database

if TYPE_CHECKING:
    from pathlib import Path

OLD = ("CREATE TABLE notes (body TEXT); CREATE TABLE marks (n INTEGER);",)
NEW = (*OLD, "ALTER TABLE notes ADD COLUMN colour TEXT;\nUPDATE notes SET colour = 'red';\n")

OLD_STORE = f"""
def old_store():
    database = Database.open(path, migrations={OLD!r})
    with database.transaction() as conn:
        conn.execute("INSERT INTO notes VALUES ('kept')")
    return database
"""


def make_old(path: Path) -> None:
    database = Database.open(path, migrations=OLD)
    with database.transaction() as conn:
        conn.execute("INSERT INTO notes VALUES ('kept')")
    database.close()


def backup_of(path: Path) -> Path:
    return path.with_name("securelink.db.v1.bak")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        file.name: (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.iterdir()
        # The index of a WAL: locks and counters, rebuilt whenever it is missing.
        if not file.name.endswith("-shm")
    }


def test_new_store_is_marked_as_ours(path: Path) -> None:
    database = Database.open(path)
    pragma = database.connection.execute
    assert pragma("PRAGMA user_version").fetchone() == (len(schema.MIGRATIONS),)
    assert pragma("PRAGMA application_id").fetchone() == (0x534C4E4B,)
    database.close()
    assert [file.name for file in path.parent.iterdir()] == ["securelink.db"]


def test_migration_keeps_content_and_a_copy(path: Path) -> None:
    make_old(path)
    database = Database.open(path, migrations=NEW)
    rows = database.connection.execute("SELECT body, colour FROM notes").fetchall()
    assert rows == [("kept", "red")]
    assert database.connection.execute("PRAGMA user_version").fetchone() == (2,)
    database.close()

    backup = backup_of(path)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert {file.name for file in path.parent.iterdir()} == {path.name, backup.name}
    copy = Database.open(backup, migrations=OLD)
    assert copy.connection.execute("SELECT * FROM notes").fetchall() == [("kept",)]
    copy.close()


def test_copy_holds_what_is_still_in_the_wal(path: Path) -> None:
    with child(path, OLD_STORE + "database = old_store(); say('written'); wait()") as other:
        other.expect("written")
        other.process.kill()
        other.process.wait()
    assert path.with_name(path.name + "-wal").stat().st_size > 0
    Database.open(path, migrations=NEW).close()
    copy = Database.open(backup_of(path), migrations=OLD)
    assert copy.connection.execute("SELECT * FROM notes").fetchall() == [("kept",)]
    copy.close()


def test_unfinished_copy_of_an_earlier_attempt_is_replaced(path: Path) -> None:
    make_old(path)
    backup_of(path).with_suffix(".bak.tmp").write_bytes(b"half a copy")
    backup_of(path).write_bytes(b"of an earlier attempt")
    Database.open(path, migrations=NEW).close()
    copy = Database.open(backup_of(path), migrations=OLD)
    assert copy.connection.execute("SELECT * FROM notes").fetchall() == [("kept",)]
    copy.close()


def test_failed_migration_leaves_the_old_store(path: Path) -> None:
    make_old(path)
    broken = (*OLD, "DROP TABLE notes; INSERT INTO nowhere VALUES (1);")
    with pytest.raises(StoreError, match="nowhere"):
        Database.open(path, migrations=broken)
    database = Database.open(path, migrations=OLD)
    assert database.connection.execute("SELECT * FROM notes").fetchall() == [("kept",)]
    database.close()


def test_failed_copy_leaves_the_old_store(path: Path) -> None:
    make_old(path)
    backup_of(path).mkdir()
    with pytest.raises(StoreError, match=r"securelink\.db can't be opened"):
        Database.open(path, migrations=NEW)
    database = Database.open(path, migrations=OLD)
    assert database.connection.execute("SELECT * FROM notes").fetchall() == [("kept",)]
    database.close()


def test_killed_in_the_middle_of_a_migration(path: Path) -> None:
    make_old(path)
    code = f"""
real = schema._statements

def halting(script):
    for statement in real(script):
        yield statement
        say("middle")
        wait()

schema._statements = halting
Database.open(path, migrations={NEW!r})
"""
    with child(path, code) as other:
        other.expect("middle")
        other.process.kill()
        other.process.wait()
    assert backup_of(path).exists()
    database = Database.open(path, migrations=OLD)
    assert database.connection.execute("SELECT * FROM notes").fetchall() == [("kept",)]
    database.close()
    database = Database.open(path, migrations=NEW)
    assert database.connection.execute("SELECT * FROM notes").fetchall() == [("kept", "red")]
    database.close()


@pytest.mark.parametrize("existing", [True, False])
def test_many_processes_open_at_once(path: Path, existing: bool) -> None:
    if existing:
        make_old(path)
    migrations = (OLD[0], NEW[1] + "INSERT INTO marks VALUES (1);")
    code = f"""
say("ready")
wait()
database = Database.open(path, migrations={migrations!r})
with database.transaction() as conn:
    conn.execute("INSERT INTO notes VALUES ('mine', 'blue')")
database.close()
"""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(child(path, code)) for _ in range(6)]
        for other in children:
            other.expect("ready")
        for other in children:
            other.go_on()
        for other in children:
            other.end()
    database = Database.open(path, migrations=migrations)
    rows = database.connection.execute("SELECT count(*) FROM notes WHERE body = 'mine'")
    assert rows.fetchone() == (6,)
    assert database.connection.execute("SELECT * FROM marks").fetchall() == [(1,)]
    database.close()
    assert backup_of(path).exists() is existing


def test_up_to_date_store_opens_while_another_process_writes(path: Path) -> None:
    Database.open(path).close()
    writer = Database.open(path)
    with writer.transaction():
        Database.open(path, busy_timeout=0).close()
    writer.close()


def test_migration_that_cannot_get_the_lock(path: Path) -> None:
    make_old(path)
    writer = Database.open(path, migrations=OLD)
    with writer.transaction(), pytest.raises(StoreBusy):
        Database.open(path, busy_timeout=0, migrations=NEW)
    writer.close()
    assert not backup_of(path).exists()


def test_newer_store_is_refused_untouched(path: Path) -> None:
    Database.open(path, migrations=NEW).close()
    before = contents(path.parent)
    with pytest.raises(StoreTooNew, match="newer version"):
        Database.open(path, migrations=OLD)
    assert contents(path.parent) == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_newer_store_whose_version_is_only_in_the_wal(path: Path) -> None:
    make_old(path)
    code = f"Database.open(path, migrations={NEW!r}); say('migrated'); wait()"
    with child(path, code) as other:
        other.expect("migrated")
        other.process.kill()
        other.process.wait()
    before = contents(path.parent)
    assert path.name + "-wal" in before
    with pytest.raises(StoreTooNew):
        Database.open(path, migrations=OLD)
    assert contents(path.parent) == before


def test_store_that_turns_newer_after_the_first_look(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Database.open(path, migrations=NEW).close()
    monkeypatch.setattr(schema, "check_before_opening", lambda *_args: None)
    with pytest.raises(StoreTooNew):
        Database.open(path, migrations=OLD)


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE theirs (x)",
        "PRAGMA user_version = 3",
        "PRAGMA application_id = 7",
        "PRAGMA application_id = 7; PRAGMA user_version = 1; CREATE TABLE theirs (x)",
    ],
)
def test_other_programs_database_is_refused_untouched(path: Path, script: str) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database"):
        Database.open(path)
    assert path.read_bytes() == before


def test_copy_on_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_old(path)

    def fail(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(schema, "_back_up", fail)
    with pytest.raises(StoreFull):
        Database.open(path, migrations=NEW)
    Database.open(path, migrations=OLD).close()


def test_statements_may_hold_semicolons(path: Path) -> None:
    script = """
CREATE TABLE notes (body TEXT); CREATE TABLE marks (n INTEGER);
-- a comment; with a semicolon
CREATE TRIGGER mark AFTER INSERT ON notes BEGIN
    INSERT INTO marks VALUES (1);
    INSERT INTO marks VALUES (2);
END;
"""
    database = Database.open(path, migrations=(script,))
    with database.transaction() as conn:
        conn.execute("INSERT INTO notes VALUES ('a;b')")
        assert conn.execute("SELECT n FROM marks").fetchall() == [(1,), (2,)]
    database.close()


def test_a_store_from_before_there_were_files(path: Path) -> None:
    database = Database.open(path, migrations=schema.MIGRATIONS[:2])
    with database.transaction() as conn:
        conn.execute(
            "INSERT INTO inbox VALUES (7, zeroblob(16), zeroblob(32), 'bob', 1, 2, 1, 'hi')"
        )
        conn.executemany(
            "INSERT INTO outbox VALUES (?, zeroblob(32), ?, x'00', 1, ?, ?, 0, ?, NULL, ?, ?, 't')",
            [
                (3, b"1" * 16, "waiting", None, None, None, None),
                (4, b"2" * 16, "handed", "dead", None, 5, None),
                (5, b"3" * 16, "waiting", "dead", 9, None, None),
                (9, b"4" * 16, "delivered", None, None, 5, 6),
            ],
        )
    database.close()

    database = Database.open(path)
    conn = database.connection
    (message,) = inbox.after(conn, 0)
    assert (message.seq, message.text, message.kind, message.file) == (7, "hi", "text", None)
    peer = bytes(32)
    assert [row.seq for row in outbox.queued(conn, peer)] == [3]
    assert outbox.owners(conn) == ["dead"]
    assert outbox.bury_owner(conn, "dead", 10) == (1, 1)
    assert [row.seq for row in outbox.queued(conn, peer)] == [3, 4]
    assert outbox_files.queued(conn, peer, 0, 9) == []
    outbox.prune(conn, 7 + outbox.ENDED_KEPT)
    rows = [row for (row,) in conn.execute("SELECT seq FROM outbox ORDER BY seq")]
    assert rows == [3, 4, 5]
    assert outbox.put(conn, message_id=b"5" * 16, peer=peer, text="new", sent_at=1) == 10
    assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert conn.execute("PRAGMA foreign_key_check").fetchall() == []
    database.close()
    assert path.with_name("securelink.db.v2.bak").exists()


def test_the_inbox_high_water_mark_survives_reopening(path: Path) -> None:
    database = Database.open(path)
    with database.transaction() as conn:
        inbox.receive(
            conn,
            peer=b"p" * 32,
            peer_name="bob",
            message_id=b"i" * 16,
            sent_at=1,
            text="hi",
            received_at=2,
        )
        inbox.delete_before(conn, 3)
    database.close()
    database = Database.open(path)
    assert inbox.newest_seq(database.connection) == 1
    database.close()
