"""The public address, asked for without changing anything."""

from __future__ import annotations

import pytest
from fake_router import running
from held import HeldClock, in_loop
from nat_home import PORT
from test_datagrams import seen_at, stun_server

from securelink.errors import NoGateway
from securelink.events import PublicAddress
from securelink.nat.address import public_address
from securelink.nat.diagnosis import Reason, Verdict
from securelink.nat.mapping import Request, acquire
from securelink.nat.probe import Prober, methods_of
from securelink.nat.route import Gateway
from securelink.nat.terms import Method


async def ask(router, held: HeldClock, *methods: Method, stun=()):
    prober = Prober(held.clock, methods or tuple(Method))
    return await held.through(public_address(prober, lambda: router.gateway, port=PORT, stun=stun))


@pytest.mark.parametrize(
    ("methods", "source"),
    [((), "nat-pmp"), ((Method.UPNP,), "upnp"), ((Method.NAT_PMP,), "nat-pmp")],
)
@in_loop
async def test_the_router_tells(held: HeldClock, methods: tuple, source: str) -> None:
    async with running() as router:
        found = await ask(router, held, *methods)
        assert found.told == PublicAddress(host="1.2.3.4", source=source, kind="public")
        assert found.diagnosis.reason is Reason.NOT_MAPPED
        assert found.diagnosis.verdict is Verdict.LAN_ONLY
        assert router.table == {}
        assert "AddPortMapping" not in router.actions


@in_loop
async def test_pcp_alone_cannot_tell(held: HeldClock) -> None:
    async with running() as router:
        found = await ask(router, held, Method.PCP)
        assert found.told is None
        assert found.diagnosis.reason is Reason.NOT_MAPPED


@in_loop
async def test_another_method_is_asked_when_one_knows_none(held: HeldClock) -> None:
    async with running(natpmp_code=3) as router:
        assert (await ask(router, held)).told.source == "upnp"
    async with running(natpmp_code=2) as router:
        assert (await ask(router, held)).told.source == "upnp"


@in_loop
async def test_addresses_that_are_not_public(held: HeldClock) -> None:
    for host, kind, reason in (
        ("100.64.0.1", "shared", Reason.CARRIER_GRADE_NAT),
        ("192.168.3.4", "private", Reason.DOUBLE_NAT),
    ):
        async with running(external=host) as router:
            found = await ask(router, held)
            said = found.diagnosis.sentence
            assert found.told == PublicAddress(host=host, source="nat-pmp", kind=kind, note=said)
            assert found.diagnosis.reason is reason
    async with running(external="") as router:
        found = await ask(router, held, Method.UPNP)
        assert found.told is None
        assert found.diagnosis.reason is Reason.NO_PUBLIC_ADDRESS


@in_loop
async def test_stun_knows_better(held: HeldClock) -> None:
    server = await stun_server(seen_at("1.2.3.9"))
    async with running() as router:
        for external, reason in (
            ("1.2.3.4", Reason.ADDRESS_DIFFERS),
            ("10.0.0.1", Reason.DOUBLE_NAT),
            ("", Reason.NO_PUBLIC_ADDRESS),
        ):
            router.script.external = external
            found = await ask(router, held, stun=(server.name,))
            assert found.diagnosis.reason is reason
            # It is told as the internet sees it, and with it why that does not help.
            assert found.told == PublicAddress(
                host="1.2.3.9", source="stun", kind="public", note=found.diagnosis.sentence
            )
        router.script.external = "1.2.3.9"
        found = await ask(router, held, stun=(server.name,))
        assert found.told == PublicAddress(host="1.2.3.9", source="nat-pmp", kind="public")
    server.transport.close()


@in_loop
async def test_no_gateway_and_none_needed(held: HeldClock) -> None:
    def none() -> Gateway:
        raise NoGateway("none")

    found = await public_address(Prober(held.clock), none, port=PORT)
    assert (found.told, found.diagnosis.reason) == (None, Reason.NO_GATEWAY)
    found = await public_address(
        Prober(held.clock), lambda: Gateway("1.2.3.1", "1.2.3.4"), port=PORT
    )
    assert found.told == PublicAddress(host="1.2.3.4", source="interface", kind="public")
    assert found.diagnosis.reason is Reason.OWN_ADDRESS


@in_loop
async def test_nobody_answers(held: HeldClock) -> None:
    async with running(pcp=False, natpmp=False, upnp=False) as router:
        found = await ask(router, held)
        assert (found.told, found.diagnosis.reason) == (None, Reason.NO_ANSWER)


@in_loop
async def test_a_mapping_is_compared_with_stun(held: HeldClock, home) -> None:
    server = await stun_server(seen_at("1.2.3.9"))
    same = await stun_server(seen_at("1.2.3.4"))
    async with running() as router, home.process() as book:
        for each, reason in ((server, Reason.ADDRESS_DIFFERS), (same, Reason.MAPPED)):
            async with Prober(held.clock).start(router.gateway) as probe:
                request = Request(PORT, stun=(each.name,))
                attempt = await acquire(probe, request, book, held.clock)
                assert attempt.diagnosis.reason is reason
                await attempt.mapping.release()
                assert router.table == {}
    server.transport.close()
    same.transport.close()


def test_methods_of_the_configuration() -> None:
    assert methods_of("auto") == tuple(Method)
    assert methods_of("nat-pmp") == (Method.NAT_PMP,)
