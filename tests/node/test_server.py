"""Who is let in, who makes room, and what is told of links."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
import sys
from typing import TYPE_CHECKING

import pytest
from parties import (
    BOB,
    Stopwatch,
    call,
    introduce,
    put,
    serving,
    states,
    until,
)

from securelink import events, gate, pairing
from securelink import server as server_module
from securelink.config import ServerConfig
from securelink.endpoints import Endpoint, Kind
from securelink.errors import ConfigError, LinkTruncated, SecurelinkError, StoreFull
from securelink.hello import FEATURES, ClientHello
from securelink.identity import Identity
from securelink.limits import Limits
from securelink.link import Link
from securelink.messages import Announce, Deny, Ready, Receipt, Text
from securelink.server import Server
from securelink.session import Closing, Ended, Session
from securelink.store import inbox, invites, peers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from parties import Parties

    from securelink.invite import Invite
    from securelink.node import Node

EVE = Identity.from_private_bytes(bytes([66]) * 32)

FEW = Limits(
    unproven=16, unproven_per_address=4, unfinished=8, handshake_timeout=20, close_timeout=0.3
)


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """Both ends of hundreds of connections are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def mint(node: Node, **options: object) -> Invite:
    return await node.store.run(pairing.mint, node.identity, node.config, [], **options)


def message_1(node: Node) -> bytes:
    hello = ClientHello("eve", FEATURES, 100)
    session = Session.client(EVE, node.identity.public, hello, limits=Limits(), now=0)
    return bytes(session.data_to_send(0))


class Stranger:
    """A connection that says nothing but what a test has it say."""

    def __init__(self, server: Server, source: str = "127.0.0.1") -> None:
        self.sock = socket.socket()
        self.sock.bind((source, 0))
        self.sock.setblocking(False)  # noqa: FBT003 - there is no other way to call it
        with contextlib.suppress(BlockingIOError):
            self.sock.connect(("127.0.0.1", server.port))

    def say(self, data: bytes) -> None:
        self.sock.send(data)

    @property
    def is_out(self) -> bool:
        """Whether the server has hung up; whatever it said is read and dropped."""
        try:
            while self.sock.recv(65536):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


@contextlib.contextmanager
def strangers(server: Server, count: int, source: str = "127.0.0.1") -> Iterator[list[Stranger]]:
    made = [Stranger(server, source) for _ in range(count)]
    try:
        yield made
    finally:
        for each in made:
            each.sock.close()


def out(made: Sequence[Stranger]) -> list[int]:
    return [number for number, each in enumerate(made) if each.is_out]


# ---- strangers


async def test_600_strangers_and_one_peer_among_them(parties: Parties) -> None:
    async with parties.node(knows={"bob": BOB.public}) as node, serving(node) as (server, told):
        with strangers(server, 300) as before, Stopwatch() as watch:
            calling = asyncio.create_task(linked_up(server))
            await asyncio.sleep(0)
            with strangers(server, 300) as after:
                await calling
                await told.of(events.LinkUp)
                # The oldest ones made room, and no more of them than were too many.
                await until(lambda: len(out(before + after)) >= 88)
                gone = out(before + after)
                assert gone == list(range(len(gone)))
                # The peer itself was unproven too, for a moment.
                assert len(gone) in {88, 89}
        assert watch.seconds < 3


async def linked_up(server: Server) -> None:
    async with call(server) as bob:
        await bob.hear(Ready)
        await bob.link.aclose()


async def test_what_a_peer_has_sent_is_read_before_it_is_judged(parties: Parties) -> None:
    async with parties.node(knows={"bob": BOB.public}, limits=FEW) as node:
        server = await Server.open(node, lambda _: None)
        calling = asyncio.create_task(linked_up(server))
        await asyncio.wait([calling], timeout=0.2)
        # It came first, so it would be the oldest, and the first to make room.
        with strangers(server, 30) as crowd:
            await server.start()
            await calling
            await until(lambda: len(out(crowd)) >= 14)
            assert out(crowd) == list(range(14))
        await server.aclose()


