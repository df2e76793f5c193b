"""A node that serves, and what it notices of the node's other processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
from parties import (
    BOB,
    Told,
    at,
    call,
    carried,
    introduce,
    put,
    put_many,
    running,
    states,
    until,
)
from parties import (
    serving as plain_serving,
)

from securelink import events, ids, interfaces, lookout
from securelink import service as service_module
from securelink.clock import new_id, now_ms
from securelink.config import ServerConfig
from securelink.endpoints import Endpoint, Kind
from securelink.errors import AlreadyRunning, SecurelinkError, StoreBusy, StoreError, StoreFull
from securelink.identity import Identity
from securelink.invite import Invite
from securelink.locks import FileLock, is_held
from securelink.messages import Announce, Ready, Receipt
from securelink.service import Service
from securelink.store import inbox, invites, links, outbox, peers, serving

if TYPE_CHECKING:
    from parties import Parties

    from securelink.node import Node

CAROL = Identity.from_private_bytes(bytes([3]) * 32)


class Blocked(Told):
    """A reader of events who has stopped reading."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = asyncio.Event()

    async def written(self) -> bool:
        return await self.reads.wait()


async def receive(node: Node, text: str) -> None:
    """Store a text, as any process of the node may."""
    await node.store.run(
        inbox.receive,
        peer=BOB.public.raw,
        peer_name="bob",
        message_id=new_id(),
        sent_at=1,
        text=text,
        received_at=2,
    )


async def texts_told(tell: Told, count: int) -> list[str]:
    return [message.text for message in await tell.of(events.Message, count)]


# ---- one at a time


async def test_what_it_says_when_it_is_ready(parties: Parties) -> None:
    async with parties.node() as node:
        async with running(node, with_invite=True) as (service, _):
            ready = service.ready()
            assert (ready.id, ready.name) == (node.identity.public.peer_id, "alice")
            assert ready.port == service.server.port
            assert ready.endpoints == (at(ready.port),)
            assert ready.invite is not None
            invite = Invite.parse(ready.invite)
            assert invite.key == node.identity.public
            assert invite.endpoints == ready.endpoints
            stored = await node.store.read(invites.get, invite.token_hash)
            assert stored is not None
            assert stored.uses_left == 1
            written = await node.store.read(serving.get)
            assert written is not None
            assert (written.pid, written.port) == (os.getpid(), ready.port)
            assert written.endpoints == ready.endpoints
        assert await node.store.read(serving.get) is None


async def test_without_an_invite(parties: Parties) -> None:
    async with parties.node() as node, running(node) as (service, _):
        assert service.ready().invite is None
        assert await node.store.read(invites.list_all) == []


async def test_a_second_one_is_refused_naming_the_first(parties: Parties) -> None:
    async with parties.node() as node, parties.node() as other:
        async with running(node):
            with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}$") as raised:
                await Service.open(other, Told())
            assert "SECURELINK_HOME" in str(raised.value.hint)
        async with running(other):
            pass


async def test_nothing_is_told_before_it_runs(parties: Parties) -> None:
    async with parties.node(knows={"bob": BOB.public}) as node:
        tell = Told()
        async with await Service.open(node, tell) as service:
            calling = asyncio.create_task(up(service))
            await receive(node, "early")
            done, _ = await asyncio.wait([calling], timeout=0.1)
            assert not done
            assert tell == []
            run = asyncio.create_task(service.run())
            await calling
            # It came after the service was opened, so it is told.
            assert await texts_told(tell, 1) == ["early"]
            run.cancel()
            await asyncio.wait([run])


async def up(service: Service) -> None:
    async with call(service.server) as bob:
        await bob.hear(Ready)


async def test_a_port_in_use_leaves_nothing_behind(parties: Parties) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        config = ServerConfig(host=("127.0.0.1",), port=taken.getsockname()[1])
        async with parties.node(server=config) as node:
            with pytest.raises(SecurelinkError, match="in use"):
                await Service.open(node, Told())
            assert not is_held(node.home.locks / "serve.lock")


