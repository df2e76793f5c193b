"""Files on their way: rows of `outbox`, each with what is to be sent, from where.

One row is one file, folder or stream. A file that could not be sent whole keeps its ID, so that a
later attempt goes on where the peer has stopped; an attempt is known by peer, path and name, and
the file by size, mtime and inode. What becomes of a row is told by the functions of `outbox`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from securelink.store import outbox

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterable, Sequence

CHANGED = "the file has changed since"
"""The reason to give for a row that an attempt with new content has replaced."""


class Kind(enum.StrEnum):
    """What a row of a file stands for."""

    FILE = "file"
    FOLDER = "folder"
    """Itself alone: what is in it has rows of its own."""
    STREAM = "stream"
    """Standard input: it is read once, so it is never queued and never goes on later."""


_SELECT = (
    "SELECT outbox.seq, id, group_id, peer, name, path, kind, size, mtime, inode, mode, state,"
    " owner, began, reason FROM outbox JOIN outbox_files USING (seq)"
)
_SELECT_EARLIER = (
    "SELECT path, name, outbox.seq, size, mtime, inode, mode, began"
    " FROM outbox_files JOIN outbox USING (seq)"
)
_REGROUP = "UPDATE outbox_files SET group_id = ?"
_INSERT = (
    "INSERT INTO outbox"
    " (seq, id, kind, peer, sent_at, owner, shared, deadline, state, digest, text)"
)
_INSERT_FILE = "INSERT INTO outbox_files (seq, group_id, name, path, size, mtime, inode, mode)"
_QUEUED = f"kind IN ('file', 'folder') AND {outbox.QUEUED}"

_AS_NEW = (outbox.State.WAITING, b"", "")  # no text has an empty digest, so it can't have the ID
_BATCH = 500  # times the columns: less than the 32,766 values that a statement may have

_INODES = 1 << 64  # the kernel's are unsigned, SQLite's integers are not


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file, folder or stream on its way."""

    seq: int
    """Its place in the queue; unique and growing in this store, among texts too."""
    id: bytes
    """16 bytes, the file's for life."""
    group: bytes
    """16 bytes, shared by all that one argument of the command led to."""
    peer: bytes
    """The recipient's key, 32 bytes."""
    name: str
    """What we call it: components joined by `/`, the top-level name first."""
    path: bytes
    """Where it lies, absolute, as the file system has it; empty for a stream, and once it is
    delivered."""
    kind: Kind
    size: int | None
    """In bytes; None for a folder and a stream."""
    mtime: int
    """ns since 1970."""
    inode: int
    mode: int
    """The permission bits."""
    state: outbox.State
    owner: str | None
    """As in `outbox.OutboxRow`."""
    began: bool
    """Whether bytes of it have ever left."""
    reason: str | None
    """Why it was refused or withdrawn, or why the peer would not take it for now."""


@dataclass(frozen=True, slots=True)
class NewFile:
    """What is to be sent; the fields are those of `FileRow`."""

    name: str
    path: bytes
    kind: Kind
    size: int | None
    mtime: int
    inode: int
    mode: int


@dataclass(frozen=True, slots=True)
class Put:
    """What `put` has made of one file."""

    seq: int
    changed: bool
    """Whether bytes of it had left before, but it is another file now: it starts over."""
    resumed: bool
    """Whether bytes of it had left before, under the same ID: it goes on."""


