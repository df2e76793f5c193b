from __future__ import annotations

import itertools
import sqlite3
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from securelink.errors import UsageError
from securelink.store import attempts, outbox, outbox_files
from securelink.store.file_terms import Kind, NewFile
from securelink.store.outbox import State
from securelink.store.outbox_files import FileRow, Put

if TYPE_CHECKING:
    from collections.abc import Callable

BOB = b"b" * 32
EVE = b"e" * 32
GROUP = b"g" * 16
OTHER = b"h" * 16
DAY = 86_400_000

A = NewFile("a.txt", b"/home/me/a.txt", Kind.FILE, 5, 17, 100, 0o640)
B = NewFile("b.txt", b"/home/me/b.txt", Kind.FILE, 0, 18, 101, 0o600)
PHOTOS = NewFile("photos", b"/home/me/photos", Kind.FOLDER, None, 19, 102, 0o755)
INSIDE = NewFile("photos/2026/x.jpg", b"/home/me/photos/2026/x.jpg", Kind.FILE, 7, 20, 103, 0o644)
STREAM = NewFile("input", b"", Kind.STREAM, None, 0, 0, 0o600)

numbers = itertools.count(1)


def new_id() -> bytes:
    return next(numbers).to_bytes(16, "big")


def put(
    conn: sqlite3.Connection,
    *files: NewFile,
    peer: bytes = BOB,
    group: bytes = GROUP,
    owner: str | None = "me",
    shared: bool = False,
    deadline: int | None = None,
    life: int | None = None,
    now: int = 10,
) -> list[Put]:
    return outbox_files.put(
        conn,
        peer=peer,
        files=files,
        group=group,
        new_id=new_id,
        sent_at=now,
        owner=owner,
        shared=shared,
        deadline=deadline,
        life=life,
    )


def seq_of(conn: sqlite3.Connection, file: NewFile, **more: object) -> int:
    (done,) = put(conn, file, **more)  # type: ignore[arg-type]
    return done.seq


def get(conn: sqlite3.Connection, seq: int) -> FileRow:
    row = outbox_files.get(conn, seq)
    assert row is not None
    return row


def deliver(conn: sqlite3.Connection, seq: int, *, now: int = 30) -> None:
    row = get(conn, seq)
    assert outbox.delivered(conn, peer=row.peer, message_id=row.id, now=now) == seq


def refuse(conn: sqlite3.Connection, seq: int, *, permanent: bool) -> None:
    row = get(conn, seq)
    outbox.refused(conn, peer=row.peer, message_id=row.id, permanent=permanent, reason="no", now=30)


def seqs_left(conn: sqlite3.Connection) -> tuple[list[int], list[int]]:
    """The rows of the outbox, and those beside it."""
    return (
        [seq for (seq,) in conn.execute("SELECT seq FROM outbox ORDER BY seq")],
        [seq for (seq,) in conn.execute("SELECT seq FROM outbox_files ORDER BY seq")],
    )


def test_a_file_comes_back_as_it_was_put(conn: sqlite3.Connection) -> None:
    first, second = put(conn, A, STREAM, owner="me")
    row = get(conn, first.seq)
    assert row == FileRow(
        seq=first.seq,
        id=row.id,
        group=GROUP,
        peer=BOB,
        name="a.txt",
        path=b"/home/me/a.txt",
        kind=Kind.FILE,
        size=5,
        mtime=17,
        inode=100,
        mode=0o640,
        state=State.WAITING,
        owner="me",
        began=False,
        reason=None,
        lasting=False,
    )
    stream = get(conn, second.seq)
    assert (stream.kind, stream.path, stream.size) == (Kind.STREAM, b"", None)
    assert len(row.id) == 16
    assert row.id != stream.id
    assert second == Put(first.seq + 1, changed=False, resumed=False)
    assert (outbox_files.get(conn, 99), put(conn)) == (None, [])


@pytest.mark.parametrize(
    ("owner", "life", "lasting"), [("me", None, False), ("me", 1000, True), (None, None, True)]
)
def test_what_lasts_when_it_is_not_taken_for_now(
    conn: sqlite3.Connection, owner: str | None, life: int | None, lasting: bool
) -> None:
    (made,) = put(conn, A, owner=owner, life=life)
    assert get(conn, made.seq).lasting is lasting


