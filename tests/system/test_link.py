"""Links over real sockets on loopback: ends, cuts, silence, and peers that stop reading."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from securelink.endpoints import Endpoint, Kind
from securelink.errors import (
    LinkClosed,
    LinkTruncated,
    LocalProtocolError,
    MalformedRecord,
    RemoteProtocolError,
)
from securelink.file_messages import Accept, Begin, Cancel, Chunk, End, FileMessage, Offer
from securelink.hello import FEATURES, ClientHello
from securelink.identity import Identity
from securelink.limits import Limits
from securelink.link import Link
from securelink.messages import Announce, Deny, Ready, Receipt, Refused, Text
from securelink.pacing import LARGEST
from securelink.session import (
    BATCH_SIZE,
    Closing,
    Data,
    Ended,
    Happening,
    Introduced,
    Proven,
    Scratch,
    Session,
    Verified,
)
from securelink.states import State

ALICE = Identity.from_private_bytes(bytes([1]) * 32)
BOB = Identity.from_private_bytes(bytes([2]) * 32)
HELLO = ClientHello("bob", FEATURES, 16 << 20, takes_files=True)
QUIET = Limits(heartbeat_interval=1000, heartbeat_timeout=1000)
MIB = 1 << 20
SIDES = ["client", "server"]


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine; one that hangs fails."""

    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(limited())


def message_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def text(number: int, content: str = "hello") -> Text:
    return Text(message_id(number), 0, content)


async def collect(link: Link, enough: Callable[[list[Happening]], bool]) -> list[Happening]:
    """What happens on a link, until it is enough."""
    happened = await link.receive()
    while not enough(happened):
        happened += await link.receive()
    return happened


def at_least(count: int) -> Callable[[list[Happening]], bool]:
    return lambda happened: len(happened) >= count


@contextlib.asynccontextmanager
async def listening(
    limits: Limits = QUIET, close_timeout: float = 10.0
) -> AsyncIterator[tuple[int, asyncio.Queue[Link]]]:
    """A server's port, and the links that come in at it."""
    loop = asyncio.get_running_loop()
    links: asyncio.Queue[Link] = asyncio.Queue()
    scratch = Scratch()

    def incoming() -> Link:
        session = Session.server(ALICE, limits=limits, now=loop.time(), scratch=scratch)
        link = Link(session, close_timeout=close_timeout)
        links.put_nowait(link)
        return link

    server = await loop.create_server(incoming, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], links
    finally:
        server.close()
        await server.wait_closed()


async def dial(port: int, limits: Limits = QUIET, close_timeout: float = 10.0) -> Link:
    loop = asyncio.get_running_loop()
    session = Session.client(BOB, ALICE.public, HELLO, limits=limits, now=loop.time())
    _, link = await loop.create_connection(
        lambda: Link(session, close_timeout=close_timeout), "127.0.0.1", port
    )
    return link


class Hand:
    """A client that reads and writes by hand, so that it can stop doing either."""

    def __init__(self, sock: socket.socket, session: Session) -> None:
        self.sock = sock
        self.session = session
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, port: int) -> Hand:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        limits = Limits(max_message=16 * MIB)
        return cls(sock, Session.client(BOB, ALICE.public, HELLO, limits=limits, now=0.0))

    async def write(self) -> None:
        await self._loop.sock_sendall(self.sock, self.session.data_to_send(0.0))

    async def read(self) -> list[Happening]:
        data = await self._loop.sock_recv(self.sock, MIB)
        return self.session.receive_data(data, 0.0) if data else self.session.receive_eof()

    async def read_until(self, enough: Callable[[list[Happening]], bool]) -> list[Happening]:
        happened: list[Happening] = []
        while not enough(happened):
            happened += await self.read()
        return happened


@contextlib.asynccontextmanager
async def linked(
    *,
    limits: Limits = QUIET,
    server_limits: Limits | None = None,
    close_timeout: float = 10.0,
) -> AsyncIterator[tuple[Link, Link]]:
    """A client's and a server's link, both ready."""
    async with listening(server_limits or limits, close_timeout) as (port, links):
        client = await dial(port, limits, close_timeout)
        server = await links.get()
        assert await client.receive() == [Verified()]
        client.proceed()
        introduced = (await collect(server, at_least(2)))[-1]
        assert isinstance(introduced, Introduced)
        server.admit("alice", 0)
        assert await client.receive() == [Ready("alice", 0)]
        try:
            yield client, server
        finally:
            client.abort()
            server.abort()


