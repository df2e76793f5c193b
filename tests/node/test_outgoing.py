"""Rows of the outbox on links: in order, as they fit, and committed before they leave."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from parties import (
    BOB,
    QUICK,
    carried,
    linked,
    put,
    put_many,
    rows,
    state_of,
    states,
    until,
)

from securelink import answers, backoff, outgoing, resting
from securelink.answers import Recorded
from securelink.errors import LinkTruncated, StoreBusy
from securelink.limits import Limits
from securelink.link import Link
from securelink.messages import Receipt, RefusalCode, Refused, Text
from securelink.outgoing import Outgoing
from securelink.store import outbox
from securelink.store.outbox import State, queue
from securelink.store.outbox import rows as outbox_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parties import Carried, Parties

    from securelink.node import Node


def drain_lock_is_free(node: Node) -> bool:
    lock = node.drain_lock(BOB.public.raw)
    if lock is not None:
        lock.release(unlink=True)
    return lock is not None


async def say(node: Node, mail: Carried, *texts: str) -> None:
    await put_many(node, BOB.public, texts)
    mail.outgoing.wake()


async def all_are(node: Node, state: State) -> None:
    await until(lambda: set(states(node)) == {state})


async def test_a_row_is_handed_on_disk_before_its_first_byte_is_sealed(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    send = Link.send

    def watched(link: Link, message: object) -> None:
        if isinstance(message, Text):
            seen.append(state_of(node, message.id))
        send(link, message)

    monkeypatch.setattr(Link, "send", watched)
    async with parties.node() as node, carried(node) as (mail, bob):
        await say(node, mail, "one", "two")
        first, second = await bob.hear(Text, 2)
        assert seen == ["handed", "handed"]
        assert (first.text, second.text) == ("one", "two")


async def test_what_could_not_be_handed_is_not_sent(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        hand = outbox.hand

        def withdrawn_meanwhile(conn: sqlite3.Connection, seqs: list[int], now: int) -> list[int]:
            outbox.withdraw(conn, seqs[0], now)
            return hand(conn, seqs, now)

        monkeypatch.setattr(outbox, "hand", withdrawn_meanwhile)
        await say(node, mail, "one", "two")
        await bob.hear(Text)
        assert [each.text for each in bob.heard] == ["two"]
        assert states(node) == ["withdrawn", "handed"]


async def test_5000_queued_rows_arrive_in_order_within_the_window(parties: Parties) -> None:
    wanted = [f"text {number}" for number in range(5000)]
    async with parties.node() as node, carried(node) as (mail, bob):
        await say(node, mail, *wanted)
        # As many as the window holds, and not one more, until receipts come.
        await bob.hear(Text, 1024)
        await asyncio.to_thread(rows, node)
        assert len(bob.heard) == 1024
        assert states(node).count("handed") == 1024
        assert await bob.receipt_all(5000) == wanted
        await all_are(node, State.DELIVERED)


async def test_long_queues_are_not_read_anew_for_each_receipt(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0
    make = outbox_rows.row_of

    def counted(row):
        nonlocal read
        read += 1
        return make(row)

    for module in (outbox_rows, queue):
        monkeypatch.setattr(module, "row_of", counted)
    async with parties.node() as node, carried(node) as (mail, bob):
        await say(node, mail, *(f"text {number}" for number in range(2500)))
        await bob.hear(Text, 1024)
        for number in range(2500):
            if number == len(bob.heard):
                bob.heard += await bob.link.receive()
            bob.receipt(bob.heard[number])
            await asyncio.sleep(0)  # so that receipts do not share a record
        await all_are(node, State.DELIVERED)
    assert 2500 <= read < 4 * 2500


async def test_long_texts_are_not_all_read_at_once(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = peak = 0
    make, look = outbox_rows.row_of, outgoing._choose_rows

    def counted(row):
        nonlocal alive, peak
        alive += len(row[3])
        peak = max(peak, alive)
        return make(row)

    def counted_anew(*args: Any, **kwargs: Any) -> Any:
        nonlocal alive
        alive = 0
        return look(*args, **kwargs)

    for module in (outbox_rows, queue):
        monkeypatch.setattr(module, "row_of", counted)
    monkeypatch.setattr(outgoing, "_choose_rows", counted_anew)
    async with parties.node() as node, carried(node) as (mail, bob):
        await say(node, mail, *(["x" * 1_000_000] * 16))
        await bob.hear(Text, 4)
        assert peak <= 6_000_000
        for number in range(16):
            await bob.receipt_all(number + 1)
        # What has no receipt yet is read over, and then as much as there is room for.
        assert peak <= 10_000_000


async def test_one_message_longer_than_the_window(parties: Parties) -> None:
    limits = Limits(max_message=8 << 20, close_timeout=0.3)
    async with parties.node(limits=limits) as node, carried(node, limits=limits) as (mail, bob):
        await say(node, mail, "a", "b" * (5 << 20), "c")
        assert [text[0] for text in await bob.receipt_all(3)] == ["a", "b", "c"]


async def test_a_text_that_is_too_long_for_this_peer_ends_and_the_queue_goes_on(
    parties: Parties,
) -> None:
    peers = Limits(max_message=10, close_timeout=0.3)
    async with parties.node() as node:
        # 8 characters of 2 bytes are 16.
        seqs = await put_many(node, BOB.public, ["x" * 11, "ü" * 8, "ü" * 5])
        async with carried(node, limits=peers) as (_, bob):
            assert await bob.receipt_all(1) == ["ü" * 5]
            await until(lambda: states(node) == ["refused", "refused", "delivered"])
            row = await node.store.read(outbox.get, seqs[0])
            assert row is not None
            assert row.reason == "too long"


async def test_an_own_text_that_is_too_long_is_told(parties: Parties) -> None:
    async with parties.node() as node:
        seq = await put(node, BOB.public, "x" * 11, owner=node.owner)
        peers = Limits(max_message=10, close_timeout=0.3)
        async with carried(node, own=[seq], limits=peers) as (mail, _):
            await until(lambda: bool(mail.settled))
            (settled,) = mail.settled
            assert (settled.seq, settled.state, settled.reason) == (seq, State.REFUSED, "too long")


async def test_queued_rows_go_before_own_ones(parties: Parties) -> None:
    async with parties.node() as node:
        seq = await put(node, BOB.public, "own", owner=node.owner)
        await put(node, BOB.public, "queued")
        await put(node, BOB.public, "not ours", owner="somebody")
        async with carried(node, own=[seq]) as (mail, bob):
            assert await bob.receipt_all(2) == ["queued", "own"]
            await until(lambda: bool(mail.settled))
            (settled,) = mail.settled
            assert (settled.seq, settled.state) == (seq, State.DELIVERED)
            assert settled.link is not None
        assert states(node) == ["delivered", "delivered", "waiting"]


async def test_an_own_row_that_was_settled_elsewhere_is_told(parties: Parties) -> None:
    async with parties.node() as node:
        delivered = await put(node, BOB.public, "delivered", owner=node.owner)
        cancelled = await put(node, BOB.public, "cancelled", owner=node.owner)
        with closing(sqlite3.connect(node.home.store_file, isolation_level=None)) as conn:
            (message_id,) = conn.execute("SELECT id FROM outbox ORDER BY seq LIMIT 1").fetchone()
            outbox.delivered(conn, peer=BOB.public.raw, message_id=message_id, now=1)
            outbox.cancel_peer(conn, BOB.public.raw, 1)
        async with carried(node, own=[delivered, cancelled]) as (mail, _):
            await until(lambda: len(mail.settled) == 2)
            assert [(each.seq, each.state, each.link) for each in mail.settled] == [
                (delivered, State.DELIVERED, None),
                (cancelled, State.WITHDRAWN, None),
            ]


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_what_is_being_settled_here_is_told_once_and_by_whom_it_was(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    looks = 0
    look = outgoing._choose_rows

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal looks
        looks += 1
        return look(*args, **kwargs)

    monkeypatch.setattr(outgoing, "_choose_rows", counted)
    async with parties.node() as node:
        seq = await put(node, BOB.public, "hello", owner=node.owner)
        async with carried(node, own=[seq]) as (mail, bob):
            (text,) = await bob.hear(Text)
            receipt = Receipt(text.id)
            mail.outgoing.recording([receipt])
            await node.store.run(answers.record, BOB.public.raw, [receipt])
            # It is committed, and a look comes before this process has heard of that.
            before = looks
            mail.outgoing.wake()
            await until(lambda: looks > before)
            await node.store.read(outbox.get, seq)
            assert mail.settled == []
            found = None if elsewhere else seq
            (link,) = mail.outgoing._links
            mail.outgoing.recorded([receipt], [Recorded(found, State.DELIVERED)], link)
            await until(lambda: bool(mail.settled))
            (settled,) = mail.settled
            assert (settled.seq, settled.state) == (seq, State.DELIVERED)
            assert settled.link is (None if elsewhere else link)


# ---- the drain lock


async def test_the_drain_lock_is_taken_with_a_ready_link_and_given_up_with_the_last(
    parties: Parties,
) -> None:
    async with parties.node() as node:
        mail = Outgoing(node, BOB.public.raw)
        mail.wake()
        await node.store.run(lambda _: None)
        assert drain_lock_is_free(node)

        first, _ = await linked(node)
        second, _ = await linked(node)
        mail.attach(first)
        await until(lambda: not drain_lock_is_free(node))
        mail.attach(second)
        mail.detach(first)
        await node.store.run(lambda _: None)
        assert not drain_lock_is_free(node)
        mail.detach(second)
        assert drain_lock_is_free(node)
        # Who only waits for rows, without a link, takes no lock either.
        mail.wake()
        await node.store.run(lambda _: None)
        assert drain_lock_is_free(node)
        await mail.aclose()
        first.abort()
        second.abort()


async def test_closing_gives_the_drain_lock_up(parties: Parties) -> None:
    async with parties.node() as node:
        mail = Outgoing(node, BOB.public.raw)
        link, _ = await linked(node)
        mail.attach(link)
        await until(lambda: not drain_lock_is_free(node))
        await mail.aclose()
        assert drain_lock_is_free(node)
        link.abort()


async def test_two_drains_of_one_node_exclude_each_other(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "LOCK_PAUSE", 0.05)
    async with parties.node() as one, parties.node() as other, carried(one) as (holder, hears):
        await until(lambda: not drain_lock_is_free(one))
        async with carried(other) as (idle, silent):
            await put_many(one, BOB.public, ["one", "two"])
            idle.outgoing.wake()
            await other.store.run(lambda _: None)
            holder.outgoing.wake()
            assert await hears.receipt_all(2) == ["one", "two"]
            await all_are(one, State.DELIVERED)
            assert silent.heard == []


async def test_the_next_drain_takes_over_what_the_last_one_leaves(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "LOCK_PAUSE", 0.05)
    async with parties.node() as one, parties.node() as other:
        lock = one.drain_lock(BOB.public.raw)
        assert lock is not None
        async with carried(other) as (mail, bob):
            await say(other, mail, "waits")
            for _ in range(100):
                mail.outgoing.wake()
                await asyncio.sleep(0)
            assert bob.heard == []
            lock.release(unlink=True)
            assert await bob.receipt_all(1) == ["waits"]


async def test_waiting_for_the_drain_lock_costs_one_timer(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "LOCK_PAUSE", 0.02)
    async with parties.node() as node:
        lock = node.drain_lock(BOB.public.raw)
        assert lock is not None
        tries = 0
        take = node.drain_lock

        def counted(peer: bytes) -> object:
            nonlocal tries
            tries += 1
            return take(peer)

        monkeypatch.setattr(node, "drain_lock", counted)
        async with carried(node) as (mail, _):
            for number in range(50):
                mail.outgoing.wake()
                await until(lambda number=number: tries > number)
            before = tries
            await asyncio.sleep(0.2)
            assert tries - before <= 12
        lock.release(unlink=True)


async def test_who_may_not_drain_sends_own_rows_alone(parties: Parties) -> None:
    async with parties.node() as node:
        await put(node, BOB.public, "queued")
        seq = await put(node, BOB.public, "own", owner=node.owner)
        async with carried(node, own=[seq], drains=False) as (_, bob):
            assert await bob.receipt_all(1) == ["own"]
            assert drain_lock_is_free(node)
        assert states(node) == ["handed", "delivered"] or states(node) == ["waiting", "delivered"]


# ---- several links


async def test_rows_go_on_the_newest_link_or_on_the_newest_standing_one(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (mail, first):
        # Then no look at the store is under way that would go by the links of before.
        await say(node, mail, "on the only one")
        assert await first.receipt_all(1) == ["on the only one"]
        await until(lambda: states(node) == ["delivered"])
        second = await mail.link()
        await say(node, mail, "on the newest")
        assert await second.receipt_all(1) == ["on the newest"]
        third = await mail.link(standing=True)
        await mail.link()
        await say(node, mail, "on the standing one")
        assert await third.receipt_all(1) == ["on the standing one"]
        fifth = await mail.link(standing=True)
        await say(node, mail, "on the newest standing one")
        assert await fifth.receipt_all(1) == ["on the newest standing one"]
        assert len(first.heard_texts()) == 1


async def test_a_link_that_is_closing_is_chosen_no_more(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (mail, first):
        second = await mail.link()
        closing = asyncio.create_task(second.link.aclose())
        await until(mail.runs[1].done)
        await say(node, mail, "hello")
        assert await first.receipt_all(1) == ["hello"]
        await closing


async def test_what_has_no_receipt_when_its_link_ends_goes_again_in_order(
    parties: Parties,
) -> None:
    wanted = [f"text {number}" for number in range(20)]
    async with parties.node() as node, carried(node) as (mail, first):
        await say(node, mail, *wanted)
        sent = await first.hear(Text, 20)
        for text in (sent[3], sent[7]):
            first.receipt(text)
        await until(lambda: states(node).count("delivered") == 2)
        first.link.abort()
        assert isinstance(await mail.runs[0], LinkTruncated)
        assert states(node).count("handed") == 18

        second = await mail.link()
        left = [text for text in wanted if text not in {"text 3", "text 7"}]
        assert await second.receipt_all(18) == left
        again = {text.text: text for text in second.heard if isinstance(text, Text)}
        assert all(again[text.text] == text for text in sent if text.text in again)
        await all_are(node, State.DELIVERED)


async def test_what_was_handed_and_never_sent_goes_on_the_next_link(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, carried(node) as (mail, first):
        hand = outbox.hand

        def cut_meanwhile(conn: sqlite3.Connection, seqs: list[int], now: int) -> list[int]:
            loop.call_soon_threadsafe(first.link.abort)
            handed = hand(conn, seqs, now)
            asyncio.run_coroutine_threadsafe(over(), loop).result()
            return handed

        async def over() -> None:
            await mail.runs[0]

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(outbox, "hand", cut_meanwhile)
        await say(node, mail, "hello")
        await until(lambda: states(node) == ["handed"])
        monkeypatch.setattr(outbox, "hand", hand)
        second = await mail.link()
        assert await second.receipt_all(1) == ["hello"]
        assert first.heard == [] or not any(isinstance(each, Text) for each in first.heard)


# ---- refusals


async def test_a_refusal_for_good_ends_the_row_and_the_queue_goes_on(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        await say(node, mail, "no", "yes")
        no, yes = await bob.hear(Text, 2)
        bob.link.send(Refused(no.id, permanent=True, code=RefusalCode.NOT_ALLOWED))
        bob.receipt(yes)
        await until(lambda: states(node) == ["refused", "delivered"])
        await say(node, mail, "more")
        assert (await bob.hear(Text, 3))[2].text == "more"


def rests_drawn(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list that gets every rest that is begun, in seconds."""
    drawn: list[float] = []
    delays = backoff.delays

    def noted(*args: Any) -> Iterator[float]:
        for each in delays(*args):
            drawn.append(each)
            yield each

    monkeypatch.setattr(backoff, "delays", noted)
    return drawn


