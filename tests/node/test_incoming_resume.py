"""Files that were cut go on where they were, and a crash at any step neither loses nor doubles."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bringing import MIB, MTIME, Receiver, content, receiver
from crashing import GROUP, ID
from parties import until

from securelink import landing
from securelink.boot import UNKNOWN, boot_id
from securelink.errors import StoreBusy
from securelink.file_messages import Begin, Chunk
from securelink.incoming import intake, recover, talk
from securelink.landing import Part, part_path
from securelink.messages import RefusalCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.file_messages import Offer

SIZE = 6 * MIB + 123


async def cut_at(it: Receiver, data: bytes, offset: int, **fields: Any) -> Offer:
    """Bring a file until so many bytes are written, and cut the link."""
    sender = it.link()
    offer = sender.offer(size=len(data), **fields)
    sender.chunks(offer.number, data[:offset])
    await sender.cut()
    return offer


def change_row(it: Receiver, **columns: object) -> None:
    with closing(sqlite3.connect(it.node.home.store_file)) as conn, conn:
        for name, value in columns.items():
            conn.execute(f"UPDATE partials SET {name} = ?", (value,))


# ---- cut and gone on with


@pytest.mark.parametrize("offset", [0, 1, 1_000_000, 5 * MIB, SIZE])
@pytest.mark.parametrize("checksum", [True, False])
async def test_a_file_goes_on_where_it_was_cut(tmp_path: Path, offset: int, checksum: bool) -> None:
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        first = await cut_at(it, data, offset, checksum=checksum)
        (row,) = it.rows()
        assert (row.id, row.size, row.synced, row.boot) == (first.id, SIZE, offset, boot_id())
        assert [part.stat().st_size for part in it.parts()] == [offset]
        assert (it.lies(), it.inbox()) == ({}, [])
    async with receiver(tmp_path) as it:
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id, checksum=checksum)
        await sender.go_on(data, offset, again)
        assert sender.incoming.active()[0].resumed == offset
        await sender.receipt(again)
        await sender.cut()
        assert it.lies() == {"a.bin": data}
        assert (it.parts(), it.rows()) == ([], [])
        assert it._select("SELECT sha256 FROM inbox_files") == [
            (hashlib.sha256(data).digest() if checksum else None,)
        ]


async def test_a_file_may_be_cut_many_times(tmp_path: Path) -> None:
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        at = 10_000
        first = await cut_at(it, data, at)
        while at < SIZE - MIB:
            sender = it.link()
            again = sender.offer(size=SIZE, ask=True, id=first.id)
            assert (await sender.accept(again)).offset == at
            await sender.prefix(again)
            sender.incoming.feed(Begin(again.number, at))
            sender.chunks(again.number, data[at : at + MIB])
            at += MIB
            await sender.cut()
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id)
        await sender.go_on(data, at, again)
        await sender.receipt(again)
        assert it.lies() == {"a.bin": data}


async def test_no_more_is_written_than_may_be_lost_before_the_row_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(SIZE)
    begun, too_much = threading.Event(), threading.Event()
    record, write = talk.Began.record, Part.write

    def record_late(*args: Any) -> bool:
        # As a busy disk would; who does not wait for it is here long before that.
        too_much.wait(0.3)
        begun.set()
        return record(*args)

    def watched_write(part: Part, views: Any) -> None:
        write(part, views)
        if part.size > MIB and not begun.is_set():
            too_much.set()

    monkeypatch.setattr(talk.Began, "record", record_late)
    monkeypatch.setattr(Part, "write", watched_write)
    async with receiver(tmp_path) as it:
        sender = it.link()
        offer = sender.bring("a.bin", data)
        await sender.receipt(offer)
        assert not too_much.is_set()
        assert it.lies() == {"a.bin": data}


async def test_a_file_whose_row_the_store_does_not_take_comes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bool:
        raise StoreBusy("another process is writing")

    data = content(SIZE)
    monkeypatch.setattr(talk.Began, "record", fail)
    async with receiver(tmp_path) as it:
        sender = it.link()
        await sender.receipt(sender.bring("a.bin", data))
        assert it.lies() == {"a.bin": data}


async def test_what_differs_starts_over(tmp_path: Path) -> None:
    async with receiver(tmp_path, quota=SIZE) as it:
        first = await cut_at(it, content(SIZE, 1), 3 * MIB, checksum=True)
        data = content(SIZE, 2)
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id, checksum=True)
        assert (await sender.accept(again)).offset == 3 * MIB
        await sender.prefix(again)
        sender.incoming.feed(Begin(again.number, 0))
        sender.chunks(again.number, data[: 2 * MIB])
        await sender.cut()
        # What counts is what came since.
        (row,) = it.rows()
        assert row.synced == 2 * MIB
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id, checksum=True)
        await sender.go_on(data, 2 * MIB, again)
        await sender.receipt(again)
        assert it.lies() == {"a.bin": data}


async def test_a_small_file_and_a_stream_do_not_go_on(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        small = sender.offer("small.bin", 4 * MIB - 1)
        sender.chunks(small.number, bytes(MIB))
        stream = sender.offer("pipe", None)
        sender.chunks(stream.number, bytes(5 * MIB))
        await sender.cut()
        assert (it.parts(), it.rows(), it.lies()) == ([], [], {})
        again = it.link()
        offer = again.offer("small.bin", 4 * MIB - 1, id=small.id, ask=True)
        await again.go_on(bytes(4 * MIB - 1), 0, offer)
        await again.receipt(offer)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"boot": "another run", "synced": MIB}, MIB),
        ({"boot": "another run", "synced": 5 * MIB}, 3 * MIB),
        ({"boot": "another run", "synced": 0}, 0),
        ({"synced": MIB}, 3 * MIB),
        ({"size": SIZE + 1}, 0),
    ],
)
async def test_after_a_restart_what_was_on_the_disk_counts(
    tmp_path: Path, columns: dict[str, object], expected: int
) -> None:
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        first = await cut_at(it, data, 3 * MIB)
        change_row(it, **columns)
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id)
        await sender.go_on(data, expected, again)
        await sender.receipt(again)
        assert it.lies() == {"a.bin": data}


async def test_an_unknown_run_of_the_machine_is_never_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("files", "intake", "reception"):
        monkeypatch.setattr(f"securelink.incoming.{module}.boot_id", lambda: UNKNOWN)
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        first = await cut_at(it, data, 3 * MIB)
        change_row(it, synced=MIB)
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id)
        await sender.go_on(data, MIB, again)
        await sender.receipt(again)


async def test_after_a_restart_a_row_belongs_to_the_new_run(tmp_path: Path) -> None:
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        first = await cut_at(it, data, 3 * MIB)
        change_row(it, boot="another run", synced=MIB)
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id)
        await sender.accept(again)
        await sender.prefix(again)
        sender.incoming.feed(Begin(again.number, MIB))
        await until(lambda: it.rows()[0].boot == boot_id())
        assert it.rows()[0].synced == MIB


async def test_a_part_without_its_row_starts_over(tmp_path: Path) -> None:
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        first = await cut_at(it, data, 3 * MIB)
        with closing(sqlite3.connect(it.node.home.store_file)) as conn, conn:
            conn.execute("DELETE FROM partials")
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id)
        await sender.go_on(data, 0, again)
        await sender.receipt(again)
        assert it.lies() == {"a.bin": data}


async def test_what_is_offered_unasked_starts_over(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        first = await cut_at(it, content(SIZE, 1), 3 * MIB)
        sender = it.link()
        data = content(SIZE, 2)
        await sender.receipt(sender.bring("a.bin", data, id=first.id))
        assert it.lies() == {"a.bin": data}


async def test_the_disk_is_waited_for_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "SYNC_EVERY", MIB)
    syncs: list[int] = []
    sync = Part.sync

    def watched(part: Part) -> None:
        sync(part)
        syncs.append(part.size)

    monkeypatch.setattr(Part, "sync", watched)
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        sender = it.link()
        offer = sender.offer(size=SIZE)
        for at in range(0, 5 * MIB, MIB // 4):
            sender.chunks(offer.number, data[at : at + MIB // 4])
            await until(lambda: not sender.incoming._backlog)
        await until(lambda: bool(it.rows()) and it.rows()[0].synced == 5 * MIB)
        assert syncs == [MIB, 2 * MIB, 3 * MIB, 4 * MIB, 5 * MIB]


# ---- the sender gives up


async def test_a_cancelled_file_is_kept_if_it_is_large(tmp_path: Path) -> None:
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        sender = it.link()
        large, small = sender.offer("large.bin", SIZE), sender.offer("small.bin", 100)
        sender.chunks(large.number, data[:MIB])
        sender.chunks(small.number, b"x")
        sender.cancel(large)
        sender.cancel(small)
        await until(lambda: not it.node.claims._places)
        assert it.parts() == [part_path(it.folder, it.peer.key.raw, large.id)]
        assert sender.link.sent == []
        again = sender.offer("large.bin", SIZE, id=large.id, ask=True)
        await sender.go_on(data, MIB, again)
        await sender.receipt(again)


class SlowDigest:
    """Digests of parts that wait until they are let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        digest_prefix = Part.digest_prefix

        def slow(part: Part, size: int, update: Any, cancelled: Callable[[], bool]) -> None:
            self.begun.set()
            while not self.go_on.wait(0.001) and not cancelled():
                pass
            digest_prefix(part, size, update, cancelled)

        monkeypatch.setattr(Part, "digest_prefix", slow)