async def test_a_flood_does_not_use_up_the_files_that_a_process_may_have_open(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_now = most = 0
    made, lost = Link.connection_made, Link.connection_lost

    def count_made(link: Link, transport: asyncio.BaseTransport) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        made(link, transport)

    def count_lost(link: Link, exc: Exception | None) -> None:
        nonlocal open_now
        open_now -= 1
        lost(link, exc)

    monkeypatch.setattr(Link, "connection_made", count_made)
    monkeypatch.setattr(Link, "connection_lost", count_lost)
    async with parties.node() as node, serving(node) as (server, _):
        # All of them are in the kernel's queue before the first is accepted.
        with strangers(server, 1500) as flood:
            await until(lambda: len(out(flood)) >= 988)
            # Many systems allow a process 1,024.
            assert most <= 512 + 3 * server_module.BATCH


async def test_silent_strangers_never_shut_a_peer_out(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}, limits=FEW) as node,
        serving(node) as (server, _),
    ):
        for _ in range(5):
            with strangers(server, 30):
                async with call(server) as bob:
                    await bob.hear(Ready)


@pytest.mark.skipif(sys.platform == "darwin", reason="127.0.0.2 is no address there")
async def test_one_address_has_a_bound_of_its_own(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "group_of", lambda host: None if host == "127.0.0.1" else host)
    async with parties.node(limits=FEW) as node, serving(node) as (server, _):
        with (
            strangers(server, 3) as elsewhere,
            strangers(server, 10, "127.0.0.2") as crowd,
            strangers(server, 2, "127.0.0.3") as few,
        ):
            await until(lambda: len(out(crowd)) == 6)
            assert out(crowd) == [0, 1, 2, 3, 4, 5]
            assert out(elsewhere) == out(few) == []


async def test_proven_ones_have_a_bound_of_their_own(parties: Parties) -> None:
    async with parties.node(limits=FEW) as node, serving(node) as (server, _):
        with strangers(server, 10) as proven:
            # One after the other, so that it is known who is the oldest.
            for each in proven:
                each.say(message_1(node))
                await until(lambda each=each: is_answered(each))
            with strangers(server, 16) as silent:
                await until(lambda: len(out(proven)) == 2)
                assert out(proven) == [0, 1]
                assert out(silent) == []


def is_answered(stranger: Stranger) -> bool:
    try:
        return bool(stranger.sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


async def test_who_is_linked_counts_no_more(parties: Parties) -> None:
    clients = [Identity.from_private_bytes(bytes([100 + n]) * 32) for n in range(12)]
    knows = {f"peer-{n}": each.public for n, each in enumerate(clients)}
    async with (
        parties.node(knows=knows, limits=FEW) as node,
        serving(node) as (server, told),
        contextlib.AsyncExitStack() as stack,
    ):
        for each in clients:
            by_hand = await stack.enter_async_context(call(server, each))
            await by_hand.hear(Ready)
        await told.of(events.LinkUp, 12)
        assert len(server.registry.linked) == 12


async def test_a_first_message_that_comes_again_puts_nobody_out(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}, limits=FEW) as node,
        serving(node) as (server, _),
    ):
        recorded = message_1(node)
        with strangers(server, 2) as proven, strangers(server, FEW.unfinished + 2) as replaying:
            for each, message in zip(proven, (message_1(node), recorded), strict=True):
                each.say(message)
                await until(lambda each=each: is_answered(each))
            for each in replaying:
                each.say(recorded)
            await until(lambda: len(out(replaying)) == len(replaying))
            assert out(proven) == []


async def test_a_handshake_has_a_deadline(parties: Parties) -> None:
    limits = Limits(handshake_timeout=0.2, close_timeout=0.3)
    async with parties.node(limits=limits) as node, serving(node) as (server, _):
        with strangers(server, 2) as (silent, proven):
            proven.say(message_1(node))
            await until(lambda: silent.is_out and proven.is_out)
        await until(lambda: not server._tasks)


@pytest.mark.parametrize(
    "junk", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 4, b"\0\0\0\0", bytes(2000), b"SSH-2.0-x\r\n"]
)
async def test_junk_is_hung_up_on_without_a_byte(parties: Parties, junk: bytes) -> None:
    async with parties.node() as node, serving(node) as (server, told):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(junk)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        assert told == []
        assert list(server._gate._unproven) == []


async def test_who_is_gone_is_forgotten(parties: Parties) -> None:
    async with parties.node() as node, serving(node) as (server, _):
        with strangers(server, 50):
            await until(lambda: len(list(server._gate._unproven)) == 50)
        await until(lambda: not server._tasks)
        assert list(server._gate._unproven) == []
        async with call(server) as eve:
            await eve.hear(Deny)
        await until(lambda: not server._tasks)
        assert list(server._gate._unfinished) == []
        assert server.registry._linked == {}


