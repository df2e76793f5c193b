"""miniupnpc's quirks, against a router on loopback."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from fake_router import LOOPBACK, Row, running
from held import HeldClock, in_loop, until
from nat_home import Home

from securelink.errors import MappingRefused, PortTaken, RouterFailed, RouterSilent, UpnpMissing
from securelink.events import Address
from securelink.nat import upnp
from securelink.nat.diagnosis import Reason
from securelink.nat.ledger import is_ours
from securelink.nat.probe import Prober
from securelink.nat.route import Gateway
from securelink.nat.search import MOST_LOCATIONS, search
from securelink.nat.ssdp import SEARCH_TARGETS
from securelink.nat.terms import Method, Protocol, Wanted
from securelink.nat.upnp import UpnpClient

LOCAL = Address(LOOPBACK, 4000)
WANTED = Wanted(Protocol.TCP, LOCAL, 4000, 60, b"n" * 12, "securelink test")


@in_loop
async def test_the_listing(held: HeldClock, home: Home) -> None:
    async with running() as router:
        router.table = {
            ("tcp", 1): Row(Address("192.168.7.7", 2), "a printer", 5),
            ("udp", 1): Row(Address("192.168.7.8", 3), b"caf\xe9", 0),
            ("tcp", 4): Row(LOCAL, "securelink test", 60, "0"),
        }
        client = await UpnpClient.open(router.gateway, held.clock)
        entries = await client.entries()
        assert [(each.protocol, each.external_port) for each in entries] == [("tcp", 1), ("tcp", 4)]
        assert entries[0].owner == "192.168.7.7 (a printer)"
        assert entries[1].local == LOCAL
        assert not entries[1].enabled
        assert not is_ours(entries[1], [])
        unreadable = await client.entry(Protocol.UDP, 1)
        assert unreadable is not None
        assert unreadable.owner == "another device"
        assert await client.entry(Protocol.UDP, 99) is None
        client.close()


@in_loop
async def test_a_listing_that_never_ends(held: HeldClock, monkeypatch) -> None:
    async with running() as router:
        monkeypatch.setattr(upnp, "MOST_ENTRIES", 20)
        router.table = {("tcp", each): Row(LOCAL) for each in range(1, 40)}
        client = await UpnpClient.open(router.gateway, held.clock)
        assert len(await client.entries()) == 20

        circle = router._reply_row
        row = ("tcp", 1), router.table["tcp", 1]
        router._reply_row = lambda action, *_: circle(action, *row)
        assert len(await client.entries()) == 1
        client.close()


@in_loop
async def test_a_dead_router_has_no_empty_table(held: HeldClock) -> None:
    async with running() as router:
        client = await UpnpClient.open(router.gateway, held.clock)
        await router.stop_http()
        with pytest.raises(RouterSilent):
            await client.entries()
        with pytest.raises(RouterSilent):
            await client.unmap(WANTED, 4000)
        client.close()


@in_loop
async def test_removing_what_is_gone_is_no_error(held: HeldClock) -> None:
    async with running() as router:
        client = await UpnpClient.open(router.gateway, held.clock)
        await client.unmap(WANTED, 4000)
        assert "DeletePortMapping" not in router.actions
        client.close()


@in_loop
async def test_whose_port_it_is(held: HeldClock) -> None:
    async with running() as router:
        router.table[("tcp", 4000)] = Row(Address("192.168.7.7", 2), "evil\x1b[2J" + "x" * 99)
        client = await UpnpClient.open(router.gateway, held.clock)
        with pytest.raises(PortTaken) as caught:
            await client.map(WANTED)
        assert caught.value.owner.isprintable()
        assert len(caught.value.owner) < 60
        client.close()


@in_loop
async def test_a_lease_that_the_router_shortens_or_hides(held: HeldClock) -> None:
    for reported, granted in ((30, 30), (0, 60), (99, 60)):
        async with running(reported_lease=reported) as router:
            client = await UpnpClient.open(router.gateway, held.clock)
            assert (await client.map(WANTED)).lease == granted
            client.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"external_port": 70_000},
        {"external_port": 0},
        {"local": Address(LOOPBACK, 65_536)},
        {"lease": -1},
        {"lease": 604_801},
        {"description": "<b>"},
        {"description": "x" * 41},
        {"description": ""},
    ],
)
@in_loop
async def test_nothing_out_of_range_is_sent(held: HeldClock, wrong: dict) -> None:
    import msgspec

    async with running() as router:
        client = await UpnpClient.open(router.gateway, held.clock)
        with pytest.raises(ValueError, match=r"port|lease|description"):
            await client.map(msgspec.structs.replace(WANTED, **wrong))
        assert "AddPortMapping" not in router.actions
        client.close()


@in_loop
async def test_what_is_no_router(held: HeldClock) -> None:
    async with running(codes={"GetStatusInfo": 401}) as router:
        with pytest.raises(RouterFailed, match="401"):
            await UpnpClient.open(router.gateway, held.clock)
    async with running(html={"GetStatusInfo"}) as router:
        with pytest.raises(RouterFailed):
            await UpnpClient.open(router.gateway, held.clock)


@in_loop
async def test_deleting_is_refused(held: HeldClock) -> None:
    async with running(codes={"DeletePortMapping": 606}) as router:
        client = await UpnpClient.open(router.gateway, held.clock)
        await client.map(WANTED)
        with pytest.raises(MappingRefused):
            await client.unmap(WANTED, 4000)
        client.close()


@in_loop
async def test_a_slow_router_blocks_nobody(held: HeldClock) -> None:
    async with running(delay=0.4) as router:
        opening = asyncio.ensure_future(UpnpClient.open(router.gateway, held.clock))
        turns = 0
        while not opening.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert turns > 20
        opening.result().close()


@in_loop
async def test_a_router_that_takes_too_long(held: HeldClock, monkeypatch) -> None:
    monkeypatch.setattr(upnp, "PATIENCE", 0.2)
    async with running(delay=5, pcp=False, natpmp=False) as router:
        began = time.monotonic()
        with pytest.raises(RouterSilent, match="takes too long"):
            await UpnpClient.open(router.gateway, held.clock)
        assert time.monotonic() - began < 1


@in_loop
async def test_without_miniupnpc(home: Home, held: HeldClock, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "miniupnpc", None)
    async with running() as router:
        with pytest.raises(UpnpMissing) as caught:
            await UpnpClient.open(router.gateway, held.clock)
        assert "pip install miniupnpc" in caught.value.hint
        for method in (Method.PCP, Method.NAT_PMP):
            async with home.keeper(router, held, method) as (keeper, _):
                assert (await keeper.attempt()).reason is Reason.MAPPED
    async with running(pcp=False, natpmp=False) as router:
        async with home.keeper(router, held) as (keeper, _):
            diagnosis = await held.through(keeper.attempt())
            assert diagnosis.reason is Reason.UPNP_MISSING
            assert "miniupnpc is not installed" in diagnosis.sentence
            assert "pip install miniupnpc" in diagnosis.hint
        assert router.searches == 0


def test_miniupnpc_is_imported_only_when_used() -> None:
    code = (
        "import sys, securelink.nat.keeper, securelink.config;assert 'miniupnpc' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_ctrl_c_while_a_router_is_silent() -> None:
    """Discovery in a process of its own, at a router whose description never comes."""
    code = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from fake_router import running
from securelink.nat.clock import Clock
from securelink.nat.upnp import UpnpClient

async def main():
    async with running(delay=30) as router:
        opening = asyncio.ensure_future(UpnpClient.open(router.gateway, Clock()))
        while not router._connections:
            await asyncio.sleep(0.01)
        print("asked", flush=True)
        await opening

asyncio.run(main())
"""
    folder = os.path.dirname(__file__)  # noqa: PTH120 - an argument for another process
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"asked\n"
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=10)
        assert time.monotonic() - began < 1
        assert b"KeyboardInterrupt" in error