async def test_others_come_while_one_is_digested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowDigest(monkeypatch)
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        first = await cut_at(it, data, 5 * MIB)
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id)
        await sender.receipt(sender.bring("other.bin", content(2 * MIB)))
        slow.go_on.set()
        await sender.go_on(data, 5 * MIB, again)
        await sender.receipt(again)


@pytest.mark.parametrize("end", ["cancel", "cut", "newer link"])
async def test_a_digest_can_be_called_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    slow = SlowDigest(monkeypatch)
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        first = await cut_at(it, data, 5 * MIB)
        sender, other = it.link(), it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id)
        await until(slow.begun.is_set)
        if end == "cancel":
            sender.cancel(again)
        elif end == "cut":
            await sender.cut()
        third = other.offer(size=SIZE, ask=True, id=first.id)
        if end == "newer link":
            await sender.refused(again, RefusalCode.BUSY, permanent=False)
        slow.go_on.set()
        await other.go_on(data, 5 * MIB, third)
        await other.receipt(third)
        assert it.lies() == {"a.bin": data}


async def test_what_cannot_be_read_again_is_refused_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Part, "digest_prefix", broken)
    async with receiver(tmp_path) as it:
        first = await cut_at(it, content(SIZE), 5 * MIB)
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id)
        await sender.refused(again, RefusalCode.BUSY, permanent=False)


