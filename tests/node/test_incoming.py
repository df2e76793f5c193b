"""Files that come over a link: whole, byte for byte, once, and receipted when they are safe."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from bringing import CHUNK, MIB, MTIME, Receiver, content, receiver
from parties import linked, until

from securelink.errors import RemoteProtocolError, StoreBusy, StoreError, StoreFull
from securelink.file_messages import Begin, Chunk, End
from securelink.incoming import Arriving, Incoming
from securelink.incoming.core import PAUSE_ABOVE
from securelink.incoming.intake import Intake
from securelink.landing import Landing, Part
from securelink.messages import Receipt, RefusalCode
from securelink.session import Data

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from securelink.file_messages import FileMessage


@pytest.mark.parametrize("size", [0, 1, 64_999, 65_001, 3 * MIB + 7, 9 * MIB])
async def test_a_file_comes_byte_for_byte(tmp_path: Path, size: int) -> None:
    async with receiver(tmp_path) as it:
        data = content(size)
        sender = it.link()
        offer = sender.bring("a.bin", data, mode=0o700)
        await sender.receipt(offer)
        path = it.path("a.bin")
        assert path.read_bytes() == data
        assert path.stat().st_mtime_ns == MTIME
        assert path.stat().st_mode & 0o777 == 0o700
        assert it.inbox() == [("a.bin", str(path), size, "file")]
        await sender.incoming.aclose()
        assert (it.parts(), it.rows()) == ([], [])


async def test_a_stream_comes_whole(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        data = content(6 * MIB)
        sender = it.link()
        offer = sender.bring("pipe", data, stream=True)
        await sender.receipt(offer)
        assert it.path("pipe").read_bytes() == data
        assert it.inbox() == [("pipe", str(it.path("pipe")), 6 * MIB, "file")]


async def test_files_come_mixed(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        contents = {f"{seed}.bin": content(700_000 + seed, seed) for seed in range(4)}
        offers = {name: sender.offer(name, len(data)) for name, data in contents.items()}
        for at in range(0, 700_004, 10_000):
            for name, data in contents.items():
                if piece := data[at : at + 10_000]:
                    sender.incoming.feed(Chunk(offers[name].number, piece))
                if at % 50_000 == 0:
                    await asyncio.sleep(0)
        for name, data in contents.items():
            sender.end(offers[name].number, data)
        await sender.receipt(*offers.values())
        assert it.lies() == contents


async def test_over_a_link(tmp_path: Path) -> None:
    """The same with two sessions between: what is read is not touched by what is read next."""
    data = content(2 * MIB)

    class Source:
        def __init__(self, offer: Any) -> None:
            self.waiting: list[FileMessage] = [offer, End(1, len(data))]
            self.at = 0

        def next(self) -> FileMessage | Data | None:
            if len(self.waiting) == 1 and self.at < len(data):
                return Data(1, self.read)
            return self.waiting.pop(0) if self.waiting else None

        def read(self, room: memoryview) -> int:
            piece = data[self.at : self.at + len(room)]
            room[: len(piece)] = piece
            self.at += len(piece)
            return len(piece)

    async with receiver(tmp_path) as it:
        link, bob = await linked(it.node, dials=False)
        incoming = Incoming(it.node, it.peer, link)
        link.take_files(incoming.feed)  # type: ignore[arg-type]  # no answers come this way
        scratch = it.link()
        offer = scratch.offer(size=len(data))
        bob.link.send_files(Source(offer))
        await scratch.cut()
        bob.link.more_of_files()
        assert await bob.hear(Receipt) == [Receipt(offer.id)]
        assert it.path("a.bin").read_bytes() == data
        await incoming.aclose()
        link.abort()
        bob.link.abort()


# ---- sharing the way to the disk


async def test_many_small_files_share_their_commits(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        before = it.node.store.commits
        contents = {f"{number}.txt": content(100 + number, number) for number in range(300)}
        offers = []
        for at, (name, data) in enumerate(contents.items()):
            offers.append(sender.bring(name, data))
            if at % 20 == 19:
                await asyncio.sleep(0)
            if at >= 250:
                await sender.receipt(offers[at - 250])
        await sender.receipt(*offers)
        assert it.node.store.commits - before <= 60
        assert it.lies() == contents
        assert len(it.inbox()) == 300


async def test_what_is_whole_at_a_time_shares_one_way_to_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finishes: list[int] = []
    finish = Landing.finish

    def counting(self: Landing, ready: Sequence[Any], conflict: Any) -> Any:
        finishes.append(len(ready))
        return finish(self, ready, conflict)

    monkeypatch.setattr(Landing, "finish", counting)
    async with receiver(tmp_path) as it:
        sender = it.link()
        before = it.node.store.commits
        offers = [sender.bring(f"{number}.txt", b"x") for number in range(200)]
        await sender.receipt(*offers)
        assert finishes == [200]
        assert it.node.store.commits - before == 1


async def test_receipts_come_after_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        run = it.node.store.run
        in_store: list[bool] = []

        async def watching(function: Any, *args: Any) -> Any:
            assert sender.link.sent == []
            result = await run(function, *args)
            assert sender.link.sent == []
            in_store.append(offer.id in it.seen())
            return result

        monkeypatch.setattr(it.node.store, "run", watching)
        offer = sender.bring("a.bin", b"1234")
        await sender.receipt(offer)
        assert in_store == [True]


async def test_while_the_store_commits_the_disk_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        run = it.node.store.run
        may_commit = asyncio.Event()
        calls: list[int] = []

        async def slow(function: Any, notes: Sequence[Any]) -> Any:
            calls.append(len(notes))
            await may_commit.wait()
            return await run(function, notes)

        monkeypatch.setattr(it.node.store, "run", slow)
        first = sender.bring("0.bin", b"0")
        await until(it.path("0.bin").exists)
        others = [sender.bring(f"{number}.bin", b"x") for number in range(1, 30)]
        await until(it.path("29.bin").exists)
        assert sender.link.sent == []
        may_commit.set()
        await sender.receipt(first, *others)
        assert (calls[0], sum(calls)) == (1, 30)
        assert len(calls) <= 3


# ---- the pace


async def test_reading_pauses_while_the_disk_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    write = Part.write

    def slow(self: Part, views: Sequence[memoryview | bytes]) -> None:
        may_write.wait()
        write(self, views)

    monkeypatch.setattr(Part, "write", slow)
    async with receiver(tmp_path) as it:
        sender = it.link()
        data = content(9 * MIB)
        offer = sender.offer(size=len(data))
        fed = 0
        while not sender.link.paused:
            sender.incoming.feed(Chunk(offer.number, data[fed : fed + CHUNK]))
            fed += CHUNK
            await asyncio.sleep(0)
        assert PAUSE_ABOVE - CHUNK < fed <= PAUSE_ABOVE + CHUNK
        may_write.set()
        while sender.link.paused:
            await sender.link.changed()
        sender.chunks(offer.number, data[fed:])
        sender.end(offer.number, data)
        await sender.receipt(offer)
        assert it.path("a.bin").read_bytes() == data
        assert sender.incoming._backlog == 0


async def test_tiny_chunks_and_offers_are_not_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        # The loop gets no turn: the disk does nothing meanwhile.
        offer = sender.offer(size=1 << 20)
        for _ in range(20_000):
            sender.incoming.feed(Chunk(offer.number, b"x"))
        assert sender.link.paused
        sender.link.paused = False
        await until(lambda: not sender.incoming._backlog)
        for _ in range(2_000):
            sender.cancel(sender.offer(size=10))
        assert sender.link.paused


async def test_what_was_refused_does_not_hold_up_the_link(tmp_path: Path) -> None:
    async with receiver(tmp_path, largest=10) as it:
        sender = it.link()
        offer = sender.offer(size=8 * MIB)
        sender.chunks(offer.number, content(8 * MIB))
        await sender.refused(offer, RefusalCode.TOO_LARGE, permanent=True)
        sender.chunks(offer.number, content(1 * MIB))
        await until(lambda: not sender.incoming._backlog)
        assert not sender.link.paused


async def test_a_display_sees_what_comes(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        offer = sender.offer("b/a.bin", 100)
        sender.incoming.feed(Chunk(offer.number, bytes(40)))
        sender.offer("b", 0, folder=True)
        stream = sender.offer("pipe", None)
        assert sender.incoming.active() == [
            Arriving("bob", "b/a.bin", 100, 40, 0, is_compared=False),
            Arriving("bob", "pipe", None, 0, 0, is_compared=False),
        ]
        sender.cancel(stream)
        sender.chunks(offer.number, bytes(60))
        sender.end(offer.number, bytes(100))
        await sender.receipt(offer)
        assert [each for each in sender.incoming.active() if each.name != "b"] == []


# ---- folders and groups


async def test_a_folder_comes_with_all_that_is_in_it(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        group = bytes(16)
        offers = [
            sender.bring("photos/a.jpg", b"a", group=group),
            sender.bring("photos/2026/b.jpg", b"b", group=group),
            sender.offer("photos/2026", folder=True, group=group, mode=0o500),
            sender.offer("photos/empty", folder=True, group=group, mode=0o700),
            sender.offer("photos", folder=True, group=group, mode=0o700),
        ]
        await sender.receipt(*offers)
        assert it.lies() == {
            "photos": None,
            "photos/a.jpg": b"a",
            "photos/2026": None,
            "photos/2026/b.jpg": b"b",
            "photos/empty": None,
        }
        assert it.path("photos").stat().st_mtime_ns == MTIME
        assert it.path("photos/2026").stat().st_mode & 0o777 == 0o500
        assert ("photos/2026", str(it.path("photos/2026")), 0, "folder") in it.inbox()
        it.path("photos/2026").chmod(0o700)


async def test_a_group_lands_below_one_name(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        it.path("photos").mkdir(parents=True)
        group = bytes(16)
        sender = it.link()
        first = sender.bring("photos/a.jpg", b"a", group=group)
        await sender.receipt(first)
        await sender.cut()
        # Another link goes on with the same group, and a file of that name is no conflict.
        other = it.link()
        await other.receipt(other.bring("photos/b.jpg", b"b", group=group))
    async with receiver(tmp_path) as it:
        # So does another process.
        later = it.link()
        await later.receipt(later.offer("photos", folder=True, group=group))
        assert it.lies() == {
            "photos": None,
            "photos (2)": None,
            "photos (2)/a.jpg": b"a",
            "photos (2)/b.jpg": b"b",
        }


@pytest.mark.parametrize("ask", [True, False])
async def test_what_came_of_a_folder_before_does_not_come_again(tmp_path: Path, ask: bool) -> None:
    """The sender has forgotten what was delivered of it, and offers all, under new IDs."""
    data = {
        "d/large": content(5 * MIB, 1),
        "d/small": content(1000, 2),
        "d/empty": b"",
        "d/other size": b"12",
        "d/changed": b"new",
        "d/new": b"new",
    }
    async with receiver(tmp_path) as it:
        sender = it.link()
        group = bytes(16)
        before = data | {"d/other size": b"1", "d/changed": b"old"}
        del before["d/new"]
        offers = [sender.bring(name, each, group=group) for name, each in before.items()]
        await sender.receipt(*offers, sender.offer("d", folder=True, group=group))
        await sender.cut()
        sender = it.link()
        digests = {name: hashlib.sha256(each).digest() for name, each in data.items()}
        for name, each in data.items():
            if ask:
                offer = sender.offer(name, len(each), group=group, ask=True)
            else:
                offer = sender.bring(name, each, group=group)
            compared = 0
            if ask or (name in before and len(before[name]) == len(each) > 0):
                compared = (await sender.accept(offer)).offset
                same = not compared or (await sender.prefix(offer)).digest == digests[name]
                sender.incoming.feed(Begin(offer.number, compared if same else 0))
                if not same:
                    compared = 0
                sender.chunks(offer.number, each[compared:])
                sender.end(offer.number, each)
            await sender.receipt(offer)
            assert bool(compared) is (name in {"d/large", "d/small"})
        await sender.receipt(sender.offer("d", folder=True, group=group))
        await sender.cut()
        assert it.lies() == {
            "d": None,
            **before,
            "d/other size (2)": b"12",
            "d/changed (2)": b"new",
            "d/new": b"new",
        }
        assert (it.parts(), it.rows()) == ([], [])
        assert it.node.room._all.promised == 0


async def test_what_differs_from_what_came_before_goes_on_when_it_is_cut(tmp_path: Path) -> None:
    old, new = content(6 * MIB, 1), content(6 * MIB, 2)
    async with receiver(tmp_path) as it:
        sender = it.link()
        await sender.receipt(sender.bring("d/a", old, group=bytes(16)))
        await sender.cut()
        sender = it.link()
        first = sender.offer("d/a", len(new), group=bytes(16))
        await sender.prefix(first)
        sender.incoming.feed(Begin(first.number, 0))
        sender.chunks(first.number, new[: 2 * MIB])
        await sender.cut()
        sender = it.link()
        again = sender.offer("d/a", len(new), group=bytes(16), id=first.id, ask=True)
        await sender.go_on(new, 2 * MIB, again)
        await sender.receipt(again)
        assert it.lies() == {"d": None, "d/a": old, "d/a (2)": new}


async def test_groups_of_one_name_stay_apart(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        one, two = it.link(), it.link()
        offers = [
            (one, one.bring("photos/a.jpg", b"1", group=b"1" * 16)),
            (two, two.bring("photos/a.jpg", b"2", group=b"2" * 16)),
            (one, one.bring("photos/a.jpg", b"3", group=b"3" * 16)),
            (one, one.offer("photos", folder=True, group=b"4" * 16)),
        ]
        for sender, offer in offers:
            await sender.receipt(offer)
        lies = it.lies()
        assert sorted(each for each in lies.values() if each) == [b"1", b"2", b"3"]
        assert sorted(name for name, data in lies.items() if data is None) == [
            "photos",
            "photos (2)",
            "photos (3)",
            "photos (4)",
        ]


async def test_the_same_file_sent_twice_on_purpose_is_there_twice(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        offers = [sender.bring("a.tar.gz", bytes([number])) for number in range(3)]
        await sender.receipt(*offers)
        assert it.lies() == {
            "a.tar.gz": b"\0",
            "a (2).tar.gz": b"\1",
            "a (3).tar.gz": b"\2",
        }


async def test_an_awkward_name_is_made_safe_and_told_as_it_was(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        await sender.receipt(sender.bring("con:\u202e.txt", b"x"))
        assert it.lies() == {"con__.txt": b"x"}
        assert it.inbox()[0][:2] == ("con:\u202e.txt", str(it.path("con__.txt")))


# ---- checksums


@pytest.mark.parametrize("size", [0, 5 * MIB])
async def test_a_checksum_is_compared_and_kept(tmp_path: Path, size: int) -> None:
    async with receiver(tmp_path) as it:
        data = content(size)
        sender = it.link()
        await sender.receipt(sender.bring("a.bin", data, checksum=True))
        assert it._select("SELECT sha256 FROM inbox_files") == [(hashlib.sha256(data).digest(),)]


async def test_a_checksum_is_made_without_the_sender(tmp_path: Path) -> None:
    async with receiver(tmp_path, checksum=True) as it:
        sender = it.link()
        await sender.receipt(sender.bring("a.bin", b"1234"))
        assert it._select("SELECT sha256 FROM inbox_files") == [(hashlib.sha256(b"1234").digest(),)]


async def test_what_has_the_wrong_checksum_starts_over(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        data = content(5 * MIB)
        sender = it.link()
        offer = sender.offer(size=len(data), checksum=True)
        sender.chunks(offer.number, data)
        sender.incoming.feed(End(offer.number, len(data), hashlib.sha256(b"other").digest()))
        await sender.refused(offer, RefusalCode.BUSY, permanent=False)
        await sender.cut()
        assert (it.lies(), it.parts(), it.rows(), it.seen()) == ({}, [], [], set())
        again = it.link()
        offer = again.offer(size=len(data), checksum=True, ask=True, id=offer.id)
        await again.go_on(data, 0, offer)
        await again.receipt(offer)


# ---- what was taken in before


@pytest.mark.parametrize("ask", [True, False])
async def test_what_was_taken_in_before_is_receipted_and_not_written(
    tmp_path: Path, ask: bool
) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        first = sender.bring("a.bin", b"1234")
        await sender.receipt(first)
        await sender.cut()
        again = it.link()
        offer = again.offer("a.bin", 4, id=first.id, ask=ask)
        if not ask:
            again.chunks(offer.number, b"1234")
            again.end(offer.number, b"1234")
        await again.receipt(offer)
        await again.cut()
        assert it.lies() == {"a.bin": b"1234"}
        assert (len(it.inbox()), it.parts()) == (1, [])


async def test_a_folder_that_was_taken_in_before_is_receipted(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        first = sender.offer("empty", folder=True)
        await sender.receipt(first)
        await sender.cut()
        again = it.link()
        await again.receipt(again.offer("empty", folder=True, id=first.id, group=first.group))
        assert (it.lies(), len(it.inbox())) == ({"empty": None}, 1)


# ---- a store that fails


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreFull("full"), RefusalCode.DISK_FULL),
        (StoreBusy("busy"), RefusalCode.BUSY),
        (StoreError("odd"), RefusalCode.BUSY),
    ],
)
@pytest.mark.parametrize("conflict", ["rename", "overwrite"])
async def test_what_cannot_be_committed_is_taken_back_and_comes_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: StoreError,
    code: RefusalCode,
    conflict: str,
) -> None:
    async with receiver(tmp_path, conflict=conflict) as it:
        data = content(5 * MIB)
        sender = it.link()
        with failing_store(it, monkeypatch, error):
            small = sender.bring("small.bin", b"1234")
            large = sender.bring("large.bin", data)
            folder = sender.offer("folder", folder=True)
            for offer in (small, large, folder):
                await sender.refused(offer, code, permanent=False)
            await sender.cut()
        assert [name for name, each in it.lies().items() if each is not None] == []
        assert it.seen() == set()
        # There is no row for the large one either: it starts over.
        again = it.link()
        for name, size, whole, each in (
            ("small.bin", 4, b"1234", small),
            ("large.bin", len(data), data, large),
        ):
            offer = again.offer(name, size, id=each.id, ask=True)
            await again.go_on(whole, 0, offer)
            await again.receipt(offer)
        assert it.path("small.bin").read_bytes() == b"1234"
        assert it.path("large.bin").read_bytes() == data
        assert len(it.inbox()) == 2


async def test_a_large_file_that_could_not_be_committed_need_not_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(tmp_path) as it:
        data = content(5 * MIB)
        sender = it.link()
        offer = sender.offer(size=len(data))
        sender.chunks(offer.number, data)
        await until(lambda: bool(it.rows()))
        with failing_store(it, monkeypatch, StoreBusy("busy")):
            sender.end(offer.number, data)
            await sender.refused(offer, RefusalCode.BUSY, permanent=False)
            await until(lambda: not it.path("a.bin").exists())
        await sender.cut()
        again = it.link()
        offer = again.offer(size=len(data), id=offer.id, ask=True)
        await again.go_on(data, len(data), offer)
        await again.receipt(offer)
        assert it.lies() == {"a.bin": data}


async def test_what_has_replaced_another_file_stays_when_the_store_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(tmp_path, conflict="overwrite") as it:
        it.path("").mkdir(parents=True)
        it.path("a.bin").write_bytes(b"old")
        sender = it.link()
        with failing_store(it, monkeypatch, StoreBusy("busy")):
            offer = sender.bring("a.bin", b"new")
            await sender.refused(offer, RefusalCode.BUSY, permanent=False)
            await sender.cut()
        assert it.lies() == {"a.bin": b"new"}
        assert it.parts() == []


async def test_a_group_whose_name_cannot_be_noted_is_refused_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        group = bytes(16)
        with failing_store(it, monkeypatch, StoreFull("full")):
            offers = [sender.bring(f"d/{number}", b"x", group=group) for number in range(3)]
            for offer in offers:
                await sender.refused(offer, RefusalCode.DISK_FULL, permanent=False)
        other = it.link()
        again = [other.bring(each.name, b"x", group=group, id=each.id) for each in offers]
        await other.receipt(*again)
        assert [name for name, each in it.lies().items() if each] == [
            f"d/{number}" for number in range(3)
        ]


# ---- broken rules, and the end


async def test_a_broken_rule_is_told_to_the_link(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        offer = sender.offer(size=4)
        with pytest.raises(RemoteProtocolError, match="longer than was offered"):
            sender.chunks(offer.number, b"12345")
        with pytest.raises(RemoteProtocolError, match="not possible"):
            sender.incoming.feed(Begin(offer.number, 0))


async def test_an_end_lands_all_that_is_whole_and_drops_the_rest(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        whole = [sender.bring(f"d/{number}", b"x", group=bytes(16)) for number in range(5)]
        sender.offer("half", 10)
        # The loop has had no turn since.
        await asyncio.gather(sender.incoming.aclose(), sender.incoming.aclose())
        await sender.receipt(*whole)
        assert len(sender.link.sent) == 5
        assert it.parts() == []
        assert len(it.inbox()) == 5
        sender.incoming.feed(Chunk(99, b"what comes now is dropped"))


async def test_an_end_without_files_has_nothing_to_wait_for(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        await it.link().incoming.aclose()
        assert not it.folder.exists()
        assert [each.name for each in threading.enumerate() if each.name == "files"] == []


async def test_an_end_that_nobody_waits_for_any_more_is_still_made(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        offer = sender.bring("a.bin", b"1234")
        waiting = asyncio.create_task(sender.incoming.aclose())
        await asyncio.sleep(0)
        waiting.cancel()
        await sender.receipt(offer)
        await sender.incoming.aclose()


async def test_receipts_that_cannot_be_sent_are_not(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        sender.bring("a.bin", b"1234")
        sender.bring("b/../c", b"1234")
        await sender.cut()
        assert (it.lies(), sender.link.sent) == ({"a.bin": b"1234"}, [])


async def test_a_bug_in_the_thread_ends_the_link_and_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def wrong(self: Intake, offer: Any) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr(Intake, "_offer", wrong)
    async with receiver(tmp_path) as it:
        sender = it.link()
        sender.bring("a.bin", b"1234")
        while not sender.link.aborted:
            await sender.link.changed()
        await sender.cut()
        await until(lambda: bool(told))
        assert it.node.claims._places == {}


class failing_store:
    """For a while nothing can be written to the store, for this reason."""

    def __init__(self, it: Receiver, monkeypatch: pytest.MonkeyPatch, error: StoreError) -> None:
        self._it = it
        self._patch = monkeypatch
        self._error = error

    def __enter__(self) -> None:
        async def failing(*_: Any) -> Any:
            raise self._error

        self._patch.setattr(self._it.node.store, "run", failing)

    def __exit__(self, *_: object) -> None:
        self._patch.undo()
