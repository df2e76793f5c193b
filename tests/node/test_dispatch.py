"""The files that go over one link: every answer of the receiver, and every moment of a cut."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from parties import Stopwatch, until
from taking import (
    Held,
    behind_its_back,
    file_rows,
    file_states,
    leading,
    put_files,
    put_stream,
    sha256,
)

from securelink import resting
from securelink.dispatch import ahead, core
from securelink.dispatch.under_way import MOST_READY
from securelink.errors import RemoteProtocolError, SourceChanged, SourceUnreadable, StoreBusy
from securelink.file_messages import Accept, Begin, Cancel, Chunk, End, Offer, Prefix
from securelink.messages import RefusalCode
from securelink.store import notices, outbox, outbox_files
from securelink.store.outbox import State

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from parties import Parties

MIB = 1 << 20
CONTENT = bytes(range(256)) * 16
LARGE = os.urandom(MIB) * 24
"""More than the buffers of a link hold, and than what is handed ahead."""


def make(folder: Path, name: str = "a", data: bytes = CONTENT) -> Path:
    path = folder / "source" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# ---- unasked


@pytest.mark.parametrize("checksum", [False, True])
async def test_a_new_file_goes_without_waiting_for_anything(
    parties: Parties, tmp_path: Path, checksum: bool
) -> None:
    async with parties.node() as node:
        path = make(tmp_path)
        os.utime(path, ns=(1, 1_700_000_000_123_456_789))
        path.chmod(0o754)
        (seq,) = await put_files(node, path)
        async with leading(node, checksum=checksum) as it:
            end = await it.taker.about(End, 0)
            (offer,) = it.taker.heard(Offer)
            assert (offer.name, offer.size, offer.mode) == ("a", len(CONTENT), 0o700)
            assert offer.mtime == 1_700_000_000_123_456_789
            assert (offer.ask, offer.folder, offer.checksum) == (False, False, checksum)
            assert it.taker.data(0) == CONTENT
            assert end == End(0, len(CONTENT), sha256(CONTENT) if checksum else None)
            assert file_rows(node) == [("a", "handed", None)]
            assert it.seen.bytes == {"a": len(CONTENT)}
            it.taker.receipt(offer)
            (settled,) = await it.seen.ended()
            assert (settled.seq, settled.state, settled.link) == (seq, State.DELIVERED, it.link)
            assert file_states(node) == ["delivered"]


async def test_empty_files_and_folders(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node:
        make(tmp_path, "photos/empty", b"")
        make(tmp_path, "photos/2026/a")
        await put_files(node, tmp_path / "source" / "photos")
        async with leading(node) as it:
            offers = await it.taker.of(Offer, 4)
            # A folder is offered after all that is in it, and nothing of it follows.
            assert [(each.name, each.folder, each.size) for each in offers] == [
                ("photos/empty", False, 0),
                ("photos/2026/a", False, len(CONTENT)),
                ("photos/2026", True, 0),
                ("photos", True, 0),
            ]
            assert it.taker.heard(End) == [End(0, 0), End(1, len(CONTENT))]
            assert len({each.group for each in offers}) == 1
            assert len({each.id for each in offers}) == 4
            assert file_states(node) == ["handed"] * 4
            it.taker.receipt(*offers)
            await it.seen.ended(4)
            assert file_states(node) == ["delivered"] * 4
            assert it.taker.heard(Cancel) == []


async def test_a_stream_goes_as_it_comes(parties: Parties) -> None:
    reading, writing = os.pipe()
    try:
        async with parties.node() as node:
            await put_stream(node, "log")
            async with leading(node, stream=reading, checksum=True) as it:
                offer = await it.taker.offer(0)
                assert (offer.name, offer.size, offer.ask) == ("log", None, False)
                os.write(writing, b"first")
                await it.taker.about(Chunk, 0)
                assert file_states(node) == ["waiting"]
                os.write(writing, b"second")
                await it.taker.about(Chunk, 0, 2)
                os.close(writing)
                writing = -1
                assert await it.taker.about(End, 0) == End(0, 11, sha256(b"firstsecond"))
                assert it.taker.data(0) == b"firstsecond"
                assert file_states(node) == ["handed"]
                it.taker.receipt(offer)
                await it.seen.ended()
            # It is not ours to close.
            os.fstat(reading)
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


async def test_rows_go_in_order_and_new_ones_when_told(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node:
        for name in "cab":
            await put_files(node, make(tmp_path, name))
        async with leading(node) as it:
            await it.taker.of(End, 3)
            await put_files(node, make(tmp_path, "0"))
            it.dispatch.wake()
            await it.taker.of(End, 4)
            assert it.taker.names() == ["c", "a", "b", "0"]
            assert [each.number for each in it.taker.heard(Offer)] == [0, 1, 2, 3]


async def test_no_more_are_under_way_than_the_other_side_takes(
    parties: Parties, tmp_path: Path
) -> None:
    async with parties.node() as node:
        for number in range(300):
            make(tmp_path, f"many/{number:03}", b"x")
        await put_files(node, tmp_path / "source" / "many")
        held = Held(tmp_path / "source")
        async with leading(node) as it:
            offers = await it.taker.of(Offer, 256)
            await it.taker.of(End, 256)
            await until(lambda: file_states(node).count("handed") == 256)
            assert len(it.taker.heard(Offer)) == 256
            assert held.count() <= 1, "what has gone is closed"
            it.taker.receipt(offers[7])
            assert len(await it.taker.of(Offer, 257)) == 257
            it.taker.receipt(*(each for each in offers if each is not offers[7]))
            it.taker.receipt(*(await it.taker.of(Offer, 301))[256:])
            await it.seen.ended(301)
            assert it.taker.names() == [*(f"many/{number:03}" for number in range(300)), "many"]
            assert set(file_states(node)) == {"delivered"}


# ---- when a row is handed


async def test_a_large_file_waits_until_its_end_is_near(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "HAND_AHEAD", MIB)
    async with parties.node() as node:
        await put_files(node, make(tmp_path, data=LARGE))
        async with leading(node) as it:
            await it.taker.about(Chunk, 0)
            it.taker.pause()
            assert file_states(node) == ["waiting"]
            assert file_rows(node)[0][2] is None
            it.taker.resume()
            await it.taker.about(End, 0)
            assert file_states(node) == ["handed"]
            assert it.taker.data(0) == LARGE


async def test_no_end_goes_before_the_row_is_handed(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = outbox.hand
    go_on = threading.Event()

    def slow(conn: sqlite3.Connection, seqs: list[int], now: int) -> list[int]:
        assert go_on.wait(10)
        return hand(conn, seqs, now)

    data = LARGE[: 2 * MIB]
    async with parties.node() as node:
        await put_files(node, make(tmp_path, data=data))
        async with leading(node) as it:
            await it.taker.about(Chunk, 0)
            monkeypatch.setattr(outbox, "hand", slow)
            go_on.set()
            await it.taker.about(End, 0)
            assert file_states(node) == ["handed"]


async def test_a_row_that_is_withdrawn_on_its_way_is_cancelled(
    parties: Parties, tmp_path: Path
) -> None:
    async with parties.node() as node:
        (seq,) = await put_files(node, make(tmp_path, data=LARGE))
        await put_files(node, make(tmp_path, "next"))
        async with leading(node) as it:
            await it.taker.about(Chunk, 0)
            it.taker.pause()
            behind_its_back(node, f"UPDATE outbox SET state = 'withdrawn' WHERE seq = {seq}")
            it.taker.resume()
            await it.taker.about(Cancel, 0)
            assert (await it.taker.about(End, 1)).size == len(CONTENT)
            assert [each.number for each in it.taker.heard(End)] == [1]
            assert not it.seen.has_nothing_left
            it.taker.receipt(await it.taker.offer(1))
            # Whoever waits for the first one learns to look what became of it.
            await until(lambda: it.seen.has_nothing_left)
            assert [each.seq for each in it.seen.ends] == [2]
            assert file_states(node) == ["withdrawn", "delivered"]


async def test_of_a_row_that_is_withdrawn_no_more_goes(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node:
        await put_files(node, make(tmp_path, data=LARGE))
        async with leading(node) as it:
            await it.taker.about(Chunk, 0)
            it.taker.pause()
            behind_its_back(node, "UPDATE outbox SET state = 'withdrawn'")
            await until(lambda: it.seen.has_nothing_left)
            it.taker.resume()
            await it.taker.about(Cancel, 0)
            assert len(it.taker.data(0)) < len(LARGE) - core.HAND_AHEAD
            assert it.taker.heard(End) == []


# ---- asked, because there was an earlier attempt


async def test_nothing_goes_before_the_receiver_has_said_what_it_has(
    parties: Parties, tmp_path: Path
) -> None:
    async with parties.node() as node:
        await put_files(node, make(tmp_path), began=True)
        async with leading(node) as it:
            assert (await it.taker.offer(0)).ask
            it.taker.accept(0, 0)
            assert await it.taker.about(End, 0) == End(0, len(CONTENT))
            assert it.taker.heard(Begin) == [Begin(0, 0)]
            kinds = [type(each) for each in it.taker.files]
            assert kinds == [Offer, Begin, Chunk, End]
            assert it.taker.data(0) == CONTENT


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("offset", [1, 1000, len(CONTENT)])
async def test_it_goes_on_where_the_receiver_is_if_that_is_the_same(
    parties: Parties, tmp_path: Path, offset: int, same: bool, checksum: bool
) -> None:
    async with parties.node() as node:
        await put_files(node, make(tmp_path), began=True)
        async with leading(node, checksum=checksum) as it:
            await it.taker.offer(0)
            it.taker.accept(0, offset)
            it.taker.prefix(0, CONTENT[:offset] if same else b"\xff" * offset)
            end = await it.taker.about(End, 0)
            start = offset if same else 0
            assert it.taker.heard(Begin) == [Begin(0, start)]
            assert it.taker.data(0) == CONTENT[start:]
            assert end == End(0, len(CONTENT), sha256(CONTENT) if checksum else None)
            assert it.seen.compared == ["a"]
            assert it.seen.begun == [("a", start)]


@pytest.mark.parametrize("answer", ["receipt", "refused"])
async def test_an_answer_in_place_of_an_offset(
    parties: Parties, tmp_path: Path, answer: str
) -> None:
    async with parties.node() as node:
        await put_files(node, make(tmp_path), began=True)
        await put_files(node, make(tmp_path, "next"))
        async with leading(node) as it:
            offer = await it.taker.offer(0)
            with Stopwatch() as watch:
                if answer == "receipt":
                    it.taker.receipt(offer)
                else:
                    it.taker.refuse(offer, RefusalCode.NOT_ALLOWED, permanent=True)
                await it.taker.about(End, 1)
                await it.taker.about(Cancel, 0)
            assert watch.seconds < 2, "the next one waits for no timer"
            (settled,) = await it.seen.ended()
            expected = "delivered" if answer == "receipt" else "refused"
            assert settled.state == expected
            assert file_states(node) == [expected, "handed"]
            assert it.taker.data(0) == b""


async def test_offsets_and_digests_that_make_no_sense_end_the_link(
    parties: Parties, tmp_path: Path
) -> None:
    async with parties.node() as node:
        await put_files(node, make(tmp_path), began=True)
        for nonsense in (Accept(0, len(CONTENT) + 1), Prefix(0, bytes(32))):
            async with leading(node) as it:
                await it.taker.offer(0)
                it.taker.link.send(nonsense)
                assert isinstance(await it.run, RemoteProtocolError)


# ---- what the receiver finds by itself


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("when", ["sending", "ended"])
async def test_a_receiver_that_has_something_to_compare(
    parties: Parties, tmp_path: Path, when: str, same: bool, checksum: bool
) -> None:
    content = LARGE if when == "sending" else CONTENT
    async with parties.node() as node:
        await put_files(node, make(tmp_path, data=content))
        await put_files(node, make(tmp_path, "next"))
        async with leading(node, checksum=checksum) as it:
            if when == "sending":
                await it.taker.about(Chunk, 0)
                it.taker.pause()
            else:
                await it.taker.about(End, 0)
            it.taker.accept(0, len(content))
            it.taker.prefix(0, content if same else bytes(len(content)))
            it.taker.resume()
            await it.taker.about(Begin, 0)
            end = await it.taker.about(End, 0, 1 if when == "sending" else 2)
            assert it.taker.heard(Begin) == [Begin(0, len(content) if same else 0)]
            assert it.taker.data(0) == (b"" if same else content)
            assert end == End(0, len(content), sha256(content) if checksum else None)
            it.taker.receipt(await it.taker.offer(0))
            await it.taker.about(End, 1)
            await it.seen.ended()
            assert file_states(node) == ["delivered", "handed"]


# ---- answers before the end


@pytest.mark.parametrize("answer", ["receipt", "refused"])
async def test_what_is_answered_in_the_middle_is_cancelled(
    parties: Parties, tmp_path: Path, answer: str
) -> None:
    async with parties.node() as node:
        await put_files(node, make(tmp_path, data=LARGE))
        await put_files(node, make(tmp_path, "next"))
        held = Held(tmp_path / "source")
        async with leading(node) as it:
            offer = await it.taker.offer(0)
            await it.taker.about(Chunk, 0)
            it.taker.pause()
            if answer == "receipt":
                it.taker.receipt(offer)
            else:
                it.taker.refuse(offer, RefusalCode.TOO_LARGE, permanent=True)
            (settled,) = await it.seen.ended()
            it.taker.resume()
            await it.taker.about(Cancel, 0)
            await it.taker.about(End, 1)
            assert [each.number for each in it.taker.heard(End)] == [1]
            assert len(it.taker.data(0)) < len(LARGE)
            expected = "delivered" if answer == "receipt" else "refused"
            assert settled.state == expected
            assert settled.code == (None if answer == "receipt" else RefusalCode.TOO_LARGE)
            assert file_states(node) == [expected, "handed"]
    await until(lambda: held.count() == 0)


async def test_what_is_refused_for_now_rests_and_then_asks(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 0.05)
    async with parties.node() as node:
        await put_files(node, make(tmp_path))
        async with leading(node) as it:
            first = await it.taker.offer(0)
            await it.taker.about(End, 0)
            it.taker.refuse(first, RefusalCode.DISK_FULL)
            (settled,) = await it.seen.ended()
            assert (settled.state, settled.reason) == (State.WAITING, "its disk is full")
            second = await it.taker.offer(1)
            assert (second.id, second.ask) == (first.id, True)
            # Nothing of it has left in this attempt.
            it.taker.accept(1, 0)
            await it.taker.about(End, 1)
            it.taker.receipt(second)
            await it.seen.ended(2)
            assert file_states(node) == ["delivered"]


async def test_one_that_is_refused_for_now_keeps_no_other_from_being_offered(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many more than are opened ahead, and the rest is never over."""
    monkeypatch.setattr(resting, "FIRST_REST", 1000.0)
    monkeypatch.setattr(resting, "LONGEST_REST", 1000.0)
    count = 3 * MOST_READY
    for number in range(count):
        make(tmp_path, f"photos/{number:03}", b"x")
    async with parties.node() as node:
        await put_files(node, tmp_path / "source" / "photos")
        async with leading(node) as it:
            for number in range(count):
                it.taker.refuse(await it.taker.offer(number), RefusalCode.QUOTA)
            it.taker.receipt(await it.taker.offer(count))
            await it.seen.ended(count + 1)
            assert file_states(node) == ["waiting"] * count + ["delivered"]