@pytest.mark.parametrize("inode", [0, 2**63 - 1, 2**63, 2**64 - 1])
def test_every_inode_that_a_kernel_has(conn: sqlite3.Connection, inode: int) -> None:
    file = replace(A, inode=inode, path=b"/odd/\xff\x00name", mtime=-1)
    seq = seq_of(conn, file, owner=None)
    assert (get(conn, seq).inode, get(conn, seq).path, get(conn, seq).mtime) == (
        inode,
        b"/odd/\xff\x00name",
        -1,
    )
    assert seq_of(conn, file) == seq


def test_texts_and_files_have_one_row_of_numbers(conn: sqlite3.Connection) -> None:
    text = outbox.put(conn, message_id=b"t" * 16, peer=BOB, text="hello", sent_at=10)
    seq = seq_of(conn, A)
    assert seq > text
    outbox.delivered(conn, peer=BOB, message_id=get(conn, seq).id, now=20)
    outbox.prune(conn, 21 + DAY)
    assert seqs_left(conn) == ([text], [])
    assert seq_of(conn, A) > seq
    assert outbox_files.get(conn, text) is None
    with pytest.raises(UsageError, match="used before"):
        outbox.put(conn, message_id=get(conn, seq + 1).id, peer=BOB, text="", sent_at=10)


# ---- attempts


def withdrawn(conn: sqlite3.Connection, seq: int) -> None:
    assert outbox.withdraw(conn, seq, 20)


def refused(conn: sqlite3.Connection, seq: int) -> None:
    refuse(conn, seq, permanent=True)


def unconfirmed(conn: sqlite3.Connection, seq: int) -> None:
    outbox.hand(conn, [seq], 20)
    outbox.cancel_peer(conn, BOB, 20)


def queued(conn: sqlite3.Connection, seq: int) -> None:
    outbox.release(conn, seq)


def handed(conn: sqlite3.Connection, seq: int) -> None:
    outbox.hand(conn, [seq], 20)
    outbox.release(conn, seq)


def buried(conn: sqlite3.Connection, seq: int) -> None:
    outbox.bury_owner(conn, "me", 20)


UNFINISHED = [withdrawn, refused, unconfirmed, queued, handed, buried]


@pytest.mark.parametrize("unfinished", UNFINISHED)
@pytest.mark.parametrize("began", [True, False])
def test_the_same_file_goes_on_in_its_row(
    conn: sqlite3.Connection, unfinished: Callable[[sqlite3.Connection, int], None], began: bool
) -> None:
    seq = seq_of(conn, A, deadline=50)
    before = get(conn, seq)
    if began:
        outbox_files.begin(conn, [seq])
    unfinished(conn, seq)
    was_handed = get(conn, seq).state is State.HANDED
    (done,) = put(conn, replace(A, mode=0o600), group=OTHER, owner="second", deadline=99)
    assert done == Put(seq, changed=False, resumed=began)
    state = State.HANDED if was_handed else State.WAITING
    assert get(conn, seq) == replace(
        before, group=OTHER, owner="second", mode=0o600, state=state, began=began
    )
    row = outbox.get(conn, seq)
    assert row is not None
    assert row.deadline == 99
    assert outbox.owners(conn) == ["second"]
    # It has ended no more.
    outbox.prune(conn, 98 if was_handed else 40)
    assert get(conn, seq).state is state
    assert seqs_left(conn) == ([seq], [seq])


def test_a_row_that_a_process_has_is_left_to_it(conn: sqlite3.Connection) -> None:
    waiting = seq_of(conn, A, owner="one")
    gone = seq_of(conn, B, owner="one", shared=True)
    outbox_files.begin(conn, [waiting, gone])
    outbox.hand(conn, [gone], 20)
    for file in (A, B, replace(A, size=6), replace(B, mtime=1)):
        (done,) = put(conn, file, owner="two")
        assert (done.changed, done.resumed) == (False, False)
        assert done.seq > gone
    assert (get(conn, waiting).owner, get(conn, waiting).state) == ("one", State.WAITING)
    assert (get(conn, gone).owner, get(conn, gone).state) == ("one", State.HANDED)
    assert get(conn, waiting).id != get(conn, waiting + 2).id


def test_what_is_delivered_is_no_attempt_any_more(conn: sqlite3.Connection) -> None:
    seq = seq_of(conn, A, owner=None)
    outbox_files.begin(conn, [seq])
    deliver(conn, seq)
    assert (get(conn, seq).path, get(conn, seq).name) == (b"", "a.txt")
    (done,) = put(conn, A)
    assert done == Put(seq + 1, changed=False, resumed=False)


