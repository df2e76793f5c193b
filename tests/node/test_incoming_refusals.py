"""What is not taken: every limit, every clash, a full disk, and a sender that lies."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import sqlite3
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from bringing import MIB, Receiver, content, receiver
from parties import until

from securelink.config import ConfiguredPeerFiles
from securelink.directory import KnownPeer
from securelink.errors import (
    BadName,
    BadPlace,
    FileExists,
    NoRoom,
    RemoteProtocolError,
    TransferError,
)
from securelink.file_messages import Begin, Chunk, End
from securelink.identity import Identity
from securelink.landing import Landing, Part, part_path
from securelink.messages import RefusalCode
from securelink.store import inbox, partials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bringing import Sender

    from securelink.file_messages import Offer
    from securelink.landing import Conflict, Ready

CAROL = Identity.from_private_bytes(bytes([3]) * 32)


async def nothing_is_left(it: Receiver, sender: Sender) -> None:
    await sender.cut()
    assert (it.lies(), it.parts(), it.rows(), it.inbox()) == ({}, [], [], [])


# ---- limits


async def test_who_may_send_no_files_is_told(tmp_path: Path) -> None:
    peers = {"bob": ConfiguredPeerFiles(accept=False)}
    async with receiver(tmp_path, peers=peers) as it:
        sender, carol = it.link(), it.link(KnownPeer("carol", CAROL.public))
        offers = [sender.bring("a.bin", b"1234"), sender.offer("d", folder=True)]
        for offer in offers:
            await sender.refused(offer, RefusalCode.NOT_ALLOWED, permanent=True)
        await nothing_is_left(it, sender)
        await carol.receipt(carol.bring("a.bin", b"1234"))
        assert it.path("a.bin", "carol").read_bytes() == b"1234"


async def test_what_is_too_large_is_refused_at_the_offer(tmp_path: Path) -> None:
    async with receiver(tmp_path, largest=100) as it:
        sender = it.link()
        offer = sender.offer(size=101)
        await sender.refused(offer, RefusalCode.TOO_LARGE, permanent=True)
        # It comes all the same until the sender knows.
        sender.chunks(offer.number, bytes(101))
        sender.end(offer.number, bytes(101))
        await sender.receipt(sender.bring("b.bin", bytes(100)))
        assert it.lies() == {"b.bin": bytes(100)}


async def test_a_stream_that_grows_too_large_is_refused_while_it_comes(tmp_path: Path) -> None:
    async with receiver(tmp_path, largest=100_000) as it:
        sender = it.link()
        offer = sender.offer("pipe", None)
        sender.chunks(offer.number, bytes(100_000))
        await asyncio.sleep(0.01)
        assert sender.link.sent == []
        sender.chunks(offer.number, b"x")
        await sender.refused(offer, RefusalCode.TOO_LARGE, permanent=True)
        sender.chunks(offer.number, bytes(1000))
        sender.cancel(offer)
        await nothing_is_left(it, sender)


@pytest.mark.parametrize("limit", ["quota", "total"])
async def test_a_folder_takes_no_more_than_its_limit(tmp_path: Path, limit: str) -> None:
    async with receiver(tmp_path, **{limit: 1000}) as it:
        sender = it.link()
        await sender.receipt(sender.bring("a.bin", bytes(600)))
        offer = sender.bring("b.bin", bytes(401))
        await sender.refused(offer, RefusalCode.QUOTA, permanent=False)
        # What is on its way counts too.
        first, second = sender.offer("c.bin", 300), sender.bring("d.bin", bytes(101))
        await sender.refused(second, RefusalCode.QUOTA, permanent=False)
        sender.chunks(first.number, bytes(300))
        sender.end(first.number, bytes(300))
        await sender.receipt(first)
        it.path("a.bin").unlink()
        await sender.receipt(sender.bring("e.bin", bytes(700)))


async def test_a_quota_is_each_peers_own_and_the_total_is_everybodys(tmp_path: Path) -> None:
    async with receiver(tmp_path, quota=1000, total=1500) as it:
        sender, carol = it.link(), it.link(KnownPeer("carol", CAROL.public))
        await sender.receipt(sender.bring("a.bin", bytes(1000)))
        await carol.receipt(carol.bring("a.bin", bytes(500)))
        offer = carol.bring("b.bin", b"x")
        await carol.refused(offer, RefusalCode.QUOTA, permanent=False)


@pytest.mark.parametrize("limit", ["quota", "total"])
async def test_a_stream_keeps_to_the_limit_of_its_folder(tmp_path: Path, limit: str) -> None:
    async with receiver(tmp_path, **{limit: 100_000}) as it:
        sender = it.link()
        offer = sender.offer("pipe", None)
        sender.chunks(offer.number, bytes(100_001))
        await sender.refused(offer, RefusalCode.QUOTA, permanent=False)
        sender.cancel(offer)
        await sender.receipt(sender.bring("a.bin", bytes(100_000)))


@pytest.mark.parametrize("large", [True, False])
async def test_a_cut_file_counts_as_far_as_it_is_here(tmp_path: Path, large: bool) -> None:
    size = 6 * MIB if large else 3 * MIB
    async with receiver(tmp_path, quota=7 * MIB) as it:
        sender = it.link()
        first = sender.offer(size=size)
        sender.chunks(first.number, content(2 * MIB))
        await sender.cut()
        sender = it.link()
        await sender.receipt(sender.bring("b.bin", bytes(5 * MIB if large else 7 * MIB)))
        offer = sender.bring("c.bin", b"x")
        await sender.refused(offer, RefusalCode.QUOTA, permanent=False)


async def test_so_much_of_the_disk_stays_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [1 << 30]
    monkeypatch.setattr(Landing, "free", lambda _: free[0])
    async with receiver(tmp_path, keep_free=1000) as it:
        free[0] = 1100
        sender = it.link()
        offer = sender.bring("a.bin", bytes(101))
        await sender.refused(offer, RefusalCode.DISK_FULL, permanent=False)
        await sender.receipt(sender.bring("a.bin", bytes(100)))
        # While a file comes, others may fill the disk: what is here of it is kept.
        free[0] = 1 << 30
        data = content(9 * MIB)
        offer = sender.offer("large.bin", len(data))
        sender.chunks(offer.number, data[: 4 * MIB - 1000])
        await until(lambda: not sender.incoming._backlog)
        free[0] = 999
        sender.chunks(offer.number, data[4 * MIB - 1000 : 5 * MIB])
        await sender.refused(offer, RefusalCode.DISK_FULL, permanent=False)
        sender.cancel(offer)
        free[0] = 1 << 30
        await until(lambda: not it.node.claims._places)
        (part,) = it.parts()
        here = part.stat().st_size
        assert here >= 3 * MIB
        sender = it.link()
        again = sender.offer("large.bin", len(data), id=offer.id, ask=True)
        await sender.go_on(data, here, again)
        await sender.receipt(again)


# ---- names and what lies there


@pytest.mark.parametrize("name", ["../a", "/a", "a//b", "a/./b", "a\0b", "a/" * 120 + "a"])
async def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        for offer in (sender.bring(name, b"1234"), sender.offer(name, folder=True)):
            await sender.refused(offer, RefusalCode.BAD_NAME, permanent=True)
        await sender.receipt(sender.bring("good", b"1234"))
        assert it.lies() == {"good": b"1234"}
        assert sorted(each.name for each in it.folder.iterdir()) == [".partial", "bob"]


@pytest.fixture
def lying(tmp_path: Path) -> Path:
    """The peer's folder, with a file, a folder and a link to elsewhere in it."""
    folder = tmp_path / "files" / "bob"
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"1234")
    (folder / "folder").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    return folder