@contextlib.asynccontextmanager
async def linked_by_hand(
    limits: Limits = QUIET, close_timeout: float = 10.0
) -> AsyncIterator[tuple[Hand, Link]]:
    """A client by hand and a server's link, both ready."""
    async with listening(limits, close_timeout) as (port, links):
        hand = await Hand.connect(port)
        with hand.sock:
            await hand.write()
            link = await links.get()
            await hand.read_until(at_least(1))
            hand.session.proceed()
            await hand.write()
            await collect(link, at_least(2))
            link.admit("alice", 0)
            await hand.read_until(at_least(1))
            try:
                yield hand, link
            finally:
                link.abort()


async def exchange(link: Link, texts: list[Text]) -> None:
    """Send these, and receipt as many, until all have their receipts."""
    waiting = collections.deque(texts)
    received = receipts = 0
    while min(received, receipts) < len(texts):
        while waiting and link.fits(len(waiting[0].text)):
            link.send(waiting.popleft())
        for each in await link.receive():
            if isinstance(each, Text):
                received += 1
                link.send(Receipt(each.id))
            else:
                receipts += 1


async def live_out(link: Link) -> list[Happening]:
    """What happens until the end; a CLOSE is answered."""
    happened = await collect(link, lambda happened: isinstance(happened[-1], Closing | Ended))
    if happened[-1] == Closing():
        await link.aclose()
        happened += link.rest()
    return happened


# ---- a whole life


def test_a_text_and_its_receipt() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            client.send(text(1))
            assert await server.receive() == [text(1)]
            server.send(Receipt(message_id(1)))
            assert await client.receive() == [Receipt(message_id(1))]
            assert client.remote is not None
            assert server.remote is not None
            assert client.remote[0] == server.remote[0] == "127.0.0.1"
            assert client.session.state is server.session.state is State.OPEN

    run(test)


def test_what_is_sent_in_one_turn_goes_together() -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            for number in range(100):
                link.send(text(number))
            data = await asyncio.get_running_loop().sock_recv(hand.sock, MIB)
            assert len(data) == 4 + 4112
            assert len(hand.session.receive_data(data, 0.0)) == 100

    run(test)


def test_denied() -> None:
    async def test() -> None:
        async with listening() as (port, links):
            client = await dial(port)
            server = await links.get()
            await client.receive()
            client.proceed()
            await collect(server, at_least(2))
            server.deny()
            assert await server.receive() == [Ended(None)]
            closing = asyncio.create_task(server.aclose())
            assert await client.receive() == [Deny(), Ended(None)]
            await client.aclose()
            await closing

    run(test)


def test_strangers_get_no_byte() -> None:
    async def test() -> None:
        async with listening() as (port, links):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            (ended,) = await (await links.get()).receive()
            assert ended.error is not None

    run(test)


def test_a_stranger_that_says_nothing_is_dropped() -> None:
    async def test() -> None:
        async with listening(Limits(handshake_timeout=0.05)) as (port, links):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            (ended,) = await (await links.get()).receive()
            assert "0.05 s" in ended.error.message

    run(test)


# ---- ends


@pytest.mark.parametrize("side", [*SIDES, "both"])
def test_an_orderly_close_loses_no_receipt_that_is_on_its_way(side: str) -> None:
    async def test() -> None:
        async with linked() as (client, server):
            for number in range(1000):
                client.send(text(number))
                server.send(text(number))
            for link in (client, server):
                for each in await collect(link, at_least(1000)):
                    link.send(Receipt(each.id))
            # All those receipts are in our buffers, or the kernel's, when this begins.
            async with asyncio.TaskGroup() as group:
                lives = [group.create_task(live_out(link)) for link in (client, server)]
                if side != "server":
                    group.create_task(client.aclose())
                if side != "client":
                    group.create_task(server.aclose())
            for life in lives:
                *receipts, ended = [each for each in life.result() if each != Closing()]
                assert receipts == [Receipt(message_id(number)) for number in range(1000)]
                assert ended == Ended(None)

    run(test)