async def test_a_refusal_for_now_rests_the_queue_and_goes_again(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It ends when the test says so, and not while it still looks.
    monkeypatch.setattr(resting, "FIRST_REST", 3600.0)
    rests = rests_drawn(monkeypatch)
    async with parties.node() as node, carried(node) as (mail, bob):
        await say(node, mail, *(f"text {number}" for number in range(50)))
        await bob.hear(Text, 50)
        texts = await bob.refuse(50, RefusalCode.DISK_FULL)
        await all_are(node, State.WAITING)
        await say(node, mail, "later")
        # Fifty refusals at once are one reason to rest, not fifty.
        assert len(rests) == 1
        mail.outgoing._rest._end()
        again = (await bob.hear(Text, 101))[50:]
        assert [each.id for each in again[:50]] == [each.id for each in texts]
        assert again[50].text == "later"
        assert bob.link.session.state.name == "OPEN"
        await bob.receipt_all(101)
        await all_are(node, State.DELIVERED)


async def test_rests_grow_until_something_is_taken(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 0.05)
    monkeypatch.setattr("random.random", lambda: 0.0)
    rests = rests_drawn(monkeypatch)
    async with parties.node() as node, carried(node) as (mail, bob):
        loop = asyncio.get_running_loop()
        await say(node, mail, "hello")
        for number in range(1, 4):
            await bob.hear(Text, number)
            start = loop.time()
            await bob.refuse(1, RefusalCode.QUOTA)
            await bob.hear(Text, number + 1)
            assert loop.time() - start > rests[-1] - 0.01, "a timer may be early by its resolution"
        assert rests == [0.05, 0.1, 0.2]
        await bob.receipt_all(4)
        await all_are(node, State.DELIVERED)
        await say(node, mail, "again")
        await bob.hear(Text, 5)
        await bob.refuse(1, RefusalCode.BUSY)
        await bob.hear(Text, 6)
        assert rests[3:] == [0.05]


async def test_a_refusal_for_now_is_told_to_who_owns_the_row(parties: Parties) -> None:
    async with parties.node() as node:
        seq = await put(node, BOB.public, "hello", owner=node.owner)
        async with carried(node, own=[seq]) as (mail, bob):
            await bob.refuse(1, RefusalCode.DISK_FULL)
            await until(lambda: bool(mail.settled))
            (settled,) = mail.settled
            assert (settled.state, settled.reason) == (State.WAITING, "its disk is full")


@pytest.mark.parametrize(("code", "reason"), [(1, "too long"), (5, "it can't store it at present")])
def test_reasons(code: int, reason: str) -> None:
    assert answers.reason_of(code) == reason


def test_every_code_has_a_reason_and_unknown_ones_have_their_number() -> None:
    assert all(answers.reason_of(code) for code in RefusalCode)
    assert answers.reason_of(77) == "reason 77"


# ---- our own store fails


@pytest.mark.parametrize("failing", ["hand", "queued"])
async def test_sending_goes_on_when_our_own_store_works_again(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 0.02)
    failures = 2
    works = getattr(outbox, failing)

    def fails(*args: object, **kwargs: object) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreBusy("another process is writing")
        return works(*args, **kwargs)

    async with parties.node() as node, carried(node) as (mail, bob):
        monkeypatch.setattr(outbox, failing, fails)
        await say(node, mail, "hello")
        assert await bob.receipt_all(1) == ["hello"]
        assert failures == 0


async def test_a_receipt_that_could_not_be_written_has_its_text_go_again(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 0.02)
    works = outbox.delivered

    def fails(*args: object, **kwargs: object) -> int | None:
        monkeypatch.setattr(outbox, "delivered", works)
        raise StoreBusy("another process is writing")

    async with parties.node() as node, carried(node) as (mail, bob):
        monkeypatch.setattr(outbox, "delivered", fails)
        await say(node, mail, "hello")
        assert await bob.receipt_all(2) == ["hello", "hello"]
        await all_are(node, State.DELIVERED)
        first, again = (each for each in bob.heard if isinstance(each, Text))
        assert first == again


async def test_closing_while_the_store_is_slow_leaves_nothing_behind(parties: Parties) -> None:
    async with parties.node() as node:
        link, _ = await linked(node)
        mail = Outgoing(node, BOB.public.raw)
        mail.attach(link)
        await put(node, BOB.public, "hello")
        mail.wake()
        await asyncio.sleep(0)
        await mail.aclose()
        await mail.aclose()
        link.abort()


async def test_limits_of_the_tests_are_quick() -> None:
    assert QUICK.close_timeout < 1