@pytest.mark.parametrize(
    "other",
    [replace(A, name="c.txt"), replace(A, path=b"/home/me/c.txt"), replace(A, path=b"")],
)
def test_another_path_or_name_is_another_file(conn: sqlite3.Connection, other: NewFile) -> None:
    seq = seq_of(conn, A, owner=None)
    outbox_files.begin(conn, [seq])
    assert put(conn, other) == [Put(seq + 1, changed=False, resumed=False)]
    assert put(conn, A, peer=EVE) == [Put(seq + 2, changed=False, resumed=False)]
    assert get(conn, seq).state is State.WAITING


def test_streams_never_go_on(conn: sqlite3.Connection) -> None:
    seq = seq_of(conn, STREAM)
    outbox_files.begin(conn, [seq])
    outbox.withdraw(conn, seq, 20)
    assert put(conn, STREAM) == [Put(seq + 1, changed=False, resumed=False)]


CHANGED = [
    replace(A, size=6),
    replace(A, mtime=18),
    replace(A, inode=7),
    replace(A, kind=Kind.FOLDER, size=None),
]


@pytest.mark.parametrize("now", CHANGED)
@pytest.mark.parametrize("began", [True, False])
@pytest.mark.parametrize("unfinished", [withdrawn, refused, unconfirmed, queued])
def test_a_changed_file_starts_over(
    conn: sqlite3.Connection,
    now: NewFile,
    began: bool,
    unfinished: Callable[[sqlite3.Connection, int], None],
) -> None:
    seq = seq_of(conn, A)
    if began:
        outbox_files.begin(conn, [seq])
    unfinished(conn, seq)
    state = get(conn, seq).state
    (done,) = put(conn, now)
    assert done == Put(seq + 1, changed=began, resumed=False)
    assert get(conn, seq).id != get(conn, seq + 1).id
    old = get(conn, seq)
    assert old.path == b""
    if state is State.WAITING:
        assert (old.state, old.reason) == (State.WITHDRAWN, attempts.CHANGED)
    else:
        assert old.state is state
    # From now on the new row alone counts.
    outbox.withdraw(conn, seq + 1, 30)
    assert put(conn, now) == [Put(seq + 1, changed=False, resumed=False)]
    outbox.withdraw(conn, seq + 1, 40)
    assert put(conn, A) == [Put(seq + 2, changed=False, resumed=False)]


def test_a_handed_row_outlives_the_change(conn: sqlite3.Connection) -> None:
    seq = seq_of(conn, A)
    outbox_files.begin(conn, [seq])
    handed(conn, seq)
    (done,) = put(conn, replace(A, size=6), owner=None)
    assert done == Put(seq + 1, changed=True, resumed=False)
    assert (get(conn, seq).state, get(conn, seq).path) == (State.HANDED, A.path)
    assert [row.seq for row in outbox_files.queued(conn, BOB, 0, 9)] == [seq, seq + 1]
    # And if the file is again what it was, it goes on in the row that has it.
    outbox.release(conn, seq)
    assert put(conn, A) == [Put(seq, changed=False, resumed=True)]
    assert get(conn, seq + 1).state is State.WAITING


def test_the_newest_attempt_tells_whether_anything_is_lost(conn: sqlite3.Connection) -> None:
    first = seq_of(conn, A)
    outbox_files.begin(conn, [first])
    handed(conn, first)
    second = seq_of(conn, replace(A, size=6))
    outbox.withdraw(conn, second, 20)
    (done,) = put(conn, replace(A, size=7))
    assert (done.seq, done.changed) == (second + 1, False)
    assert get(conn, second).path == b""


def test_many_at_once(conn: sqlite3.Connection) -> None:
    files = [replace(A, name=f"f/{n}", path=b"/f/%d" % n, inode=n) for n in range(1203)]
    done = put(conn, *files)
    assert [each.seq for each in done] == list(range(1, 1204))
    outbox_files.begin(conn, range(1, 1204, 3))
    outbox.bury_owner(conn, "me", 20)
    now = [replace(file, size=6) if n % 2 else file for n, file in enumerate(files)]
    done = put(conn, *now, owner="two")
    for n, each in enumerate(done):
        began = n % 3 == 0
        assert (each.changed, each.resumed) == (bool(n % 2) and began, n % 2 == 0 and began)
        row = get(conn, each.seq)
        assert (row.name, row.size, row.owner) == (f"f/{n}", 6 if n % 2 else 5, "two")
    assert len({get(conn, each.seq).id for each in done}) == 1203
    assert len({each.seq for each in done}) == 1203