@pytest.mark.parametrize("closer", SIDES)
def test_closing_while_the_other_still_sends_resets_nothing(closer: str) -> None:
    async def test() -> None:
        async with linked() as (client, server):
            here, there = (client, server) if closer == "client" else (server, client)
            there.send(text(0))
            await here.receive()
            here.send(Receipt(message_id(0)))
            closing = asyncio.create_task(here.aclose())
            # These cross the CLOSE: they are read, dropped, and owe no receipt.
            for number in range(1, 5):
                there.send(text(number, "x" * MIB if number < 4 else ""))
            happened = await collect(there, lambda happened: Closing() in happened)
            assert happened == [Receipt(message_id(0)), Closing()]
            await there.aclose()
            await closing
            assert here.rest() == [Ended(None)]
            assert there.rest() == [Ended(None)]

    run(test)


def test_close_is_the_end_for_whoever_waits_for_something_to_happen() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            told = asyncio.Event()

            async def read() -> list[Happening]:
                happened = []
                while Ended(None) not in happened:
                    happened += await server.receive()
                    told.set()
                return happened

            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read())
                group.create_task(client.aclose())
                await told.wait()
                # While one task waits in receive, another ends the link.
                await server.aclose()
            assert reading.result() == [Closing(), Ended(None)]
            assert await client.receive() == [Ended(None)]

    run(test)


def test_a_link_can_be_left_by_its_block() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            answering = asyncio.create_task(collect(server, at_least(1)))
            async with asyncio.TaskGroup() as group:

                async def leave() -> None:
                    async with client:
                        pass

                group.create_task(leave())
                assert await answering == [Closing()]
                group.create_task(server.aclose())
            assert client.session.state is server.session.state is State.CLOSED

    run(test)


def test_closing_has_a_limit_when_the_other_side_says_nothing() -> None:
    async def test() -> None:
        async with linked_by_hand(close_timeout=0.1) as (hand, link):
            start = time.monotonic()
            await link.aclose()
            assert 0.1 <= time.monotonic() - start < 2
            (ended,) = link.rest()
            assert isinstance(ended.error, LinkTruncated)
            assert await hand.read() == [Closing()]

    run(test)


def test_closing_has_a_limit_when_the_other_side_keeps_the_connection() -> None:
    async def test() -> None:
        async with linked_by_hand(close_timeout=0.1) as (hand, link):
            hand.session.close()
            await hand.write()
            assert await link.receive() == [Closing()]
            await link.aclose()
            assert link.rest() == [Ended(None)]
            assert await hand.read() == [Ended(None)]

    run(test)


def test_closing_twice_and_at_once() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            closing = [asyncio.create_task(client.aclose()) for _ in range(3)]
            assert await server.receive() == [Closing()]
            await server.aclose()
            await asyncio.gather(*closing)
            await client.aclose()
            assert client.rest() == [Ended(None)]

    run(test)


def test_closing_before_the_link_is_ready() -> None:
    async def test() -> None:
        async with listening() as (port, links):
            client = await dial(port)
            await client.receive()
            await client.aclose()
            (ended,) = await client.receive()
            assert isinstance(ended.error, LinkTruncated)
            server = await links.get()
            proven, ended = await collect(server, at_least(2))
            assert proven == Proven()
            assert isinstance(ended.error, LinkTruncated)

    run(test)


def test_a_cancelled_close_drops_the_connection() -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            closing = asyncio.create_task(link.aclose())
            assert await hand.read() == [Closing()]
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            (ended,) = await link.receive()
            assert isinstance(ended.error, LinkTruncated)

    run(test)


@pytest.mark.parametrize("cutter", SIDES)
def test_an_abrupt_cut_is_a_truncation(cutter: str) -> None:
    async def test() -> None:
        async with linked() as (client, server):
            here, there = (client, server) if cutter == "client" else (server, client)
            here.abort()
            for link in (here, there):
                (ended,) = await link.receive()
                assert isinstance(ended.error, LinkTruncated)
                assert link.session.state is State.FAILED

    run(test)


def test_the_end_of_the_stream_without_close_is_a_truncation() -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            hand.sock.shutdown(socket.SHUT_WR)
            (ended,) = await link.receive()
            assert isinstance(ended.error, LinkTruncated)

    run(test)