# ---- who is let in


async def test_a_configured_key(parties: Parties) -> None:
    async with parties.node(knows={"robert": BOB.public}) as node, serving(node) as (server, told):
        await put(node, BOB.public, "one")
        await put(node, BOB.public, "two")
        async with call(server) as bob:
            (ready,) = await bob.hear(Ready)
            assert ready == Ready("alice", 2)
            host, port = bob.link._transport.get_extra_info("sockname")
            assert await bob.receipt_all(2) == ["one", "two"]
            await bob.link.aclose()
        await told.of(events.LinkDown)
        address = events.Address(host, port)
        assert told == [
            events.LinkUp(peer="robert", address=address),
            events.LinkDown(peer="robert", address=address, reason="closed"),
        ]
        assert server.registry._linked == {}


async def test_a_paired_key_and_what_it_calls_itself(parties: Parties) -> None:
    async with parties.node() as node:
        await introduce(node, BOB.public, "robert")
        async with serving(node) as (server, told), call(server, name="bob's laptop") as bob:
            await bob.hear(Ready)
            (up,) = await told.of(events.LinkUp)
            assert up.peer == "robert"
            peer = (await node.directory()).by_name("robert")
            assert peer.calls_itself == "bob's laptop"
            assert peer.last_seen is not None
            assert peer.last_seen > 1


async def test_a_new_key_with_an_invite(parties: Parties) -> None:
    async with parties.node() as node, serving(node) as (server, told):
        invite = await mint(node)
        async with call(server, token=invite.token) as bob:
            await bob.hear(Ready)
            # It was on disk before READY.
            assert (await node.directory()).by_key(BOB.public) is not None
            await told.of(events.LinkUp)
        paired, up = told[:2]
        assert paired == events.Paired(peer="bob", id=BOB.public.peer_id, calls_itself="bob")
        assert isinstance(up, events.LinkUp)
        async with call(server) as bob:
            await bob.hear(Ready)
        assert len(await told.of(events.Paired)) == 1


async def test_an_enrolment_is_told_although_the_client_has_gone(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, serving(node) as (server, told):
        invite = await mint(node)
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        enrol = peers.enrol

        def slow(conn: object, **kwargs: object) -> object:
            asyncio.run_coroutine_threadsafe(gone.wait(), loop).result(10)
            return enrol(conn, **kwargs)

        monkeypatch.setattr(peers, "enrol", slow)
        async with call(server, token=invite.token) as bob:
            await until(
                lambda: any(s.session.state.name == "DECIDING" for s in server._gate._unfinished)
            )
            bob.link.abort()
            await until(
                lambda: all(s.session.state.name == "FAILED" for s in server._gate._unfinished)
            )
            gone.set()
        assert (await told.of(events.Paired))[0].peer == "bob"
        await until(lambda: not server._tasks)
        assert len(told) == 1


async def test_this_nodes_own_key_is_me(parties: Parties) -> None:
    async with parties.node() as node, serving(node) as (server, told):
        await put(node, node.identity.public, "to myself")
        async with call(server, node.identity, name="alice") as me:
            assert await me.hear(Ready) == [Ready("alice", 0)]
            message_id = me.say("hello")
            await me.hear(Receipt)
            server.registry.moved((Endpoint(Kind.PUBLIC, "203.0.113.1", 1),))
            me.say("and again")
            await me.hear(Receipt, 2)
            # Only the connecting side sends, and nobody announces anything to itself.
            assert {type(each) for each in me.heard[1:]} == {Ready, Receipt}
            own = node.identity.public.raw
            assert await node.store.read(inbox.get, own, message_id) is not None
        (up,) = await told.of(events.LinkUp)
        assert up.peer == "me"
        assert states(node) == ["waiting"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("none", "not paired, and brought no invite"),
        ("unknown", "unknown invite"),
        ("used", "invite used up"),
        ("expired", "invite expired"),
        ("revoked", "invite revoked"),
    ],
)
async def test_a_denial_is_logged_and_not_told(
    parties: Parties, caplog: pytest.LogCaptureFixture, spoil: str, reason: str
) -> None:
    async with parties.node() as node, serving(node) as (server, told):
        invite = await mint(node, seconds=0 if spoil == "expired" else 60)
        token: bytes | None = invite.token
        if spoil == "none":
            token = None
        elif spoil == "unknown":
            token = bytes(16)
        elif spoil == "revoked":
            await node.store.run(invites.revoke_hash, invite.token_hash)
        elif spoil == "used":
            await node.store.run(invites.consume, invite.token_hash)
        with caplog.at_level(logging.DEBUG):
            async with call(server, EVE, token=token, name="eve") as eve:
                # The same for all of them, and not a word more.
                assert await eve.ended() is None
                assert eve.heard[1:] == [Deny(), Ended(None)]
            await until(lambda: not server._tasks)
        assert told == []
        (line,) = [each.getMessage() for each in caplog.records if "denied" in each.getMessage()]
        assert line == f"{EVE.public.short} at 127.0.0.1 was denied: {reason}"
        logged = caplog.text
        assert invite.token.hex() not in logged
        assert invite.encode() not in logged