async def test_a_queue_rests_as_a_whole(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 1000.0)
    monkeypatch.setattr(resting, "LONGEST_REST", 1000.0)
    for name in "ab":
        make(tmp_path, name)
    async with parties.node() as node:
        await put_files(node, tmp_path / "source" / "a", owner=None)
        async with leading(node, own=True, queued=lambda: True) as it:
            it.taker.refuse(await it.taker.offer(0), RefusalCode.QUOTA)
            await it.seen.ended()
            # What is queued waits, and what somebody waits for does not.
            await put_files(node, tmp_path / "source" / "b", owner=None)
            own = await put_files(node, make(tmp_path, "c"))
            it.dispatch.wake()
            it.taker.receipt(await it.taker.offer(1))
            (_, settled) = await it.seen.ended(2)
            assert [settled.seq] == own
            assert file_states(node) == ["waiting", "waiting", "delivered"]


async def test_what_is_refused_at_the_head_of_a_queue_starves_nobody_behind_it(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 0.05)
    monkeypatch.setattr(resting, "LONGEST_REST", 0.05)
    folder = tmp_path / "source" / "photos"
    for number in range(3 * MOST_READY):
        make(tmp_path, f"photos/{number:03}", b"x")
    make(tmp_path, "photos/small", b"x")
    async with parties.node() as node:
        await put_files(node, folder, owner=None)
        async with leading(node, own=False, queued=lambda: True) as it:
            names = []
            while not {"photos", "photos/small"} <= {*names}:
                offer = await it.taker.offer(len(names))
                names.append(offer.name)
                if not offer.folder and offer.name != "photos/small":
                    it.taker.refuse(offer, RefusalCode.QUOTA)
                else:
                    it.taker.receipt(offer)
            # It is refused again, once the others had their turn.
            assert (await it.taker.offer(len(names))).name in names
            assert len(names) <= 4 * MOST_READY


