"""A ready link and the store: receipts after the commit, refusals, the end of a link."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from parties import (
    BOB,
    QUICK,
    ByHand,
    Carried,
    call,
    carried,
    inbox_size,
    introduce,
    linked,
    put,
    serving,
    states,
    texts,
    until,
)

from securelink import delivery as delivery_module
from securelink import interfaces, resting
from securelink.announced import MOST_ANNOUNCED, AnnouncedEndpoint
from securelink.clock import new_id
from securelink.delivery import Delivery
from securelink.directory import KnownPeer
from securelink.endpoints import Endpoint, Kind, kind_of
from securelink.errors import LinkTruncated, StoreBusy, StoreError, StoreFull
from securelink.link import Link
from securelink.messages import Announce, Ready, Receipt, RefusalCode, Refused, Text
from securelink.outgoing import Outgoing
from securelink.session import Closing
from securelink.store import addresses, inbox
from securelink.store.outbox import State

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from parties import Parties

    from securelink.node import Node
    from securelink.session import Happening


class Gated:
    """`inbox.receive`, which waits in the store's thread until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import threading

        self._receive = inbox.receive
        self._loop = asyncio.get_running_loop()
        self.reached = asyncio.Event()
        self.go_on = threading.Event()
        monkeypatch.setattr(inbox, "receive", self)

    def __call__(self, conn: sqlite3.Connection, **kwargs: object) -> int | None:
        self._loop.call_soon_threadsafe(self.reached.set)
        assert self.go_on.wait(20)
        return self._receive(conn, **kwargs)


async def test_a_receipt_comes_only_after_the_commit(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_receipt: list[list[str]] = []
    send = Link.send

    def watched(link: Link, message: object) -> None:
        if isinstance(message, Receipt):
            at_receipt.append(texts(node))
        send(link, message)

    monkeypatch.setattr(Link, "send", watched)
    async with parties.node() as node, carried(node) as (_, bob):
        gate = Gated(monkeypatch)
        message_id = bob.say("hello")
        await gate.reached.wait()
        assert texts(node) == []
        assert bob.heard == []
        gate.go_on.set()
        assert await bob.hear(Receipt) == [Receipt(message_id)]
        # When the receipt was queued, another connection saw the text.
        assert at_receipt[0] == ["hello"]


async def test_what_comes_during_a_commit_shares_the_next_one(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, carried(node) as (_, bob):
        gate = Gated(monkeypatch)
        bob.say("first")
        await gate.reached.wait()
        before = node.store.commits
        for number in range(100):
            bob.say(f"text {number}")
        await asyncio.sleep(0.05)  # they are all read meanwhile
        gate.go_on.set()
        await bob.hear(Receipt, 101)
        assert node.store.commits - before <= 3
        assert texts(node) == ["first", *(f"text {number}" for number in range(100))]


async def test_a_duplicate_has_a_receipt_and_nothing_else(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        message_id = bob.say("hello")
        await bob.hear(Receipt)
        bob.say("hello", message_id)
        assert await bob.hear(Receipt, 2) == [Receipt(message_id)] * 2
        second = await mail.link()
        second.say("hello", message_id)
        assert await second.hear(Receipt) == [Receipt(message_id)]
        assert texts(node) == ["hello"]
        assert await inbox_size(node) == 1


async def test_both_ways_at_once(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        for number in range(200):
            await put(node, BOB.public, f"to {number}")
            bob.say(f"from {number}")
            if number % 20 == 0:
                mail.outgoing.wake()
        mail.outgoing.wake()
        assert await bob.receipt_all(200) == [f"to {number}" for number in range(200)]
        await bob.hear(Receipt, 200)
        assert texts(node) == [f"from {number}" for number in range(200)]
        await until(lambda: set(states(node)) == {"delivered"})


# ---- our store fails


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreFull("full"), RefusalCode.DISK_FULL),
        (StoreBusy("busy"), RefusalCode.BUSY),
        (StoreError("failed"), RefusalCode.BUSY),
    ],
)
async def test_what_cannot_be_stored_is_refused_for_now_and_the_link_stays_up(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, error: StoreError, code: RefusalCode
) -> None:
    works = inbox.receive

    def fails(*_: object, **__: object) -> None:
        raise error

    async with parties.node() as node, carried(node) as (_, bob):
        monkeypatch.setattr(inbox, "receive", fails)
        ids = [bob.say("one"), bob.say("two")]
        refusals = await bob.hear(Refused, 2)
        assert refusals == [Refused(each, permanent=False, code=code) for each in ids]
        assert texts(node) == []
        monkeypatch.setattr(inbox, "receive", works)
        bob.say("one", ids[0])
        assert await bob.hear(Receipt) == [Receipt(ids[0])]
        assert texts(node) == ["one"]


async def test_a_real_full_disk(parties: Parties) -> None:
    def leave_pages(conn: sqlite3.Connection, pages: int) -> None:
        (now,) = conn.execute("PRAGMA page_count").fetchone()
        conn.execute(f"PRAGMA max_page_count = {now + pages}")

    async with parties.node() as node, carried(node) as (_, bob):
        await node.store.run(leave_pages, 3)
        bob.say("x" * 100_000)
        (refused,) = await bob.hear(Refused)
        assert (refused.permanent, refused.code) == (False, RefusalCode.DISK_FULL)
        await node.store.run(leave_pages, 1000)
        bob.say("x" * 100_000)
        await bob.hear(Receipt)
        assert [len(text) for text in texts(node)] == [100_000]


async def test_the_other_nodes_full_disk_rests_this_nodes_queue(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resting, "FIRST_REST", 0.05)
    works = inbox.receive
    failing = True

    def fails_at_first(conn: sqlite3.Connection, **kwargs: object) -> int | None:
        if failing:
            raise StoreFull("full")
        return works(conn, **kwargs)

    monkeypatch.setattr(inbox, "receive", fails_at_first)
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        two(alice, bob) as (mail, _),
    ):
        await put(alice, bob.identity.public, "hello")
        mail.outgoing.wake()
        await until(lambda: mail.outgoing._rest.is_on)
        failing = False
        await until(lambda: states(alice) == ["delivered"])
        assert texts(bob) == ["hello"]


