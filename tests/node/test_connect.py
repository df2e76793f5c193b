"""Endpoints to one ready link: servers of every bad kind, alone and beside the right one."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import struct
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import pytest
from parties import BOB, Stopwatch, at, until

from securelink import announced, connect
from securelink.announced import AnnouncedEndpoint
from securelink.connect import Connected, dial, in_order
from securelink.endpoints import Endpoint, Kind
from securelink.errors import (
    LinkTruncated,
    NotThem,
    PeerRefused,
    SecurelinkError,
    Unreachable,
)
from securelink.identity import Identity
from securelink.limits import Limits
from securelink.messages import Text
from securelink.session import Introduced, Session
from securelink.states import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from parties import Parties

    from securelink.node import Node

SOMEBODY = Identity.from_private_bytes(bytes([3]) * 32)


@contextmanager
def refuses() -> Iterator[int]:
    """A port on which nobody listens, and nobody will."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose packets are dropped: its queue is full."""
    with socket.socket() as listener, socket.socket() as one, socket.socket() as other:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (one, other):
            sock.settimeout(0)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


class Fake:
    """A listener that treats everybody in the same way."""

    def __init__(self) -> None:
        self.port = 0
        self.accepted = 0
        self.introduced = 0
        self.open: set[asyncio.StreamWriter] = set()


Treat = "Callable[[Fake, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


@asynccontextmanager
async def fake(treat: Treat, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Fake]:
    this = Fake()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        this.accepted += 1
        this.open.add(writer)
        try:
            await treat(this, reader, writer)
        except (OSError, asyncio.CancelledError):
            return
        finally:
            this.open.discard(writer)
            writer.transport.abort()

    server = await asyncio.start_server(accept, host, port)
    this.port = server.sockets[0].getsockname()[1]
    try:
        yield this
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