# ---- crashes

STEPS = (
    "before the fsync",
    "after the fsync",
    "after the link",
    "after the commit",
    "before the part is removed",
    "after the receipt",
)
HAS_ITS_NAME = STEPS[2:]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("size", "name"), [(1000, "a.bin"), (SIZE, "d/a.bin")])
async def test_a_crash_neither_loses_nor_doubles(
    tmp_path: Path, step: str, size: int, name: str
) -> None:
    crash(tmp_path, step, size, name)
    data = content(size)
    async with receiver(tmp_path) as it:
        await introduce_bob(it)
        await recover(it.node)
        assert (it.lies().get(name) == data) is (step in HAS_ITS_NAME)
        assert len(it.inbox()) == (step in HAS_ITS_NAME)
        assert len(it.parts()) == (step not in HAS_ITS_NAME and size == SIZE)
        sender = it.link()
        again = sender.offer(name, size, ask=True, id=ID, group=GROUP)
        if step not in HAS_ITS_NAME:
            await sender.go_on(data, size if size == SIZE else 0, again)
        await sender.receipt(again)
        await sender.cut()
        assert [each for each in it.lies().items() if each[1] is not None] == [(name, data)]
        ((told, path, told_size, kind),) = it.inbox()
        assert (told, path, told_size, kind) == (name, str(it.path(name)), size, "file")
        assert (it.parts(), it.rows()) == ([], [])
        await recover(it.node)
        assert len(it.inbox()) == 1


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("size", "name"), [(1000, "a.bin"), (SIZE, "d/a.bin")])
async def test_a_crash_does_no_harm_when_nobody_tidies_up(
    tmp_path: Path, step: str, size: int, name: str
) -> None:
    """Another process of the node lives on, and the file comes to that."""
    crash(tmp_path, step, size, name)
    data = content(size)
    async with receiver(tmp_path) as it:
        sender = it.link()
        again = sender.offer(name, size, ask=True, id=ID, group=GROUP)
        if step in {"after the commit", "before the part is removed", "after the receipt"}:
            await sender.receipt(again)
        else:
            await sender.go_on(data, size if size == SIZE else 0, again)
            await sender.receipt(again)
        await sender.cut()
        assert [each for each in it.lies().items() if each[1] is not None] == [(name, data)]
        assert len(it.inbox()) == 1
        await introduce_bob(it)
        await recover(it.node)
        assert [each for each in it.lies().items() if each[1] is not None] == [(name, data)]
        assert (len(it.inbox()), it.parts(), it.rows()) == (1, [], [])


async def test_a_kill_in_the_middle_costs_nothing_that_was_written(tmp_path: Path) -> None:
    crash(tmp_path, "while it is written", SIZE, "a.bin")
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        await introduce_bob(it)
        await recover(it.node)
        (part,) = it.parts()
        size = part.stat().st_size
        assert size > 2 * MIB
        sender = it.link()
        again = sender.offer("a.bin", SIZE, ask=True, id=ID, group=GROUP)
        await sender.go_on(data, size, again)
        await sender.receipt(again)
        assert it.lies() == {"a.bin": data}