def put(
    conn: sqlite3.Connection,
    *,
    peer: bytes,
    files: Sequence[NewFile],
    group: bytes,
    new_id: Callable[[], bytes],
    sent_at: int,
    owner: str | None,
    shared: bool = False,
    deadline: int | None = None,
) -> list[Put]:
    """Put files into the outbox, each in the row of its earlier attempt if there is one.

    An earlier attempt is a row of the same peer, path and name that has ended without a receipt,
    or that is queued: never one that a living process owns. If the file is the same, the row goes
    on under its ID. If it has changed, it gets a new row and a new ID, and the earlier one is
    withdrawn unless it was handed over.

    Args:
        conn: the store.
        peer: the recipient's key, 32 bytes.
        files: in the order in which they are to go.
        group: 16 bytes; taken-over rows join it.
        new_id: makes an ID of 16 bytes.
        sent_at: ms since 1970.
        owner: the process that delivers them; None for whichever has a link.
        shared: the owner only waits for whichever has a link.
        deadline: when they may no longer be handed over for the first time, in ms since 1970.

    Returns:
        What was done, one for each of *files*.
    """
    done: list[Put] = []
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        earlier = _earlier(conn, peer, batch)
        taken: list[int] = []
        modes: list[tuple[int, int]] = []
        fresh: list[tuple[int, NewFile]] = []
        newest = _newest_seq(conn)
        for file in batch:
            attempts = earlier.pop((file.path, file.name), [])
            same = next((each for each in attempts if each.is_of(file)), None)
            if same is not None:
                taken.append(same.seq)
                if file.mode != same.mode:
                    modes.append((file.mode, same.seq))
                done.append(Put(same.seq, changed=False, resumed=bool(same.began)))
                continue
            for each in attempts:
                _supersede(conn, each.seq, sent_at)
            newest += 1
            fresh.append((newest, file))
            changed = bool(attempts and attempts[0].began)
            done.append(Put(newest, changed=changed, resumed=False))
        outbox.put_again(conn, taken, owner=owner, shared=shared, deadline=deadline)
        conn.execute(f"{_REGROUP} WHERE seq IN ({_marks(taken)})", (group, *taken))
        conn.executemany("UPDATE outbox_files SET mode = ? WHERE seq = ?", modes)
        terms = (peer, sent_at, owner, shared, deadline, *_AS_NEW)
        _insert(conn, _INSERT, [(seq, new_id(), file.kind, *terms) for seq, file in fresh])
        _insert(conn, _INSERT_FILE, [(seq, group, *_columns(file)) for seq, file in fresh])
    return done


def group_of(conn: sqlite3.Connection, *, peer: bytes, path: bytes, name: str) -> bytes | None:
    """Return the group of an unfinished earlier attempt at the same argument of the command.

    Where several have a part of it, the newest counts; none of them is being sent at present.

    Args:
        conn: the store.
        peer: the recipient's key, 32 bytes.
        path: the argument's, absolute, as the file system has it.
        name: what we call it, one component.
    """
    inside = path.rstrip(b"/")
    row = conn.execute(
        "SELECT group_id FROM ("
        " SELECT seq, group_id FROM outbox_files WHERE path = ? AND path <> x'' AND name = ?"
        " UNION ALL SELECT seq, group_id FROM outbox_files"
        " WHERE path > ? AND path < ? AND path <> x'' AND name > ? AND name < ?"
        ") JOIN outbox USING (seq) WHERE peer = ? GROUP BY group_id"
        " HAVING NOT max(owner IS NOT NULL AND state IN ('waiting', 'handed'))"
        " ORDER BY max(seq) DESC LIMIT 1",
        # What follows the slash in ASCII ends everything that begins with one.
        (path, name, inside + b"/", inside + b"0", f"{name}/", f"{name}0", peer),
    ).fetchone()
    return None if row is None else bytes(row[0])


def get(conn: sqlite3.Connection, seq: int) -> FileRow | None:
    """Return the row, or None if it was pruned or is a text's."""
    row = conn.execute(f"{_SELECT} WHERE outbox.seq = ?", (seq,)).fetchone()
    return None if row is None else _row(row)


def own(
    conn: sqlite3.Connection, owner: str, peer: bytes, after_seq: int, limit: int
) -> list[FileRow]:
    """Return the first rows after *after_seq* that *owner* has on their way to *peer*."""
    rows = conn.execute(
        f"{_SELECT} WHERE owner = ? AND peer = ? AND (kind <> 'text') = 1 AND outbox.seq > ?"
        " AND state IN ('waiting', 'handed') ORDER BY outbox.seq LIMIT ?",
        (owner, peer, after_seq, limit),
    )
    return [_row(row) for row in rows]