def test_a_reset_connection_says_so() -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            hand.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            hand.sock.close()
            (ended,) = await link.receive()
            assert "reset" in ended.error.message

    run(test)


def test_a_broken_rule_ends_the_link_without_an_answer() -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            link.send(text(1))
            await hand.read()
            await asyncio.get_running_loop().sock_sendall(hand.sock, b"\0\0\0\x50" + bytes(80))
            (ended,) = await link.receive()
            assert "tag" in ended.error.message
            with contextlib.suppress(ConnectionError):
                assert await asyncio.get_running_loop().sock_recv(hand.sock, MIB) == b""

    run(test)


def test_after_the_end_every_call_says_so() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            client.abort()
            await live_out(client)
            await live_out(server)
            for link in (client, server):
                with pytest.raises(LinkClosed):
                    await link.receive()
                with pytest.raises(LinkClosed):
                    link.send(text(1))
                with pytest.raises(LinkClosed):
                    link.send(Receipt(message_id(1)))
                with pytest.raises(LinkClosed):
                    link.proceed()
                with pytest.raises(LinkClosed):
                    link.admit("alice", 0)
                link.deny()
                assert not link.fits(0)
                await link.aclose()
                assert link.rest() == []

    run(test)


def test_while_it_ends_only_receipts_are_taken_and_only_by_who_has_not_said_close() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            client.send(text(1))
            client.send(text(2))
            await collect(server, at_least(2))
            closing = asyncio.create_task(client.aclose())
            assert await server.receive() == [Closing()]
            for message in (text(3), Announce(())):
                with pytest.raises(LinkClosed):
                    server.send(message)
            for message in (text(3), Announce(()), Receipt(message_id(1))):
                with pytest.raises(LinkClosed):
                    client.send(message)
            server.send(Receipt(message_id(1)))
            server.send(Refused(message_id(2), permanent=False, code=3))
            await server.aclose()
            await closing
            assert client.rest() == [
                Receipt(message_id(1)),
                Refused(message_id(2), permanent=False, code=3),
                Ended(None),
            ]

    run(test)


def test_our_own_mistakes_are_not_taken_for_an_end() -> None:
    async def test() -> None:
        async with listening() as (port, links):
            client = await dial(port)
            await client.receive()
            server = await links.get()
            for call in (
                lambda: client.send(text(1)),
                lambda: client.admit("alice", 0),
                server.proceed,
                server.deny,
            ):
                with pytest.raises(LocalProtocolError):
                    call()
            client.abort()
            server.abort()

    run(test)


# ---- waiting


def test_a_nudge_has_receive_return() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            waiting = asyncio.create_task(client.receive())
            await asyncio.sleep(0)
            client.nudge()
            assert await waiting == []
            client.nudge()
            assert await client.receive() == []
            server.send(text(1))
            assert await client.receive() == [text(1)]

    run(test)


def test_the_rest_is_what_has_happened_so_far() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            assert client.rest() == []
            server.send(text(1))
            server.send(text(2))
            assert await client.receive() == [text(1), text(2)]
            assert client.rest() == []
            room = server.room()
            assert message_id(1) in room
            assert len(room) == 2

    run(test)


# ---- time


def test_a_silent_peer_is_dropped() -> None:
    async def test() -> None:
        limits = Limits(heartbeat_interval=1000, heartbeat_timeout=0.1)
        async with linked(limits=limits, server_limits=QUIET) as (client, server):
            (ended,) = await client.receive()
            assert ended.error.message == "nothing was received for 0.1 s"
            (ended,) = await server.receive()
            assert isinstance(ended.error, LinkTruncated)

    run(test)


def test_a_peer_that_goes_silent_after_our_close_is_dropped() -> None:
    async def test() -> None:
        limits = Limits(heartbeat_interval=1000, heartbeat_timeout=0.1)
        async with linked_by_hand(limits, close_timeout=1000) as (_, link):
            await link.aclose()
            (ended,) = link.rest()
            assert ended.error.message == "nothing was received for 0.1 s"

    run(test)


