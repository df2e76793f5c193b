"""The store's tables, and the way from an older version's tables to them.

Rules: a migration is never changed once it was released, only followed by another; it may use
nothing newer than SQLite 3.34, the oldest that comes with a Python 3.11 (so no RETURNING, no
STRICT tables). The version is `PRAGMA user_version`, the number of migrations that ran.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from securelink.errors import StoreError, StoreTooNew

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

APPLICATION_ID = 0x534C4E4B  # "SLNK"

_VERSION_1 = """
CREATE TABLE peers (
    key          BLOB PRIMARY KEY CHECK (length(key) = 32),
    name         TEXT NOT NULL UNIQUE,
    calls_itself TEXT NOT NULL,
    pending      INTEGER NOT NULL,
    paired_at    INTEGER NOT NULL,
    last_seen    INTEGER,
    invite       BLOB
);

-- Peers that stand in the configuration have no row in peers, but endpoints here.
CREATE TABLE endpoints (
    peer      BLOB NOT NULL,
    source    TEXT NOT NULL CHECK (source IN ('person', 'invite', 'announced')),
    position  INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    host      TEXT NOT NULL,
    port      INTEGER NOT NULL,
    set_at    INTEGER NOT NULL,
    last_used INTEGER,
    PRIMARY KEY (peer, source, position)
);

