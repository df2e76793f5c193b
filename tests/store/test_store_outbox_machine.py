"""The outbox against a model of it, texts and files, through random histories of several
processes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
)

from securelink.store import outbox, outbox_files, schema
from securelink.store.file_terms import Kind, NewFile
from securelink.store.outbox import State
from securelink.store.outbox_files import Put

DAY = 86_400_000
PEERS = (b"a" * 32, b"b" * 32)
OWNERS = (None, "x", "y")
NAMES = ("a", "a/b")
GROUPS = (b"g" * 16, b"h" * 16)
LIVE = (State.WAITING, State.HANDED)


@dataclass
class Row:
    peer: bytes
    message_id: bytes
    owner: str | None
    deadline: int | None
    state: State = State.WAITING
    handed_at: int | None = None
    shared: bool = False
    ended_at: int | None = None
    file: NewFile | None = None
    """As it was when it was put; None for a text."""
    found: bool = True
    """Whether another attempt may find it."""
    began: bool = False
    group: bytes = b""

    def end(self, state: State, now: int) -> None:
        self.state = state
        self.ended_at = now
        if state is State.DELIVERED:
            self.found = False

    def put_again(self, owner: str | None, shared: bool, deadline: int | None) -> None:
        self.owner, self.shared, self.deadline, self.ended_at = owner, shared, deadline, None
        self.state = State.HANDED if self.state is State.HANDED else State.WAITING

    @property
    def queued(self) -> bool:
        return (self.owner is None or self.shared) and self.state in LIVE

    @property
    def kept(self) -> int:
        if self.state in {State.REFUSED, State.UNCONFIRMED}:
            return 30 * DAY
        goes_on = self.file is not None and self.file.kind is not Kind.STREAM
        return 30 * DAY if self.state is State.WITHDRAWN and goes_on else DAY


class OutboxMachine(RuleBasedStateMachine):
    seqs = Bundle("seqs")

    def __init__(self) -> None:
        super().__init__()
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        for script in schema.MIGRATIONS:
            self.conn.executescript(script)
        self.conn.execute("PRAGMA foreign_keys = ON")
        self.model: dict[int, Row] = {}
        self.now = 1000
        self.made = 0
        self.before: dict[int, State] = {}

    def teardown(self) -> None:
        self.conn.close()

    @rule(
        target=seqs,
        peer=st.sampled_from(PEERS),
        value=st.integers(0, 3),
        owner=st.sampled_from(OWNERS),
        shared=st.booleans(),
        patience=st.none() | st.integers(0, 100),
    )
    def put(
        self, peer: bytes, value: int, owner: str | None, shared: bool, patience: int | None
    ) -> object:
        message_id = bytes([value]) * 16
        deadline = None if patience is None else self.now + patience
        seq = outbox.put(
            self.conn,
            message_id=message_id,
            peer=peer,
            text=f"text {value}",
            sent_at=self.now,
            owner=owner,
            shared=shared,
            deadline=deadline,
        )
        known = {(row.peer, row.message_id): seq for seq, row in self.model.items()}
        if (peer, message_id) not in known:
            assert seq > max(self.model, default=0)
            self.model[seq] = Row(peer, message_id, owner, deadline, shared=shared)
            return seq
        assert seq == known[peer, message_id]
        row = self.model[seq]
        if row.state is not State.DELIVERED:
            row.put_again(owner, shared, deadline)
        return multiple()

    @rule(
        target=seqs,
        peer=st.sampled_from(PEERS),
        kind=st.sampled_from(Kind),
        name=st.sampled_from(NAMES),
        mtime=st.integers(0, 1),
        group=st.sampled_from(GROUPS),
        owner=st.sampled_from(OWNERS),
        shared=st.booleans(),
        patience=st.none() | st.integers(0, 100),
    )
    def put_file(
        self,
        peer: bytes,
        kind: Kind,
        name: str,
        mtime: int,
        group: bytes,
        owner: str | None,
        shared: bool,
        patience: int | None,
    ) -> object:
        deadline = None if patience is None else self.now + patience
        path = b"" if kind is Kind.STREAM else b"/" + name.encode()
        file = NewFile(name, path, kind, 5 if kind is Kind.FILE else None, mtime, 1, 0o600)
        made: list[bytes] = []

        def new_id() -> bytes:
            self.made += 1
            made.append(self.made.to_bytes(16, "little"))
            return made[-1]

        (put,) = outbox_files.put(
            self.conn,
            peer=peer,
            files=[file],
            group=group,
            new_id=new_id,
            sent_at=self.now,
            owner=owner,
            shared=shared,
            deadline=deadline,
        )
        earlier = [
            seq
            for seq, row in sorted(self.model.items(), reverse=True)
            if row.file is not None and row.file.kind is not Kind.STREAM and row.found
            if (row.peer, row.file.path, row.file.name) == (peer, path, name)
            if row.owner is None or row.state not in LIVE
        ]
        for seq in earlier:
            row = self.model[seq]
            assert row.file is not None
            if (row.file.size, row.file.mtime) == (file.size, file.mtime):
                assert put == Put(seq, changed=False, resumed=row.began)
                assert made == []
                row.put_again(owner, shared, deadline)
                row.group = group
                return multiple()
        changed = bool(earlier) and self.model[earlier[0]].began
        assert put == Put(put.seq, changed=changed, resumed=False)
        assert put.seq > max(self.model, default=0)
        for seq in earlier:
            row = self.model[seq]
            if row.state is State.WAITING:
                row.end(State.WITHDRAWN, self.now)
            row.found = row.state is State.HANDED
        self.model[put.seq] = Row(
            peer, made[0], owner, deadline, shared=shared, file=file, group=group
        )
        return put.seq

    @rule(chosen=st.lists(seqs, unique=True, max_size=4))
    def begin(self, chosen: list[int]) -> None:
        outbox_files.begin(self.conn, chosen)
        for seq in chosen:
            if seq in self.model:
                self.model[seq].began = True

    @rule(chosen=st.lists(seqs, unique=True, max_size=4))
    def hand(self, chosen: list[int]) -> None:
        expected = []
        for seq in chosen:
            row = self.model.get(seq)
            if row is None or row.state not in LIVE:
                continue
            overdue = row.deadline is not None and row.deadline <= self.now
            if row.state is State.WAITING and overdue:
                row.end(State.WITHDRAWN, self.now)
                continue
            expected.append(seq)
            row.state = State.HANDED
            row.handed_at = row.handed_at or self.now
        assert outbox.hand(self.conn, chosen, self.now) == expected

    @rule(seq=seqs)
    def deliver(self, seq: int) -> None:
        row = self.model.get(seq)
        if row is None:
            return
        result = outbox.delivered(self.conn, peer=row.peer, message_id=row.message_id, now=self.now)
        assert result == (None if row.state is State.DELIVERED else seq)
        if result is not None:
            row.end(State.DELIVERED, self.now)

    @rule(seq=seqs, permanent=st.booleans())
    def refuse(self, seq: int, permanent: bool) -> None:
        row = self.model.get(seq)
        if row is None:
            return
        result = outbox.refused(
            self.conn,
            peer=row.peer,
            message_id=row.message_id,
            permanent=permanent,
            reason="no",
            now=self.now,
        )
        assert result == (seq if row.state in LIVE else None)
        if result is None:
            return
        if permanent:
            row.end(State.REFUSED, self.now)
        else:
            row.state = State.WAITING

    @rule(seq=seqs)
    def withdraw(self, seq: int) -> None:
        row = self.model.get(seq)
        possible = row is not None and row.state is State.WAITING
        assert outbox.withdraw(self.conn, seq, self.now) is possible
        if row is not None and possible:
            row.end(State.WITHDRAWN, self.now)

    @rule(seq=seqs)
    def release(self, seq: int) -> None:
        outbox.release(self.conn, seq)
        if seq in self.model:
            self.model[seq].owner = None

    @rule(chosen=st.lists(seqs, unique=True, max_size=4))
    def take_back(self, chosen: list[int]) -> None:
        outbox.take_back(self.conn, chosen)
        for seq in chosen:
            if seq in self.model and self.model[seq].state is State.HANDED:
                self.model[seq].state = State.WAITING

    @rule(owner=st.sampled_from(OWNERS[1:]))
    def bury(self, owner: str) -> None:
        handed = withdrawn = 0
        for row in self.model.values():
            if row.owner != owner or row.state not in LIVE:
                continue
            row.owner = None
            if row.state is State.HANDED:
                handed += 1
            else:
                withdrawn += 1
                row.end(State.WITHDRAWN, self.now)
        assert outbox.bury_owner(self.conn, owner, self.now) == (handed, withdrawn)

    @rule(peer=st.sampled_from(PEERS))
    def cancel(self, peer: bytes) -> None:
        rows = [row for row in self.model.values() if row.peer == peer and row.state in LIVE]
        for row in rows:
            row.end(State.UNCONFIRMED if row.handed_at else State.WITHDRAWN, self.now)
        assert outbox.cancel_peer(self.conn, peer, self.now) == len(rows)

    @rule(step=st.sampled_from([1, 50, DAY, 31 * DAY]))
    def time_passes(self, step: int) -> None:
        self.now += step

    @rule()
    def prune(self) -> None:
        outbox.prune(self.conn, self.now)
        for seq, row in list(self.model.items()):
            overdue = row.deadline is not None and row.deadline <= self.now
            if row.state is State.WAITING and overdue:
                row.end(State.WITHDRAWN, self.now)
            forgotten = row.state is State.WAITING and row.owner is None and row.handed_at
            if (row.state is State.HANDED or forgotten) and row.handed_at + 60 * DAY < self.now:
                row.end(State.UNCONFIRMED, self.now)
            if row.ended_at is not None and row.ended_at + row.kept < self.now:
                del self.model[seq]
                self.before.pop(seq, None)

    @invariant()
    def store_equals_model(self) -> None:
        stored = {
            seq: outbox.get(self.conn, seq)
            for (seq,) in self.conn.execute("SELECT seq FROM outbox")
        }
        assert stored.keys() == self.model.keys()
        for seq, expected in self.model.items():
            row = stored[seq]
            assert row is not None
            assert (row.peer, row.id, row.state) == (
                expected.peer,
                expected.message_id,
                expected.state,
            )
            assert (row.owner, row.deadline, row.handed_at) == (
                expected.owner,
                expected.deadline,
                expected.handed_at,
            )
            ended = expected.state is State.DELIVERED or expected.file is not None
            assert row.text == ("" if ended else f"text {expected.message_id[0]}")

    @invariant()
    def files_equal_model(self) -> None:
        expected = {seq: row for seq, row in self.model.items() if row.file is not None}
        stored = {seq for (seq,) in self.conn.execute("SELECT seq FROM outbox_files")}
        assert stored == expected.keys()
        for seq, known in expected.items():
            row = outbox_files.get(self.conn, seq)
            assert row is not None
            assert known.file is not None
            path = known.file.path if known.found else b""
            assert (row.id, row.peer, row.owner, row.state, row.group, row.began) == (
                known.message_id,
                known.peer,
                known.owner,
                known.state,
                known.group,
                known.began,
            )
            assert (row.name, row.path, row.kind, row.size, row.mtime) == (
                known.file.name,
                path,
                known.file.kind,
                known.file.size,
                known.file.mtime,
            )

    @invariant()
    def queues_equal_model(self) -> None:
        for peer in PEERS:
            texts = [s for s, row in self.queued(peer) if row.file is None]
            assert [row.seq for row in outbox.queued(self.conn, peer)] == texts
            assert outbox.count_queued(self.conn, peer) == len(texts)
            assert (peer in outbox.peers_with_queued(self.conn)) == bool(texts)
            files = [
                s for s, row in self.queued(peer) if row.file and row.file.kind is not Kind.STREAM
            ]
            assert [row.seq for row in outbox_files.queued(self.conn, peer, 0, 999)] == files
            assert (peer in outbox_files.peers_with_queued(self.conn)) == bool(files)
        owners = {row.owner for row in self.model.values() if row.owner and row.state in LIVE}
        assert outbox.owners(self.conn) == sorted(owners)

    def queued(self, peer: bytes) -> list[tuple[int, Row]]:
        return [
            (s, row) for s, row in sorted(self.model.items()) if row.queued and row.peer == peer
        ]

    @invariant()
    def own_rows_equal_model(self) -> None:
        for peer in PEERS:
            for owner in OWNERS[1:]:
                expected = [
                    seq
                    for seq, row in sorted(self.model.items())
                    if row.file and (row.owner, row.peer) == (owner, peer)
                    if row.state in LIVE and not row.shared
                ]
                rows = outbox_files.own(self.conn, owner, peer, 0, 999)
                assert [row.seq for row in rows] == expected

    @invariant()
    def steps_stand_in_the_table(self) -> None:
        after = {
            seq: State(state) for seq, state in self.conn.execute("SELECT seq, state FROM outbox")
        }
        for seq, state in after.items():
            old = self.before.get(seq, State.WAITING)
            assert state is old or state in outbox.TRANSITIONS[old]
        self.before = after


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