@pytest.mark.parametrize("conflict", ["skip", "overwrite"])
@pytest.mark.parametrize(
    ("name", "folder"), [("folder", False), ("file", True), ("file/a", False), ("link/a", False)]
)
@pytest.mark.parametrize("ask", [True, False])
async def test_a_file_and_a_folder_never_replace_each_other(
    tmp_path: Path, lying: Path, conflict: str, name: str, folder: bool, ask: bool
) -> None:
    async with receiver(tmp_path, conflict=conflict) as it:
        sender = it.link()
        if folder:
            offer = sender.offer(name, folder=True)
        elif ask:
            offer = sender.offer(name, 4, ask=True)
        else:
            offer = sender.bring(name, b"abcd")
        await sender.refused(offer, RefusalCode.EXISTS, permanent=True)
        await sender.cut()
        assert it.lies() == {"file": b"1234", "folder": None, "link": None}
        assert list((tmp_path / "elsewhere").iterdir()) == []
        assert it.parts() == []


async def test_a_file_among_the_files_of_a_group_stays(tmp_path: Path) -> None:
    """Under `rename` too: a name cannot be both, whatever the sender makes of it."""
    async with receiver(tmp_path) as it:
        sender = it.link()
        first = sender.bring("d/x", b"1", group=bytes(16))
        await sender.receipt(first)
        for offer in (
            sender.bring("d/x/y", b"2", group=bytes(16)),
            sender.offer("d/x", folder=True, group=bytes(16)),
        ):
            await sender.refused(offer, RefusalCode.EXISTS, permanent=True)
        await sender.cut()
        assert it.lies() == {"d": None, "d/x": b"1"}
        assert it.parts() == []