@in_loop
async def test_search_without_a_network(held: HeldClock) -> None:
    gateway = Gateway(LOOPBACK, "192.0.2.1", search=((LOOPBACK, 9),))
    with pytest.raises(RouterSilent):
        await UpnpClient.open(gateway, held.clock)


@in_loop
async def test_an_external_address_asked_in_both_ways(held: HeldClock) -> None:
    async with running(natpmp=False) as router, Prober(held.clock).start(router.gateway) as probe:
        pcp = await probe.client(Method.PCP)
        assert await probe.external_address(pcp) is None
        client = await probe.client(Method.UPNP)
        assert await probe.external_address(client) == ("1.2.3.4", Method.UPNP)
    async with (
        running() as router,
        Prober(held.clock, (Method.PCP,)).start(router.gateway) as probe,
    ):
        assert await probe.external_address(await probe.client(Method.PCP)) is None


def answer(location: str) -> bytes:
    return (f"HTTP/1.1 200 OK\r\nST: {SEARCH_TARGETS[0]}\r\nLOCATION: {location}\r\n\r\n").encode()


@in_loop
async def test_others_that_answer_the_search_stand_behind_the_gateway(held: HeldClock) -> None:
    async def searching(answers: list[bytes], gateway: str) -> list[str]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
            device.bind((LOOPBACK, 0))
            device.settimeout(5)
            where = Gateway(gateway, LOOPBACK, search=(device.getsockname(),))
            found = asyncio.ensure_future(search(where, held.clock))
            await held.asleep()
            _, sender = device.recvfrom(500)
            for each in answers:
                device.sendto(each, sender)
            return await held.through(found)

    mine = [f"http://{LOOPBACK}:{port}/" for port in range(1, 20)]
    assert await searching([b"junk", answer("http://127.0.0.9/")], LOOPBACK) == []
    assert await searching([answer(mine[0]), answer(mine[0])], "127.0.0.9") == mine[:1]
    # Whoever floods us does so in vain.
    flood = [answer(each) for each in mine]
    assert len(await searching(flood, "127.0.0.9")) <= MOST_LOCATIONS


@in_loop
async def test_the_gateway_may_answer_a_moment_after_another_device(held: HeldClock) -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gateway,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        gateway.bind((LOOPBACK, 0))
        gateway.settimeout(5)
        other.bind(("127.0.0.9", 0))
        where = Gateway(LOOPBACK, LOOPBACK, search=(gateway.getsockname(),))
        found = asyncio.ensure_future(search(where, held.clock))
        await held.asleep()
        _, sender = gateway.recvfrom(500)
        ((_, first),) = held.sleepers
        other.sendto(answer("http://127.0.0.9/"), sender)
        await until(lambda: [each for _, each in held.sleepers] not in ([], [first]))
        gateway.sendto(answer(f"http://{LOOPBACK}/"), sender)
        assert await found == [f"http://{LOOPBACK}/", "http://127.0.0.9/"]
