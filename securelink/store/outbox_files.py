"""Files on their way: rows of `outbox`, each with what is to be sent, from where.

One row is one file, folder or stream. A file that could not be sent whole keeps its ID, so that a
later attempt goes on where the peer has stopped; an attempt is known by peer, path and name, and
the file by size, mtime and inode. What becomes of a row is told by the functions of `outbox`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from securelink.store import attempts, outbox
from securelink.store.file_terms import Kind, NewFile

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Sequence

    from securelink.store.attempts import Attempt


_SELECT = (
    "SELECT outbox.seq, id, group_id, peer, name, path, kind, size, mtime, inode, mode, state,"
    " owner, began, reason, owner IS NULL OR lives_until IS NOT NULL"
    " FROM outbox JOIN outbox_files USING (seq)"
)
_QUEUED = f"kind IN ('file', 'folder') AND {outbox.QUEUED}"

_BATCH = 500  # times the columns: less than the 32,766 values that a statement may have


class FileRow(msgspec.Struct, frozen=True):
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
    lasting: bool
    """Whether it stays queued when it is not taken for now; else its owner gives it up then."""


class Put(msgspec.Struct, frozen=True):
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
    life: int | None = None,
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
        life: for how long they may wait, in ms of the store's own time; None for as long as it
            takes.

    Returns:
        What was done, one for each of *files*.
    """
    done: list[Put] = []
    for start in range(0, len(files), _BATCH):
        batch = files[start : start + _BATCH]
        earlier = attempts.earlier(conn, peer, batch)
        newest = attempts.newest_seq(conn)
        fresh: list[tuple[int, NewFile]] = []
        taken: list[tuple[Attempt, NewFile]] = []
        superseded: list[int] = []
        for file in batch:
            found = earlier.pop((file.path, file.name), [])
            same = next((each for each in found if each.is_of(file)), None)
            if same is not None:
                taken.append((same, file))
                done.append(Put(same.seq, changed=False, resumed=same.began))
            else:
                superseded += [each.seq for each in found]
                newest += 1
                fresh.append((newest, file))
                done.append(Put(newest, changed=bool(found) and found[0].began, resumed=False))
        attempts.supersede(conn, superseded, sent_at)
        seqs = [attempt.seq for attempt, _ in taken]
        outbox.put_again(conn, seqs, owner=owner, shared=shared, deadline=deadline, life=life)
        attempts.regroup(conn, taken, group)
        lives_until = outbox.end_of_life(conn, life)
        terms = attempts.Terms(peer, sent_at, owner, shared, deadline, lives_until)
        attempts.insert(conn, [(seq, new_id(), file) for seq, file in fresh], group, terms)
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
        ") CROSS JOIN outbox USING (seq) WHERE peer = ? GROUP BY group_id"
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
    """Return the first rows after *after_seq* that *owner* alone delivers to *peer*."""
    rows = conn.execute(
        f"{_SELECT} WHERE owner = ? AND peer = ? AND (kind <> 'text') = 1 AND outbox.seq > ?"
        " AND state IN ('waiting', 'handed') AND NOT shared ORDER BY outbox.seq LIMIT ?",
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


def count_queued(conn: sqlite3.Connection, peer: bytes, *, unowned: bool = False) -> int:
    """Return how many rows `queued` would yield in all; or how many of them nobody waits for."""
    return outbox.count_where(conn, peer, _QUEUED, unowned=unowned)


def peers_with_queued(conn: sqlite3.Connection) -> list[bytes]:
    """Return the keys of the peers that have queued files."""
    return outbox.peers_where(conn, _QUEUED)


def note_sent(conn: sqlite3.Connection, seq: int, sent: int) -> None:
    """Note how many bytes of a row have gone, for the process that waits for it."""
    conn.execute("UPDATE outbox_files SET sent = ? WHERE seq = ?", (sent, seq))


def progress(conn: sqlite3.Connection, owner: str) -> list[tuple[int, int]]:
    """Return the rows that *owner* waits for, and how much of each had gone when that was noted."""
    return conn.execute(
        "SELECT outbox.seq, sent FROM outbox JOIN outbox_files USING (seq)"
        " WHERE owner = ? AND state IN ('waiting', 'handed') AND sent > 0",
        (owner,),
    ).fetchall()


def begin(conn: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Note, before it is so, that bytes of these rows leave."""
    conn.executemany("UPDATE outbox_files SET began = 1 WHERE seq = ?", ((seq,) for seq in seqs))


def _row(row: tuple[Any, ...]) -> FileRow:
    seq, file_id, group, peer, name, path, kind, size, mtime, inode, mode = row[:11]
    state, owner, began, reason, lasting = row[11:]
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
        inode=attempts.unsigned(inode),
        mode=mode,
        state=outbox.State(state),
        owner=owner,
        began=bool(began),
        reason=reason,
        lasting=bool(lasting),
    )