async def test_a_link_in_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        await sender.receipt(sender.bring("d/x", b"1", group=bytes(16)))
        elsewhere = tmp_path / "elsewhere"
        it.path("d").rename(elsewhere)
        it.path("d").symlink_to(elsewhere)
        offer = sender.bring("d/y", b"2", group=bytes(16))
        await sender.refused(offer, RefusalCode.EXISTS, permanent=True)
        assert [each.name for each in elsewhere.iterdir()] == ["x"]


async def test_a_file_is_overwritten_and_a_folder_merged(tmp_path: Path, lying: Path) -> None:
    async with receiver(tmp_path, conflict="overwrite") as it:
        sender = it.link()
        group = bytes(16)
        (lying / "folder" / "old").write_bytes(b"old")
        (lying / "folder" / "both").write_bytes(b"old")
        await sender.receipt(
            sender.bring("file", b"new, and longer"),
            sender.bring("folder/both", b"new", group=group),
            sender.bring("folder/new", b"new", group=group),
            sender.offer("folder", folder=True, group=group),
        )
        assert it.lies() == {
            "file": b"new, and longer",
            "folder": None,
            "folder/both": b"new",
            "folder/new": b"new",
            "folder/old": b"old",
            "link": None,
        }
        assert [name for name, *_ in it.inbox()] == [
            "file",
            "folder/both",
            "folder/new",
            "folder",
        ]


# ---- conflict: skip


async def compare(it: Receiver, name: str, data: bytes, *, ask: bool) -> tuple[Sender, Offer]:
    """Offer what lies there already, and compare as a sender does."""
    sender = it.link()
    offer = sender.offer(name, len(data), ask=ask)
    if not ask:
        sender.chunks(offer.number, data)
        sender.end(offer.number, data)
    accept = await sender.accept(offer)
    assert accept.offset == len(data)
    same = not data or (await sender.prefix(offer)).digest == hashlib.sha256(data).digest()
    sender.incoming.feed(Begin(offer.number, len(data) if same else 0))
    if same:
        sender.end(offer.number, data)
    return sender, offer


@pytest.mark.parametrize("ask", [True, False])
async def test_the_same_file_is_skipped_and_receipted(
    tmp_path: Path, lying: Path, ask: bool
) -> None:
    data = content(3 * MIB)
    (lying / "large").write_bytes(data)
    before = (lying / "large").stat()
    async with receiver(tmp_path, conflict="skip") as it:
        sender, offer = await compare(it, "large", data, ask=ask)
        await sender.receipt(offer)
        await sender.cut()
        after = (lying / "large").stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        assert (it.inbox(), it.parts(), it.rows()) == ([], [], [])
        assert it.seen() == {offer.id}
        again = it.link()
        await again.receipt(again.offer("large", len(data), id=offer.id, ask=True))