async def test_many_denials_are_counted(parties: Parties, caplog: pytest.LogCaptureFixture) -> None:
    async with parties.node() as node:
        async with serving(node) as (server, _):
            for _ in range(13):
                async with call(server, EVE) as eve:
                    await eve.hear(Deny)
                    await eve.link.aclose()
            await until(lambda: not server._tasks)
        lines = [each.getMessage() for each in caplog.records]
        assert len([each for each in lines if "denied" in each]) == 10
        assert lines[-1] == "3 more clients were turned away"


async def test_of_20_clients_with_one_invite_one_gets_in(parties: Parties) -> None:
    async def redeem(number: int) -> str:
        identity = Identity.from_private_bytes(bytes([100 + number]) * 32)
        async with call(server, identity, token=invite.token) as client:
            while not any(isinstance(each, (Ready, Deny)) for each in client.heard):
                client.heard += await client.link.receive()
            return type(client.heard[1]).__name__

    async with parties.node() as node, serving(node) as (server, told):
        invite = await mint(node)
        answers = await asyncio.gather(*(redeem(number) for number in range(20)))
        assert sorted(answers) == ["Deny"] * 19 + ["Ready"]
        await until(lambda: not server._tasks)
        assert len(await told.of(events.Paired)) == 1


async def test_a_store_that_fails_closes_silently(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with parties.node() as node, serving(node) as (server, told):
        invite = await mint(node)

        def fails(*_: object, **__: object) -> None:
            raise StoreFull("the disk is full")

        monkeypatch.setattr(peers, "enrol", fails)
        async with call(server, token=invite.token) as bob:
            assert isinstance(await bob.ended(), LinkTruncated)
            assert not any(isinstance(each, Deny) for each in bob.heard)
        monkeypatch.undo()
        assert "the disk is full" in caplog.text
        # So the join can be repeated.
        async with call(server, token=invite.token) as bob:
            await bob.hear(Ready)
        await told.of(events.Paired)


async def test_a_full_disk_keeps_nobody_out_who_is_known(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, serving(node) as (server, told):
        await introduce(node, BOB.public, "robert")

        def fails(*_: object, **__: object) -> None:
            raise StoreFull("the disk is full")

        monkeypatch.setattr(peers, "touch", fails)
        async with call(server) as bob:
            await bob.hear(Ready)
        (up,) = await told.of(events.LinkUp)
        assert up.peer == "robert"


# ---- the links there are


async def test_a_peer_may_have_several_links(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as node,
        serving(node) as (server, told),
        call(server) as first,
    ):
        await first.hear(Ready)
        await told.of(events.LinkUp)
        async with call(server) as second:
            await second.hear(Ready)
            await told.of(events.LinkUp, 2)
            await put(node, BOB.public, "hello")
            server.registry.wake([BOB.public.raw, EVE.public.raw])
            assert await second.receipt_all(1) == ["hello"]
            await second.link.aclose()
        await told.of(events.LinkDown)
        await put(node, BOB.public, "still there?")
        server.registry.wake([BOB.public.raw])
        assert await first.receipt_all(1) == ["still there?"]


async def test_a_peers_oldest_link_is_closed_for_its_newest(parties: Parties) -> None:
    limits = Limits(links_per_peer=3, close_timeout=5)
    async with (
        parties.node(knows={"bob": BOB.public, "eve": EVE.public}, limits=limits) as node,
        serving(node) as (server, told),
        call(server, EVE) as eve,
        contextlib.AsyncExitStack() as stack,
    ):
        await eve.hear(Ready)
        bobs = []
        for number in range(5):
            bobs.append(await stack.enter_async_context(call(server)))
            await bobs[-1].hear(Ready)
            await told.of(events.LinkUp, number + 2)
        for each in bobs[:2]:
            # In order: what it has said is receipted, and it is told to go.
            await each.hear(Closing)
            await each.link.aclose()
        downs = await told.of(events.LinkDown, 2)
        assert {down.peer for down in downs} == {"bob"}
        for each in (*bobs[2:], eve):
            each.say("still here")
            await each.hear(Receipt)
        assert len(await told.of(events.LinkDown)) == 2


async def test_a_peer_that_lets_no_link_be_closed_holds_a_bounded_number(parties: Parties) -> None:
    limits = Limits(links_per_peer=2, close_timeout=20)
    async with (
        parties.node(knows={"bob": BOB.public}, limits=limits) as node,
        serving(node) as (server, told),
        contextlib.AsyncExitStack() as stack,
    ):
        for number in range(10):
            bob = await stack.enter_async_context(call(server))
            await bob.hear(Ready)
            # It answers no CLOSE.
            bob.link._transport.pause_reading()
            await told.of(events.LinkUp, number + 1)
        await told.of(events.LinkDown, 6)
        assert len(server.registry._linked[BOB.public.raw].deliveries) == 4


async def test_a_standing_link_goes_before_a_newer_one(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as node,
        serving(node) as (server, told),
        call(server, standing=True) as standing,
        call(server) as newer,
    ):
        await newer.hear(Ready)
        await standing.hear(Ready)
        await told.of(events.LinkUp, 2)
        await put(node, BOB.public, "hello")
        server.registry.wake([BOB.public.raw])
        assert await standing.receipt_all(1) == ["hello"]
        assert not newer.heard_texts()


async def test_a_removed_peers_links_end_in_order(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public, "eve": EVE.public}) as node,
        serving(node) as (server, told),
        call(server) as bob,
        call(server, EVE) as eve,
        call(server, node.identity) as me,
    ):
        for each in (bob, eve, me):
            await each.hear(Ready)
        await told.of(events.LinkUp, 3)
        server.registry.keep_only({EVE.public.raw}, among=server.registry.linked)
        await bob.hear(Closing)
        await bob.link.aclose()
        (down,) = await told.of(events.LinkDown)
        assert (down.peer, down.reason) == ("bob", "removed")
        for each in (eve, me):
            each.say("still here")
            await each.hear(Receipt)


