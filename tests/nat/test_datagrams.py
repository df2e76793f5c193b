"""One question and its answer: what is repeated when, and what is not taken for an answer."""

from __future__ import annotations

import asyncio
import socket

import pytest
from fake_router import LOOPBACK, running
from held import HeldClock, in_loop, until

from securelink.errors import RouterSilent
from securelink.events import Address
from securelink.nat.clients import NatPmpClient, PcpClient
from securelink.nat.clock import Clock
from securelink.nat.datagrams import ask
from securelink.nat.outside import seen_from_outside
from securelink.nat.probe import Prober
from securelink.nat.terms import Method, NotAnAnswer, Protocol, Wanted
from securelink.nat.timing import EpochRecord, natpmp_epoch_holds, pcp_epoch_holds

WANTED = Wanted(Protocol.TCP, Address(LOOPBACK, 4000), 4000, 60, b"n" * 12, "securelink test")


def pcp(router, clock) -> PcpClient:
    return PcpClient(router.gateway, clock, EpochRecord(pcp_epoch_holds))


def natpmp(router, clock) -> NatPmpClient:
    return NatPmpClient(router.gateway, clock, EpochRecord(natpmp_epoch_holds))


@in_loop
async def test_repeated_after_250_500_and_1000_ms(held: HeldClock) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((LOOPBACK, 0))
        silent.settimeout(0)
        to = silent.getsockname()
        began = held.time
        asking = asyncio.ensure_future(ask(b"?", bytes, to=to, local=LOOPBACK, clock=held.clock))
        sent = []
        while True:
            await until(lambda: bool(held.sleepers) or asking.done())
            if asking.done():
                break
            assert silent.recv(10) == b"?"
            sent.append(held.time - began)
            await held.advance(await held.asleep())
        with pytest.raises(BlockingIOError):
            silent.recv(10)
        with pytest.raises(RouterSilent, match="no answer from 127"):
            asking.result()
        assert sent == pytest.approx([0, 0.25, 0.75, 1.75])
        assert held.time - began == pytest.approx(2)


@in_loop
async def test_nobody_listens_there(held: HeldClock) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind((LOOPBACK, 0))
        to = gone.getsockname()
    with pytest.raises(RouterSilent, match="refused"):
        await ask(b"?", bytes, to=to, local=LOOPBACK, clock=held.clock)


@in_loop
async def test_no_such_address_of_ours(held: HeldClock) -> None:
    with pytest.raises(RouterSilent):
        await ask(b"?", bytes, to=(LOOPBACK, 9), local="192.0.2.7", clock=held.clock)


@pytest.mark.parametrize("client", [pcp, natpmp])
@pytest.mark.parametrize(
    "damage",
    {
        "empty": lambda data: b"",
        "a byte": lambda data: data[:1],
        "short": lambda data: data[:-5],
        "garbage": lambda data: bytes(len(data)),
        "a request": lambda data: data[:1] + bytes([data[1] & 127]) + data[2:],
    }.items(),
    ids=lambda each: each[0],
)
@in_loop
async def test_what_is_no_answer_is_waited_past(client, damage, held: HeldClock) -> None:
    async with running() as router:
        router.script.change = lambda data: [damage[1](data), data]
        granted = await client(router, held.clock).map(WANTED)
        assert granted.external == Address("1.2.3.4", 4000)
        router.script.change = damage[1]
        with pytest.raises(RouterSilent):
            await held.through(client(router, held.clock).map(WANTED))


@in_loop
async def test_a_wrong_nonce_is_waited_past(held: HeldClock) -> None:
    async with running() as router:
        router.script.change = lambda data: data[:24] + b"x" + data[25:]
        with pytest.raises(RouterSilent):
            await held.through(pcp(router, held.clock).map(WANTED))
        assert len(router.packets) == 4


@pytest.mark.parametrize("client", [pcp, natpmp])
@in_loop
async def test_an_answer_from_elsewhere_does_not_count(client, held: HeldClock) -> None:
    async with running(from_elsewhere=True) as router:
        with pytest.raises(RouterSilent):
            await held.through(client(router, held.clock).greet())


@in_loop
async def test_each_protocol_knows_the_other(held: HeldClock) -> None:
    async with running(pcp=False) as router:
        with pytest.raises(RouterSilent, match="does not speak PCP"):
            await pcp(router, held.clock).greet()
        with pytest.raises(RouterSilent, match="no longer speaks PCP"):
            await pcp(router, held.clock).map(WANTED)
    async with running(natpmp=False) as router:
        with pytest.raises(RouterSilent, match="does not speak NAT-PMP"):
            await natpmp(router, held.clock).greet()
        with pytest.raises(RouterSilent, match="no longer speaks NAT-PMP"):
            await natpmp(router, held.clock).map(WANTED)


