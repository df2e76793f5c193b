"""What stands in the outbox, for a person: texts one by one, files by the argument that led to
them, so that a folder of thousands of files is one entry."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from securelink.errors import UsageError
from securelink.ids import to_text
from securelink.store import aging, outbox, tries
from securelink.store.outbox import HANDED_KEPT, State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from securelink.store.tries import Tries

EXCERPT = 200
"""Characters of a text that are shown at most."""

SHORTEST = 4
"""Characters of an ID, dashes not counted, that a person must type: fewer hit by mistake."""

OPEN = (State.WAITING, State.HANDED)
"""What may still be delivered."""

_TOLD = (*OPEN, State.REFUSED, State.UNCONFIRMED, State.EXPIRED)
_ORDER = (*_TOLD, State.WITHDRAWN, State.DELIVERED)  # the first one stands for a whole entry

_FROM = "FROM outbox LEFT JOIN outbox_files USING (seq)"
_SELECT = (
    "SELECT id, group_id, peer, kind, substr(text, 1, ?), ifnull(name, ''), ifnull(size, 0),"
    f" state, owner, sent_at, reason, handed_at, lives_until, hands, tries_before {_FROM}"
)
_SELECT_QUEUED = (
    "SELECT outbox.seq, id, group_id, kind, ifnull(name, ''), substr(text, 1, ?), ifnull(size, 0)"
    f" {_FROM}"
)
_COUNT = (
    "SELECT ifnull(sum(CASE WHEN others THEN others ELSE folders END), 0) FROM"  # noqa: S608 - a constant
    f" (SELECT sum(kind <> 'folder') AS others, sum(kind = 'folder') AS folders {_FROM}"
)
_SELECT_SEQ = f"SELECT outbox.seq {_FROM}"
# What was withdrawn is told if nobody waited for it: a queued file that has changed or gone.
_IS_TOLD = (
    "(state NOT IN ('delivered', 'withdrawn') OR state = 'withdrawn'"
    " AND (peer, id) IN (SELECT peer, id FROM notices WHERE state = 'withdrawn'))"
)
# What has arrived of a folder counts, as long as something else of it has not.
_ALL_OF_IT = (
    "group_id IN (SELECT group_id FROM outbox JOIN outbox_files USING (seq)"  # noqa: S608 - a constant
    f" WHERE {_IS_TOLD})"
)
# Of a folder that is sent again the earlier attempt counts no more, file by file.
_IS_NEWEST = (
    "(group_id IS NULL"
    " OR outbox.seq IN (SELECT max(seq) FROM outbox_files GROUP BY group_id, name))"
)
_QUEUED = "owner IS NULL AND state IN ('waiting', 'handed') AND kind <> 'stream'"


@dataclass(slots=True)
class Entry:
    """A text, or what one argument of `send` led to: a file, or a folder with all that is in it."""

    id: bytes
    """16 bytes: the text's, the single file's, or the group's."""
    peer: bytes
    """The recipient's key, 32 bytes."""
    kind: str
    """`text`, `file`, `folder` or `stream`."""
    name: str
    """Of a file or folder; empty for a text."""
    excerpt: str
    """How a text begins; empty for a file, and once it is delivered."""
    sent_at: int
    """When it was first put, in ms since 1970."""
    size: int = 0
    """Of all its files, in bytes; of a text 0."""
    files: int = 0
    folders: int = 0
    """Rows of folders themselves; what is in them has its own."""
    rows: Counter[State] = field(default_factory=Counter)
    """How many rows are in which state, folders themselves among them."""
    counted: Counter[State] = field(default_factory=Counter)
    """The same of texts and files alone."""
    owned: bool = False
    """A process that lives delivers it, or waits for another one to do so."""
    tries: int = 0
    """How often it was handed to a link, and its peer tried in vain."""
    reasons: dict[State, str] = field(default_factory=dict)
    """Why rows have ended, were not taken for now, or could not be brought, by their states."""
    left: int | None = None
    """In how many ms it ends undelivered; None if it need not."""

    @property
    def state(self) -> State:
        """The state that stands for all its rows: the first of them that may still move."""
        return next(state for state in _ORDER if self.rows[state])

    @property
    def states(self) -> Counter[State]:
        """How much of it is in which state: texts and files, and folders where there is no file."""
        if not self.counted:
            return self.rows
        if self.counted[self.state]:
            return self.counted
        return self.counted + Counter({self.state: self.rows[self.state]})

    @property
    def reason(self) -> str | None:
        """Why it has come to that state, or has not left it; None if all is well."""
        return self.reasons.get(self.state)

    @property
    def is_open(self) -> bool:
        """Whether some of it may still be delivered."""
        return self.state in OPEN