CREATE TABLE invites (
    token_hash BLOB PRIMARY KEY CHECK (length(token_hash) = 32),
    name       TEXT,
    uses       INTEGER NOT NULL,
    uses_left  INTEGER NOT NULL CHECK (uses_left BETWEEN 0 AND uses),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked    INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE inbox (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          BLOB NOT NULL CHECK (length(id) = 16),
    peer        BLOB NOT NULL,
    peer_name   TEXT NOT NULL,
    sent_at     INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    read        INTEGER NOT NULL DEFAULT 0,
    text        TEXT NOT NULL -- last, as a long one stands on further pages, read only for it
);
CREATE INDEX inbox_by_id ON inbox (id);

-- Outlives the inbox's rows: a message that was deleted must not come back.
CREATE TABLE seen (
    peer    BLOB NOT NULL,
    id      BLOB NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (peer, id)
) WITHOUT ROWID;
CREATE INDEX seen_by_time ON seen (seen_at);

CREATE TABLE cursors (
    command TEXT PRIMARY KEY,
    seq     INTEGER NOT NULL
);

CREATE TABLE outbox (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    peer      BLOB NOT NULL CHECK (length(peer) = 32),
    id        BLOB NOT NULL CHECK (length(id) = 16),
    digest    BLOB NOT NULL,
    sent_at   INTEGER NOT NULL,
    state     TEXT NOT NULL
              CHECK (state IN ('waiting', 'handed', 'delivered', 'refused', 'withdrawn',
                               'unconfirmed')),
    owner     TEXT,
    shared    INTEGER NOT NULL DEFAULT 0,
    deadline  INTEGER,
    reason    TEXT,
    handed_at INTEGER,
    ended_at  INTEGER,
    text      TEXT NOT NULL,
    UNIQUE (peer, id)
);
CREATE INDEX outbox_live ON outbox (peer, seq) WHERE state IN ('waiting', 'handed');
CREATE INDEX outbox_owned ON outbox (owner)
    WHERE owner IS NOT NULL AND state IN ('waiting', 'handed');
CREATE INDEX outbox_ended ON outbox (ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE serving (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    pid        INTEGER NOT NULL,
    port       INTEGER NOT NULL,
    endpoints  TEXT NOT NULL,
    started_at INTEGER NOT NULL
);
"""

_VERSION_2 = """
-- What routers were asked to map. An owner is a process, as in outbox; '' if a mapping was left
-- to its lease on purpose.
CREATE TABLE mappings (
    owner         TEXT NOT NULL,
    method        TEXT NOT NULL CHECK (method IN ('pcp', 'nat-pmp', 'upnp')),
    gateway       TEXT NOT NULL,
    protocol      TEXT NOT NULL CHECK (protocol IN ('tcp', 'udp')),
    external_host TEXT NOT NULL,
    external_port INTEGER NOT NULL CHECK (external_port BETWEEN 1 AND 65535),
    local_host    TEXT NOT NULL,
    local_port    INTEGER NOT NULL CHECK (local_port BETWEEN 1 AND 65535),
    lease         INTEGER NOT NULL CHECK (lease >= 0),
    nonce         BLOB NOT NULL CHECK (length(nonce) = 12),
    description   TEXT NOT NULL,
    made_at       INTEGER NOT NULL,
    PRIMARY KEY (owner, method, gateway, protocol, external_port)
);
"""

_VERSION_3 = """
-- A file's row goes on in outbox_files. It stands behind the text, but no query reads it there
-- without the text: the indexes below know it.
ALTER TABLE outbox ADD COLUMN kind TEXT NOT NULL DEFAULT 'text'
    CHECK (kind IN ('text', 'file', 'folder', 'stream'));

CREATE TABLE outbox_files (
    seq      INTEGER PRIMARY KEY REFERENCES outbox ON DELETE CASCADE,
    group_id BLOB NOT NULL CHECK (length(group_id) = 16),
    mode     INTEGER NOT NULL,
    size     INTEGER, -- NULL for what has none before it is sent: folders and streams
    mtime    INTEGER NOT NULL,
    inode    INTEGER NOT NULL,
    began    INTEGER NOT NULL DEFAULT 0,
    name     TEXT NOT NULL,
    path     BLOB NOT NULL -- empty once nothing can be an attempt to send the same again
);
CREATE INDEX outbox_files_by_path ON outbox_files (path) WHERE path <> x'';

-- One queue each, and no row in it that somebody else sends: neither is as long as the other.
DROP INDEX outbox_live;
CREATE INDEX outbox_queued_texts ON outbox (peer, seq)
    WHERE kind = 'text' AND (owner IS NULL OR shared) AND state IN ('waiting', 'handed');
CREATE INDEX outbox_queued_files ON outbox (peer, seq)
    WHERE kind IN ('file', 'folder') AND (owner IS NULL OR shared)
          AND state IN ('waiting', 'handed');
DROP INDEX outbox_owned;
CREATE INDEX outbox_owned ON outbox (owner, peer, kind <> 'text', seq)
    WHERE owner IS NOT NULL AND state IN ('waiting', 'handed');

-- What every process looks for when it starts.
CREATE INDEX outbox_deadlines ON outbox (deadline)
    WHERE deadline IS NOT NULL AND state = 'waiting';
CREATE INDEX outbox_handed ON outbox (handed_at)
    WHERE handed_at IS NOT NULL AND ended_at IS NULL;
DROP INDEX outbox_ended;
CREATE INDEX outbox_ended ON outbox (state, kind, ended_at) WHERE ended_at IS NOT NULL;

-- A message in the inbox is a file if it has a row here. A column of inbox would stand behind
-- texts of a megabyte, to be read past for every line of a list.
CREATE TABLE inbox_files (
    seq    INTEGER PRIMARY KEY REFERENCES inbox ON DELETE CASCADE,
    kind   TEXT NOT NULL CHECK (kind IN ('file', 'folder')),
    size   INTEGER NOT NULL,
    sha256 BLOB CHECK (length(sha256) = 32),
    name   TEXT NOT NULL,
    path   BLOB NOT NULL
);

-- Files that have begun to arrive and are large enough to go on later.
CREATE TABLE partials (
    peer       BLOB NOT NULL CHECK (length(peer) = 32),
    id         BLOB NOT NULL CHECK (length(id) = 16),
    group_id   BLOB NOT NULL CHECK (length(group_id) = 16),
    name       TEXT NOT NULL,
    size       INTEGER NOT NULL,
    mtime      INTEGER NOT NULL,
    boot       TEXT NOT NULL,
    synced     INTEGER NOT NULL DEFAULT 0,
    began_at   INTEGER NOT NULL,
    touched_at INTEGER NOT NULL,
    PRIMARY KEY (peer, id)
) WITHOUT ROWID;

-- Under which name in its peer's folder a group lands.
CREATE TABLE landings (
    peer     BLOB NOT NULL CHECK (length(peer) = 32),
    group_id BLOB NOT NULL CHECK (length(group_id) = 16),
    name     TEXT NOT NULL,
    made_at  INTEGER NOT NULL,
    PRIMARY KEY (peer, group_id)
) WITHOUT ROWID;
CREATE INDEX landings_by_time ON landings (made_at);
"""

_VERSION_4 = """
-- Made anew, as SQLite can't change the states that a column may have. `lives_until` is in the
-- store's own time, see aging; `tries_before` is how often the peer had been tried in vain when the
-- row was put, see tries.
CREATE TABLE outbox_new (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT NOT NULL DEFAULT 'text'
                 CHECK (kind IN ('text', 'file', 'folder', 'stream')),
    peer         BLOB NOT NULL CHECK (length(peer) = 32),
    id           BLOB NOT NULL CHECK (length(id) = 16),
    digest       BLOB NOT NULL,
    sent_at      INTEGER NOT NULL,
    state        TEXT NOT NULL
                 CHECK (state IN ('waiting', 'handed', 'delivered', 'refused', 'withdrawn',
                                  'expired', 'unconfirmed')),
    owner        TEXT,
    shared       INTEGER NOT NULL DEFAULT 0,
    deadline     INTEGER,
    lives_until  INTEGER,
    reason       TEXT,
    handed_at    INTEGER,
    hands        INTEGER NOT NULL DEFAULT 0,
    tries_before INTEGER NOT NULL DEFAULT 0,
    ended_at     INTEGER,
    text         TEXT NOT NULL, -- last, as a long one stands on further pages
    UNIQUE (peer, id)
);
INSERT INTO outbox_new (seq, kind, peer, id, digest, sent_at, state, owner, shared, deadline,
                        reason, handed_at, hands, ended_at, text)
    SELECT seq, kind, peer, id, digest, sent_at, state, owner, shared, deadline,
           reason, handed_at, handed_at IS NOT NULL, ended_at, text FROM outbox;
-- A number that was given once is not given again.
UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence WHERE name = 'outbox')
    WHERE name = 'outbox_new' AND EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'outbox');