def test_heartbeats_keep_a_link_alive() -> None:
    async def test() -> None:
        limits = Limits(handshake_timeout=1000, heartbeat_interval=0.02, heartbeat_timeout=1000)
        async with linked_by_hand(limits) as (hand, link):
            # The handshake's deadline is far away; the first heartbeat does not wait for it.
            for _ in range(5):
                assert await hand.read() == []
            assert link.session.state is State.OPEN

    run(test)


# ---- much


def test_a_peer_that_does_not_read_stops_nobody_but_itself() -> None:
    async def test() -> None:
        limits = Limits(heartbeat_interval=0.02, heartbeat_timeout=1000)
        async with linked_by_hand(limits) as (hand, link):
            sent = [text(number, "x" * MIB) for number in range(4)]
            for each in sent:
                link.send(each)
            # All the while the link goes on reading, and its timer does not run wild.
            ticks = []
            tick = link.session.tick
            link.session.tick = lambda now: ticks.append(now) or tick(now)
            loop = asyncio.get_running_loop()
            start = loop.time()
            for number in range(20):
                passed = asyncio.Event()
                loop.call_later(limits.heartbeat_interval / 2, passed.set)
                await passed.wait()
                hand.session.send(text(number))
                await hand.write()
                assert await link.receive() == [text(number)]
            assert link.session.state is State.OPEN
            assert 0 < len(ticks) <= (loop.time() - start) / limits.heartbeat_interval + 2
            assert await hand.read_until(at_least(4)) == sent

    run(test)


def test_a_receipt_overtakes_a_long_text_that_is_slow_to_be_read() -> None:
    async def test() -> None:
        limits = Limits(max_message=16 * MIB, heartbeat_interval=1000, heartbeat_timeout=1000)
        async with linked_by_hand(limits) as (hand, link):
            long = text(1, "x" * 16 * MIB)
            link.send(long)
            await asyncio.sleep(0)
            hand.session.send(text(2))
            await hand.write()
            assert await link.receive() == [text(2)]
            link.send(Receipt(message_id(2)))
            assert await hand.read_until(at_least(2)) == [Receipt(message_id(2)), long]

    run(test)


def test_closing_while_the_other_side_does_not_read() -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            sent = [text(number, "x" * MIB) for number in range(4)]
            for each in sent:
                link.send(each)
            await asyncio.sleep(0)
            closing = asyncio.create_task(link.aclose())
            await asyncio.sleep(0)
            happened = await hand.read_until(lambda happened: Closing() in happened)
            # What had begun is finished; what had not was dropped, and the count is right.
            texts = happened[:-1]
            assert texts == sent[: len(texts)]
            hand.session.close()
            await hand.write()
            assert await hand.read() == []
            hand.sock.shutdown(socket.SHUT_WR)
            await closing
            assert link.rest() == [Ended(None)]

    run(test)


def test_answering_a_close_while_the_other_side_does_not_read() -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            for number in range(4):
                link.send(text(number, "x" * MIB))
            await asyncio.sleep(0)
            hand.session.send(text(9))
            await hand.write()
            assert await link.receive() == [text(9)]
            link.send(Receipt(message_id(9)))
            hand.session.close()
            await hand.write()
            assert await link.receive() == [Closing()]
            closing = asyncio.create_task(link.aclose())
            await asyncio.sleep(0)
            happened = await hand.read_until(lambda happened: Ended(None) in happened)
            assert Receipt(message_id(9)) in happened
            hand.sock.shutdown(socket.SHUT_WR)
            await closing
            assert link.rest() == [Ended(None)]

    run(test)


def test_much_both_ways_at_once() -> None:
    async def test() -> None:
        async with linked() as (client, server), asyncio.TaskGroup() as group:
            for link in (client, server):
                texts = [text(number, f"{number}" + "x" * 900_000) for number in range(24)]
                group.create_task(exchange(link, texts))

    run(test)


def test_many_small_texts_both_ways_at_once() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            async with asyncio.TaskGroup() as group:
                for link in (client, server):
                    group.create_task(exchange(link, [text(number) for number in range(5000)]))
            assert len(client.room()) == len(server.room()) == 0

    run(test)


