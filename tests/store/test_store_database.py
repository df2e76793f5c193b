from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from store_child import HOLD_WRITE_LOCK, child

from securelink.errors import ExitCode, StoreBusy, StoreError, StoreFull, UsageError
from securelink.store import inbox
from securelink.store.database import BUSY_TIMEOUT, ONE_WAIT, Database, explain

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


def fill(conn: sqlite3.Connection, number: int, size: int) -> None:
    inbox.receive(
        conn,
        peer=b"p" * 32,
        peer_name="bob",
        message_id=number.to_bytes(16, "big"),
        sent_at=1,
        text="x" * size,
        received_at=1,
    )


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = Database.open(path)
    yield database
    database.close()


@pytest.fixture
def as_nobody() -> Iterator[Path]:
    """A folder of its own, used without root's power to write anywhere."""
    folder = Path(tempfile.mkdtemp())
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)
    yield folder
    if os.getuid() == 0:
        os.seteuid(0)
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_private_to_its_owner(path: Path) -> None:
    database = Database.open(path)
    with database.transaction() as conn:
        inbox.raise_cursor(conn, "serve", 1)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == [path.name + end for end in ("", "-shm", "-wal")]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    database.close()


def test_made_private_again(path: Path) -> None:
    Database.open(path).close()
    path.chmod(0o644)
    Database.open(path).close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_commit_reaches_the_disk(database: Database) -> None:
    def pragma(name: str) -> object:
        return database.connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2
    assert pragma("fullfsync") == 1
    assert pragma("foreign_keys") == 1


def test_transaction_commits(database: Database, path: Path) -> None:
    with database.transaction() as conn:
        assert conn is database.connection
        inbox.raise_cursor(conn, "serve", 5)
    other = Database.open(path)
    assert inbox.cursor(other.connection, "serve") == 5
    other.close()


def test_transaction_rolls_back(database: Database) -> None:
    def change_and_fail(conn: sqlite3.Connection) -> None:
        inbox.raise_cursor(conn, "serve", 5)
        raise UsageError("no")

    with pytest.raises(UsageError), database.transaction() as conn:
        change_and_fail(conn)
    assert inbox.cursor(database.connection, "serve") is None
    with database.transaction() as conn:
        inbox.raise_cursor(conn, "serve", 6)
    assert inbox.cursor(database.connection, "serve") == 6


def test_transaction_takes_the_write_lock_at_once(path: Path, database: Database) -> None:
    # Deferred, the first write after a read would fail if somebody wrote in between.
    other = Database.open(path, busy_timeout=0)
    with database.transaction(), pytest.raises(StoreBusy), other.transaction():
        pass
    other.close()


def test_who_waits_for_the_write_lock_can_be_hurried(path: Path, database: Database) -> None:
    other = Database.open(path)
    waited = time.monotonic()
    with database.transaction():
        threading.Timer(0.3, other.hurry, (0.2,)).start()
        with pytest.raises(StoreBusy), other.transaction():
            pass
        assert 0.5 <= time.monotonic() - waited < BUSY_TIMEOUT / 2
        # From then on nobody waits at all.
        with pytest.raises(StoreBusy), other.transaction():
            pass
    with other.transaction():
        pass
    other.close()


def test_the_write_lock_is_waited_for_longer_than_sqlite_waits_at_a_time(path: Path) -> None:
    holder = Database.open(path)
    taken = threading.Event()

    def hold() -> None:
        conn = sqlite3.connect(path, isolation_level=None)
        conn.execute("BEGIN IMMEDIATE")
        taken.set()
        time.sleep(5 * ONE_WAIT)
        conn.execute("ROLLBACK")
        conn.close()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    with holder.transaction():
        pass
    thread.join()
    holder.close()


def test_errors_of_sqlite_become_ours(database: Database) -> None:
    message = "no such table: nowhere"
    with pytest.raises(StoreError, match=message) as caught, database.transaction() as conn:
        conn.execute("SELECT * FROM nowhere")
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert not database.connection.in_transaction


def test_snapshot_does_not_move(path: Path, database: Database) -> None:
    reader = Database.open_reader(path)
    with reader.snapshot() as conn:
        assert inbox.cursor(conn, "serve") is None
        with database.transaction() as writing:
            inbox.raise_cursor(writing, "serve", 5)
        assert inbox.cursor(conn, "serve") is None
    with reader.snapshot() as conn:
        assert inbox.cursor(conn, "serve") == 5
    with pytest.raises(StoreError, match="can't be written"), reader.snapshot() as conn:
        inbox.raise_cursor(conn, "serve", 6)
    reader.close()


def test_data_version_tells_of_others_only(path: Path, database: Database) -> None:
    before = database.data_version()
    with database.transaction() as conn:
        inbox.raise_cursor(conn, "serve", 1)
    assert database.data_version() == before
    other = Database.open(path)
    with other.transaction() as conn:
        inbox.raise_cursor(conn, "serve", 2)
    assert database.data_version() != before
    other.close()


def test_another_process_holds_the_lock(path: Path) -> None:
    with child(path, HOLD_WRITE_LOCK) as other:
        other.expect("held")
        database = Database.open(path, busy_timeout=0.05)
        with pytest.raises(StoreBusy, match="another process") as caught, database.transaction():
            pytest.fail("two writers")
        assert caught.value.exit_code is ExitCode.ERROR
        assert inbox.cursor(database.connection, "serve") is None
        other.go_on()
        other.expect("free")
        with database.transaction() as conn:
            assert inbox.cursor(conn, "serve") == 7
        database.close()


