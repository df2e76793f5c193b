"""Files, folders and streams for one recipient: what the caller is told is the truth."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from parties import (
    BOB,
    HandServer,
    Stopwatch,
    at,
    call,
    introduce,
    rows,
    running,
    until,
)
from taking import Taker, behind_its_back, file_states, item, owners

from securelink import events, resting, sources
from securelink.client import Outcome, Sending, own, terms
from securelink.clock import new_id
from securelink.directory import KnownPeer
from securelink.errors import (
    LinkError,
    NoReceipt,
    NotAllSent,
    PeerRefused,
    Skipped,
    SourceChanged,
    SourceUnreadable,
    StoreBusy,
    TransferError,
    Unreachable,
)
from securelink.file_messages import Begin, Cancel, Chunk, End, Offer
from securelink.ids import to_text
from securelink.items import StreamItem, TextItem
from securelink.messages import RefusalCode, Text
from securelink.parcel import putting
from securelink.store import outbox_files, peers

if TYPE_CHECKING:
    from pathlib import Path

    from parties import Parties

    from securelink.items import Item
    from securelink.node import Node

MIB = 1 << 20
CONTENT = bytes(range(256)) * 16
LARGE = os.urandom(MIB) * 24
"""More than the buffers of a link hold, and than what is handed ahead."""

NOWHERE = KnownPeer("bob", BOB.public, (at(1),))


def make(folder: Path, name: str = "a", data: bytes = CONTENT) -> Path:
    path = folder / "source" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def bob_at(server: HandServer) -> KnownPeer:
    return KnownPeer("bob", BOB.public, (at(server.port),))


class Sent:
    """A `Sending` under way."""

    def __init__(self, node: Node, peer: KnownPeer, *items: Item, **options: Any) -> None:
        options = {"choice": "auto", "timeout": 5} | options
        self.sending = Sending(node, peer, **options)
        self.task = asyncio.create_task(self.sending.send(items))

    async def outcomes(self) -> list[Outcome]:
        return await self.task

    async def outcome(self) -> Outcome:
        (outcome,) = await self.task
        return outcome

    async def cancel(self) -> None:
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.task


# ---- delivered


async def test_a_text_a_file_and_a_folder_to_another_node(parties: Parties, tmp_path: Path) -> None:
    async with parties.node("bob") as node, parties.node() as other, running(other) as (service, t):
        await introduce(other, node.identity.public, "bob")
        alice = await introduce(node, other.identity.public, "alice", [at(service.server.port)])
        text = TextItem(new_id(), "as promised")
        file = item(make(tmp_path, "a", LARGE))
        make(tmp_path, "photos/b")
        make(tmp_path, "photos/2026/empty", b"")
        folder = item(tmp_path / "source" / "photos")
        told = await Sent(node, alice, text, file, folder).outcomes()
        assert [each.error for each in told] == [None] * 3
        assert [each.endpoint for each in told] == [at(service.server.port)] * 3
        assert [each.peer for each in told] == ["alice"] * 3
        counts = [(each.tally.files, each.tally.files_done, each.tally.done) for each in told]
        assert counts == [(0, 0, 0), (1, 1, len(LARGE)), (2, 2, len(CONTENT))]
        assert [each.tally.total for each in told] == [0, len(LARGE), len(CONTENT)]
        assert (told[1].tally.resumed, told[1].tally.changed) == (0, set())
        landed = other.home.files_folder(other.config.files.folder) / "bob"
        assert (landed / "a").read_bytes() == LARGE
        assert (landed / "photos" / "b").read_bytes() == CONTENT
        assert (landed / "photos" / "2026" / "empty").read_bytes() == b""
        # What its receiver tells of is what its sender tells of.
        assert told[0].id == text.id
        await t.of(events.Message)
        came = {each.name: each.id for each in await t.of(events.File, 3)}
        assert came["a"] == to_text(told[1].id)
        assert to_text(told[2].id) not in came.values()
        assert file_states(node) == ["delivered"] * 5


async def test_texts_go_beside_files_and_do_not_wait_for_them(
    parties: Parties, tmp_path: Path
) -> None:
    async with parties.node() as node, HandServer() as server:
        sent = Sent(
            node, bob_at(server), item(make(tmp_path, "a", LARGE)), TextItem(new_id(), "hello")
        )
        by_hand = await server.call()
        taker = Taker(by_hand)
        (text,) = await by_hand.hear(Text)
        by_hand.receipt(text)
        await taker.about(End, 0)
        taker.receipt(await taker.offer(0))
        assert [each.error for each in await sent.outcomes()] == [None, None]


async def test_to_several_peers_at_once(parties: Parties, tmp_path: Path) -> None:
    file = item(make(tmp_path))
    async with parties.node() as node, HandServer() as server:
        reached = Sent(node, bob_at(server), file)
        carol = KnownPeer("carol", node.identity.public, (at(1),))
        unreached = Sent(node, carol, file, timeout=0.3, choice="127.0.0.1:1")
        Taker(await server.call(), willing=True)
        assert (await reached.outcome()).error is None
        assert isinstance((await unreached.outcome()).error, Unreachable)
        assert sorted(file_states(node)) == ["delivered", "withdrawn"]


# ---- one thing goes, another does not


async def test_each_item_has_an_outcome_of_its_own(parties: Parties, tmp_path: Path) -> None:
    link = tmp_path / "source" / "link"
    paths = [make(tmp_path, name) for name in ("good", "large", "there", "gone")]
    link.symlink_to("good")
    async with parties.node() as node, HandServer() as server:
        items = [item(each) for each in (*paths, link)]
        paths[3].unlink()
        skipped: list[sources.Skipped] = []
        sent = Sent(node, bob_at(server), *items, skipped=skipped.append)
        taker = Taker(await server.call())
        good, large, there = await taker.of(Offer, 3)
        await taker.of(End, 3)
        taker.refuse(large, RefusalCode.TOO_LARGE, permanent=True)
        taker.refuse(there, RefusalCode.EXISTS, permanent=True)
        taker.receipt(good)
        told = await sent.outcomes()
        assert [type(each.error) for each in told] == [
            type(None),
            PeerRefused,
            Skipped,
            TransferError,
            TransferError,
        ]
        assert [each.error.message for each in told if each.error] == [
            "bob refused large: the file is larger than it takes",
            "bob has another there already: it was left as it is",
            f"{paths[3]} is not sent: gone while it was looked at",
            f"{link} is not sent: a symbolic link, which is not followed",
        ]
        assert [each.path for each in skipped] == [os.fsencode(paths[3]), os.fsencode(link)]
        assert file_states(node) == ["delivered", "refused", "refused"]


async def test_a_folder_of_which_one_file_is_refused(parties: Parties, tmp_path: Path) -> None:
    for name in "abc":
        make(tmp_path, f"photos/{name}")
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(tmp_path / "source" / "photos"))
        taker = Taker(await server.call())
        offers = await taker.of(Offer, 4)
        await taker.of(End, 3)
        taker.refuse(offers[1], RefusalCode.BAD_NAME, permanent=True)
        taker.receipt(offers[0], *offers[2:])
        outcome = await sent.outcome()
        assert isinstance(outcome.error, PeerRefused)
        assert outcome.error.message == ("bob refused photos/b: it cannot have a file of that name")


async def test_what_could_not_be_sent_does_not_come_right_with_a_receipt(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "GRACE", 0.1)
    make(tmp_path, "photos/a")
    make(tmp_path, "photos/" + os.fsdecode(b"\xff"))
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(tmp_path / "source" / "photos"), timeout=1)
        await Taker(await server.call()).of(End)
        outcome = await sent.outcome()
        assert isinstance(outcome.error, NotAllSent)
        assert outcome.error.message.startswith("1 could not be sent, and bob has not")
        assert not outcome.rest_is_delivered


async def test_a_refusal_is_told_before_what_could_not_be_sent(
    parties: Parties, tmp_path: Path
) -> None:
    make(tmp_path, "photos/a")
    make(tmp_path, "photos/" + os.fsdecode(b"\xff"))
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(tmp_path / "source" / "photos"))
        taker = Taker(await server.call())
        file, folder = await taker.of(Offer, 2)
        await taker.of(End)
        taker.refuse(file, RefusalCode.TOO_LARGE, permanent=True)
        taker.receipt(folder)
        outcome = await sent.outcome()
        assert isinstance(outcome.error, PeerRefused)
        assert (outcome.tally.left_out.missed, outcome.rest_is_delivered) == (1, False)


async def test_what_is_refused_for_now_keeps_no_other_from_being_tried(
    parties: Parties, tmp_path: Path
) -> None:
    for name in "abc":
        make(tmp_path, f"photos/{name}")
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(tmp_path / "source" / "photos"))
        taker = Taker(await server.call())
        offers = await taker.of(Offer, 4)
        taker.receipt(offers[3])
        await until(lambda: "delivered" in file_states(node))
        taker.refuse(offers[0], RefusalCode.QUOTA)
        await until(lambda: sent.sending.parcel.tallies[0].refused)
        taker.refuse(offers[1], RefusalCode.TOO_LARGE, permanent=True)
        taker.refuse(offers[2], RefusalCode.QUOTA)
        outcome = await sent.outcome()
        assert isinstance(outcome.error, PeerRefused)
        assert outcome.error.message == (
            "3 of 3 were not delivered: bob refused photos/b: the file is larger than it takes;"
            " bob refused photos/a: its quota is used up (and 1 more)"
        )
        assert outcome.error.hint == "try again later"
        assert file_states(node) == ["withdrawn", "refused", "withdrawn", "delivered"]
        assert owners(node)[::2] == [None, None]


async def test_what_went_again_after_a_refusal_is_not_known_to_be_refused(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 0.05)
    for name in "ab":
        make(tmp_path, f"photos/{name}")
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(tmp_path / "source" / "photos"))
        taker = Taker(await server.call())
        offers = await taker.of(Offer, 3)
        await taker.of(End, 2)
        taker.receipt(offers[2])
        taker.refuse(offers[0], RefusalCode.DISK_FULL)
        again = await taker.offer(3)
        assert again.id == offers[0].id
        taker.accept(3, 0)
        await taker.about(End, 3)
        taker.receipt(offers[1])
        outcome = await sent.outcome()
        assert isinstance(outcome.error, NoReceipt)
        assert outcome.error.message == (
            "bob refused photos/a: its disk is full; it went again since, and bob has not answered"
        )
        assert file_states(node) == ["handed", "delivered", "delivered"]


async def test_what_is_refused_for_now_and_then_taken_is_delivered(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 0.05)
    async with parties.node() as node, HandServer() as server:
        small, large = make(tmp_path, "small"), make(tmp_path, "large", LARGE)
        sent = Sent(node, bob_at(server), item(small), item(large))
        taker = Taker(await server.call())
        first = await taker.offer(0)
        # Both are on their way: what is only put later stands behind the one that goes again.
        await taker.about(End, 1)
        taker.refuse(first, RefusalCode.DISK_FULL)
        again = await taker.offer(2)
        assert again.id == first.id
        taker.accept(2, 0)
        await taker.about(End, 2)
        taker.receipt(again)
        await until(lambda: file_states(node) == ["delivered", "handed"])
        taker.receipt(await taker.offer(1))
        assert [each.error for each in await sent.outcomes()] == [None, None]


async def test_a_version_that_knows_no_files(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "FILES", 1 << 40)
    async with parties.node() as node, HandServer() as server:
        outcome = await Sent(node, bob_at(server), item(make(tmp_path))).outcome()
        assert isinstance(outcome.error, PeerRefused)
        assert outcome.error.message == "bob runs a version that knows no files"
        assert file_states(node) == ["withdrawn"]


# ---- links that are cut


async def test_it_goes_on_over_the_next_link_and_what_was_there_counts_once(
    parties: Parties, tmp_path: Path
) -> None:
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(make(tmp_path, data=LARGE)))
        first = Taker(await server.call(1))
        await first.about(Chunk, 0, 20)
        first.link.abort()
        for number, offset in ((2, MIB), (3, 5 * MIB)):
            taker = Taker(await server.call(number))
            offer = await taker.offer(0)
            assert (offer.id, offer.ask) == (first.heard(Offer)[0].id, True)
            taker.accept(0, offset)
            taker.prefix(0, LARGE[:offset])
            assert (await taker.about(Begin, 0)).offset == offset
            if number == 2:
                await taker.about(Chunk, 0, 20)
                taker.link.abort()
        await taker.about(End, 0)
        taker.receipt(offer)
        outcome = await sent.outcome()
        assert outcome.error is None
        tally = outcome.tally
        assert (tally.done, tally.total, tally.resumed) == (len(LARGE), len(LARGE), 5 * MIB)
        assert (tally.rows, tally.files, tally.files_done) == (1, 1, 1)
        assert sent.sending.parcel is not None
        assert sent.sending.parcel.rows.moved > len(LARGE) - 5 * MIB


async def test_a_later_send_goes_on_with_what_an_earlier_one_began(
    parties: Parties, tmp_path: Path
) -> None:
    path = make(tmp_path, data=LARGE)
    async with parties.node() as node, HandServer() as server:
        first = Sent(node, bob_at(server), item(path))
        taker = Taker(await server.call(1))
        offer = await taker.offer(0)
        await taker.about(Chunk, 0)
        await first.cancel()
        assert file_states(node) == ["withdrawn"]
        second = Sent(node, bob_at(server), item(path))
        taker = Taker(await server.call(2))
        again = await taker.offer(0)
        assert (again.id, again.ask) == (offer.id, True)
        taker.receipt(again)
        outcome = await second.outcome()
        assert (outcome.error, outcome.id) == (None, offer.id)
        assert (outcome.tally.done, outcome.tally.resumed) == (len(LARGE), 0)


async def test_a_stream_that_is_cut_never_counts(parties: Parties) -> None:
    reading, writing = os.pipe()
    try:
        async with parties.node() as node, HandServer() as server:
            sent = Sent(node, bob_at(server), StreamItem("log", reading))
            taker = Taker(await server.call())
            os.write(writing, b"something")
            await taker.about(Chunk, 0)
            with Stopwatch() as watch:
                taker.link.abort()
                outcome = await sent.outcome()
            assert watch.seconds < 2
            assert isinstance(outcome.error, NoReceipt)
            assert outcome.error.message == "the link broke, and a stream cannot be read again"
            assert file_states(node) == ["withdrawn"]
    finally:
        os.close(reading)
        os.close(writing)


async def test_a_stream_whose_receipt_is_lost_is_not_known_to_have_come(parties: Parties) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"something")
    os.close(writing)
    try:
        async with parties.node() as node, HandServer() as server:
            sent = Sent(node, bob_at(server), StreamItem("log", reading))
            taker = Taker(await server.call())
            await taker.about(End, 0)
            taker.link.abort()
            outcome = await sent.outcome()
            assert isinstance(outcome.error, NoReceipt)
            assert file_states(node) == ["handed"]
            assert owners(node) == [None]
    finally:
        os.close(reading)


# ---- sources that change


async def test_a_file_that_changes_on_the_way_starts_over(parties: Parties, tmp_path: Path) -> None:
    path = make(tmp_path, data=LARGE)
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(path))
        taker = Taker(await server.call())
        await taker.about(Chunk, 0)
        taker.pause()
        path.write_bytes(CONTENT)
        taker.resume()
        await taker.about(Cancel, 0)
        assert await taker.about(End, 1) == End(1, len(CONTENT))
        first, second = taker.heard(Offer)
        assert first.id != second.id
        taker.receipt(second)
        outcome = await sent.outcome()
        assert (outcome.error, outcome.id) == (None, second.id)
        tally = outcome.tally
        assert (tally.done, tally.total, tally.resumed) == (len(CONTENT), len(CONTENT), 0)
        assert (tally.rows, tally.files, tally.changed) == (1, 1, {"a"})
        assert file_states(node) == ["withdrawn", "delivered"]


async def test_a_file_that_changes_again_and_again_is_given_up(
    parties: Parties, tmp_path: Path
) -> None:
    path = make(tmp_path, data=LARGE)
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(path))
        taker = Taker(await server.call())
        for number in range(3):
            await taker.about(Chunk, number)
            taker.pause()
            path.write_bytes(LARGE + bytes(number + 1))
            taker.resume()
            await taker.about(Cancel, number)
        outcome = await sent.outcome()
        assert isinstance(outcome.error, SourceChanged)
        assert outcome.error.message == "a has changed while it was sent"
        assert file_states(node) == ["withdrawn"] * 3
        assert taker.heard(End) == []


async def test_a_file_that_goes_while_it_is_begun_anew(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path, "photos/a", LARGE)
    make(tmp_path, "photos/b")
    look_again = sources.look_again

    def gone(*args: Any) -> Any:
        path.unlink()
        return look_again(*args)

    monkeypatch.setattr(sources, "look_again", gone)
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(tmp_path / "source" / "photos"))
        taker = Taker(await server.call(), willing=True)
        await taker.about(Chunk, 0)
        taker.pause()
        path.write_bytes(b"other")
        taker.resume()
        outcome = await sent.outcome()
        assert isinstance(outcome.error, SourceChanged)
        assert outcome.error.message == f"{path} is gone"
        assert outcome.tally.delivered == 2


async def test_a_file_that_becomes_the_private_key_is_not_begun_anew(
    parties: Parties, tmp_path: Path
) -> None:
    path = make(tmp_path, data=LARGE)
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(path))
        taker = Taker(await server.call(), willing=True)
        await taker.about(Chunk, 0)
        taker.pause()
        path.write_bytes(b"other")
        path.unlink()
        path.hardlink_to(node.home.key_file)
        taker.resume()
        outcome = await sent.outcome()
        assert isinstance(outcome.error, SourceUnreadable)
        assert outcome.error.message == f"{path} is this node's private key: it is not sent"
        assert taker.heard(End) == []


async def test_cancelled_while_a_file_is_begun_anew(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path, data=LARGE)
    put, look_again = outbox_files.put, sources.look_again
    loop = asyncio.get_running_loop()
    reached, go_on = asyncio.Event(), threading.Event()

    def slow(*args: Any, **kwargs: Any) -> Any:
        loop.call_soon_threadsafe(reached.set)
        assert go_on.wait(10)
        return put(*args, **kwargs)

    def look(*args: Any) -> Any:
        monkeypatch.setattr(outbox_files, "put", slow)
        return look_again(*args)

    monkeypatch.setattr(sources, "look_again", look)
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(path))
        taker = Taker(await server.call())
        await taker.about(Chunk, 0)
        taker.pause()
        path.write_bytes(CONTENT)
        taker.resume()
        await reached.wait()
        sent.task.cancel()
        loop.call_later(0.7, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await sent.task
        # The new row was put all the same, and nobody is left who would send it.
        assert file_states(node) == ["withdrawn", "withdrawn"]
        assert owners(node)[1] is None


# ---- queued


async def test_what_is_not_delivered_stays_queued(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node:
        file = item(make(tmp_path))
        text = TextItem(new_id(), "hello")
        told = await Sent(node, NOWHERE, text, file, queue=True, timeout=0.3).outcomes()
        assert [each.queued for each in told] == [True, True]
        assert all(isinstance(each.error, Unreachable) for each in told)
        assert [row[1:] for row in rows(node)] == [("waiting", None), ("waiting", None)]

        # The same again takes the same row.
        (again,) = await Sent(node, NOWHERE, file, queue=True, timeout=0.3).outcomes()
        assert again.id == told[1].id
        assert file_states(node) == ["waiting"]


async def test_what_has_left_stays_queued_too(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "GRACE", 0.1)
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(make(tmp_path)), queue=True, timeout=1.5)
        await Taker(await server.call()).about(End, 0)
        outcome = await sent.outcome()
        assert outcome.queued
        assert [row[1:] for row in rows(node)] == [("handed", None)]


async def test_of_what_stays_queued_it_is_told_why_it_was_not_taken(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "GRACE", 0.0)
    async with parties.node() as node, HandServer() as server:
        file, text = item(make(tmp_path)), TextItem(new_id(), "hello")
        sent = Sent(node, bob_at(server), text, file, queue=True, timeout=1.5)
        by_hand = await server.call()
        await by_hand.refuse(1, RefusalCode.BUSY)
        taker = Taker(by_hand)
        taker.refuse(await taker.offer(0), RefusalCode.QUOTA)
        outcomes = await sent.outcomes()
        assert [each.queued for each in outcomes] == [True, True]
        errors = [each.error for each in outcomes]
        assert [(type(each), each.message, each.hint) for each in errors if each] == [
            (PeerRefused, "bob refused it: it can't store it at present", None),
            (PeerRefused, "bob refused a: its quota is used up", None),
        ]


async def test_what_is_queued_and_refused_for_good_is_not_queued(
    parties: Parties, tmp_path: Path
) -> None:
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(make(tmp_path)), queue=True)
        taker = Taker(await server.call())
        taker.refuse(await taker.offer(0), RefusalCode.TOO_LARGE, permanent=True)
        outcome = await sent.outcome()
        assert isinstance(outcome.error, PeerRefused)
        assert not outcome.queued
        assert file_states(node) == ["refused"]


async def test_all_of_a_folder_is_queued_also_for_one_who_refuses_at_once(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(putting, "BATCH", 2)
    for number in range(20):
        make(tmp_path, f"many/{number}")
    async with parties.node("bob") as node, parties.node() as other:
        async with running(other) as (service, _):
            alice = KnownPeer("alice", other.identity.public, (at(service.server.port),))
            outcome = await Sent(
                node, alice, item(tmp_path / "source" / "many"), queue=True
            ).outcome()
        assert isinstance(outcome.error, PeerRefused)
        assert outcome.queued
        assert file_states(node) == ["waiting"] * 21
        assert set(owners(node)) == {None}


async def test_queued_files_of_before_go_first_if_they_may(
    parties: Parties, tmp_path: Path
) -> None:
    async with parties.node() as node, HandServer() as server:
        before, file = item(make(tmp_path, "before")), item(make(tmp_path, "own"))
        await Sent(node, NOWHERE, before, queue=True, timeout=0.2).outcome()
        plain = Sent(node, bob_at(server), file)
        taker = Taker(await server.call(1), willing=True)
        await plain.outcome()
        assert taker.names() == ["own"]
        queueing = Sent(node, bob_at(server), file, queue=True)
        taker = Taker(await server.call(2), willing=True)
        assert (await queueing.outcome()).error is None
        assert taker.names() == ["before", "own"]


# ---- time


async def test_the_timeout_counts_from_the_last_progress(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "GRACE", 0.0)
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(make(tmp_path, data=LARGE)), timeout=1.5)
        taker = Taker(await server.call())
        with Stopwatch() as watch:
            for count in range(1, 6):
                await taker.about(Chunk, 0, 50 * count)
                taker.pause()
                await asyncio.sleep(0.4)
                taker.resume()
            taker.pause()
        assert watch.seconds > 2
        assert not sent.task.done()
        with Stopwatch() as watch:
            outcome = await sent.outcome()
        assert watch.seconds < 5
        assert isinstance(outcome.error, LinkError)
        assert file_states(node) == ["withdrawn"]


async def test_what_both_sides_compare_may_take_longer_than_the_timeout(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "GRACE", 0.0)
    monkeypatch.setattr(own, "SLOWEST", MIB / 10)
    path = make(tmp_path, data=LARGE)
    async with parties.node() as node, HandServer() as server:
        sent, taker = await resumed(node, server, path)
        taker.accept(0, MIB)
        await asyncio.sleep(2)
        taker.prefix(0, LARGE[:MIB])
        await taker.about(End, 0)
        taker.receipt(await taker.offer(0))
        outcome = await sent.outcome()
        assert (outcome.error, outcome.tally.resumed) == (None, MIB)


async def test_a_receiver_that_compares_for_ever_is_given_up(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "GRACE", 0.0)
    path = make(tmp_path, data=LARGE)
    async with parties.node() as node, HandServer() as server:
        sent, taker = await resumed(node, server, path)
        taker.accept(0, MIB)
        outcome = await sent.outcome()
        assert isinstance(outcome.error, LinkError)
        assert file_states(node) == ["withdrawn"]


async def resumed(node: Node, server: HandServer, path: Path) -> tuple[Sent, Taker]:
    """A second attempt at a file, which the receiver is asked about."""
    first = Sent(node, bob_at(server), item(path))
    await Taker(await server.call(1)).about(Chunk, 0)
    await first.cancel()
    sent = Sent(node, bob_at(server), item(path), timeout=1.5)
    taker = Taker(await server.call(2))
    await taker.offer(0)
    return sent, taker


# ---- the store, and other processes


@pytest.mark.parametrize("within", [0.5, None])
async def test_rows_that_cannot_be_put_are_told(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: float | None
) -> None:
    monkeypatch.setattr(putting, "BATCH", 2)
    put, calls = outbox_files.put, []

    def fails_later(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise StoreBusy("another process is writing")
        return put(*args, **kwargs)

    monkeypatch.setattr(outbox_files, "put", fails_later)
    for number in range(5):
        make(tmp_path, f"many/{number}")
    async with parties.node() as node, HandServer() as server:
        many, other = item(tmp_path / "source" / "many"), item(make(tmp_path, "other"))
        sent = Sent(node, bob_at(server), many, other, timeout=within)
        Taker(await server.call(), willing=True)
        with Stopwatch() as watch:
            first, second = await sent.outcomes()
        assert watch.seconds < 2
        assert isinstance(first.error, StoreBusy)
        assert "another process is writing" in first.error.message
        assert second.error is None
        assert file_states(node) == ["delivered"] * 3


async def test_a_bug_while_rows_are_put_does_not_wait_for_ever(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(putting, "BATCH", 2)
    put, calls = outbox_files.put, []
    linked = threading.Event()

    def breaks_later(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            linked.wait(10)
            raise RuntimeError("a bug")
        return put(*args, **kwargs)

    monkeypatch.setattr(outbox_files, "put", breaks_later)
    for number in range(5):
        make(tmp_path, f"many/{number}")
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(tmp_path / "source" / "many"), timeout=None)
        Taker(await server.call(), willing=True)
        linked.set()
        with pytest.raises(RuntimeError, match="a bug"):
            await sent.task


@pytest.mark.parametrize("when", ["waiting", "handed"])
async def test_a_peer_that_is_removed_meanwhile(
    parties: Parties, tmp_path: Path, when: str
) -> None:
    async with parties.node() as node, HandServer() as server:
        bob = await introduce(node, BOB.public, "bob", [at(server.port)])
        sent = Sent(node, bob, item(make(tmp_path, data=LARGE)), timeout=None)
        taker = Taker(await server.call())
        await taker.about(Chunk, 0)
        taker.pause()
        if when == "handed":
            behind_its_back(node, "UPDATE outbox SET state = 'handed', handed_at = 1")
        await node.store.run(peers.remove, "bob", 1)
        taker.resume()
        outcome = await sent.outcome()
        assert isinstance(outcome.error, NoReceipt if when == "handed" else Unreachable)
        assert "the peer was removed" in outcome.error.message
        assert taker.heard(End) == []


async def test_without_an_address_whoever_has_the_link_delivers_it(
    parties: Parties, tmp_path: Path
) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as serving,
        parties.node(knows={"bob": BOB.public}) as node,
        running(serving) as (service, _),
    ):
        bob = (await node.directory()).by_name("bob")
        sent = Sent(node, bob, item(make(tmp_path)))
        await until(lambda: file_states(node) == ["waiting"])
        async with call(service.server, takes_files=True) as by_hand:
            taker = Taker(by_hand, willing=True)
            outcome = await sent.outcome()
            assert (outcome.error, outcome.endpoint) == (None, None)
            assert taker.data(0) == CONTENT


async def test_cancelled_before_the_end_has_left(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node, HandServer() as server:
        sent = Sent(
            node, bob_at(server), item(make(tmp_path, data=LARGE)), item(make(tmp_path, "b"))
        )
        taker = Taker(await server.call())
        await taker.about(Chunk, 0)
        taker.pause()
        await sent.cancel()
        assert file_states(node) == ["withdrawn", "withdrawn"]


async def test_cancelled_after_the_end_has_left(parties: Parties, tmp_path: Path) -> None:
    async with parties.node() as node, HandServer() as server:
        sent = Sent(node, bob_at(server), item(make(tmp_path)))
        await Taker(await server.call()).about(End, 0)
        await sent.cancel()
        assert [row[1:] for row in rows(node)] == [("handed", None)]


async def test_cancelled_while_a_folder_is_walked(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    folder = make(tmp_path, "many/a").parent

    def slow(_: object) -> list[object]:
        reached.set()
        assert go_on.wait(10)
        return []

    monkeypatch.setattr(putting, "_next", slow)
    async with parties.node() as node:
        sent = Sent(node, NOWHERE, item(folder), timeout=None)
        await until(reached.is_set)
        await sent.cancel()
        go_on.set()
        assert file_states(node) == []
