"""What is queued for peers with addresses leaves by itself, as soon as they are there."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
from typing import TYPE_CHECKING

import pytest
from parties import (
    BOB,
    ByHand,
    HandServer,
    Stopwatch,
    at,
    call,
    inbox_size,
    introduce,
    put,
    put_many,
    running,
    states,
    texts,
    until,
)
from parties import serving as plain_serving
from taking import Taker, file_states, put_files

from securelink import lookout, redialling
from securelink.config import ServerConfig
from securelink.identity import Identity
from securelink.locks import FileLock
from securelink.messages import Ready, RefusalCode, Text
from securelink.session import Closing
from securelink.store import links, tries
from securelink.store.links import LinkRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from parties import Parties

    from securelink.node import Node


CAROL = Identity.from_private_bytes(bytes([3]) * 32)


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dial again before anybody has to wait."""
    monkeypatch.setattr(redialling, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(redialling, "LONGEST_DELAY", 0.02)
    monkeypatch.setattr(redialling, "LONGEST_REFUSED", 0.03)


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """A port at which nobody listens, and at which nobody else will."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def linked_rows(node: Node) -> list[tuple[bytes, int]]:
    with contextlib.closing(sqlite3.connect(node.home.store_file)) as conn:
        return conn.execute("SELECT peer, dialled FROM links").fetchall()


async def tried(node: Node) -> tuple[int, str | None]:
    found = await node.store.read(tries.get, BOB.public.raw)
    return (0, None) if found is None else (found.count, found.reason)


async def goodbye(bob: ByHand) -> None:
    """The node ends the link in order."""
    await bob.hear(Closing)
    await bob.link.aclose()


async def test_queued_texts_are_brought_and_the_link_ends(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        await put_many(node, BOB.public, ["one", "two"])
        async with running(node):
            bob = await server.call()
            await bob.hear(Text, 2)
            assert linked_rows(node) == [(BOB.public.raw, 1)]
            assert await bob.receipt_all(2) == ["one", "two"]
            await goodbye(bob)
            await until(lambda: states(node) == ["delivered"] * 2 and linked_rows(node) == [])
            peer = (await node.directory()).by_name("bob")
            assert (peer.calls_itself, await tried(node)) == ("bob's own", (0, None))
            # What is queued later is brought as well.
            await put(node, BOB.public, "three")
            assert await (await server.call(2)).receipt_all(1) == ["three"]
        assert len(server.calls) == 2


async def test_nobody_is_dialled_for_nothing(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        await put(node, BOB.public, "of a living process", owner=node.owner)
        async with running(node) as (service, _), call(service.server) as bob:
            await bob.hear(Ready)
            await put(node, BOB.public, "queued")
            assert await bob.receipt_all(1) == ["queued"]
        assert server.calls == []


@pytest.mark.usefixtures("quickly")
async def test_a_peer_that_comes_later(parties: Parties) -> None:
    with deaf_port() as port:
        async with parties.node() as node:
            await introduce(node, BOB.public, "bob", [at(port)])
            await put(node, BOB.public, "hello")
            async with running(node):
                while (await tried(node))[0] < 3:  # noqa: ASYNC110 - the store tells nobody here
                    await asyncio.sleep(0.01)
                assert await tried(node) == (
                    (await tried(node))[0],
                    "bob could not be reached",
                )
                config = ServerConfig(host=("127.0.0.1",), port=port)
                async with parties.node("bob", server=config) as bobs:
                    await introduce(bobs, node.identity.public, "alice")
                    await introduce(node, bobs.identity.public, "robert", [at(port)])
                    await put(node, bobs.identity.public, "and you")
                    async with plain_serving(bobs):
                        await until(lambda: texts(bobs) == ["and you"])
                        # Whoever answers at Bob's address now holds another key.
                        while (await tried(node))[1] != NOT_HIS_KEY:  # noqa: ASYNC110 - likewise
                            await asyncio.sleep(0.01)
            assert states(node) == ["waiting", "delivered"]


NOT_HIS_KEY = "whoever answered for bob does not hold its key"


@pytest.mark.usefixtures("quickly")
async def test_denied_and_then_known(parties: Parties) -> None:
    async with parties.node() as node, parties.node("bob") as bobs, plain_serving(bobs) as (bob, _):
        await introduce(node, bobs.identity.public, "bob", [at(bob.port)])
        await put(node, bobs.identity.public, "hello")
        async with running(node):
            while not await node.store.read(tries.count, bobs.identity.public.raw):  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.01)
            await introduce(bobs, node.identity.public, "alice")
            await until(lambda: texts(bobs) == ["hello"])
            found = await node.store.read(tries.get, bobs.identity.public.raw)
            assert found is not None
            assert found.reason is None


async def test_who_is_linked_to_another_process_is_left_to_it(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        lock = FileLock.acquire(node.home.locks / "77777777.owner")
        assert lock is not None
        theirs = LinkRow(
            "77777777",
            1,
            BOB.public.raw,
            dialled=False,
            takes_files=True,
            endpoint=at(1),
            since=1,
        )
        await node.store.run(links.up, theirs)
        await put(node, BOB.public, "hello")
        looked = asyncio.Event()
        links_to = node.links_to

        async def look(peer: bytes) -> list[LinkRow]:
            found = await links_to(peer)
            looked.set()
            return found

        monkeypatch.setattr(node, "links_to", look)
        monkeypatch.setattr(lookout, "LOOK_AROUND_INTERVAL", 0.05)
        async with running(node):
            await looked.wait()
            assert (server.calls, states(node)) == ([], ["waiting"])
            # It dies, and commits nothing.
            lock.release()
            bob = await server.call()
            assert await bob.receipt_all(1) == ["hello"]


async def test_what_waits_there_is_taken_along(parties: Parties) -> None:
    async with parties.node() as node, HandServer(waiting=1) as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        await put(node, BOB.public, "hello")
        async with running(node):
            bob = await server.call()
            await bob.receipt_all(1)
            bob.say("there you are")
            await goodbye(bob)
            assert await inbox_size(node) == 1


async def test_files_are_brought_too(parties: Parties, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"a photo")
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        await put_files(node, tmp_path / "photo.jpg", owner=None)
        async with running(node):
            by_hand = await server.call()
            taker = Taker(by_hand, willing=True)
            await goodbye(by_hand)
            assert taker.data(0) == b"a photo"
        assert file_states(node) == ["delivered"]


@pytest.mark.usefixtures("quickly")
async def test_a_refusal_of_one_does_not_block_the_next(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        await put_many(node, BOB.public, ["no", "yes"])
        async with running(node):
            bob = await server.call()
            await bob.refuse(1, RefusalCode.NOT_ALLOWED, permanent=True)
            await bob.receipt_all(2)
            await goodbye(bob)
        assert states(node) == ["refused", "delivered"]


@pytest.mark.usefixtures("quickly")
async def test_a_link_that_breaks_is_followed_by_another(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        await put_many(node, BOB.public, ["one", "two"])
        async with running(node):
            bob = await server.call()
            await bob.hear(Text, 2)
            bob.link.abort()
            again = await server.call(2)
            assert await again.receipt_all(2) == ["one", "two"]
            await until(lambda: states(node) == ["delivered"] * 2)


@pytest.mark.parametrize("refuses", [False, True], ids=["silent", "refusing"])
async def test_a_peer_that_takes_nothing_holds_up_no_other(parties: Parties, refuses: bool) -> None:
    async with parties.node() as node, HandServer() as server, HandServer(CAROL) as other:
        await introduce(node, BOB.public, "bob", [at(server.port)])
        await introduce(node, CAROL.public, "carol", [at(other.port)])
        await put_many(node, BOB.public, ["never taken"] * 3)
        async with running(node):
            bob = await server.call()
            await (bob.refuse(3, RefusalCode.BUSY) if refuses else bob.hear(Text, 3))
            await put_many(node, CAROL.public, ["one", "two"])
            carol = await other.call()
            assert await carol.receipt_all(2) == ["one", "two"]
            await goodbye(carol)
            await until(lambda: states(node)[3:] == ["delivered"] * 2)
            assert "delivered" not in states(node)[:3]


async def test_another_network_is_tried_at_once(parties: Parties) -> None:
    with deaf_port() as port:
        async with parties.node() as node:
            await introduce(node, BOB.public, "bob", [at(port)])
            await put(node, BOB.public, "hello")
            async with running(node) as (service, _):
                for number in range(1, 6):
                    # Without it the fifth attempt is 7 s away.
                    while (await tried(node))[0] < number:
                        await asyncio.sleep(0.01)
                        service._courier.network_changed()


async def test_it_ends_in_time_while_somebody_is_dialled(parties: Parties) -> None:
    async with parties.node() as node:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            await introduce(node, BOB.public, "bob", [at(silent.getsockname()[1])])
            await put(node, BOB.public, "hello")
            async with running(node):
                silent.setblocking(False)  # noqa: FBT003 - there is no other way to call it
                connection, _ = await asyncio.get_running_loop().sock_accept(silent)
                watch = Stopwatch()
                watch.__enter__()
            watch.__exit__()
            connection.close()
            assert watch.seconds < 2
        assert states(node) == ["waiting"]