INSERT INTO sqlite_sequence (name, seq)
    SELECT 'outbox_new', seq FROM sqlite_sequence WHERE name = 'outbox'
    AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'outbox_new');
DROP TABLE outbox;
ALTER TABLE outbox_new RENAME TO outbox;

CREATE INDEX outbox_queued_texts ON outbox (peer, seq)
    WHERE kind = 'text' AND (owner IS NULL OR shared) AND state IN ('waiting', 'handed');
CREATE INDEX outbox_queued_files ON outbox (peer, seq)
    WHERE kind IN ('file', 'folder') AND (owner IS NULL OR shared)
          AND state IN ('waiting', 'handed');
CREATE INDEX outbox_owned ON outbox (owner, peer, kind <> 'text', seq)
    WHERE owner IS NOT NULL AND state IN ('waiting', 'handed');
CREATE INDEX outbox_deadlines ON outbox (deadline)
    WHERE deadline IS NOT NULL AND state = 'waiting';
CREATE INDEX outbox_lives ON outbox (lives_until)
    WHERE lives_until IS NOT NULL AND state IN ('waiting', 'handed');
CREATE INDEX outbox_handed ON outbox (handed_at)
    WHERE handed_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX outbox_ended ON outbox (state, kind, ended_at) WHERE ended_at IS NOT NULL;

-- How much of a file that somebody waits for another process has sent, in bytes.
ALTER TABLE outbox_files ADD COLUMN sent INTEGER NOT NULL DEFAULT 0;

-- The store's own time: see aging.
CREATE TABLE aging (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    age         INTEGER NOT NULL,
    observed_at INTEGER NOT NULL
);

-- Peers that were dialled for their queued rows, in vain.
CREATE TABLE tries (
    peer     BLOB PRIMARY KEY CHECK (length(peer) = 32),
    count    INTEGER NOT NULL,
    tried_at INTEGER NOT NULL,
    reason   TEXT -- NULL once one went well
);

-- What was queued and ended undelivered: told by following `seq`, as the inbox is.
CREATE TABLE notices (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    at     INTEGER NOT NULL,
    peer   BLOB NOT NULL CHECK (length(peer) = 32),
    id     BLOB NOT NULL CHECK (length(id) = 16),
    kind   TEXT NOT NULL,
    name   TEXT, -- of a file
    state  TEXT NOT NULL,
    reason TEXT
);
CREATE INDEX notices_by_time ON notices (at);