class QueuedRow(msgspec.Struct, frozen=True):
    """A row that waits for any process with a link to its peer."""

    seq: int
    id: bytes
    """16 bytes."""
    group: bytes | None
    """16 bytes, shared by all that one argument led to; None for a text."""
    kind: str
    name: str
    """Of a file; empty for a text."""
    excerpt: str
    """How a text begins."""
    size: int
    """In bytes; of a text 0."""


def entries(
    conn: sqlite3.Connection, now: int, *, peer: bytes | None = None, everything: bool = False
) -> list[Entry]:
    """Return what owes a receipt or has ended badly, in the order in which it was put.

    Args:
        conn: the store.
        now: ms since 1970.
        peer: only what is for this key; None for everybody's.
        everything: also what was delivered or withdrawn, as long as there is a record of it.
    """
    found: dict[tuple[bytes, bytes], Entry] = {}
    known: dict[bytes, Tries | None] = {}
    age = aging.present(conn, now)
    for row in _rows(conn, peer, everything=everything):
        if row.peer not in known:
            known[row.peer] = tries.get(conn, row.peer)
        _add(found, row, known[row.peer], age, now)
    return list(found.values())


def find(conn: sqlite3.Connection, now: int, typed: str, peer: bytes | None) -> Entry:
    """Return the entry whose ID *typed* is, or is the beginning of; one that is open, if possible.

    Args:
        conn: the store.
        now: ms since 1970.
        typed: an ID, or enough of its beginning, `SHORTEST` characters at least.
        peer: only what is for this key; None for everybody's.

    Raises:
        UsageError: if it is too short, or there is none, or several.
    """
    digits = typed.strip().lower().replace("-", "")
    hint = "see them with: securelink outbox --verbose"
    if len(digits) < SHORTEST:
        raise UsageError(
            f"{typed.strip()!r} is too short: give at least {SHORTEST} characters of the ID",
            hint=hint,
        )
    every = entries(conn, now, peer=peer, everything=True)
    fitting = [each for each in every if each.id.hex().startswith(digits)]
    found = [each for each in fitting if each.is_open] or fitting
    if not found:
        raise UsageError(f"nothing in the outbox has the ID {typed.strip()}", hint=hint)
    if len({each.id for each in found}) > 1:
        raise UsageError(f"several IDs begin with {typed.strip()}", hint="give more of it")
    if len(found) > 1:
        raise UsageError(
            f"{to_text(found[0].id)} is for several peers", hint="say whose with --to NAME"
        )
    return found[0]


def get(conn: sqlite3.Connection, now: int, peer: bytes, entry_id: bytes) -> Entry:
    """Return the entry that `entries` gives under that ID; there must be one."""
    every = entries(conn, now, peer=peer, everything=True)
    return next(each for each in every if each.id == entry_id)


def rows_of(conn: sqlite3.Connection, entry: Entry) -> list[int]:
    """Return the `seq`s of the rows of an entry that have not ended, in order."""
    rows = conn.execute(
        f"{_SELECT_SEQ} WHERE peer = ? AND ? IN (id, group_id)"
        " AND state IN ('waiting', 'handed') ORDER BY outbox.seq",
        (entry.peer, entry.id),
    )
    return [seq for (seq,) in rows]


