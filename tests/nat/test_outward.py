"""What a serving node does about its router, against one on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from types import SimpleNamespace

import pytest
from fake_router import running
from held import HeldClock, in_loop, until
from nat_home import PORT, Home
from test_datagrams import seen_at, stun_server

from securelink import events
from securelink.config import Config, NatConfig, NodeConfig, ServerConfig
from securelink.errors import NoGateway
from securelink.events import Address
from securelink.nat.clock import Clock
from securelink.nat.route import Gateway
from securelink.outward import Outward


@contextlib.asynccontextmanager
async def outward(home: Home, monkeypatch, find, *, upnp: bool, **nat):
    """One that runs, what it has told, and the task; *find* is how the gateway is found."""
    monkeypatch.setattr("securelink.nat.route.find", lambda **_: find())
    told: list[events.Event] = []
    async with home.process() as book:
        node = SimpleNamespace(
            config=Config(
                node=NodeConfig(name="alice"), server=ServerConfig(upnp=upnp), nat=NatConfig(**nat)
            ),
            ledger=lambda: book,
        )
        it = Outward(node, PORT, tell=told.append, changed=lambda: None)
        task = asyncio.ensure_future(it.run())
        try:
            yield it, told, task
        finally:
            task.cancel()
            await asyncio.wait([task])


@in_loop
async def test_the_first_word_of_the_router_is_known(home: Home, monkeypatch) -> None:
    async with (
        running() as router,
        outward(home, monkeypatch, lambda: router.gateway, upnp=True) as (it, told, _),
    ):
        assert not it.known
        await until(lambda: it.known)
        assert it.mapped == Address("1.2.3.4", PORT)
        assert [type(each) for each in told] == [events.PublicAddress, events.Mapped]
    assert router.table == {}


@in_loop
async def test_without_a_router_the_failure_is_known(home: Home, monkeypatch) -> None:
    def none() -> Gateway:
        raise NoGateway("none")

    async with outward(home, monkeypatch, none, upnp=True) as (it, told, _):
        await until(lambda: it.known)
        assert it.mapped is None
        assert [each.reason for each in told] == ["no-gateway"]


@in_loop
async def test_a_public_address_of_our_own_is_known_at_once(home: Home, monkeypatch) -> None:
    # Nothing is mapped then, and nobody must wait for it.
    own = Gateway("1.2.3.1", "1.2.3.4")
    async with outward(home, monkeypatch, lambda: own, upnp=True) as (it, told, _):
        await until(lambda: it.known, seconds=2)
        assert told == [events.PublicAddress(host="1.2.3.4", source="interface", kind="public")]
        assert it.mapped is None


@in_loop
async def test_without_a_mapping_the_answer_is_compared_with_stun(home: Home, monkeypatch) -> None:
    server = await stun_server(seen_at("1.2.3.9"))
    async with running() as router:
        options = {"upnp": False, "stun": (server.name,)}
        async with outward(home, monkeypatch, lambda: router.gateway, **options) as (_, told, task):
            await task
        (event,) = told
        assert (event.host, event.source, event.kind) == ("1.2.3.9", "stun", "public")
        assert event.note.startswith("Router says 1.2.3.4, the internet sees 1.2.3.9")
        assert "AddPortMapping" not in router.actions
        assert router.table == {}
    server.transport.close()


@in_loop
async def test_without_a_mapping_what_dead_processes_left_is_removed(
    home: Home, held: HeldClock, monkeypatch
) -> None:
    async with running() as router:
        async with home.keeper(router, held, owner="dead", port=5555) as (keeper, _):
            await keeper.attempt()
            keeper.aclose = partial(asyncio.sleep, 0)
        assert router.table
        router.now = Clock().now
        # Also where it is asked for nothing else.
        options = {"upnp": False, "public_address": False}
        async with outward(home, monkeypatch, lambda: router.gateway, **options) as (_, _, task):
            await task
        assert router.table == {}


@in_loop
async def test_the_router_is_left_alone_when_told_so(home: Home, monkeypatch) -> None:
    def find() -> Gateway:
        pytest.fail("nobody has asked for that")

    options = {"upnp": False, "public_address": False}
    async with outward(home, monkeypatch, find, **options) as (it, told, task):
        await task
        assert it.known
        assert told == []