def test_of_announcements_only_the_newest_waits_for_the_owner() -> None:
    async def test() -> None:
        # They are the one kind of message that has no window.
        async with linked_by_hand() as (hand, link):
            hand.session.send(text(1))
            await hand.write()
            for port in range(1, 1001):
                hand.session.send(Announce((Endpoint(Kind.PUBLIC, "203.0.113.1", port),)))
                if port % 100 == 0:
                    await hand.write()
            hand.session.send(text(2))
            await hand.write()
            while text(2) not in link._happenings:  # noqa: ASYNC110 - taking them would end it
                await asyncio.sleep(0)
            last = Announce((Endpoint(Kind.PUBLIC, "203.0.113.1", 1000),))
            # Both went ahead of what waited with it, or came after it.
            assert link.rest() == [text(1), last, text(2)]

    run(test)


# ---- files


def offer(number: int, size: int | None = 10) -> Offer:
    file_id = b"file" + number.to_bytes(12, "big")
    return Offer(
        id=file_id, group=bytes(16), number=number, name="a", size=size, mtime=0, mode=0o600
    )


class Source:
    """Says what is in its queue, then zeros of file 1, so many as it has."""

    def __init__(self, *queue: FileMessage, zeros: int = 0) -> None:
        self.queue = collections.deque(queue)
        self.zeros = zeros

    def next(self) -> FileMessage | Data | None:
        if self.queue:
            return self.queue.popleft()
        return Data(1, self._read) if self.zeros else None

    def _read(self, room: memoryview) -> int:
        count = min(len(room), self.zeros)
        room[:count] = bytes(count)
        self.zeros -= count
        return count


class Sink:
    """Keeps what it gets, and tells when it has enough."""

    def __init__(self) -> None:
        self.got: list[FileMessage] = []
        self._came = asyncio.Event()

    def __call__(self, message: FileMessage) -> None:
        self.got.append(message)
        self._came.set()

    async def until(self, enough: Callable[[list[FileMessage]], bool]) -> list[FileMessage]:
        while not enough(self.got):
            self._came.clear()
            await self._came.wait()
        return self.got

    @property
    def size(self) -> int:
        return sum(len(each.data) for each in self.got if isinstance(each, Chunk))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("sender", SIDES)
def test_files_go_to_the_sink_and_all_else_to_the_owner(sender: str) -> None:
    async def test() -> None:
        async with linked() as (client, server):
            here, there = (client, server) if sender == "client" else (server, client)
            sink = Sink()
            there.take_files(sink)
            here.send_files(Source(offer(1, 3 * MIB), zeros=3 * MIB))
            here.send(text(1))
            assert await there.receive() == [text(1)]
            await sink.until(lambda _: sink.size == 3 * MIB)
            assert sink.got[0] == offer(1, 3 * MIB)
            assert {type(each) for each in sink.got[1:]} == {Chunk}
            there.send(Receipt(offer(1).id))
            assert await here.receive() == [Receipt(offer(1).id)]
            assert there.rest() == []

    run(test)


def test_a_source_that_was_empty_is_asked_again_when_it_has_more() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            sink = Sink()
            server.take_files(sink)
            source = Source()
            client.send_files(source)
            client.more_of_files()
            await turns(3)
            source.queue += [offer(1), End(1, 0)]
            client.more_of_files()
            # The link's own timer asks as well, but only after 10 s.
            async with asyncio.timeout(5):
                assert await sink.until(at_least(2)) == [offer(1), End(1, 0)]

    run(test)


def test_what_comes_before_there_is_a_sink_stops_the_reading_and_waits() -> None:
    async def test() -> None:
        async with listening() as (port, links):
            client = await dial(port)
            server = await links.get()
            await client.receive()
            client.proceed()
            await collect(server, at_least(2))
            server.admit("alice", 0)
            server.send(text(1))
            # All of it leaves in one piece with READY, before the client's owner can say a word.
            server.send_files(Source(offer(1, 20 * MIB), zeros=20 * MIB))
            assert await collect(client, at_least(2)) == [Ready("alice", 0), text(1)]
            while client._transport.is_reading():  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
            await turns(10)
            assert sum(type(each) is Chunk for each in client._before_sink) < 10
            assert client.rest() == []
            sink = Sink()
            client.take_files(sink)
            assert sink.got[0] == offer(1, 20 * MIB)
            await sink.until(lambda _: sink.size == 20 * MIB)
            client.abort()
            server.abort()

    run(test)