def crash(folder: Path, step: str, size: int, name: str) -> None:
    child = Path(__file__).with_name("crashing.py")
    command = [sys.executable, str(child), str(folder), step, str(size), name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == -signal.SIGKILL, done.stderr


async def introduce_bob(it: Receiver) -> None:
    """Have the node know the sender by name."""
    from parties import introduce

    await introduce(it.node, it.peer.key, it.peer.name)


# ---- tidying up


async def test_what_is_too_old_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    day = 86_400_000
    async with receiver(tmp_path) as it:
        await introduce_bob(it)
        data = content(SIZE)
        old = await cut_at(it, data, MIB)
        change_row(it, touched_at=1)
        young = await cut_at(it, data, MIB)
        sender = it.link()
        used = sender.offer(size=SIZE)
        await until(lambda: len(it.rows()) == 3)
        with closing(sqlite3.connect(it.node.home.store_file)) as conn, conn:
            conn.execute("UPDATE partials SET touched_at = 1 WHERE id = ?", (used.id,))
            conn.execute("UPDATE partials SET touched_at = touched_at - ?", (29 * day,))
        await recover(it.node)
        assert {row.id for row in it.rows()} == {young.id, used.id}
        assert {part.name[17:-5] for part in it.parts()} == {young.id.hex(), used.id.hex()}
        sender.chunks(used.number, data)
        sender.end(used.number, data)
        await sender.receipt(used)
        assert old.id not in it.seen()


async def test_parts_can_be_kept_for_ever(tmp_path: Path) -> None:
    async with receiver(tmp_path, partial_days=0) as it:
        await introduce_bob(it)
        first = await cut_at(it, content(SIZE), MIB)
        change_row(it, touched_at=1)
        await recover(it.node)
        assert [row.id for row in it.rows()] == [first.id]
        assert len(it.parts()) == 1


async def test_a_part_that_cannot_be_gone_on_with_goes(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        await introduce_bob(it)
        part = part_path(it.folder, it.peer.key.raw, ID)
        part.parent.mkdir(parents=True)
        part.write_bytes(b"1234")
        stranger = part.with_name(f"{'0' * 16}-{ID.hex()}.part")
        stranger.write_bytes(b"1234")
        await recover(it.node)
        assert it.parts() == [stranger]


async def test_the_part_of_a_peer_that_was_removed_grows_old_too(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        await cut_at(it, content(SIZE), MIB)
        await recover(it.node)
        assert len(it.parts()) == 1
        change_row(it, touched_at=1)
        await recover(it.node)
        assert (it.parts(), it.rows()) == ([], [])


async def test_what_could_not_be_taken_in_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash(tmp_path, "after the link", 1000, "a.bin")
    async with receiver(tmp_path) as it:
        await introduce_bob(it)

        async def failing(*_: Any) -> None:
            raise StoreBusy("another process is writing")

        with monkeypatch.context() as patch:
            patch.setattr(it.node.store, "run", failing)
            with pytest.raises(StoreBusy):
                await recover(it.node)
        assert (len(it.parts()), it.inbox()) == (1, [])
        await recover(it.node)
        assert (len(it.parts()), len(it.inbox())) == (0, 1)


async def test_a_folder_that_cannot_be_tidied_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    async with receiver(tmp_path) as it:
        monkeypatch.setattr(landing, "recover", broken)
        await recover(it.node)
    assert [record.getMessage() for record in caplog.records] == [
        f"the folder {tmp_path / 'files'} can't be tidied: Input/output error"
    ]


async def test_nothing_is_made_where_nothing_came(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        before = it.node.store.commits
        await recover(it.node)
        assert not it.folder.exists()
        assert it.node.store.commits == before


async def test_names_and_times_are_those_of_the_last_offer(tmp_path: Path) -> None:
    data = content(SIZE)
    async with receiver(tmp_path) as it:
        first = await cut_at(it, data, MIB)
        sender = it.link()
        again = sender.offer(size=SIZE, ask=True, id=first.id, mode=0o400)
        await sender.accept(again)
        await sender.prefix(again)
        sender.incoming.feed(Begin(again.number, MIB))
        for at in range(MIB, SIZE, 60_000):
            sender.incoming.feed(Chunk(again.number, data[at : at + 60_000]))
            await asyncio.sleep(0)
        sender.end(again.number, data)
        await sender.receipt(again)
        found = it.path("a.bin").stat()
        assert (found.st_mtime_ns, found.st_mode & 0o777) == (MTIME, 0o400)