# ---- the end of a link


async def test_what_was_read_is_receipted_before_an_orderly_end(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        gate = Gated(monkeypatch)
        message_id = bob.say("hello")
        await gate.reached.wait()
        closing = asyncio.create_task(mail.deliveries[0].aclose())
        await asyncio.sleep(0)
        gate.go_on.set()
        await bob.hear(Closing)
        assert Receipt(message_id) in bob.heard
        await bob.link.aclose()
        await closing
        assert await mail.runs[0] is None


async def test_after_our_close_nothing_is_taken(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        bob.say("before")
        await bob.hear(Receipt)
        session = mail.deliveries[0]._link.session
        close = session.close

        def close_as_more_comes() -> list[Happening]:
            happenings = close()
            bob.say("after")
            return happenings

        monkeypatch.setattr(session, "close", close_as_more_comes)
        closing = asyncio.create_task(mail.deliveries[0].aclose())
        await bob.hear(Closing)
        await bob.link.aclose()
        await closing
        assert texts(node) == ["before"]
        assert len(await bob.hear(Receipt)) == 1


async def test_what_came_before_their_close_is_taken_and_receipted(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        message_id = bob.say("last words")
        await asyncio.sleep(0)  # else it is dropped before it leaves
        await bob.link.aclose()
        assert Receipt(message_id) in bob.link.rest()
        assert texts(node) == ["last words"]
        assert await mail.runs[0] is None


async def test_receipts_on_the_way_while_we_close_count(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        await put(node, BOB.public, "hello")
        mail.outgoing.wake()
        (text,) = await bob.hear(Text)
        closing = asyncio.create_task(mail.deliveries[0].aclose())
        await until(lambda: mail.deliveries[0]._link.session.state.name == "CLOSE_SENT")
        bob.receipt(text)
        await bob.hear(Closing)
        await bob.link.aclose()
        await closing
        assert states(node) == ["delivered"]


async def test_a_silent_peer_holds_up_no_end(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (mail, _):
        loop = asyncio.get_running_loop()
        start = loop.time()
        # Nobody reads at the other end.
        await mail.deliveries[0].aclose()
        assert loop.time() - start < QUICK.close_timeout + 1


async def test_a_cut_tells_why_and_detaches(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        await put(node, BOB.public, "hello")
        mail.outgoing.wake()
        await bob.hear(Text)
        bob.link.abort()
        error = await mail.runs[0]
        assert isinstance(error, LinkTruncated)
        assert mail.outgoing._links == {}
        assert mail.outgoing._under_way == {}
        await mail.deliveries[0].aclose()


async def test_a_cut_while_texts_are_being_stored(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        gate = Gated(monkeypatch)
        bob.say("hello")
        await gate.reached.wait()
        bob.link.abort()
        await until(lambda: mail.deliveries[0]._link.session.state.name == "FAILED")
        gate.go_on.set()
        assert isinstance(await mail.runs[0], LinkTruncated)
        # It has no receipt, so it comes again, and is known.
        assert texts(node) == ["hello"]


async def test_cancelled_it_drops_the_link(parties: Parties) -> None:
    async with parties.node() as node:
        link, _ = await linked(node)
        outgoing = Outgoing(node, BOB.public.raw)
        delivery = Delivery(node, KnownPeer("bob", BOB.public), link, outgoing)
        running = asyncio.create_task(delivery.run())
        outgoing.attach(link)
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await delivery.aclose()
        await outgoing.aclose()


async def test_what_came_along_with_ready_is_taken(parties: Parties) -> None:
    async with parties.node() as node:
        link, by_hand = await linked(node)
        by_hand.link.send(Text(new_id(), 1, "early"))
        early = await link.receive()
        outgoing = Outgoing(node, BOB.public.raw)
        delivery = Delivery(node, KnownPeer("bob", BOB.public), link, outgoing)
        running = asyncio.create_task(delivery.run(early))
        await by_hand.hear(Receipt)
        assert delivery.received == 1
        by_hand.link.abort()
        await running
        await outgoing.aclose()


async def test_progress_ends_with_the_link(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (mail, bob):
        delivery = mail.deliveries[0]
        waiting = asyncio.create_task(delivery.progress())
        await asyncio.sleep(0)
        bob.say("hello")
        await waiting
        assert delivery.received == 1
        waiting = asyncio.create_task(delivery.progress())
        await asyncio.sleep(0)
        bob.link.abort()
        await waiting


# ---- announcements


def public(number: int) -> Endpoint:
    return Endpoint(Kind.PUBLIC, f"203.0.113.{number}", 24819)


async def announced(node: Node, by_hand: ByHand, *endpoints: Endpoint) -> list[Endpoint]:
    """What is known of the peer after it has announced these."""
    by_hand.link.send(Announce(endpoints))
    heard = len(await by_hand.hear(Receipt, 0))
    by_hand.say("to hear when it is done")
    await by_hand.hear(Receipt, heard + 1)
    return await node.store.read(addresses.endpoints, BOB.public.raw)


async def test_an_announcement_replaces_the_last_one_alone(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "ANNOUNCED_PAUSE", 0)
    async with parties.node() as node:
        await introduce(node, BOB.public, "bob", [public(9)])
        async with carried(node) as (_, bob):
            assert await announced(node, bob, public(1), public(2)) == [
                public(9),
                public(1),
                public(2),
            ]
            assert await announced(node, bob, public(3)) == [public(9), public(3)]
            assert await announced(node, bob) == [public(9)]


async def test_of_several_at_once_the_last_counts(parties: Parties) -> None:
    async with parties.node() as node, carried(node) as (_, bob):
        for number in range(5):
            bob.link.send(Announce((public(number),)))
        assert await announced(node, bob, public(6)) == [public(6)]


async def test_a_flood_of_announcements_is_written_once_and_then_the_newest(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    set_endpoints = addresses.set_endpoints

    def watched(conn: sqlite3.Connection, *args: object) -> None:
        written.append(1)
        set_endpoints(conn, *args)

    monkeypatch.setattr(addresses, "set_endpoints", watched)
    async with parties.node() as node, carried(node) as (mail, bob):
        # However long the flood takes, the pause does not end by itself.
        monkeypatch.setattr(delivery_module, "ANNOUNCED_PAUSE", 3600)
        assert await announced(node, bob, public(1)) == [public(1)]
        for number in range(2, 8):
            assert await announced(node, bob, public(number)) == [public(1)]
        assert len(written) == 1
        mail.deliveries[0]._look_again()
        await until(lambda: len(written) == 2)
        assert await announced(node, bob) == [public(7)]
        assert len(written) == 2


@pytest.mark.parametrize("who", ["they", "we", "nobody"])
async def test_what_was_announced_last_is_written_when_the_link_ends(
    parties: Parties, who: str
) -> None:
    async with parties.node() as node:
        async with carried(node) as (mail, bob):
            assert await announced(node, bob, public(1)) == [public(1)]
            assert await announced(node, bob, public(2)) == [public(1)]
            match who:
                case "they":
                    await bob.link.aclose()
                case "we":
                    await mail.deliveries[0].aclose()
                case "nobody":
                    bob.link.abort()
            await mail.runs[0]
        assert await node.store.read(addresses.endpoints, BOB.public.raw) == [public(2)]


LOOPBACK = Endpoint(Kind.LOOPBACK, "127.0.0.1", 1)
LINK_LOCAL = Endpoint(Kind.LAN, "169.254.7.7", 1)
LAN = Endpoint(Kind.LAN, "192.168.1.2", 1)
NAME = Endpoint(Kind.PUBLIC, "home.example", 1)
DISGUISED = [
    Endpoint(Kind.PUBLIC, "127.0.0.2", 1),
    Endpoint(Kind.PUBLIC, "localhost", 1),
    Endpoint(Kind.PUBLIC, "169.254.7.7", 1),
]
"""Said to be of another kind than they are."""


@pytest.mark.parametrize(
    ("remote", "taken"),
    [
        ("127.0.0.1", [LOOPBACK, LINK_LOCAL, *DISGUISED, LAN, NAME]),
        ("::ffff:127.0.0.1", [LOOPBACK, LINK_LOCAL, *DISGUISED, LAN, NAME]),
        ("192.168.1.9", [LAN, NAME]),
        ("::ffff:192.168.1.9", [LAN, NAME]),
        ("fe80::9%eth0", [LAN, NAME]),
        ("203.0.113.9", [NAME]),
        ("2001:db8::9", [NAME]),
        (None, [NAME]),
    ],
)
async def test_an_announcement_is_held_to_where_the_peer_is(
    parties: Parties, remote: str | None, taken: list[Endpoint]
) -> None:
    many = [public(number) for number in range(1, 12)]
    async with parties.node() as node, carried(node) as (mail, bob):
        mail.deliveries[0]._link.remote = None if remote is None else (remote, 5)
        found = await announced(node, bob, LOOPBACK, LINK_LOCAL, *DISGUISED, LAN, NAME, *many)
        assert found == [*taken, *many][:MOST_ANNOUNCED]
        met = Kind.PUBLIC if remote is None else kind_of(remote)
        assert {each.met for each in found if isinstance(each, AnnouncedEndpoint)} == {met}
        assert all(isinstance(each, AnnouncedEndpoint) for each in found)


async def test_who_comes_from_an_address_of_this_machine_is_here(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "192.168.1.9"
    monkeypatch.setattr(interfaces, "is_own", own.__eq__)
    async with parties.node() as node, carried(node) as (mail, bob):
        mail.deliveries[0]._link.remote = (own, 5)
        (found,) = await announced(node, bob, LOOPBACK)
        assert isinstance(found, AnnouncedEndpoint)
        assert found.met is Kind.LOOPBACK


# ---- two whole nodes


class two:
    """A link between two nodes, carried at both ends; yields both ends' mail."""

    def __init__(self, one: Node, other: Node) -> None:
        self.nodes = one, other
        self.mails: list[Carried] = []

    async def __aenter__(self) -> Sequence[Carried]:
        one, other = self.nodes
        link, by_hand = await linked(one, other.identity)
        for node, peer, its in ((one, other, link), (other, one, by_hand.link)):
            outgoing = Outgoing(node, peer.identity.public.raw)
            known = KnownPeer(peer.config.node.name, peer.identity.public)
            mail = Carried(node, known, outgoing)
            mail.carry(its, by_hand)
            self.mails.append(mail)
        return self.mails

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(mail.deliveries[0].aclose() for mail in self.mails))
        for mail in self.mails:
            await mail.runs[0]
            await mail.outgoing.aclose()


async def test_two_nodes_carry_mail_both_ways_and_end_in_order(parties: Parties) -> None:
    wanted = [f"text {number}" for number in range(1500)]
    async with parties.node() as alice, parties.node("bob") as bob:
        async with two(alice, bob) as mails:
            for mail, text in zip(mails, ("to bob", "to alice"), strict=True):
                for each in wanted[:50]:
                    await put(mail.node, mail.peer.key, f"{text} {each}")
                mail.outgoing.wake()
            await until(lambda: set(states(alice)) == set(states(bob)) == {"delivered"})
        for mail in mails:
            assert mail.runs[0].result() is None
        assert texts(bob) == [f"to bob {each}" for each in wanted[:50]]
        assert texts(alice) == [f"to alice {each}" for each in wanted[:50]]


async def test_an_orderly_end_leaves_nobody_in_doubt(parties: Parties) -> None:
    async with parties.node() as alice, parties.node("bob") as bob:
        async with two(alice, bob) as (mail, _):
            for number in range(300):
                await put(alice, bob.identity.public, f"text {number}")
            mail.outgoing.wake()
            await until(lambda: len(texts(bob)) > 10)
        # Whatever has no receipt after an orderly end was not delivered.
        delivered = states(alice).count(State.DELIVERED)
        assert delivered == len(texts(bob))


async def test_a_server_carries_it_in_the_same_way(parties: Parties) -> None:
    async with parties.node(knows={"bob": BOB.public}) as node, serving(node) as (server, _):
        await put(node, BOB.public, "to bob")
        async with call(server) as bob:
            await bob.hear(Ready)
            message_id = bob.say("to alice")
            assert await bob.hear(Receipt) == [Receipt(message_id)]
            assert await bob.receipt_all(1) == ["to bob"]
            await until(lambda: states(node) == ["delivered"])
            assert texts(node) == ["to alice"]