def test_one_file_given_twice_has_two_rows(conn: sqlite3.Connection) -> None:
    first, second = put(conn, A, A, owner=None)
    assert first.seq != second.seq
    again = put(conn, A, A, A, owner=None)
    assert len({each.seq for each in again}) == 3


def test_many_attempts_cost_no_more_than_one(conn: sqlite3.Connection) -> None:
    conn.execute("BEGIN")
    for size in range(300):
        withdrawn(conn, seq_of(conn, replace(A, size=size)))
    put(conn, *(replace(A, path=b"/x/%d" % number) for number in range(2000)))
    conn.execute("COMMIT")
    assert steps(conn, lambda: put(conn, replace(A, size=300))) < 20
    some = [replace(B, path=b"/y/%d" % number) for number in range(100)]
    alone = steps(conn, lambda: put(conn, *some, peer=EVE))
    assert steps(conn, lambda: put(conn, *some)) < 1.2 * alone


# ---- groups


def test_the_group_of_a_file(conn: sqlite3.Connection) -> None:
    seq = seq_of(conn, A)
    assert outbox_files.group_of(conn, peer=BOB, path=A.path, name=A.name) is None
    withdrawn(conn, seq)
    assert outbox_files.group_of(conn, peer=BOB, path=A.path, name=A.name) == GROUP
    assert outbox_files.group_of(conn, peer=EVE, path=A.path, name=A.name) is None
    assert outbox_files.group_of(conn, peer=BOB, path=B.path, name=A.name) is None
    assert outbox_files.group_of(conn, peer=BOB, path=A.path, name=B.name) is None
    deliver(conn, seq)
    assert outbox_files.group_of(conn, peer=BOB, path=A.path, name=A.name) is None


def photos_group(conn: sqlite3.Connection) -> bytes | None:
    return outbox_files.group_of(conn, peer=BOB, path=PHOTOS.path, name="photos")


def test_the_group_of_a_folder_of_which_a_part_is_delivered(conn: sqlite3.Connection) -> None:
    folder, inside = put(conn, PHOTOS, INSIDE)
    deliver(conn, folder.seq)
    assert photos_group(conn) is None
    outbox.bury_owner(conn, "me", 20)
    assert photos_group(conn) == GROUP
    # It is that of this argument alone.
    for path, name in [
        (b"/home/me", "me"),
        (b"/home/me/photos/2026", "2026"),
        (b"/home/me/photo", "photo"),
        (PHOTOS.path, "pictures"),
        (b"/photos", "photos"),
    ]:
        assert outbox_files.group_of(conn, peer=BOB, path=path, name=name) is None
    assert outbox_files.group_of(conn, peer=BOB, path=b"/home/me/photos/", name="photos") == GROUP
    deliver(conn, inside.seq)
    assert photos_group(conn) is None


def test_neighbours_of_a_folder_are_not_in_it(conn: sqlite3.Connection) -> None:
    near = [b"/home/me/photos-old/x", b"/home/me/photos0", b"/home/me/photos.d/x"]
    for path in near:
        withdrawn(conn, seq_of(conn, replace(INSIDE, path=path)))
    for name in ["photos-old/x", "photos0", "photo/s"]:
        withdrawn(conn, seq_of(conn, replace(INSIDE, name=name)))
    assert photos_group(conn) is None


def test_a_group_that_is_being_sent_is_not_joined(conn: sqlite3.Connection) -> None:
    folder, inside = put(conn, PHOTOS, INSIDE)
    withdrawn(conn, folder.seq)
    assert photos_group(conn) is None
    withdrawn(conn, inside.seq)
    assert photos_group(conn) == GROUP
    put(conn, PHOTOS, group=OTHER, owner="two")
    put(conn, replace(INSIDE, name="photos/y", path=b"/home/me/photos/y"), group=OTHER, owner=None)
    assert photos_group(conn) == GROUP
    outbox.bury_owner(conn, "two", 30)
    assert photos_group(conn) == OTHER


def test_the_newest_group_counts(conn: sqlite3.Connection) -> None:
    withdrawn(conn, seq_of(conn, INSIDE))
    late = replace(INSIDE, name="photos/y", path=b"/home/me/photos/y")
    withdrawn(conn, seq_of(conn, late, group=OTHER))
    assert photos_group(conn) == OTHER