@pytest.mark.parametrize("client", [pcp, natpmp])
@in_loop
async def test_a_fall_of_the_epoch_is_told_once(client, held: HeldClock) -> None:
    async with running() as router:
        asking = client(router, held.clock)
        assert not (await asking.map(WANTED)).restarted
        router.script.epoch = 1
        assert (await asking.map(WANTED)).restarted
        assert not (await asking.map(WANTED)).restarted


@in_loop
async def test_what_was_mapped_from_elsewhere_is_not_touched(held: HeldClock) -> None:
    foreign = Wanted(Protocol.TCP, Address("127.0.0.9", 4000), 4000, 60, b"n" * 12, "x")
    async with running() as router:
        for client in (pcp, natpmp):
            await client(router, held.clock).map(WANTED)
            with pytest.raises(Exception, match="only from there"):
                await client(router, held.clock).unmap(foreign, 4000)
            assert router.table


@in_loop
async def test_all_are_asked_side_by_side(held: HeldClock) -> None:
    async with (
        running(pcp=False, natpmp=False, upnp=False) as router,
        Prober(held.clock).start(router.gateway) as probe,
    ):
        began = held.time
        assert await held.through(probe.answered()) == ()
        assert held.time - began == pytest.approx(2, abs=0.3)
        for method in Method:
            with pytest.raises(RouterSilent):
                await probe.client(method)
    async with running() as router, Prober(held.clock).start(router.gateway) as probe:
        assert await probe.answered() == tuple(Method)


# ---- STUN


class StunServer(asyncio.DatagramProtocol):
    def __init__(self, answer) -> None:
        self.answer = answer

    def connection_made(self, transport) -> None:
        self.transport = transport

    def datagram_received(self, data, sender) -> None:
        for each in self.answer(data):
            self.transport.sendto(each, sender)

    @property
    def name(self) -> str:
        return f"{LOOPBACK}:{self.transport.get_extra_info('sockname')[1]}"


async def stun_server(answer) -> StunServer:
    _, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: StunServer(answer), local_addr=(LOOPBACK, 0)
    )
    return server


def seen_at(host: str):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    raw = socket.inet_pton(family, host)
    body = b"\0" + (b"\2" if ":" in host else b"\1") + b"\x12\x34" + raw

    def answer(request: bytes) -> list[bytes]:
        attribute = b"\0\1" + len(body).to_bytes(2, "big") + body
        header = b"\1\1" + len(attribute).to_bytes(2, "big") + request[4:20]
        return [b"", header[:-1] + b"!" + attribute, header + attribute]

    return answer


@in_loop
async def test_stun_asks_one_after_the_other(held: HeldClock) -> None:
    refusing = await stun_server(
        lambda request: [b"\1\x11\0\x08" + request[4:20] + b"\0\x09\0\x04\0\0\4\0"]
    )
    silent = await stun_server(lambda request: [])
    wrong = await stun_server(seen_at("2001:db8::1"))
    right = await stun_server(seen_at("1.2.3.9"))
    servers = [each.name for each in (refusing, silent, wrong, right)]
    assert await held.through(seen_from_outside(servers, LOOPBACK, held.clock)) == "1.2.3.9"
    assert await held.through(seen_from_outside(servers[:3], LOOPBACK, held.clock)) is None
    assert await seen_from_outside((), LOOPBACK, held.clock) is None
    for each in (refusing, silent, wrong, right):
        each.transport.close()


@in_loop
async def test_a_stun_server_whose_name_is_unknown(
    held: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # No resolver is asked: nothing leaves this machine.
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    assert await seen_from_outside(["nowhere.invalid"], LOOPBACK, held.clock) is None


@in_loop
async def test_the_real_clock_goes_on(held: HeldClock) -> None:
    clock = Clock()
    before = clock.now(), clock.wall()
    await clock.sleep(0.01)
    assert clock.now() > before[0]
    assert clock.wall() > before[1]
    assert 0 <= clock.random() < 1


@in_loop
async def test_errors_of_the_reader_reach_the_caller(held: HeldClock) -> None:
    def read(data: bytes) -> bytes:
        if data == b"ignored":
            raise NotAnAnswer("not this")
        raise ValueError("told")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((LOOPBACK, 0))
        other.settimeout(5)
        asking = asyncio.ensure_future(
            ask(b"?", read, to=other.getsockname(), local=LOOPBACK, clock=held.clock)
        )
        await until(lambda: bool(held.sleepers))
        _, sender = other.recvfrom(10)
        for answer in (b"ignored", b"taken", b"late"):
            other.sendto(answer, sender)
        with pytest.raises(ValueError, match="told"):
            await asking