def count_open(conn: sqlite3.Connection, peer: bytes, *, queued: bool = False) -> int:
    """Return how much has not ended for a peer, in texts and files; of a folder in which no file
    is left, its own rows count.

    Args:
        conn: the store.
        peer: the recipient's key, 32 bytes.
        queued: only what waits for any process with a link.
    """
    # Texts and files by themselves, each by the index of their queue.
    which = ("kind = 'text'", "kind IN ('file', 'folder')") if queued else ("1",)
    state = outbox.QUEUED if queued else "state IN ('waiting', 'handed')"
    total = 0
    for each in which:
        (count,) = conn.execute(
            f"{_COUNT} WHERE peer = ? AND {each} AND {state} GROUP BY group_id)", (peer,)
        ).fetchone()
        total += count
    return total


def peers_with_queued(conn: sqlite3.Connection) -> list[bytes]:
    """Return the keys of the peers for whom something is queued that no process waits for."""
    rows = conn.execute(
        f"SELECT peer FROM outbox WHERE {_QUEUED} GROUP BY peer ORDER BY min(seq)"  # noqa: S608 - a constant
    )
    return [peer for (peer,) in rows]


def queued(conn: sqlite3.Connection, peer: bytes) -> list[QueuedRow]:
    """Return what is queued for a peer, in order, and no process waits for."""
    rows = conn.execute(
        f"{_SELECT_QUEUED} WHERE peer = ? AND {_QUEUED} ORDER BY outbox.seq", (EXCERPT, peer)
    )
    return [QueuedRow(*row) for row in rows]


# ---- inside


class _Row(msgspec.Struct, frozen=True):
    id: bytes
    group: bytes | None
    peer: bytes
    kind: str
    excerpt: str
    name: str
    size: int
    state: str
    owner: str | None
    sent_at: int
    reason: str | None
    handed_at: int | None
    lives_until: int | None
    hands: int
    tries_before: int


def _rows(conn: sqlite3.Connection, peer: bytes | None, *, everything: bool) -> Iterator[_Row]:
    which = "1" if everything else f"({_IS_TOLD} OR {_ALL_OF_IT})"
    rows = conn.execute(
        f"{_SELECT} WHERE ifnull(peer = ?, 1) AND {_IS_NEWEST} AND {which} ORDER BY outbox.seq",
        (EXCERPT, peer),
    )
    return (_Row(*row) for row in rows)


def _add(
    found: dict[tuple[bytes, bytes], Entry], row: _Row, known: Tries | None, age: int, now: int
) -> None:
    """Count a row into its entry."""
    key = (row.peer, row.group or row.id)
    entry = found.get(key)
    if entry is None:
        entry = found[key] = Entry(row.id, row.peer, row.kind, row.name, row.excerpt, row.sent_at)
        is_part = row.kind == "folder" or "/" in row.name
    else:
        is_part = True
    if is_part and row.group is not None:
        # A single file goes by its own ID, which its receiver tells too.
        entry.id, entry.kind, entry.name = row.group, "folder", row.name.partition("/")[0]
    state = State(row.state)
    entry.rows[state] += 1
    entry.counted[state] += row.kind != "folder"
    entry.files += row.kind not in {"text", "folder"}
    entry.folders += row.kind == "folder"
    entry.size += row.size
    entry.sent_at = min(entry.sent_at, row.sent_at)
    entry.owned |= state in OPEN and row.owner is not None
    in_vain = 0 if known is None or state not in OPEN else known.count - row.tries_before
    entry.tries = max(entry.tries, row.hands + max(in_vain, 0))
    if row.reason is not None:
        entry.reasons[state] = row.reason
    elif state in OPEN and known is not None and known.reason is not None:
        entry.reasons.setdefault(state, known.reason)
    left = _left(row, state, age, now)
    if left is not None:
        entry.left = left if entry.left is None else min(entry.left, left)


def _left(row: _Row, state: State, age: int, now: int) -> int | None:
    """In how many ms a row ends by itself, as `outbox.prune` has it."""
    ends = []
    if state in OPEN and row.lives_until is not None:
        ends.append(row.lives_until - age)
    waits_for_nobody = state is State.WAITING and row.owner is None
    if row.handed_at is not None and (state is State.HANDED or waits_for_nobody):
        ends.append(row.handed_at + HANDED_KEPT - now)
    return max(min(ends), 0) if ends else None