# ---- queues


def queue(conn: sqlite3.Connection, peer: bytes = BOB) -> list[int]:
    return [row.seq for row in outbox_files.queued(conn, peer, 0, 99)]


def test_queues_are_apart(conn: sqlite3.Connection) -> None:
    text = outbox.put(conn, message_id=b"t" * 16, peer=BOB, text="hello", sent_at=10)
    a, folder, stream = (each.seq for each in put(conn, A, PHOTOS, STREAM, owner=None))
    shared = seq_of(conn, B, shared=True)
    seq_of(conn, INSIDE)
    seq_of(conn, A, peer=EVE, owner=None)
    assert queue(conn) == [a, folder, shared]
    assert [row.seq for row in outbox.queued(conn, BOB)] == [text]
    assert outbox.count_queued(conn, BOB) == 1
    assert outbox.peers_with_queued(conn) == [BOB]
    assert outbox_files.peers_with_queued(conn) == [BOB, EVE]
    outbox.hand(conn, [a], 20)
    assert queue(conn) == [a, folder, shared]
    assert [row.seq for row in outbox_files.queued(conn, BOB, a, 1)] == [folder]
    assert outbox_files.queued(conn, BOB, shared, 99) == []
    for seq in (a, folder, shared):
        deliver(conn, seq)
    assert (queue(conn), outbox_files.peers_with_queued(conn)) == ([], [EVE])
    assert get(conn, stream).state is State.WAITING


def test_own_rows(conn: sqlite3.Connection) -> None:
    outbox.put(conn, message_id=b"t" * 16, peer=BOB, text="hello", sent_at=10, owner="me")
    a, b, folder, stream = (each.seq for each in put(conn, A, B, PHOTOS, STREAM))
    put(conn, INSIDE, owner="two")
    put(conn, INSIDE, owner=None)
    eves = seq_of(conn, A, peer=EVE)
    outbox.hand(conn, [b], 20)

    def own(after: int = 0, limit: int = 99) -> list[int]:
        return [row.seq for row in outbox_files.own(conn, "me", BOB, after, limit)]

    assert own() == [a, b, folder, stream]
    assert own(a, 2) == [b, folder]
    assert [row.seq for row in outbox_files.own(conn, "me", EVE, 0, 9)] == [eves]
    deliver(conn, a)
    withdrawn(conn, folder)
    refuse(conn, stream, permanent=False)
    assert own() == [b, stream]
    refuse(conn, stream, permanent=True)
    assert own() == [b]
    outbox.release(conn, b)
    assert own() == []


def test_what_became_of_bytes(conn: sqlite3.Connection) -> None:
    a, b = (each.seq for each in put(conn, A, B))
    outbox_files.begin(conn, [b])
    assert (get(conn, a).began, get(conn, b).began) == (False, True)
    withdrawn(conn, a)
    assert put(conn, A) == [Put(a, changed=False, resumed=False)]


def test_a_reason_for_giving_up(conn: sqlite3.Connection) -> None:
    a, b = (each.seq for each in put(conn, A, B))
    refuse(conn, b, permanent=False)
    assert outbox.withdraw(conn, a, 20, "it is gone")
    assert outbox.withdraw(conn, b, 20)
    assert (get(conn, a).reason, get(conn, b).reason) == ("it is gone", "no")


def test_what_never_left_whole_is_taken_back(conn: sqlite3.Connection) -> None:
    handed_over, waiting, gone = (each.seq for each in put(conn, A, B, PHOTOS))
    outbox.hand(conn, [handed_over, gone], 20)
    deliver(conn, gone)
    outbox.take_back(conn, [handed_over, waiting, gone, 99])
    states = [get(conn, seq).state for seq in (handed_over, waiting, gone)]
    assert states == [State.WAITING, State.WAITING, State.DELIVERED]
    assert outbox.withdraw(conn, handed_over, 30)


# ---- ends