@pytest.mark.parametrize("ask", [True, False])
async def test_another_file_of_the_same_size_is_left(
    tmp_path: Path, lying: Path, ask: bool
) -> None:
    async with receiver(tmp_path, conflict="skip") as it:
        sender, offer = await compare(it, "file", b"abcd", ask=ask)
        await sender.refused(offer, RefusalCode.EXISTS, permanent=True)
        sender.cancel(offer)
        await sender.cut()
        assert (lying / "file").read_bytes() == b"1234"
        assert (it.seen(), it.parts()) == (set(), [])


async def test_a_file_of_another_size_is_left_without_comparing(
    tmp_path: Path, lying: Path
) -> None:
    async with receiver(tmp_path, conflict="skip") as it:
        sender = it.link()
        offers = [
            sender.bring("file", b"12345"),
            sender.offer("file", 5, ask=True),
            sender.offer("file", None),
        ]
        for offer in offers:
            await sender.refused(offer, RefusalCode.EXISTS, permanent=True)


@pytest.mark.parametrize("ask", [True, False])
async def test_an_empty_file_is_the_same_as_an_empty_file(
    tmp_path: Path, lying: Path, ask: bool
) -> None:
    (lying / "empty").touch()
    async with receiver(tmp_path, conflict="skip") as it:
        if ask:
            sender, offer = await compare(it, "empty", b"", ask=True)
        else:
            sender = it.link()
            offer = sender.bring("empty", b"")
        await sender.receipt(offer)
        assert it.inbox() == []


async def test_a_folder_that_is_there_is_skipped_and_what_is_new_in_it_taken(
    tmp_path: Path, lying: Path
) -> None:
    async with receiver(tmp_path, conflict="skip") as it:
        sender = it.link()
        group = bytes(16)
        await sender.receipt(
            sender.bring("folder/new", b"new", group=group),
            sender.offer("folder", folder=True, group=group),
            sender.offer("folder/other", folder=True, group=group),
        )
        assert [(name, kind) for name, _, _, kind in it.inbox()] == [
            ("folder/new", "file"),
            ("folder/other", "folder"),
        ]


async def test_a_link_may_end_while_the_store_notes_that_nothing_was_to_do(
    tmp_path: Path, lying: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lying / "empty").touch()
    async with receiver(tmp_path, conflict="skip") as it:
        sender = it.link()
        run = it.node.store.run
        begun, may_commit = asyncio.Event(), asyncio.Event()

        async def slow(*args: Any) -> Any:
            begun.set()
            await may_commit.wait()
            return await run(*args)

        monkeypatch.setattr(it.node.store, "run", slow)
        offers = [sender.offer("folder", folder=True), sender.bring("empty", b"")]
        await begun.wait()
        end = asyncio.create_task(sender.cut())
        await asyncio.sleep(0.02)
        may_commit.set()
        await end
        assert it.seen() == {each.id for each in offers}


async def test_of_two_files_of_one_name_the_second_is_skipped(tmp_path: Path) -> None:
    """Neither was there when they were offered."""
    async with receiver(tmp_path, conflict="skip") as it:
        sender = it.link()
        first, second = sender.bring("a", b"1"), sender.bring("a", b"2")
        await sender.receipt(first)
        await sender.refused(second, RefusalCode.EXISTS, permanent=True)
        await sender.cut()
        assert (it.lies(), it.parts()) == ({"a": b"1"}, [])