class Strict(Sink):
    """Does not like the second message."""

    def __call__(self, message: FileMessage) -> None:
        super().__call__(message)
        if len(self.got) == 2:
            raise RemoteProtocolError("this one breaks the rules")


@pytest.mark.parametrize("early", [True, False])
def test_what_the_sink_does_not_like_ends_the_link(*, early: bool) -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            sink = Strict()
            if not early:
                link.take_files(sink)
            hand.session.send(text(1))
            hand.session.send_files(Source(offer(1), Begin(1, 0), Cancel(1)))
            await hand.write()
            if early:
                assert await link.receive() == [text(1)]
                link.take_files(sink)
                happened = await link.receive()
            else:
                first, *happened = await collect(link, at_least(2))
                assert first == text(1)
            (ended,) = happened
            assert ended.error.message == "this one breaks the rules"
            assert sink.got == [offer(1), Begin(1, 0)]
            assert link.session.state is State.FAILED
            with contextlib.suppress(ConnectionError):
                assert await asyncio.get_running_loop().sock_recv(hand.sock, MIB) == b""
            with pytest.raises(LinkClosed):
                await link.receive()

    run(test)


def test_where_the_link_has_ended_already_it_ends_once() -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            sink = Strict()
            link.take_files(sink)
            hand.session.send_files(Source(offer(1), Begin(1, 0)))
            good = hand.session.data_to_send(0.0)
            # In one read with what is no record at all.
            await asyncio.get_running_loop().sock_sendall(hand.sock, good + bytes(4))
            (ended,) = await link.receive()
            assert isinstance(ended.error, MalformedRecord)
            assert sink.got == [offer(1), Begin(1, 0)]

    run(test)


def test_while_our_disk_is_behind_nothing_is_read() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            sink = Sink()

            def slow(message: FileMessage) -> None:
                sink(message)
                server.pause_receiving()

            server.take_files(slow)
            client.send_files(Source(offer(1, 64 * MIB), zeros=64 * MIB))
            client.more_of_files()
            while sink.size < 64 * MIB:
                await sink.until(at_least(1))
                assert not server._transport.is_reading()
                sent = sink.size
                await turns(5)
                # Nothing came although the other side has more, and each read is bounded.
                assert sink.size == sent
                assert sum(type(each) is Chunk for each in sink.got) <= sent // 65_000 + 20
                sink._came.clear()
                server.resume_receiving()
                await sink._came.wait()
                if sent > 8 * MIB:
                    break
            # Said twice it is the same.
            server.resume_receiving()
            server.resume_receiving()
            assert server._transport.is_reading()
            server.pause_receiving()
            server.pause_receiving()
            assert not server._transport.is_reading()
            # An orderly end reads on by itself.
            closing = asyncio.create_task(client.aclose())
            await server.aclose()
            await closing
            assert server.rest()[-1] == Ended(None)

    run(test)


def test_a_peer_is_not_silent_while_we_do_not_read() -> None:
    async def test() -> None:
        limits = Limits(heartbeat_interval=0.02, heartbeat_timeout=0.1)
        async with linked_by_hand(limits) as (hand, link):
            link.pause_receiving()
            ticks = []
            tick = link.session.tick
            link.session.tick = lambda now: ticks.append(now) or tick(now)
            loop = asyncio.get_running_loop()
            start = loop.time()
            # Its own heartbeats go on, and say that it is there.
            while loop.time() < start + 3 * limits.heartbeat_timeout:
                assert await hand.read() == []
            assert link.session.state is State.OPEN
            assert 0 < len(ticks) <= 3 * limits.heartbeat_timeout / limits.heartbeat_interval + 5
            before = loop.time()
            link.resume_receiving()
            (ended,) = await link.receive()
            assert ended.error.message == "nothing was received for 0.1 s"
            assert loop.time() >= before + 0.9 * limits.heartbeat_timeout

    run(test)