-- Links that last longer than a moment, by the process that has them: see links.
CREATE TABLE links (
    owner       TEXT NOT NULL,
    number      INTEGER NOT NULL,
    peer        BLOB NOT NULL CHECK (length(peer) = 32),
    dialled     INTEGER NOT NULL,
    takes_files INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    host        TEXT NOT NULL,
    port        INTEGER NOT NULL,
    since       INTEGER NOT NULL,
    PRIMARY KEY (owner, number)
) WITHOUT ROWID;
CREATE INDEX links_by_peer ON links (peer);

-- When peers of the configuration, which have no row in peers, were here, and their own names.
CREATE TABLE contacts (
    peer         BLOB PRIMARY KEY CHECK (length(peer) = 32),
    last_seen    INTEGER NOT NULL,
    calls_itself TEXT NOT NULL
);
"""

_VERSION_5 = """
-- Of what a peer announced: the kind of the address at which it was met. NULL is taken for
-- 'public', which says least.
ALTER TABLE endpoints ADD COLUMN met TEXT CHECK (met IN ('loopback', 'lan', 'public'));
"""

MIGRATIONS: tuple[str, ...] = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5)
"""SQL scripts; the one at index n leads from version n to n + 1."""


def check_before_opening(path: Path, newest: int) -> None:
    """Look at the file without changing a byte of it or beside it.

    Raises:
        StoreTooNew: if its version is over *newest*.
        StoreError: if it is some other program's database.
        sqlite3.Error: if it is no database at all.
    """
    if path.stat().st_size == 0:
        return
    # Opening a file in WAL mode makes two more files, read-only or not, unless it is declared
    # immutable. Then SQLite ignores the WAL, which is right only while there is none.
    mode = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True)) as connection:
        _check_version(connection, path, newest)


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Bring the store at *path*, open as *connection* in WAL mode, to the newest version.

    All of it is one transaction, after a copy of what was there. An up-to-date store costs no
    lock, so it can be opened while another process writes.

    Raises:
        StoreTooNew, StoreError: as `check_before_opening`.
        sqlite3.Error, OSError: if the disk fails or the lock can't be had; nothing has changed.
    """
    newest = len(migrations)
    if _check_version(connection, path, newest) == newest:
        return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        # Another process may have been faster: ask again now that nobody else can write.
        version = _check_version(connection, path, newest)
        if 0 < version < newest:
            _back_up(path, version)
        for script in migrations[version:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {newest}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_version(connection: sqlite3.Connection, path: Path, newest: int) -> int:
    # One statement, so one state of the file, also while another process makes the tables.
    application, version, tables = connection.execute(
        "SELECT (SELECT application_id FROM pragma_application_id),"
        " (SELECT user_version FROM pragma_user_version),"
        " (SELECT count(*) FROM sqlite_master)"
    ).fetchone()
    if application != APPLICATION_ID:
        if application or version or tables:
            raise StoreError(
                f"{path} is another program's database", hint="move it away, then repeat"
            )
        return 0
    if version > newest:
        raise StoreTooNew(
            f"the store {path} was written by a newer version of securelink",
            hint="update securelink on this machine",
        )
    assert isinstance(version, int)
    return version


def _back_up(path: Path, version: int) -> None:
    """Copy the store to `NAME.vN.bak` beside it; needs the write lock held by the caller."""
    target = path.with_name(f"{path.name}.v{version}.bak")
    unfinished = target.with_name(target.name + ".tmp")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # SQLite refuses to copy from a connection that is in a write transaction: so a second.
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(unfinished)) as copy:
            source.backup(copy)
        os.fsync(descriptor)
        unfinished.replace(target)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in *folder* on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _statements(script: str) -> Iterator[str]:
    """Split a script into statements: `executescript` would commit before the first."""
    statement = ""
    *pieces, rest = script.split(";")
    for piece in pieces:
        statement += piece + ";"
        if sqlite3.complete_statement(statement):  # else it stood in a comment, text or trigger
            yield statement
            statement = ""
    assert not (statement + rest).strip(), "a migration ends with a semicolon"