async def test_what_was_begun_before_the_name_was_taken_is_forgotten(
    tmp_path: Path, lying: Path
) -> None:
    data = content(5 * MIB)
    async with receiver(tmp_path, conflict="skip") as it:
        sender = it.link()
        first = sender.offer("a", len(data))
        sender.chunks(first.number, data[:MIB])
        await sender.cut()
        (lying / "a").write_bytes(data)
        assert len(it.rows()) == 1
        sender = it.link()
        again = sender.offer("a", len(data), id=first.id, ask=True)
        await sender.go_on(data, len(data), again)
        await sender.receipt(again)
        await sender.cut()
        assert (it.parts(), it.rows()) == ([], [])


@pytest.mark.parametrize("permanent", [True, False])
async def test_only_what_may_go_on_is_kept(
    tmp_path: Path, lying: Path, permanent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(5 * MIB)
    async with receiver(tmp_path, conflict="overwrite") as it:
        sender = it.link()
        first = sender.offer("a", len(data))
        sender.chunks(first.number, data[:MIB])
        await sender.cut()
        if permanent:
            (lying / "a").mkdir()
        else:
            monkeypatch.setattr(Landing, "free", lambda _: -1)
            it.node.room.look_again()
        sender = it.link()
        again = sender.offer("a", len(data), id=first.id, ask=True)
        code = RefusalCode.EXISTS if permanent else RefusalCode.DISK_FULL
        await sender.refused(again, code, permanent=permanent)
        await sender.cut()
        assert len(it.parts()) == len(it.rows()) == (not permanent)


async def test_what_it_is_compared_with_may_go_meanwhile(
    tmp_path: Path, lying: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_existing = Landing.open_existing

    def gone(landing: Landing, components: Any) -> int:
        (lying / "file").unlink()
        return open_existing(landing, components)

    monkeypatch.setattr(Landing, "open_existing", gone)
    async with receiver(tmp_path, conflict="skip") as it:
        sender = it.link()
        offer = sender.offer("file", 4, ask=True)
        await sender.refused(offer, RefusalCode.BUSY, permanent=False)


async def test_what_it_is_compared_with_may_shrink_meanwhile(
    tmp_path: Path, lying: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_existing = Landing.open_existing

    def shrunk(landing: Landing, components: Any) -> int:
        (lying / "file").write_bytes(b"1")
        return open_existing(landing, components)

    monkeypatch.setattr(Landing, "open_existing", shrunk)
    async with receiver(tmp_path, conflict="skip") as it:
        sender, offer = await compare(it, "file", b"1234", ask=True)
        await sender.refused(offer, RefusalCode.EXISTS, permanent=True)


# ---- disks that fail


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_disk_that_fills_up_and_is_freed(tmp_path: Path, disk: Path) -> None:
    data = content(6 * MIB)
    async with receiver(tmp_path / "node", folder=str(disk / "in")) as it:
        sender = it.link()
        offer = sender.offer(size=len(data))
        sender.chunks(offer.number, data[:MIB])
        await until(lambda: not sender.incoming._backlog)
        filler = disk / "filler"
        filler.write_bytes(bytes(4 * MIB))
        sender.chunks(offer.number, data[MIB:])
        sender.end(offer.number, data)
        await sender.refused(offer, RefusalCode.DISK_FULL, permanent=False)
        # Small files find no room either, and leave nothing.
        small = sender.bring("small.bin", bytes(2 * MIB))
        await sender.refused(small, RefusalCode.DISK_FULL, permanent=False)
        await sender.cut()
        (part,) = it.parts()
        here = part.stat().st_size
        assert 2 * MIB <= here < 5 * MIB
        filler.unlink()
        sender = it.link()
        again = sender.offer(size=len(data), id=offer.id, ask=True)
        await sender.go_on(data, here, again)
        await sender.receipt(again)
        assert it.lies() == {"a.bin": data}


@pytest.mark.parametrize(
    ("number", "code", "permanent"),
    [
        (errno.ENOSPC, RefusalCode.DISK_FULL, False),
        (errno.EDQUOT, RefusalCode.DISK_FULL, False),
        (errno.EIO, RefusalCode.BUSY, False),
        (errno.EFBIG, RefusalCode.TOO_LARGE, True),
    ],
)
@pytest.mark.parametrize("large", [True, False])
async def test_what_a_failing_disk_means_for_the_sender(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: RefusalCode,
    permanent: bool,
    large: bool,
) -> None:
    write = Part.write

    def failing(part: Part, views: Any) -> None:
        if part.size > 100_000:
            raise OSError(number, os.strerror(number))
        write(part, views)

    size = 5 * MIB if large else MIB
    async with receiver(tmp_path) as it:
        sender = it.link()
        offer = sender.offer(size=size)
        sender.chunks(offer.number, bytes(130_000))
        await until(lambda: not sender.incoming._backlog)
        monkeypatch.setattr(Part, "write", failing)
        sender.chunks(offer.number, bytes(100))
        await sender.refused(offer, code, permanent=permanent)
        await sender.cut()
        assert len(it.parts()) == (large and not permanent)
        assert it.node.room._all.promised == 0


@pytest.mark.parametrize("what", ["sync", "discard"])
async def test_a_disk_that_fails_at_the_end_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def failing(_: Part) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with receiver(tmp_path) as it:
        sender = it.link()
        offer = sender.offer(size=5 * MIB if what == "sync" else MIB)
        sender.chunks(offer.number, bytes(MIB))
        await until(lambda: not sender.incoming._backlog)
        with monkeypatch.context() as patch:
            patch.setattr(Part, what, failing)
            await sender.cut()
        # Its lock is free.
        again = it.link()
        await again.receipt(again.bring("a.bin", b"1234", id=offer.id))


async def test_ten_thousand_refusals_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Landing, "open_part", failing)
    async with receiver(tmp_path) as it:
        sender = it.link()
        offers = [sender.bring(f"{number}.bin", b"x") for number in range(20)]
        for offer in offers:
            await sender.refused(offer, RefusalCode.BUSY, permanent=False)
    assert [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING] == [
        f"a file from bob was not taken into {tmp_path / 'files'}: too many open files"
    ]


async def test_a_store_that_cannot_be_read_refuses_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> bool:
        raise sqlite3.OperationalError("disk I/O error")

    async with receiver(tmp_path) as it:
        sender = it.link()
        with monkeypatch.context() as patch:
            patch.setattr(inbox, "was_seen", failing)
            offer = sender.bring("a.bin", b"1234")
            await sender.refused(offer, RefusalCode.BUSY, permanent=False)
        with monkeypatch.context() as patch:
            patch.setattr(partials, "landing_of", failing)
            offer = sender.bring("d/a.bin", b"1234", group=bytes(16))
            await sender.refused(offer, RefusalCode.BUSY, permanent=False)
        group = sender.bring("d/a.bin", b"1234", group=bytes(16))
        await sender.receipt(group)


async def test_a_group_whose_name_cannot_be_found_out_is_refused_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with receiver(tmp_path) as it:
        sender = it.link()
        with monkeypatch.context() as patch:
            patch.setattr(Landing, "free_top_level", failing)
            offers = [sender.bring(f"d/{each}", b"x", group=bytes(16)) for each in range(2)]
            for offer in offers:
                await sender.refused(offer, RefusalCode.BUSY, permanent=False)
        await sender.receipt(sender.bring("d/3", b"x", group=bytes(16)))
        assert [name for name, data in it.lies().items() if data] == ["d/3"]


@pytest.mark.parametrize(
    ("error", "code", "permanent"),
    [
        (BadPlace("permission denied"), RefusalCode.BUSY, False),
        (BadName("file name too long"), RefusalCode.BAD_NAME, True),
        (FileExists("a.bin is there too often"), RefusalCode.EXISTS, True),
    ],
)
async def test_a_name_that_cannot_be_had(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: TransferError,
    code: RefusalCode,
    permanent: bool,
) -> None:
    def failing(_: Landing, ready: Sequence[Ready], conflict: Conflict) -> list[TransferError]:
        return [error] * len(ready)

    async with receiver(tmp_path) as it:
        sender = it.link()
        monkeypatch.setattr(Landing, "finish", failing)
        offer = sender.bring("a.bin", b"1234")
        await sender.refused(offer, code, permanent=permanent)
        # A clash is nothing that the owner of this machine has to know.
        assert len(caplog.records) == (code is not RefusalCode.EXISTS)


async def test_a_place_that_is_closed_to_us_is_no_clash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_: Landing, ready: Sequence[Ready], conflict: Conflict) -> list[TransferError]:
        return [BadPlace("permission denied")] * len(ready)

    def closed(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    async with receiver(tmp_path) as it:
        sender = it.link()
        monkeypatch.setattr(Landing, "finish", failing)
        monkeypatch.setattr(Landing, "existing", closed)
        offer = sender.bring("a.bin", b"1234")
        await sender.refused(offer, RefusalCode.BUSY, permanent=False)


async def test_a_disk_that_is_full_when_a_file_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Landing, ready: Sequence[Ready], conflict: Conflict) -> list[TransferError]:
        return [NoRoom("the disk is full")] * len(ready)

    data = content(5 * MIB)
    async with receiver(tmp_path) as it:
        sender = it.link()
        with monkeypatch.context() as patch:
            patch.setattr(Landing, "finish", full)
            offer = sender.bring("a.bin", data)
            await sender.refused(offer, RefusalCode.DISK_FULL, permanent=False)
            await sender.cut()
        sender = it.link()
        again = sender.offer(size=len(data), id=offer.id, ask=True)
        await sender.go_on(data, len(data), again)
        await sender.receipt(again)


async def test_what_starts_over_may_have_no_room_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        first = sender.offer(size=5 * MIB)
        sender.chunks(first.number, content(3 * MIB))
        await sender.cut()
        sender = it.link()
        again = sender.offer(size=5 * MIB, id=first.id, ask=True)
        await sender.prefix(again)
        monkeypatch.setattr(Landing, "free", lambda _: MIB)
        sender.incoming.feed(Begin(again.number, 0))
        await sender.refused(again, RefusalCode.DISK_FULL, permanent=False)


# ---- others who receive the same


async def test_what_another_process_receives_is_refused_for_now(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        first = sender.offer(size=100)
        sender.cancel(first)
        await until(lambda: not it.node.claims._places)
        part = part_path(it.folder, it.peer.key.raw, first.id)
        part.write_bytes(b"theirs")
        with part.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            offer = sender.bring("a.bin", b"1234", id=first.id)
            await sender.refused(offer, RefusalCode.BUSY, permanent=False)
            assert part.read_bytes() == b"theirs"


async def test_of_two_links_the_newer_gets_the_file(tmp_path: Path) -> None:
    data = content(6 * MIB)
    async with receiver(tmp_path) as it:
        older, newer = it.link(), it.link()
        first = older.offer(size=len(data))
        older.chunks(first.number, data[: 2 * MIB])
        await until(lambda: not older.incoming._backlog)
        again = newer.offer(size=len(data), id=first.id, ask=True)
        await older.refused(first, RefusalCode.BUSY, permanent=False)
        # The older one's sender does not know yet.
        older.chunks(first.number, data[2 * MIB : 3 * MIB])
        await newer.go_on(data, 2 * MIB, again)
        await newer.receipt(again)
        assert it.lies() == {"a.bin": data}
        assert len(it.inbox()) == 1


async def test_a_newer_link_may_come_when_the_older_one_just_goes_on(tmp_path: Path) -> None:
    data = content(6 * MIB)
    async with receiver(tmp_path) as it:
        cut, older, newer = it.link(), it.link(), it.link()
        first = cut.offer(size=len(data))
        cut.chunks(first.number, data[:MIB])
        await cut.cut()
        second = older.offer(size=len(data), id=first.id, ask=True)
        await older.prefix(second)
        third = newer.offer(size=len(data), id=first.id, ask=True)
        older.incoming.feed(Begin(second.number, MIB))
        older.chunks(second.number, data[MIB:])
        older.end(second.number, data)
        await older.refused(second, RefusalCode.BUSY, permanent=False)
        await newer.go_on(data, MIB, third)
        await newer.receipt(third)


async def test_of_three_links_the_newest_gets_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = content(5 * MIB)
    async with receiver(tmp_path) as it:
        links = [it.link() for _ in range(3)]
        offers = [links[0].offer(size=len(data))]
        # All in one turn of the loop: the second waits, and is put out by the third.
        offers += [each.offer(size=len(data), id=offers[0].id) for each in links[1:]]
        links[1].chunks(offers[1].number, data)
        links[1].end(offers[1].number, data)
        links[2].chunks(offers[2].number, data)
        links[2].end(offers[2].number, data)
        await links[1].refused(offers[1], RefusalCode.BUSY, permanent=False)
        await links[0].refused(offers[0], RefusalCode.BUSY, permanent=False)
        await links[2].receipt(offers[2])
        assert it.lies() == {"a.bin": data}
        assert links[1].incoming._backlog == 0


async def test_a_file_that_is_being_committed_stays_with_the_older_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(tmp_path) as it:
        older, newer = it.link(), it.link()
        run = it.node.store.run
        may_commit = asyncio.Event()

        async def slow(*args: Any) -> Any:
            await may_commit.wait()
            return await run(*args)

        monkeypatch.setattr(it.node.store, "run", slow)
        first = older.bring("a.bin", b"1234")
        await until(it.path("a.bin").exists)
        again = newer.bring("a.bin", b"1234", id=first.id)
        may_commit.set()
        await older.receipt(first)
        await newer.receipt(again)
        await newer.cut()
        assert (it.lies(), len(it.inbox())) == ({"a.bin": b"1234"}, 1)


@pytest.mark.parametrize("end", ["cancel", "cut"])
async def test_a_link_that_waits_for_a_file_may_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    async with receiver(tmp_path) as it:
        older, newer = it.link(), it.link()
        run = it.node.store.run
        may_commit = asyncio.Event()

        async def slow(*args: Any) -> Any:
            await may_commit.wait()
            return await run(*args)

        monkeypatch.setattr(it.node.store, "run", slow)
        first = older.bring("a.bin", b"1234")
        await until(it.path("a.bin").exists)
        again = newer.offer(size=4, id=first.id)
        newer.chunks(again.number, b"12")
        if end == "cancel":
            newer.cancel(again)
            assert newer.incoming._backlog == 0
        else:
            await newer.cut()
        may_commit.set()
        await older.receipt(first)
        await until(lambda: not it.node.claims._places)
        assert newer.link.sent == []


async def test_peers_do_not_share_ids(tmp_path: Path) -> None:
    async with receiver(tmp_path) as it:
        sender, carol = it.link(), it.link(KnownPeer("carol", CAROL.public))
        first = sender.offer(size=4)
        second = carol.bring("a.bin", b"abcd", id=first.id)
        sender.chunks(first.number, b"1234")
        sender.end(first.number, b"1234")
        await sender.receipt(first)
        await carol.receipt(second)
        assert it.path("a.bin").read_bytes() == b"1234"
        assert it.path("a.bin", "carol").read_bytes() == b"abcd"


# ---- senders that lie


@pytest.mark.parametrize(
    "lie",
    [
        lambda number: Chunk(number, bytes(11)),
        lambda number: End(number, 90),
        lambda number: End(number, 100),
        lambda number: End(number, 90, bytes(32)),
        lambda number: Begin(number, 0),
    ],
)
async def test_a_sender_that_lies_ends_its_link_and_leaves_nothing(
    tmp_path: Path, lie: Callable[[int], Any]
) -> None:
    async with receiver(tmp_path) as it:
        sender = it.link()
        offer = sender.offer(size=100)
        sender.chunks(offer.number, bytes(90))
        with pytest.raises(RemoteProtocolError):
            sender.incoming.feed(lie(offer.number))
        await nothing_is_left(it, sender)