async def silent(_: Fake, reader: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    while await reader.read(4096):
        pass


async def closes(_: Fake, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resets(_: Fake, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def speaks_http(_: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    while await reader.read(4096):
        pass


async def right_length_wrong_bytes(
    _: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    writer.write((1216).to_bytes(4, "big") + bytes(1216))
    while await reader.read(4096):
        pass


def holder(identity: Identity, decide: Callable[[Session], bool]) -> Treat:
    """A server with that key; what it decides after message 3, and whether it goes on."""

    async def treat(this: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        session = Session.server(identity, limits=Limits(), now=now())
        while data := await reader.read(65536):
            for happening in session.receive_data(data, now()):
                if isinstance(happening, Introduced):
                    this.introduced += 1
                    if not decide(session):
                        return
            if session.state is State.FAILED:
                return
            writer.write(session.data_to_send(now()))

    return treat


def admits(session: Session) -> bool:
    session.admit("bob", 3)
    return True


def denies(session: Session) -> bool:
    session.deny()
    return True


right = holder(BOB, admits)
wrong_key = holder(SOMEBODY, admits)
denying = holder(BOB, denies)
closes_after_message_3 = holder(BOB, lambda _: False)
silent_after_message_3 = holder(BOB, lambda _: True)

NOT_THEM = [silent, closes, resets, speaks_http, right_length_wrong_bytes, wrong_key]


async def attempt(node: Node, *endpoints: Endpoint, seconds: float | None = 0.5) -> Connected:
    async def known() -> list[Endpoint]:
        return list(endpoints)

    loop = asyncio.get_running_loop()
    deadline = None if seconds is None else loop.time() + seconds
    return await dial(node, BOB.public, "bob", known, node.hello(), deadline=deadline)


async def fails(node: Node, *endpoints: Endpoint, seconds: float = 0.5) -> SecurelinkError:
    """The error of an attempt, which keeps to its deadline."""
    with Stopwatch() as watch, pytest.raises(SecurelinkError) as raised:
        await attempt(node, *endpoints, seconds=seconds)
    assert watch.seconds < seconds + 0.2
    return raised.value


@asynccontextmanager
async def connected(
    node: Node, *endpoints: Endpoint, seconds: float | None = 5
) -> AsyncIterator[Connected]:
    made = await attempt(node, *endpoints, seconds=seconds)
    try:
        yield made
    finally:
        made.link.abort()


# ---- one endpoint


async def test_the_right_one(parties: Parties) -> None:
    async with parties.node() as node, fake(right) as bob:
        async with connected(node, at(bob.port)) as made:
            assert made.endpoint == at(bob.port)
            assert (made.ready.name, made.ready.waiting) == ("bob", 3)
            assert made.early == ()
        assert bob.introduced == 1


async def test_what_comes_along_with_ready_is_not_lost(parties: Parties) -> None:
    def talks(session: Session) -> bool:
        session.admit("bob", 1)
        session.send(Text(bytes(16), 1, "hello"))
        return True

    async with (
        parties.node() as node,
        fake(holder(BOB, talks)) as bob,
        connected(node, at(bob.port)) as made,
    ):
        heard = list(made.early) or await made.link.receive()
        assert heard == [Text(bytes(16), 1, "hello")]


async def test_nobody_listens(parties: Parties) -> None:
    async with parties.node() as node:
        with refuses() as port:
            error = await fails(node, at(port))
    assert isinstance(error, Unreachable)
    assert error.message == "bob could not be reached"
    assert error.hint == f"tried: 127.0.0.1:{port} (connection refused)"


async def test_nobody_answers(parties: Parties) -> None:
    async with parties.node() as node:
        with black_hole() as port:
            error = await fails(node, at(port))
    assert isinstance(error, Unreachable)
    assert error.hint == f"tried: 127.0.0.1:{port} (no answer)"


async def test_no_endpoint_is_known(parties: Parties) -> None:
    async with parties.node() as node:
        error = await fails(node)
    assert isinstance(error, Unreachable)
    assert "no address of bob" in error.message


@pytest.mark.parametrize("treat", NOT_THEM, ids=lambda treat: treat.__name__)
async def test_somebody_else(parties: Parties, treat: Treat) -> None:
    async with parties.node() as node, fake(treat) as other:
        error = await fails(node, at(other.port))
        assert isinstance(error, NotThem)
        outcome = "connected, but no answer" if treat is silent else "not them"
        assert error.hint is not None
        assert f"127.0.0.1:{other.port} ({outcome})" in error.hint
        # A stranger learns nothing of who we are, and no connection stays.
        assert other.introduced == 0
        await until(lambda: not other.open)
        # Whoever is merely kept from answering must not lead anybody to take a new key.
        assert ("pair again" in error.hint) is (treat is not silent)


async def test_denied_is_final_at_once(parties: Parties) -> None:
    async with parties.node() as node, fake(denying) as bob:
        with Stopwatch() as watch:
            error = await fails(node, at(bob.port), seconds=10)
        assert watch.seconds < 5
        assert isinstance(error, PeerRefused)
        assert bob.accepted == 1


async def test_denied_by_one_who_does_not_hang_up(parties: Parties) -> None:
    async def denies_and_stays(
        this: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await denying(this, reader, writer)
        await asyncio.Event().wait()

    limits = Limits(close_timeout=5)
    async with parties.node(limits=limits) as node, fake(denies_and_stays) as bob:
        assert isinstance(await fails(node, at(bob.port)), PeerRefused)


async def test_broken_off_after_message_3_is_tried_again(parties: Parties) -> None:
    async with parties.node() as node, fake(closes_after_message_3) as bob:
        error = await fails(node, at(bob.port), seconds=1)
        assert isinstance(error, LinkTruncated)
        assert error.message == "bob broke off before the link was ready"
        assert bob.introduced > 1


async def test_no_answer_to_message_3(parties: Parties) -> None:
    async with parties.node() as node, fake(silent_after_message_3) as bob:
        error = await fails(node, at(bob.port))
        assert isinstance(error, LinkTruncated)
        assert error.message == "bob did not take the link in time"
        await until(lambda: not bob.open)


async def test_cut_between_message_2_and_message_3(parties: Parties) -> None:
    async def cuts(this: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = Session.server(BOB, limits=Limits(), now=0)
        while not (answer := session.data_to_send(0)):
            session.receive_data(await reader.read(65536), 0)
        writer.write(answer)
        writer.write_eof()
        await reader.read(65536)

    async with parties.node() as node, fake(cuts) as bob:
        error = await fails(node, at(bob.port))
        assert isinstance(error, (NotThem, LinkTruncated))
        assert error.message != "the link has ended"


# ---- again and again


async def test_tried_until_somebody_is_there(parties: Parties) -> None:
    async with parties.node() as node:
        with refuses() as port:
            trying = asyncio.create_task(attempt(node, at(port), seconds=None))
            done, _ = await asyncio.wait([trying], timeout=0.3)
            assert not done
        async with fake(right, port=port):
            (await trying).link.abort()


async def test_endpoints_are_asked_anew_for_each_attempt(parties: Parties) -> None:
    async with parties.node() as node, fake(right) as bob:
        with refuses() as port:
            known = iter([[], [at(port)], [at(bob.port)]])

            async def endpoints() -> list[Endpoint]:
                return next(known)

            made = await dial(node, BOB.public, "bob", endpoints, node.hello(), deadline=math.inf)
            made.link.abort()
            assert next(known, None) is None


async def test_the_verdict_is_of_the_attempt_that_came_furthest(parties: Parties) -> None:
    async with (
        parties.node() as node,
        fake(closes_after_message_3) as bob,
        fake(closes) as other,
    ):
        known = [[at(bob.port)], [at(other.port)], []]
        heard: list[SecurelinkError] = []

        async def endpoints() -> list[Endpoint]:
            return known.pop(0) if known else []

        loop = asyncio.get_running_loop()
        with pytest.raises(LinkTruncated):
            await dial(
                node,
                BOB.public,
                "bob",
                endpoints,
                node.hello(),
                deadline=loop.time() + 1,
                failed=heard.append,
            )
    assert [type(each) for each in heard[:3]] == [LinkTruncated, NotThem, Unreachable]


async def test_a_last_attempt_without_time_does_not_blur_the_verdict(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.0)

    async def closes_then_hangs(
        this: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # The attempts begin after 0, 0.1 and 0.3 seconds.
        await (closes if this.accepted < 3 else silent)(this, reader, writer)

    async with parties.node() as node, fake(closes_then_hangs) as other:
        error = await fails(node, at(other.port))
        assert other.accepted == 3
        assert "(not them)" in str(error.hint)


async def test_cancelled_it_leaves_nothing_behind(parties: Parties) -> None:
    async with (
        parties.node() as node,
        fake(silent) as one,
        fake(silent_after_message_3) as other,
    ):
        wanted = 0
        for endpoints in ([at(one.port)], [at(other.port)], [at(one.port), at(other.port)]):
            wanted += len(endpoints)
            trying = asyncio.create_task(attempt(node, *endpoints, seconds=None))
            await until(lambda wanted=wanted: one.accepted + other.accepted >= wanted)
            trying.cancel()
            with pytest.raises(asyncio.CancelledError):
                await trying
            await until(lambda: not one.open | other.open)


# ---- several endpoints


@pytest.mark.parametrize("treat", NOT_THEM, ids=lambda treat: treat.__name__)
async def test_somebody_else_beside_the_right_one(parties: Parties, treat: Treat) -> None:
    async with parties.node() as node, fake(treat) as other, fake(right) as bob:
        with refuses() as port:
            endpoints = (at(port), at(other.port), at(bob.port))
            with Stopwatch() as watch:
                async with connected(node, *endpoints) as made:
                    assert made.endpoint == at(bob.port)
            assert watch.seconds < 3
            assert other.introduced == 0
            await until(lambda: not other.open)


async def test_a_black_hole_costs_one_stagger(parties: Parties) -> None:
    async with parties.node() as node, fake(right) as bob:
        with black_hole() as port, Stopwatch() as watch:
            async with connected(node, at(port), at(bob.port)):
                pass
    assert connect.STAGGER <= watch.seconds < 1.5


async def test_the_first_that_proves_itself_alone_learns_who_we_are(parties: Parties) -> None:
    async def slow(this: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        await right(this, reader, writer)

    async with parties.node() as node, fake(slow) as first, fake(right) as second:
        async with connected(node, at(first.port), at(second.port)) as made:
            assert made.endpoint == at(second.port)
        await until(lambda: not first.open)
        assert (first.introduced, second.introduced) == (0, 1)


async def test_both_prove_themselves_in_the_same_turn(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0
    both = asyncio.Event()
    alone = connect._attempt

    async def together(*arguments: object) -> object:
        nonlocal attempts
        link = await alone(*arguments)
        attempts += 1
        if attempts == 2:
            both.set()
        await both.wait()
        return link

    monkeypatch.setattr(connect, "STAGGER", 0)
    monkeypatch.setattr(connect, "_attempt", together)
    async with parties.node() as node, fake(right) as first, fake(right) as second:
        async with connected(node, at(first.port), at(second.port)):
            await until(lambda: len(first.open) + len(second.open) == 1)
        assert first.introduced + second.introduced == 1


async def test_not_them_outweighs_unreachable_whichever_is_last(parties: Parties) -> None:
    async with parties.node() as node, fake(closes) as other:
        with refuses() as port:
            for endpoints in ([at(port), at(other.port)], [at(other.port), at(port)]):
                error = await fails(node, *endpoints)
                assert isinstance(error, NotThem)
                assert error.hint is not None
                assert f"127.0.0.1:{port} (connection refused)" in error.hint
                assert f"127.0.0.1:{other.port} (not them)" in error.hint


async def test_refused_outweighs_not_them(parties: Parties) -> None:
    async with parties.node() as node, fake(wrong_key) as other, fake(denying) as bob:
        assert isinstance(await fails(node, at(other.port), at(bob.port)), PeerRefused)


# ---- names


class Resolver:
    """Stands in for the system's resolver."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **names: list[str] | Exception) -> None:
        self.names = names
        self.asked: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        self.asked.append(host)
        found = self.names[host]
        if isinstance(found, Exception):
            raise found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


def named(port: int, host: str = "bob") -> Endpoint:
    return Endpoint(Kind.PUBLIC, host, port)


async def test_every_address_of_a_name_is_tried(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, fake(right, "127.0.0.3") as bob:
        Resolver(monkeypatch, bob=["127.0.0.1", "127.0.0.2", "127.0.0.3"])
        async with connected(node, named(bob.port)) as made:
            assert made.endpoint == named(bob.port)
            assert made.link.remote == ("127.0.0.3", bob.port)


async def test_a_name_and_an_address_race(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, fake(right) as bob:
        with black_hole() as port:
            Resolver(monkeypatch, bob=["127.0.0.1"])
            async with connected(node, named(port), at(bob.port, kind=Kind.PUBLIC)) as made:
                assert made.endpoint.host == "127.0.0.1"


async def test_a_name_that_does_not_exist(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    Resolver(monkeypatch, bob=socket.gaierror(socket.EAI_NONAME, "not known"))
    async with parties.node() as node:
        error = await fails(node, named(1))
    assert isinstance(error, Unreachable)
    assert error.hint == "tried: bob:1 (no such name)"


async def test_one_address_of_a_name_that_is_somebody_else_decides_the_verdict(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, fake(closes, "127.0.0.1") as other:
        for addresses in (["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]):
            Resolver(monkeypatch, bob=addresses)
            error = await fails(node, named(other.port))
            assert isinstance(error, NotThem)
            assert error.hint is not None
            assert f"bob:{other.port} at 127.0.0.1 (not them)" in error.hint
            assert f"bob:{other.port} at 127.0.0.2 (connection refused)" in error.hint


async def test_an_address_that_a_name_has_twice_is_tried_once(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    Resolver(monkeypatch, bob=["127.0.0.1", "127.0.0.1"])
    async with parties.node() as node, fake(silent) as other:
        await fails(node, named(other.port), seconds=0.4)
        assert other.accepted == 1


def test_a_resolver_that_hangs_holds_up_nobody(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on_read, go_on_write = os.pipe()

    def hangs(*_: object, **__: object) -> list[object]:
        os.read(go_on_read, 1)
        return []

    async def main() -> None:
        async with parties.node() as node:
            with Stopwatch() as watch:
                error = await fails(node, named(1), seconds=0.3)
            assert watch.seconds < 3
            assert isinstance(error, Unreachable)

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    # Not the coroutine alone: the process has to be able to end too.
    try:
        with Stopwatch() as watch:
            runner = asyncio.Runner()
            with runner:
                loop = runner.get_loop()
                loop.call_later(5, os.write, go_on_write, b"xxxx")
                runner.run(main())
        assert watch.seconds < 3
    finally:
        os.write(go_on_write, b"x" * 64)
        os.close(go_on_write)
        os.close(go_on_read)


def told(port: int, met: Kind, host: str = "bob") -> Endpoint:
    """A name that the peer announced when it was met at an address of that kind."""
    return AnnouncedEndpoint(Kind.PUBLIC, host, port, met)


LED_ASTRAY = "announced from elsewhere, and leads to this machine or its network"


@pytest.mark.parametrize(
    ("met", "addresses"),
    [
        (Kind.PUBLIC, ["127.0.0.1"]),
        (Kind.PUBLIC, ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::1", "192.168.1.1"]),
        (Kind.LAN, ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0", "::", "fe80::1%lo"]),
    ],
)
async def test_nobody_here_is_dialled_for_a_name_that_was_announced_from_elsewhere(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, met: Kind, addresses: list[str]
) -> None:
    async with parties.node() as node, fake(right) as bob:
        resolver = Resolver(monkeypatch, bob=addresses)
        error = await fails(node, told(bob.port, met))
        assert isinstance(error, Unreachable)
        assert error.hint == f"tried: bob:{bob.port} ({LED_ASTRAY})"
        assert bob.accepted == 0
        assert resolver.asked


async def test_a_name_that_a_person_gave_may_lead_here(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, fake(right) as bob:
        Resolver(monkeypatch, bob=["127.0.0.1"])
        for endpoint in (named(bob.port), told(bob.port, Kind.LOOPBACK)):
            async with connected(node, endpoint) as made:
                # Who named it is nobody's concern from here on.
                assert type(made.endpoint) is Endpoint


@pytest.mark.parametrize("met", [Kind.LAN, Kind.PUBLIC])
async def test_this_machine_itself_is_not_dialled_for_who_is_elsewhere(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, met: Kind
) -> None:
    # Its own address in a network is one that others may well announce.
    monkeypatch.setattr(announced, "may_announce", lambda *_: True)
    Resolver(monkeypatch, bob=["127.0.0.1"])
    async with parties.node() as node, fake(right) as bob:
        for host in ("127.0.0.1", "bob"):
            error = await fails(node, told(bob.port, met, host))
            assert isinstance(error, Unreachable)
            assert LED_ASTRAY in str(error.hint)
        assert bob.accepted == 0
        async with connected(node, told(bob.port, Kind.LOOPBACK, "127.0.0.1")):
            pass


async def test_of_an_announced_name_only_what_might_be_announced_is_dialled(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled: list[str] = []
    attempt_at = connect._attempt

    async def watched(
        node: Node, peer: object, endpoint: Endpoint, host: str, *rest: object
    ) -> object:
        if host != endpoint.host:
            dialled.append(host)
            raise Unreachable("not from a test")
        return await attempt_at(node, peer, endpoint, host, *rest)

    monkeypatch.setattr(connect, "_attempt", watched)
    addresses = ["127.0.0.1", "203.0.113.5", "192.168.1.1", "2001:db8::5", "0.0.0.0"]
    Resolver(monkeypatch, bob=addresses)
    async with parties.node() as node:
        for met, expected in (
            (Kind.PUBLIC, ["203.0.113.5", "2001:db8::5"]),
            (Kind.LAN, ["203.0.113.5", "192.168.1.1", "2001:db8::5"]),
        ):
            dialled.clear()
            await fails(node, told(1, met), seconds=0.05)
            assert dialled[: len(expected)] == expected
            assert set(dialled) == set(expected)


# ---- the order


def test_near_before_far_and_ipv6_before_ipv4() -> None:
    public4 = Endpoint(Kind.PUBLIC, "192.0.2.1", 1)
    public6 = Endpoint(Kind.PUBLIC, "2001:db8::1", 1)
    name = Endpoint(Kind.PUBLIC, "home.example", 1)
    lan = Endpoint(Kind.LAN, "192.168.1.2", 1)
    lan6 = Endpoint(Kind.LAN, "fd00::1", 1)
    loopback = Endpoint(Kind.LOOPBACK, "127.0.0.1", 1)
    given = [name, public4, public6, lan, lan6, loopback, public4]
    assert in_order(given) == [loopback, lan, lan6, public6, name, public4]