def test_side_rows_go_with_their_rows(conn: sqlite3.Connection) -> None:
    rows = put(conn, A, B, PHOTOS, INSIDE, STREAM, replace(STREAM, name="two"))
    delivered, unfinished, folder, no, stream, sent = (each.seq for each in rows)
    deliver(conn, delivered)
    deliver(conn, sent)
    for seq in (unfinished, folder, stream):
        withdrawn(conn, seq)
    refuse(conn, no, permanent=True)
    everything = [delivered, unfinished, folder, no, stream, sent]
    outbox.prune(conn, 20 + DAY)
    assert seqs_left(conn) == (everything, everything)
    outbox.prune(conn, 21 + DAY)
    left = [delivered, unfinished, folder, no, sent]
    assert seqs_left(conn) == (left, left)
    outbox.prune(conn, 31 + DAY)
    left = [unfinished, folder, no]
    assert seqs_left(conn) == (left, left)
    outbox.prune(conn, 20 + 30 * DAY)
    assert seqs_left(conn) == (left, left)
    outbox.prune(conn, 21 + 30 * DAY)
    assert seqs_left(conn) == ([no], [no])
    outbox.prune(conn, 31 + 30 * DAY)
    assert seqs_left(conn) == ([], [])


def test_a_removed_peer_costs_its_files(conn: sqlite3.Connection) -> None:
    rows = [each.seq for each in put(conn, A, B, PHOTOS)]
    outbox.hand(conn, rows[:1], 20)
    other = seq_of(conn, A, peer=EVE)
    assert outbox.cancel_peer(conn, BOB, 30) == 3
    states = [get(conn, seq).state for seq in rows]
    assert states == [State.UNCONFIRMED, State.WITHDRAWN, State.WITHDRAWN]
    outbox.prune(conn, 31 + 30 * DAY)
    assert seqs_left(conn) == ([other], [other])


def test_a_deadline_holds_for_files_too(conn: sqlite3.Connection) -> None:
    late, early = seq_of(conn, A, deadline=20), seq_of(conn, B, deadline=50)
    assert outbox.hand(conn, [late, early], 20) == [early]
    third = seq_of(conn, INSIDE, deadline=60)
    outbox.prune(conn, 60)
    assert [get(conn, seq).state for seq in (late, early, third)] == [
        State.WITHDRAWN,
        State.HANDED,
        State.WITHDRAWN,
    ]


# ---- long queues


def steps(conn: sqlite3.Connection, function: Callable[[], object]) -> int:
    """How many hundred steps of SQLite's machine a function takes."""
    asked = 0

    def count() -> None:
        nonlocal asked
        asked += 1

    conn.set_progress_handler(count, 100)
    try:
        function()
    finally:
        conn.set_progress_handler(None, 0)
    return asked


@pytest.fixture
def crowded(conn: sqlite3.Connection) -> sqlite3.Connection:
    """A store with long queues of both kinds, owned and not, and much that has ended."""
    conn.execute("BEGIN")
    for number in range(2000):
        owner = (None, "texter")[number % 2]
        outbox.put(
            conn,
            message_id=number.to_bytes(16, "big"),
            peer=BOB,
            text="hello",
            sent_at=10,
            owner=owner,
            deadline=10**6,
        )
    files = [replace(A, path=b"/f/%d" % n, name=f"f/{n}", inode=n) for n in range(2000)]
    put(conn, *files[:1000], owner="sender", deadline=10**6)
    rows = put(conn, *files[1000:], owner=None)
    for each in rows[500:]:
        withdrawn(conn, each.seq)
    outbox.hand(conn, [each.seq for each in rows[:250]], 20)
    put(conn, *files[:2], owner=None, peer=EVE)
    conn.execute("COMMIT")
    return conn


@pytest.mark.parametrize(
    "look",
    [
        outbox.owners,
        outbox.peers_with_queued,
        outbox_files.peers_with_queued,
        lambda conn: outbox.count_queued(conn, EVE),
        lambda conn: next(outbox.queued(conn, BOB)),
        lambda conn: outbox_files.queued(conn, BOB, 0, 5),
        lambda conn: outbox_files.queued(conn, EVE, 0, 5),
        lambda conn: outbox_files.own(conn, "sender", BOB, 0, 5),
        lambda conn: outbox_files.own(conn, "texter", BOB, 0, 5),
        lambda conn: outbox_files.group_of(conn, peer=BOB, path=b"/f/7", name="f/7"),
        lambda conn: outbox.bury_owner(conn, "nobody", 30),
        lambda conn: outbox.prune(conn, 30),
    ],
)
def test_no_look_costs_more_where_the_queues_are_long(
    crowded: sqlite3.Connection, look: Callable[[sqlite3.Connection], object]
) -> None:
    assert steps(crowded, lambda: look(crowded)) < 10