def test_switch_to_wal_waits_for_other_users(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreBusy):
            Database.open(path, busy_timeout=0)
    Database.open(path, busy_timeout=0).close()


def test_full_disk_and_room_again(database: Database) -> None:
    (pages,) = database.connection.execute("PRAGMA page_count").fetchone()
    database.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StoreFull, match="disk is full") as caught, database.transaction() as conn:
        fill(conn, 1, 100_000)
    assert caught.value.hint is not None
    assert inbox.newest_seq(database.connection) == 0
    database.connection.execute("PRAGMA max_page_count = 100000")
    with database.transaction() as conn:
        fill(conn, 1, 100_000)
    assert inbox.newest_seq(database.connection) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_really_full_disk(small_disk: Path) -> None:
    database = Database.open(small_disk / "securelink.db")
    stored = 0

    def store_one() -> None:
        with database.transaction() as conn:
            fill(conn, stored, 20_000)

    with contextlib.suppress(StoreFull):
        while stored < 100:
            store_one()
            stored += 1
    assert 0 < stored < 100
    assert len(inbox.after(database.connection, 0)) == stored
    database.close()

    database = Database.open(small_disk / "securelink.db")
    assert len(inbox.after(database.connection, 0)) == stored
    database.close()


def test_no_room_for_a_new_store(small_disk: Path) -> None:
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(StoreFull):
        Database.open(small_disk / "securelink.db")


def test_read_only_folder(as_nobody: Path) -> None:
    as_nobody.chmod(0o500)
    with pytest.raises(StoreError, match=r"securelink\.db can't be opened: Permission denied"):
        Database.open(as_nobody / "securelink.db")
    with pytest.raises(StoreError, match="Permission denied"):
        Database.open(as_nobody / "home" / "securelink.db")


def test_store_in_a_folder_that_became_read_only(as_nobody: Path) -> None:
    path = as_nobody / "securelink.db"
    Database.open(path).close()
    as_nobody.chmod(0o500)
    with pytest.raises(StoreError, match="can't be written"):
        Database.open(path)


def test_read_only_file(as_nobody: Path) -> None:
    path = as_nobody / "securelink.db"
    Database.open(path).close()
    path.chmod(0o400)
    database = Database.open(path)
    assert inbox.after(database.connection, 0) == []
    with pytest.raises(StoreError, match="can't be written"), database.transaction() as conn:
        inbox.raise_cursor(conn, "serve", 1)
    database.close()


def test_file_in_place_of_the_folder(path: Path) -> None:
    path.parent.write_text("a file")
    with pytest.raises(StoreError, match="can't be opened: File exists"):
        Database.open(path)


def test_folder_in_place_of_the_file(path: Path) -> None:
    path.mkdir(parents=True)
    path.chmod(0o755)
    with pytest.raises(StoreError, match="is not a file"):
        Database.open(path)
    assert path.stat().st_mode & 0o777 == 0o755


def test_not_a_database(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else entirely, and long enough" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is damaged, or not a store") as caught:
        Database.open(path)
    assert caught.value.hint is not None
    assert path.read_bytes() == before


def test_damaged_file(path: Path) -> None:
    database = Database.open(path)
    with database.transaction() as conn:
        for number in range(50):
            fill(conn, number, 1000)
    database.close()
    with path.open("r+b") as file:
        # The newest pages hold messages; the oldest, which opening reads, hold the schema.
        file.seek(path.stat().st_size - 16_384)
        file.write(b"\xa5" * 16_384)
    database = Database.open(path)
    with pytest.raises(StoreError, match="is damaged"), database.transaction() as conn:
        inbox.after(conn, 0)
    database.close()


def test_cut_file(path: Path) -> None:
    Database.open(path).close()
    os.truncate(path, 5000)
    with pytest.raises(StoreError, match="is damaged"):
        Database.open(path)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "no space"), StoreFull),
        (OSError(errno.EDQUOT, "quota"), StoreFull),
        (OSError(errno.EIO, "input/output error"), StoreError),
    ],
)
def test_errors_of_the_system(error: OSError, kind: type[StoreError]) -> None:
    assert type(explain(error, Path("x.db"))) is kind


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (sqlite3.SQLITE_BUSY, StoreBusy, "another process"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreBusy, "another process"),
        (sqlite3.SQLITE_LOCKED, StoreBusy, "another process"),
        (sqlite3.SQLITE_FULL, StoreFull, "full"),
        (sqlite3.SQLITE_IOERR_SHMSIZE, StoreFull, "full"),
        (sqlite3.SQLITE_IOERR_READ, StoreError, "failed: reason"),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreError, "can't be written"),
        (sqlite3.SQLITE_CANTOPEN, StoreError, "can't be written"),
        (sqlite3.SQLITE_CORRUPT, StoreError, "damaged"),
        (sqlite3.SQLITE_NOTADB, StoreError, "damaged"),
    ],
)
def test_result_codes(code: int, kind: type[StoreError], text: str) -> None:
    error = sqlite3.OperationalError("reason")
    error.sqlite_errorcode = code
    explained = explain(error, Path("x.db"))
    assert type(explained) is kind
    assert text in explained.message