def test_silence_counts_from_when_we_read_again() -> None:
    async def test() -> None:
        limits = Limits(heartbeat_interval=1000, heartbeat_timeout=0.2)
        async with linked_by_hand(limits) as (_, link):
            loop = asyncio.get_running_loop()
            passed = asyncio.Event()
            link.pause_receiving()
            loop.call_later(1.5 * limits.heartbeat_timeout, passed.set)
            await passed.wait()
            before = loop.time()
            link.resume_receiving()
            (ended,) = await link.receive()
            assert ended.error.message == "nothing was received for 0.2 s"
            assert loop.time() >= before + 0.9 * limits.heartbeat_timeout

    run(test)


def test_one_batch_a_turn() -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            sizes = []
            data_to_send = link.session.data_to_send

            def counted(now: float, size: int) -> bytearray:
                data = data_to_send(now, size)
                sizes.append(len(data))
                return data

            link.session.data_to_send = counted
            # No buffer is full, so that only the link itself can stop.
            link._transport.set_write_buffer_limits(high=1 << 30)
            link.send_files(Source(offer(1, 1 << 40), zeros=1 << 40))
            link.more_of_files()
            assert sizes == []
            for turn in range(1, 9):
                await asyncio.sleep(0)
                assert len(sizes) == turn
            assert all(BATCH_SIZE <= size < BATCH_SIZE + 65_539 for size in sizes)
            # A text goes with the next, and makes no batch of its own.
            link.send(text(1))
            link.more_of_files()
            await asyncio.sleep(0)
            assert len(sizes) == 9
            chunks = 0
            while not (happened := await hand.read()) or text(1) not in happened:
                chunks += sum(type(each) is Chunk for each in happened)
            assert chunks <= sum(sizes) // 65_539

    run(test)


def test_a_full_buffer_stops_the_source() -> None:
    async def test() -> None:
        async with linked_by_hand() as (hand, link):
            source = Source(offer(1, 64 * MIB), zeros=64 * MIB)
            link.send_files(source)
            link.more_of_files()
            while not link._paused:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0)
            # The kernel takes some more of what has been sealed, then all stands still.
            await turns(50)
            left = source.zeros
            await turns(10)
            assert source.zeros == left
            # What a text stands behind at most, however large the file.
            sent = 64 * MIB - left
            assert sent <= 3 * LARGEST + 4 * MIB
            link.send(text(1))
            happened = await hand.read_until(lambda happened: text(1) in happened)
            before = sum(len(each.data) for each in happened if isinstance(each, Chunk))
            assert before <= sent + 2 * LARGEST
            happened = await hand.read_until(lambda _: not source.zeros)
            assert link.session.state is State.OPEN

    run(test)


def test_closing_in_the_middle_of_a_file() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            sink = Sink()
            server.take_files(sink)
            source = Source(offer(1, 1 << 40), zeros=1 << 40)
            client.send_files(source)
            client.more_of_files()
            await sink.until(at_least(20))
            closing = asyncio.create_task(client.aclose())
            assert await server.receive() == [Closing()]
            left = source.zeros
            with pytest.raises(LinkClosed):
                server.send(Accept(1, 0))
            server.send(Receipt(offer(1).id))
            await server.aclose()
            await closing
            assert client.rest() == [Receipt(offer(1).id), Ended(None)]
            assert source.zeros == left
            # All that had left is there, and nothing says that it is whole.
            assert sink.size == (1 << 40) - left
            assert not any(isinstance(each, End) for each in sink.got)

    run(test)


def test_texts_go_to_and_fro_while_files_go_both_ways() -> None:
    async def test() -> None:
        async with linked() as (client, server):
            sources = []
            for link in (client, server):
                link.take_files(lambda _: None)
                sources.append(Source(offer(1, 1 << 40), zeros=1 << 40))
                link.send_files(sources[-1])
                link.more_of_files()
            for number in range(20):
                client.send(text(number))
                assert await server.receive() == [text(number)]
                server.send(Receipt(message_id(number)))
                assert await client.receive() == [Receipt(message_id(number))]
            assert all(source.zeros < (1 << 40) - 10 * LARGEST for source in sources)

    run(test)


def test_without_a_connection_there_is_no_reading_to_pause() -> None:
    async def test() -> None:
        session = Session.client(BOB, ALICE.public, HELLO, limits=QUIET, now=0.0)
        link = Link(session, close_timeout=1.0)
        link.pause_receiving()
        link.resume_receiving()
        link.more_of_files()
        await asyncio.sleep(0)

    run(test)