def queued(conn: sqlite3.Connection, peer: bytes, after_seq: int, limit: int) -> list[FileRow]:
    """Return the first rows after *after_seq* that wait for any process with a link to *peer*."""
    rows = conn.execute(
        f"{_SELECT} WHERE peer = ? AND outbox.seq > ? AND {_QUEUED} ORDER BY outbox.seq LIMIT ?",
        (peer, after_seq, limit),
    )
    return [_row(row) for row in rows]


def peers_with_queued(conn: sqlite3.Connection, among: Iterable[bytes]) -> list[bytes]:
    """Return those of the keys *among* whose peers have queued files.

    It costs the same however long the queues are, those of other peers too.
    """
    return [
        peer
        for peer in among
        if conn.execute(
            f"SELECT 1 FROM outbox WHERE peer = ? AND {_QUEUED} LIMIT 1",  # noqa: S608 - a constant
            (peer,),
        ).fetchone()
    ]


def begin(conn: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Note, before it is so, that bytes of these rows leave."""
    conn.executemany("UPDATE outbox_files SET began = 1 WHERE seq = ?", ((seq,) for seq in seqs))


def reset_began(conn: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Note that the other side has nothing of these rows any more."""
    conn.executemany("UPDATE outbox_files SET began = 0 WHERE seq = ?", ((seq,) for seq in seqs))


@dataclass(frozen=True, slots=True)
class _Earlier:
    """A row that may be taken over."""

    seq: int
    size: int | None
    mtime: int
    inode: int
    mode: int
    began: int

    def is_of(self, file: NewFile) -> bool:
        """Whether the file is still the same."""
        now = (file.size, file.mtime, _signed(file.inode))
        return (self.size, self.mtime, self.inode) == now


def _earlier(
    conn: sqlite3.Connection, peer: bytes, files: Sequence[NewFile]
) -> dict[tuple[bytes, str], list[_Earlier]]:
    """The earlier attempts at each path under each name, the newest first."""
    paths = {file.path for file in files} - {b""}
    rows = conn.execute(
        f"{_SELECT_EARLIER} WHERE path IN ({_marks(paths)}) AND path <> x'' AND peer = ?"
        " AND (owner IS NULL OR state NOT IN ('waiting', 'handed')) ORDER BY outbox.seq DESC",
        (*paths, peer),
    )
    found: dict[tuple[bytes, str], list[_Earlier]] = {}
    for path, name, *attempt in rows:
        found.setdefault((path, name), []).append(_Earlier(*attempt))
    return found


def _supersede(conn: sqlite3.Connection, seq: int, now: int) -> None:
    """Give up an attempt at what the file no longer is, and look at it no more."""
    outbox.withdraw(conn, seq, now, CHANGED)
    # What was handed over is still queued, and needs its path: the next link confirms or drops it.
    conn.execute(
        "UPDATE outbox_files SET path = x'' WHERE seq = ?1"
        " AND (SELECT ended_at FROM outbox WHERE seq = ?1) IS NOT NULL",
        (seq,),
    )


def _insert(conn: sqlite3.Connection, into: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows in one statement: one by one they take three times as long."""
    if rows:
        values = ", ".join([f"({_marks(rows[0])})"] * len(rows))
        conn.execute(f"{into} VALUES {values}", [*chain.from_iterable(rows)])


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))


def _newest_seq(conn: sqlite3.Connection) -> int:
    """The highest `seq` ever given in the outbox, 0 if none was."""
    row = conn.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
    return 0 if row is None else int(row[0])


def _columns(file: NewFile) -> tuple[object, ...]:
    inode = _signed(file.inode)
    return file.name, file.path, file.size, file.mtime, inode, file.mode


def _signed(inode: int) -> int:
    return inode - _INODES if inode >= _INODES // 2 else inode


def _row(row: tuple[Any, ...]) -> FileRow:
    seq, file_id, group, peer, name, path, kind, size, mtime, inode, mode = row[:11]
    state, owner, began, reason = row[11:]
    return FileRow(
        seq=seq,
        id=file_id,
        group=group,
        peer=peer,
        name=name,
        path=path,
        kind=Kind(kind),
        size=size,
        mtime=mtime,
        inode=inode % _INODES,
        mode=mode,
        state=outbox.State(state),
        owner=owner,
        began=bool(began),
        reason=reason,
    )