async def test_a_removed_peer_that_stays_silent_costs_one_task_and_is_dropped(
    parties: Parties,
) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}) as node,
        serving(node) as (server, told),
        call(server) as bob,
    ):
        await bob.hear(Ready)
        await told.of(events.LinkUp)
        for _ in range(10):
            server.registry.keep_only(set(), among=server.registry.linked)
        assert len(server._tasks) <= 2
        # Nobody says goodbye at the other end.
        await told.of(events.LinkDown)
        assert server.registry._linked == {}


async def test_a_broken_link_is_told_with_its_reason(parties: Parties) -> None:
    async with parties.node(knows={"bob": BOB.public}) as node, serving(node) as (server, told):
        async with call(server) as bob:
            await bob.hear(Ready)
            await told.of(events.LinkUp)
            bob.link.abort()
        (down,) = await told.of(events.LinkDown)
        assert down.reason.startswith("the connection was cut")


async def test_a_heartbeat_that_stays_out_is_told(parties: Parties) -> None:
    limits = Limits(heartbeat_interval=10, heartbeat_timeout=0.2, close_timeout=0.2)
    async with (
        parties.node(knows={"bob": BOB.public}, limits=limits) as node,
        serving(node) as (server, told),
        call(server) as bob,
    ):
        await bob.hear(Ready)
        (down,) = await told.of(events.LinkDown)
        assert down.reason == "nothing was received for 0.2 s"


async def test_announcements_when_linked_and_when_it_moves(parties: Parties) -> None:
    public = Endpoint(Kind.PUBLIC, "203.0.113.1", 1)
    config = ServerConfig(host=("127.0.0.1",), port=0, public="home.example:9")
    home = Endpoint(Kind.PUBLIC, "home.example", 9)
    async with (
        parties.node(knows={"bob": BOB.public}, server=config) as node,
        serving(node) as (server, _),
        call(server) as bob,
    ):
        assert await bob.hear(Announce) == [Announce((home,))]
        server.registry.moved((public,))
        assert (await bob.hear(Announce, 2))[1] == Announce((public,))
        server.registry.moved(())
        bob.say("hello")
        await bob.hear(Receipt)
        assert len(await bob.hear(Announce, 2)) == 2