# ---- the link is cut


async def test_a_link_that_is_cut_while_the_receiver_is_asked(
    parties: Parties, tmp_path: Path
) -> None:
    async with parties.node() as node:
        await put_files(node, make(tmp_path), began=True)
        held = Held(tmp_path / "source")
        async with leading(node) as it:
            await it.taker.offer(0)
            await it.cut()
            # It was handed ahead, but no END has left.
            assert file_states(node) == ["waiting"]
    await until(lambda: held.count() == 0)


async def test_a_link_that_is_cut_while_bytes_go(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node:
        await put_files(node, make(tmp_path, data=LARGE))
        await put_files(node, make(tmp_path, "small"))
        held = Held(tmp_path / "source")
        async with leading(node) as it:
            await it.taker.about(Chunk, 0)
            it.taker.pause()
            await it.cut()
            assert file_states(node) == ["waiting", "waiting"]
    await until(lambda: held.count() == 0)


async def test_a_link_that_is_cut_after_the_end(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node:
        make(tmp_path, "photos/a")
        await put_files(node, tmp_path / "source" / "photos")
        async with leading(node) as it:
            offers = await it.taker.of(Offer, 2)
            await it.taker.about(End, 0)
            await it.cut()
            assert file_states(node) == ["handed", "handed"]
        async with leading(node) as it:
            again = await it.taker.of(Offer, 1)
            assert (again[0].id, again[0].ask) == (offers[0].id, True)
            it.taker.receipt(again[0])
            (_, folder) = await it.taker.of(Offer, 2)
            # A folder never asks: to make it again does no harm.
            assert (folder.id, folder.ask) == (offers[1].id, False)
            it.taker.receipt(folder)
            await it.seen.ended(2)
            assert file_states(node) == ["delivered", "delivered"]


async def test_a_link_that_is_cut_while_both_compare(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread
    reached, go_on = threading.Event(), threading.Event()
    reads = 0

    def slow(descriptor: int, count: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        reached.set()
        assert go_on.wait(10)
        return pread(descriptor, count, offset)

    async with parties.node() as node:
        await put_files(node, make(tmp_path, data=LARGE), began=True)
        monkeypatch.setattr(os, "pread", slow)
        held = Held(tmp_path / "source")
        async with leading(node) as it:
            await it.taker.offer(0)
            it.taker.accept(0, len(LARGE))
            await until(reached.is_set)
            await it.cut()
            go_on.set()
            assert file_states(node) == ["waiting"]
        monkeypatch.undo()
    # The thread gives up what nobody waits for, and lets go of the file.
    await until(lambda: held.count() == 0)
    assert reads == 1


async def test_a_link_that_is_cut_while_files_are_opened(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    open_all = ahead._open_all

    def slow(*args: object) -> object:
        opened = open_all(*args)  # type: ignore[arg-type]
        reached.set()
        assert go_on.wait(10)
        return opened

    async with parties.node() as node:
        for name in "abc":
            await put_files(node, make(tmp_path, name))
        monkeypatch.setattr(ahead, "_open_all", slow)
        held = Held(tmp_path / "source")
        async with leading(node) as it:
            await until(reached.is_set)
            await it.cut()
            assert held.count() == 3
            go_on.set()
            assert file_states(node) == ["waiting"] * 3
    await until(lambda: held.count() == 0)


@pytest.mark.parametrize("size", ["small", "large"])
async def test_a_link_that_is_cut_while_a_row_is_handed(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    hand = outbox.hand
    reached, go_on = threading.Event(), threading.Event()

    def slow(conn: sqlite3.Connection, seqs: list[int], now: int) -> list[int]:
        if not seqs:
            return []
        reached.set()
        assert go_on.wait(10)
        return hand(conn, seqs, now)

    async with parties.node() as node:
        await put_files(node, make(tmp_path, data=CONTENT if size == "small" else LARGE))
        monkeypatch.setattr(outbox, "hand", slow)
        held = Held(tmp_path / "source")
        async with leading(node) as it:
            await until(reached.is_set)
            cutting = asyncio.create_task(it.cut())
            await until(lambda: not it.dispatch._tasks)
            go_on.set()
            await cutting
            assert file_states(node) == ["waiting"], "no END has left"
    await until(lambda: held.count() == 0)


# ---- the source


@pytest.mark.parametrize("how", ["longer", "shorter", "touched", "another"])
async def test_a_source_that_has_changed_before_it_is_opened(
    parties: Parties, tmp_path: Path, how: str
) -> None:
    async with parties.node() as node:
        path = make(tmp_path)
        (seq,) = await put_files(node, path)
        await put_files(node, make(tmp_path, "next"))
        change(path, how)
        async with leading(node) as it:
            await it.taker.of(End)
            assert it.taker.names() == ["next"]
            (settled,) = await it.seen.ended()
            assert (settled.seq, settled.state) == (seq, State.WITHDRAWN)
            assert isinstance(settled.error, SourceChanged)
            assert file_rows(node)[0] == ("a", "withdrawn", settled.error.message)


@pytest.mark.parametrize("is_queued", [True, False])
async def test_what_is_queued_and_cannot_be_sent_is_a_notice(
    parties: Parties, tmp_path: Path, is_queued: bool
) -> None:
    async with parties.node() as node:
        path = make(tmp_path)
        await put_files(node, path, owner=None if is_queued else "own")
        path.unlink()
        async with leading(node, queued=lambda: True) as it:
            (settled,) = await it.seen.ended()
            assert settled.error is not None
            told = [
                (each.name, each.state, each.reason)
                for each in await node.store.read(notices.after, 0)
            ]
            # Whoever has put it is told otherwise.
            assert told == [("a", "withdrawn", settled.error.message)] * is_queued


def change(path: Path, how: str) -> None:
    if how == "longer":
        with path.open("ab") as file:
            file.write(b"x")
    elif how == "shorter":
        os.truncate(path, path.stat().st_size - 1)
    elif how == "half":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "touched":
        os.utime(path, ns=(1, 1))
    else:
        content = path.read_bytes()
        path.rename(path.with_name("old"))
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["longer", "shorter", "half", "touched"])
async def test_a_source_that_changes_while_it_is_sent(
    parties: Parties, tmp_path: Path, how: str
) -> None:
    async with parties.node() as node:
        path = make(tmp_path, data=LARGE)
        await put_files(node, path)
        await put_files(node, make(tmp_path, "next"))
        held = Held(tmp_path / "source")
        async with leading(node) as it:
            await it.taker.about(Chunk, 0)
            it.taker.pause()
            change(path, how)
            it.taker.resume()
            await it.taker.about(Cancel, 0)
            await it.taker.about(End, 1)
            assert [each.number for each in it.taker.heard(End)] == [1]
            (settled,) = await it.seen.ended()
            assert isinstance(settled.error, SourceChanged)
            assert settled.error.message == "a has changed while it was sent"
            assert file_rows(node)[0] == ("a", "withdrawn", settled.error.message)
    await until(lambda: held.count() == 0)


@pytest.mark.parametrize("how", ["gone", "replaced"])
async def test_a_source_without_its_name_goes_as_it_was(
    parties: Parties, tmp_path: Path, how: str
) -> None:
    async with parties.node() as node:
        path = make(tmp_path, data=LARGE)
        await put_files(node, path)
        async with leading(node) as it:
            await it.taker.about(Chunk, 0)
            it.taker.pause()
            if how == "gone":
                path.unlink()
            else:
                change(path, "another")
                path.write_bytes(b"something else")
            it.taker.resume()
            await it.taker.about(End, 0)
            assert it.taker.data(0) == LARGE


async def test_a_source_that_is_gone(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node:
        path = make(tmp_path)
        await put_files(node, path)
        path.unlink()
        async with leading(node) as it:
            (settled,) = await it.seen.ended()
            assert isinstance(settled.error, SourceChanged)
            assert settled.error.message == f"{path} is gone"
            assert it.taker.files == []


async def test_a_source_that_may_not_be_read_any_more(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = os.open

    def closed(path: Any, *args: Any, **kwargs: Any) -> int:
        # What root is never told.
        if path == os.fsencode(tmp_path / "source" / "a"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return open_file(path, *args, **kwargs)

    async with parties.node() as node:
        path = make(tmp_path)
        (seq,) = await put_files(node, path)
        await put_files(node, make(tmp_path, "next"))
        monkeypatch.setattr(os, "open", closed)
        async with leading(node) as it:
            await it.taker.of(End)
            assert it.taker.names() == ["next"]
            (settled,) = await it.seen.ended()
            assert (settled.seq, settled.state) == (seq, State.WITHDRAWN)
            assert isinstance(settled.error, SourceUnreadable)
            assert settled.error.message == f"{path} can't be read: permission denied"
            assert file_rows(node)[0] == ("a", "withdrawn", settled.error.message)


async def test_a_disk_that_fails_while_a_file_is_sent(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise OSError(5, "Input/output error")

    async with parties.node() as node:
        await put_files(node, make(tmp_path, data=LARGE))
        async with leading(node) as it:
            await it.taker.about(Chunk, 0)
            it.taker.pause()
            monkeypatch.setattr(os, "preadv", fails)
            monkeypatch.setattr(os, "pread", fails)
            it.taker.resume()
            await it.taker.about(Cancel, 0)
            (settled,) = await it.seen.ended()
            assert isinstance(settled.error, SourceUnreadable)
            assert settled.error.message == "a cannot be read: input/output error"
            assert file_states(node) == ["withdrawn"]


@pytest.mark.parametrize("how", ["changed", "gone", "unreadable"])
async def test_a_source_that_cannot_be_compared(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    def fails(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    async with parties.node() as node:
        path = make(tmp_path, data=LARGE)
        await put_files(node, path, began=True)
        held = Held(tmp_path / "source")
        async with leading(node) as it:
            await it.taker.offer(0)
            if how == "changed":
                change(path, "longer")
            elif how == "gone":
                path.unlink()
            else:
                monkeypatch.setattr(os, "pread", fails)
            it.taker.accept(0, 5)
            await it.taker.about(Cancel, 0)
            (settled,) = await it.seen.ended()
            wanted = SourceUnreadable if how == "unreadable" else SourceChanged
            assert isinstance(settled.error, wanted)
            # What the receiver says now has crossed with our CANCEL.
            it.taker.prefix(0, LARGE[:5])
            await put_files(node, make(tmp_path, "next"))
            it.dispatch.wake()
            await it.taker.about(End, 1)
            assert file_states(node) == ["withdrawn", "handed"]
    await until(lambda: held.count() == 0)


# ---- the store


@pytest.mark.parametrize("what", ["read", "note", "hand", "drop"])
async def test_a_store_that_is_busy_for_a_while(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 0.05)
    place, name = {
        "read": (outbox_files, "own"),
        "note": (outbox_files, "begin"),
        "hand": (outbox, "hand"),
        "drop": (outbox, "withdraw"),
    }[what]
    real = getattr(place, name)
    failed = []

    def busy_once(conn: sqlite3.Connection, *args: object) -> object:
        # No small rows are handed in what notes that a large one begins.
        if not failed and args[0] != []:
            failed.append(name)
            raise StoreBusy("another process is writing")
        return real(conn, *args)

    async with parties.node() as node:
        path = make(tmp_path, data=LARGE)
        await put_files(node, path)
        monkeypatch.setattr(place, name, busy_once)
        if what == "drop":
            path.unlink()
        async with leading(node) as it:
            if what == "drop":
                (settled,) = await it.seen.ended()
                assert settled.state is State.WITHDRAWN
                assert file_states(node) == ["withdrawn"]
            else:
                if what == "hand":
                    await it.taker.about(Cancel, 0)
                    assert (await it.taker.offer(1)).ask
                    it.taker.accept(1, 0)
                (end,) = await it.taker.of(End)
                assert it.taker.data(end.number) == LARGE
                assert file_states(node) == ["handed"]
            assert failed == [name]


async def test_an_answer_that_cannot_be_written_is_asked_for_again(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 0.05)
    real = outbox.delivered
    failed = []

    def busy_once(conn: sqlite3.Connection, **fields: object) -> object:
        if not failed:
            failed.append(True)
            raise StoreBusy("another process is writing")
        return real(conn, **fields)  # type: ignore[arg-type]

    monkeypatch.setattr(outbox, "delivered", busy_once)
    async with parties.node() as node:
        await put_files(node, make(tmp_path))
        async with leading(node) as it:
            offer = await it.taker.offer(0)
            await it.taker.about(End, 0)
            it.taker.receipt(offer)
            again = await it.taker.offer(1)
            assert (again.id, again.ask) == (offer.id, True)
            it.taker.receipt(again)
            (settled,) = await it.seen.ended()
            assert settled.state is State.DELIVERED


async def test_what_is_queued_goes_first_and_only_with_the_drain_lock(
    parties: Parties, tmp_path: Path
) -> None:
    async with parties.node() as node:
        await put_files(node, make(tmp_path, "own"))
        await put_files(node, make(tmp_path, "queued"), owner=None)
        for may, expected in (
            (None, ["own"]),
            (lambda: False, ["own"]),
            (lambda: True, ["queued", "own"]),
        ):
            async with leading(node, queued=may) as it:
                await it.taker.of(Offer, len(expected))
                await put_files(node, make(tmp_path, "last"))
                it.dispatch.wake()
                # What comes last tells that all before it has gone.
                await until(lambda: "last" in it.taker.names())
                assert it.taker.names()[: len(expected)] == expected
                assert len(it.taker.names()) == len(expected) + 1
            behind_its_back(node, "DELETE FROM outbox WHERE seq NOT IN (1, 2)")
            behind_its_back(node, "UPDATE outbox SET state = 'waiting'")
            behind_its_back(node, "UPDATE outbox_files SET began = 0")
        async with leading(node, own=False, queued=lambda: True) as it:
            await it.taker.of(Offer)
            it.dispatch.wake()
            await it.cut()
            assert it.taker.names() == ["queued"]


# ---- answers that cross with what we do


async def test_a_refusal_that_crosses_with_a_cancel(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file waits to be offered again when the answer to its first offer comes."""
    monkeypatch.setattr(resting, "FIRST_REST", 0.01)
    real = outbox.hand
    failed = []
    go_on = threading.Event()

    def busy_once(conn: sqlite3.Connection, seqs: list[int], now: int) -> object:
        if seqs == [1] and not failed:
            failed.append(True)
            assert go_on.wait(10)
            raise StoreBusy("another process is writing")
        return real(conn, seqs, now)

    async with parties.node() as node:
        await put_files(node, make(tmp_path, "a", LARGE[: 2 * MIB]))
        await put_files(node, make(tmp_path, "b", LARGE))
        await put_files(node, make(tmp_path, "c"))
        monkeypatch.setattr(outbox, "hand", busy_once)
        async with leading(node) as it:
            first = await it.taker.offer(0)
            it.taker.pause()
            go_on.set()
            await until(lambda: [each.row.seq for each in it.dispatch._files._ready] == [2, 3, 1])
            it.taker.refuse(first, RefusalCode.TOO_LARGE, permanent=True)
            await it.seen.ended()
            it.taker.resume()
            await it.taker.of(End, 2)
            assert it.taker.names() == ["a", "b", "c"]
            assert [each.number for each in it.taker.heard(Cancel)] == [0]
            assert it.run.done() is False
            assert file_states(node) == ["refused", "handed", "handed"]