@pytest.mark.parametrize("failing", ["raise_cursor", "add", "record"])
async def test_a_store_that_fails_at_the_start_leaves_nothing_behind(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise StoreFull("the disk is full")

    module = {"raise_cursor": inbox, "add": invites, "record": serving}[failing]
    works = getattr(module, failing)
    async with parties.node() as node:
        monkeypatch.setattr(module, failing, fails)
        with pytest.raises(StoreFull):
            await Service.open(node, Told(), with_invite=True)
        assert not is_held(node.home.locks / "serve.lock")
        assert node.store._writer._callbacks == {}
        monkeypatch.setattr(module, failing, works)
        async with running(node):
            pass


# ---- what arrives


async def test_the_first_start_begins_at_the_newest(parties: Parties) -> None:
    async with parties.node() as node:
        await receive(node, "old")
        async with running(node) as (_, tell):
            await receive(node, "new")
            assert await texts_told(tell, 1) == ["new"]
        await receive(node, "while nobody served")
        async with running(node) as (_, tell):
            assert await texts_told(tell, 1) == ["while nobody served"]


async def test_a_message_is_told_under_the_name_that_its_sender_has_now(parties: Parties) -> None:
    real = Identity.from_private_bytes(bytes([3]) * 32).public
    async with parties.node(knows={"robert": real}) as node:
        # The configuration has given that name to another key since.
        await introduce(node, BOB.public, "robert")
        async with running(node) as (service, tell), call(service.server) as bob:
            await bob.hear(Ready)
            bob.say("hello")
            (message,) = await tell.of(events.Message)
            assert message.peer == "robert-2"
            assert message.peer_id == BOB.public.peer_id


async def test_a_message_as_it_is_told(parties: Parties) -> None:
    async with parties.node() as node:
        await introduce(node, BOB.public, "robert")
        async with running(node) as (service, tell), call(service.server) as bob:
            await bob.hear(Ready)
            message_id = bob.say("hello\nthere ü")
            await bob.hear(Receipt)
            (message,) = await tell.of(events.Message)
            stored = await node.store.read(inbox.get, BOB.public.raw, message_id)
            assert stored is not None
            assert message == events.Message(
                id=ids.to_text(message_id),
                seq=stored.seq,
                peer="robert",
                peer_id=BOB.public.peer_id,
                sent_at="1970-01-01T00:00:00.001Z",
                received_at=events.rfc3339(stored.received_at),
                text="hello\nthere ü",
            )


async def test_whichever_process_receives_it(parties: Parties) -> None:
    async with parties.node() as node, parties.node() as other, running(node) as (_, tell):
        for number in range(10):
            await receive(other if number % 2 else node, f"text {number}")
        assert await texts_told(tell, 10) == [f"text {number}" for number in range(10)]


async def test_2500_at_once(parties: Parties) -> None:
    async with parties.node() as node, running(node) as (_, tell):
        await asyncio.gather(*(receive(node, f"text {number}") for number in range(2500)))
        assert await texts_told(tell, 2500) == [f"text {number}" for number in range(2500)]
        seqs = [message.seq for message in tell]
        assert seqs == sorted(set(seqs))


async def test_a_crash_between_event_and_cursor_tells_it_again(parties: Parties) -> None:
    async with parties.node() as node:
        tell = Blocked()
        async with running(node, tell):
            await receive(node, "hello")
            (first,) = await tell.of(events.Message)
        async with running(node) as (_, tell):
            (again,) = await tell.of(events.Message)
        assert again == first
        async with running(node) as (_, tell):
            await receive(node, "next")
            assert await texts_told(tell, 1) == ["next"]


class Late(Told):
    """A reader of events who takes a moment."""

    async def written(self) -> bool:
        await asyncio.sleep(0.2)
        return True


async def test_what_was_told_before_an_orderly_end_is_told_no_more(parties: Parties) -> None:
    async with parties.node(knows={"bob": BOB.public}) as node:
        tell = Late()
        async with running(node, tell):
            await receive(node, "hello")
            await node.store.run(_expire_one)
            await texts_told(tell, 1)
            await tell.of(events.Undelivered)
            assert await node.store.read(inbox.cursor, "serve") == 0
        assert await node.store.read(inbox.cursor, "serve") == 1
        assert await node.store.read(inbox.cursor, "serve notices") == 1


def _expire_one(conn: sqlite3.Connection) -> None:
    seq = outbox.put(conn, message_id=new_id(), peer=BOB.public.raw, text="x", sent_at=1, life=0)
    outbox.hand(conn, [seq], now_ms())


async def test_a_cursor_that_cannot_be_written_is_no_reason_to_stop(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with parties.node() as node, running(node) as (_, tell):
        raise_cursor = inbox.raise_cursor

        def fails(*_: object) -> None:
            raise StoreBusy("another process is writing")

        monkeypatch.setattr(inbox, "raise_cursor", fails)
        await receive(node, "one")
        assert await texts_told(tell, 1) == ["one"]
        await until(lambda: "another process is writing" in caplog.text)
        monkeypatch.setattr(inbox, "raise_cursor", raise_cursor)
        await receive(node, "two")
        assert await texts_told(tell, 2) == ["one", "two"]


async def test_a_blocked_reader_holds_up_nobody(parties: Parties) -> None:
    async with parties.node(knows={"bob": BOB.public}) as node:
        tell = Blocked()
        async with running(node, tell) as (service, _), call(service.server) as bob:
            await bob.hear(Ready)
            for number in range(50):
                bob.say(f"text {number}")
                await bob.hear(Receipt, number + 1)
            await put(node, BOB.public, "and back")
            assert await bob.receipt_all(1) == ["and back"]
            async with call(service.server) as second:
                await second.hear(Ready)
            await tell.of(events.LinkDown)
            # What waits for the reader stays in the store until it is told.
            waiting = len([each for each in tell if isinstance(each, events.Message)])
            assert waiting <= 50
            tell.reads.set()
            assert await texts_told(tell, 50) == [f"text {number}" for number in range(50)]


async def test_a_store_that_can_be_read_no_more_ends_it_with_one_error(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StoreError("the store is damaged")

    async with parties.node() as node, await Service.open(node, Told()) as service:
        monkeypatch.setattr(inbox, "after", fails)
        with pytest.raises(StoreError, match="damaged"):
            await service.run()


# ---- what other processes change


async def test_queued_rows_of_another_process_leave_within_half_a_second(
    parties: Parties,
) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as node,
        parties.node(knows={"bob": BOB.public}) as other,
        running(node) as (service, _),
        call(service.server) as bob,
    ):
        await bob.hear(Ready)
        loop = asyncio.get_running_loop()
        for number in range(5):
            start = loop.time()
            await put(other, BOB.public, f"text {number}")
            await bob.receipt_all(number + 1)
            assert loop.time() - start < 0.5
        await until(lambda: states(node) == ["delivered"] * 5)


async def test_a_peer_that_another_process_removes(parties: Parties) -> None:
    async with parties.node() as node, parties.node() as other:
        await introduce(node, BOB.public, "robert")
        async with running(node) as (service, tell), call(service.server) as bob:
            await bob.hear(Ready)
            await other.store.run(peers.remove, "robert", 5)
            error = await bob.ended()
            (down,) = await tell.of(events.LinkDown)
            assert (down.peer, down.reason) == ("robert", "removed")
            assert error is None or "cut" in error.message


async def test_who_is_paired_while_another_look_is_under_way_stays(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, paired = threading.Event(), threading.Event()
    look = lookout._what_others_change

    def looks_for_long(*args: Any) -> Any:
        found = look(*args)
        looked.set()
        paired.wait(10)
        return found

    async with parties.node() as node, running(node, with_invite=True) as (service, tell):
        assert service.invite is not None
        monkeypatch.setattr(lookout, "_what_others_change", looks_for_long)
        await node.store.run(inbox.raise_cursor, "another", 1)
        await until(looked.is_set)
        async with call(service.server, token=service.invite.token) as bob:
            await bob.hear(Ready)
            monkeypatch.setattr(lookout, "_what_others_change", look)
            paired.set()
            for number in range(3):
                bob.say("hello")
                await bob.hear(Receipt, number + 1)
                await tell.of(events.Message, number + 1)
            assert not [each for each in tell if isinstance(each, events.LinkDown)]


async def test_who_is_configured_stays_although_not_paired(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as node,
        running(node) as (service, tell),
        call(service.server) as bob,
    ):
        await bob.hear(Ready)
        for number in range(3):
            bob.say("still here")
            await bob.hear(Receipt, number + 1)
            await tell.of(events.Message, number + 1)
        assert not [each for each in tell if isinstance(each, events.LinkDown)]


async def test_rows_of_dead_owners_are_settled(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as node,
        parties.node(knows={"bob": BOB.public}) as other,
        running(node) as (service, _),
        call(service.server) as bob,
    ):
        await bob.hear(Ready)
        alive = await put(other, BOB.public, "alive", owner=other.owner)
        seq = await put(other, BOB.public, "may have left", owner=other.owner)
        await other.store.run(outbox.hand, [seq], 1)
        await other.store.run(_give_to, seq, "11111111-dead")
        await put(other, BOB.public, "never left", owner="22222222-dead")
        assert await bob.receipt_all(1) == ["may have left"]
        await until(lambda: states(node) == ["waiting", "delivered", "withdrawn"])
        row = await node.store.read(outbox.get, alive)
        assert row is not None
        assert row.owner == other.owner


async def test_a_death_is_noticed_although_it_commits_nothing(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOK_AROUND_INTERVAL", 0.05)
    async with parties.node(knows={"bob": BOB.public}) as node:
        lock = FileLock.acquire(node.home.locks / "33333333.owner")
        assert lock is not None
        await put(node, BOB.public, "hello", owner="33333333")
        async with running(node):
            await asyncio.sleep(0.2)
            assert states(node) == ["waiting"]
            lock.release()
            await until(lambda: states(node) == ["withdrawn"])


async def test_a_link_that_has_gone_is_struck_out_once_the_store_can_be_written(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOK_AROUND_INTERVAL", 0.05)
    failed = 0

    def fails(*_: object) -> None:
        nonlocal failed
        failed += 1
        raise StoreFull("the disk is full")

    def linked() -> int:
        with contextlib.closing(sqlite3.connect(node.home.store_file)) as conn:
            (count,) = conn.execute("SELECT count(*) FROM links").fetchone()
        assert isinstance(count, int)
        return count

    async with (
        parties.node(knows={"bob": BOB.public, "carol": CAROL.public}) as node,
        running(node) as (service, _),
        call(service.server, CAROL) as carol,
    ):
        await carol.hear(Ready)
        with monkeypatch.context() as patch:
            patch.setattr(links, "down", fails)
            async with call(service.server) as bob:
                await bob.hear(Ready)
                assert linked() == 2
            await until(lambda: failed > 2)
            assert linked() == 2
            left_by = now_ms()
        # Nobody commits anything meanwhile.
        await until(lambda: linked() == 1)
        seen = (await node.directory()).by_name("bob").last_seen
        assert seen is not None
        assert seen <= left_by, "when it left, not when that could be written"
        mark = node.store.commits
        await asyncio.sleep(0.2)
        assert node.store.commits == mark, "once"


def _give_to(conn, seq, owner):
    conn.execute("UPDATE outbox SET owner = ? WHERE seq = ?", (owner, seq))


async def test_a_burying_that_fails_is_no_reason_to_stop(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as node,
        running(node) as (service, _),
        call(service.server) as bob,
    ):
        await bob.hear(Ready)

        def fails(*_: object) -> None:
            raise StoreBusy("another process is writing")

        monkeypatch.setattr(outbox, "bury_owner", fails)
        await put(node, BOB.public, "never left", owner="44444444-dead")
        await put(node, BOB.public, "hello")
        assert await bob.receipt_all(1) == ["hello"]


async def test_a_drain_of_another_process_and_ours(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as node,
        parties.node(knows={"bob": BOB.public}) as other,
        running(node) as (service, _),
        call(service.server) as bob,
    ):
        await bob.hear(Ready)
        async with carried(other) as (mail, elsewhere):
            wanted = [f"text {number}" for number in range(200)]
            for start in range(0, 200, 20):
                await put_many(other, BOB.public, wanted[start : start + 20])
                mail.outgoing.wake()
            both = [asyncio.create_task(answer(each)) for each in (bob, elsewhere)]
            await until(lambda: states(node) == ["delivered"] * 200)
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        heard = [[text.text for text in each.heard_texts()] for each in (bob, elsewhere)]
        assert sorted(heard[0] + heard[1]) == sorted(wanted)
        for each in heard:
            assert each == [text for text in wanted if text in set(each)]


async def answer(by_hand) -> None:
    while True:
        await by_hand.receipt_all(len(by_hand.heard_texts()) + 1)


# ---- addresses


async def test_new_addresses_are_announced_and_the_invite_told_anew(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "ENDPOINTS_INTERVAL", 0.02)
    monkeypatch.setattr(interfaces, "local_addresses", lambda: ["192.168.1.20"])
    config = ServerConfig(host=("0.0.0.0",), port=0)
    async with (
        parties.node(knows={"bob": BOB.public}, server=config) as node,
        running(node, with_invite=True) as (service, tell),
        call(service.server) as bob,
    ):
        port = service.server.port
        (first,) = await bob.hear(Announce)
        assert first.endpoints == (Endpoint(Kind.LAN, "192.168.1.20", port),)
        before = Invite.parse(service.ready().invite or "")

        monkeypatch.setattr(interfaces, "local_addresses", lambda: ["10.0.0.7"])
        lan = Endpoint(Kind.LAN, "10.0.0.7", port)
        (event,) = await tell.of(events.Invite)
        after = Invite.parse(event.invite)
        assert (after.token, after.expires) == (before.token, before.expires)
        assert after.endpoints == event.endpoints == (lan,)
        assert (await bob.hear(Announce, 2))[1].endpoints == (lan,)
        written = await node.store.read(serving.get)
        assert written is not None
        assert lan in written.endpoints
        assert service.ready().endpoints == (lan, at(port))
        # Nothing has changed since, so nothing more is told.
        bob.say("hello")
        await tell.of(events.Message)
        assert len(await tell.of(events.Invite)) == 1


async def test_without_an_invite_only_the_peers_are_told(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "ENDPOINTS_INTERVAL", 0.02)
    monkeypatch.setattr(interfaces, "local_addresses", list)
    config = ServerConfig(host=("0.0.0.0",), port=0)
    async with (
        parties.node(knows={"bob": BOB.public}, server=config) as node,
        running(node) as (service, tell),
        call(service.server) as bob,
    ):
        await bob.hear(Ready)
        monkeypatch.setattr(interfaces, "local_addresses", lambda: ["10.0.0.7"])
        assert (await bob.hear(Announce))[0].endpoints[0].host == "10.0.0.7"
        assert not [each for each in tell if isinstance(each, events.Invite)]


async def test_tidying_up_now_and_then(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "TIDY_INTERVAL", 0.02)
    async with parties.node() as node:
        await put(node, BOB.public, "too late", deadline=1)
        async with running(node):
            await until(lambda: states(node) == ["withdrawn"])


async def test_what_expires_is_told_when_its_time_is_over(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LOOK_AROUND_INTERVAL", 0.05)
    assert lookout.TIDY_INTERVAL > 1000
    async with parties.node(knows={"bob": BOB.public}) as node:

        def put_two(conn: sqlite3.Connection) -> None:
            for text, life in (("short", 120_000), ("long", outbox.DAY)):
                outbox.put(
                    conn, message_id=new_id(), peer=BOB.public.raw, text=text, sent_at=1, life=life
                )

        async with running(node) as (_, tell):
            await node.store.run(put_two)
            began = now_ms()
            for seconds in (0, 30, 110):
                monkeypatch.setattr(lookout, "now_ms", lambda at=began + seconds * 1000: at)
                await asyncio.sleep(0.2)
                assert states(node) == ["waiting", "waiting"]
            monkeypatch.setattr(lookout, "now_ms", lambda: began + 200_000)
            (told,) = await tell.of(events.Undelivered)
            assert (told.peer, told.status) == ("bob", "expired")
            assert states(node) == ["expired", "waiting"]
            await asyncio.sleep(0.2)
            mark = node.store.commits
            await asyncio.sleep(0.2)
            assert node.store.commits == mark, "and that is all"


async def test_closing_although_the_store_fails(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node:

        def fails(*_: object) -> None:
            raise StoreFull("the disk is full")

        async with running(node):
            monkeypatch.setattr(serving, "clear", fails)
        assert not is_held(node.home.locks / "serve.lock")


async def test_a_server_alone_needs_no_service(parties: Parties) -> None:
    async with parties.node() as node, plain_serving(node) as (server, _):
        assert server.port > 0