async def test_a_node_that_announces_nothing(parties: Parties) -> None:
    config = ServerConfig(host=("127.0.0.1",), port=0, public="home.example", announce=False)
    async with (
        parties.node(knows={"bob": BOB.public}, server=config) as node,
        serving(node) as (server, _),
        call(server) as bob,
    ):
        await bob.hear(Ready)
        bob.say("hello")
        await bob.hear(Receipt)
        assert not any(isinstance(each, Announce) for each in bob.heard)


# ---- listening


async def test_ipv4_and_ipv6_on_one_and_the_same_port(parties: Parties) -> None:
    async with (
        parties.node(knows={"bob": BOB.public}, server=ServerConfig(port=0)) as node,
        serving(node) as (server, told),
        call(server) as four,
        call(server, host="::1") as six,
    ):
        await four.hear(Ready)
        await six.hear(Ready)
        ups = await told.of(events.LinkUp, 2)
        assert {up.address.host for up in ups} == {"127.0.0.1", "::1"}


async def test_without_ipv6_there_is_still_ipv4(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = socket.socket

    def no_ipv6(family: int = socket.AF_INET, *args: object, **kwargs: object) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "address family not supported")
        return make(family, *args, **kwargs)

    monkeypatch.setattr(server_module.socket, "socket", no_ipv6)
    sockets = server_module._listen((), 0)
    assert [sock.family for sock in sockets] == [socket.AF_INET]
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("host", [(), ("127.0.0.1",), ("0.0.0.0", "::")])
async def test_a_port_in_use(parties: Parties, host: tuple[str, ...]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with parties.node(server=ServerConfig(host=host, port=port)) as node:
            with pytest.raises(SecurelinkError, match=f"port {port} is in use") as raised:
                await Server.open(node, lambda _: None)
            assert "--port" in str(raised.value.hint)


async def test_an_address_of_another_machine(parties: Parties) -> None:
    async with parties.node(server=ServerConfig(host=("192.0.2.1",), port=0)) as node:
        with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
            await Server.open(node, lambda _: None)


async def test_who_connects_before_the_start_is_let_in_then(parties: Parties) -> None:
    async with parties.node(knows={"bob": BOB.public}) as node:
        server = await Server.open(node, lambda _: None)
        calling = asyncio.create_task(linked_up(server))
        done, _ = await asyncio.wait([calling], timeout=0.1)
        assert not done
        await server.start()
        await calling
        await server.aclose()


# ---- the end


async def test_closing_does_not_wait_for_who_is_silent(parties: Parties) -> None:
    limits = Limits(close_timeout=2)
    clients = [Identity.from_private_bytes(bytes([100 + n]) * 32) for n in range(10)]
    knows = {f"peer-{n}": each.public for n, each in enumerate(clients)}
    async with parties.node(knows=knows, limits=limits) as node:
        server = await Server.open(node, lambda _: None)
        await server.start()
        async with contextlib.AsyncExitStack() as stack:
            for each in clients:
                by_hand = await stack.enter_async_context(call(server, each))
                await by_hand.hear(Ready)
                # It says nothing more, and reads nothing.
                by_hand.link._transport.pause_reading()
            stack.enter_context(strangers(server, 20))
            with Stopwatch() as watch:
                await server.aclose()
            assert watch.seconds < 3
        assert server._tasks == set()


async def test_closing_says_goodbye_and_takes_what_was_said(parties: Parties) -> None:
    async with parties.node(knows={"bob": BOB.public}) as node:
        async with serving(node) as (server, told):
            calling = call(server)
            bob = await calling.__aenter__()
            await bob.hear(Ready)
            await put(node, BOB.public, "hello")
            server.registry.wake([BOB.public.raw])
            (text,) = await bob.hear(Text)
            leaving = asyncio.create_task(leave(bob, text))
        await leaving
        await calling.__aexit__(None, None, None)
        assert states(node) == ["delivered"]
        assert (await told.of(events.LinkDown))[0].reason == "closed"


async def leave(bob, text: Text) -> None:
    await bob.hear(Closing)
    bob.receipt(text)
    await bob.link.aclose()
