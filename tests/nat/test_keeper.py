"""The keeper against a router on loopback, with time in the test's hands."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from functools import partial

import msgspec
import pytest
from fake_router import LOOPBACK, Row, running
from held import HeldClock, in_loop, until
from nat_home import PORT, Home

from securelink import events
from securelink.errors import NoGateway
from securelink.events import Address
from securelink.nat import keeper as keeper_module
from securelink.nat.diagnosis import Reason, Verdict
from securelink.nat.keeper import LOOK_INTERVAL, TICK
from securelink.nat.ports import others
from securelink.nat.probe import Prober
from securelink.nat.route import Gateway
from securelink.nat.sweep import clear_stale
from securelink.nat.terms import Method

LOCAL = Address(LOOPBACK, PORT)
OUTSIDE = Address("1.2.3.4", PORT)
STRANGER = Address("192.168.7.7", 80)


@contextlib.asynccontextmanager
async def kept(keeper):
    task = asyncio.ensure_future(keeper.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("method", list(Method))
@in_loop
async def test_each_method_maps_and_removes(home: Home, held: HeldClock, method: Method) -> None:
    async with running() as router:
        async with home.keeper(router, held, method) as (keeper, told):
            diagnosis = await keeper.attempt()
            assert (diagnosis.verdict, diagnosis.reason) == (Verdict.MAPPED, Reason.MAPPED)
            assert router.table[("tcp", PORT)].local == LOCAL
            assert router.table[("tcp", PORT)].lease == 3600
            mapping = keeper.mapping
            assert mapping is not None
            assert (mapping.method, mapping.external, mapping.local) == (method, OUTSIDE, LOCAL)
            assert mapping.renew_after == held.time + 1800
            assert mapping.good_until == int(held.time * 1000) + 3_600_000
            assert keeper.public == OUTSIDE
            assert told == [
                events.PublicAddress(host="1.2.3.4", source=method, kind="public"),
                events.Mapped(
                    method=method,
                    protocol="tcp",
                    external=OUTSIDE,
                    local=LOCAL,
                    good_until=events.rfc3339(mapping.good_until),
                ),
            ]
        assert router.table == {}
    async with home.process() as book:
        assert await book.all() == []


@in_loop
async def test_udp_and_another_external_port(home: Home, held: HeldClock) -> None:
    from securelink.nat.terms import Protocol

    for method in Method:
        async with running() as router:
            request = {"protocol": Protocol.UDP, "external_port": 5000, "lease": 60}
            async with home.keeper(router, held, method, **request) as (keeper, _):
                await keeper.attempt()
                assert keeper.public == Address("1.2.3.4", 5000)
                assert router.table[("udp", 5000)].local == LOCAL
            assert router.table == {}


@in_loop
async def test_pcp_is_preferred_then_nat_pmp_then_upnp(home: Home, held: HeldClock) -> None:
    script = {"upnp": True, "natpmp": True, "pcp": True}
    for expected, gone in (("pcp", "pcp"), ("nat-pmp", "natpmp"), ("upnp", "upnp")):
        async with running(**script) as router, home.keeper(router, held) as (keeper, _):
            await held.through(keeper.attempt())
            assert keeper.mapping is not None
            assert keeper.mapping.method == expected
        script[gone] = False


@in_loop
async def test_no_router(home: Home, held: HeldClock) -> None:
    async with (
        running(pcp=False, natpmp=False, upnp=False) as router,
        home.keeper(router, held) as (keeper, told),
    ):
        began = held.time
        diagnosis = await held.through(keeper.attempt())
        assert held.time - began <= 2.5
        assert diagnosis.reason is Reason.NO_ANSWER
        assert (
            f"{diagnosis.sentence} {diagnosis.hint}"
            == f"No router answered UPnP, NAT-PMP or PCP on {LOOPBACK}. Enable one of them in "
            f"the router, or forward TCP {PORT} to {LOOPBACK}:{PORT} yourself."
        )
        assert told == [
            events.MappingFailed(
                verdict="lan-only",
                reason="no-answer",
                sentence=diagnosis.sentence,
                hint=diagnosis.hint,
            )
        ]
        assert keeper.public is None


@in_loop
async def test_no_gateway_then_one(home: Home, held: HeldClock) -> None:
    async with running() as router, home.keeper(router, held) as (keeper, told):
        there = False

        def find() -> Gateway:
            if not there:
                raise NoGateway("none")
            return router.gateway

        keeper._find = find
        async with kept(keeper):
            assert (await keeper.first()).reason is Reason.NO_GATEWAY
            there = True
            await held.advance(TICK)
            await until(lambda: keeper.public == OUTSIDE)
        assert [type(each).__name__ for each in told] == [
            "MappingFailed",
            "PublicAddress",
            "Mapped",
        ]


@pytest.mark.parametrize("method", list(Method))
@in_loop
async def test_renewed_at_half_of_the_lease(home: Home, held: HeldClock, method: Method) -> None:
    async with (
        running(longest_lease=120) as router,
        home.keeper(router, held, method, lease=120) as (keeper, told),
        kept(keeper),
    ):
        await keeper.first()
        first = keeper.mapping
        assert first is not None
        router.table[("tcp", PORT)].lease = 7
        await held.advance(59)
        assert router.table[("tcp", PORT)].lease == 7
        await held.advance(2)
        await until(lambda: router.table[("tcp", PORT)].lease == 120)
        await until(lambda: keeper.mapping is not first)
        assert keeper.mapping.good_until > first.good_until
        assert len(told) == 2  # a renewal is no news


@pytest.mark.parametrize("method", list(Method))
@in_loop
async def test_a_vanished_entry_is_mapped_again(
    home: Home, held: HeldClock, method: Method
) -> None:
    async with (
        running() as router,
        home.keeper(router, held, method) as (keeper, told),
        kept(keeper),
    ):
        await keeper.first()
        router.table.clear()
        router.nonces.clear()
        await held.advance(LOOK_INTERVAL)
        await until(lambda: ("tcp", PORT) in router.table)
        if method is Method.UPNP:  # the others have no way to look, and just ask again
            await until(lambda: len(told) == 4)
            assert told[2] == events.MappingLost(reason="the router no longer has the mapping")
            assert isinstance(told[3], events.Mapped)


@pytest.mark.parametrize("method", [Method.PCP, Method.NAT_PMP])
@in_loop
async def test_a_restart_is_told_by_the_epoch(home: Home, held: HeldClock, method: Method) -> None:
    async with (
        running() as router,
        home.keeper(router, held, method) as (keeper, told),
        kept(keeper),
    ):
        await keeper.first()
        await router.restart()
        await held.advance(LOOK_INTERVAL)
        await until(lambda: len(told) == 4)
        assert told[2] == events.MappingLost(reason="the router was restarted")
        assert isinstance(told[3], events.Mapped)
        assert ("tcp", PORT) in router.table


@in_loop
async def test_a_restart_moves_the_control_url(home: Home, held: HeldClock) -> None:
    async with (
        running() as router,
        home.keeper(router, held, Method.UPNP) as (keeper, told),
        kept(keeper),
    ):
        await keeper.first()
        await router.restart()
        await held.advance(LOOK_INTERVAL)
        await until(lambda: len(told) == 4)
        assert told[2] == events.MappingLost(reason="the router was restarted")
        assert isinstance(told[3], events.Mapped)
        assert ("tcp", PORT) in router.table


@in_loop
async def test_a_changed_external_address_is_told(home: Home, held: HeldClock) -> None:
    for method in Method:
        async with (
            running() as router,
            home.keeper(router, held, method) as (keeper, told),
            kept(keeper),
        ):
            await keeper.first()
            router.script.external = "1.2.3.5"
            await held.advance(LOOK_INTERVAL)
            await until(lambda: len(told) == 5)
            assert isinstance(told[2], events.MappingLost)
            assert told[3].host == told[4].external.host == "1.2.3.5"


@in_loop
async def test_one_missed_answer_is_no_loss_and_two_are(home: Home, held: HeldClock) -> None:
    async with (
        running() as router,
        home.keeper(router, held, Method.PCP) as (keeper, told),
        kept(keeper),
    ):
        await keeper.first()
        router.script.pcp = False
        router.script.natpmp = False
        await held.advance(LOOK_INTERVAL + 2)
        await held.advance(3)
        assert len(told) == 2
        assert keeper.public == OUTSIDE
        await held.advance(6)
        await until(lambda: len(told) == 4)
        assert isinstance(told[2], events.MappingLost)
        assert isinstance(told[3], events.MappingFailed)
        assert keeper.public is None
        router.script.pcp = True
        await held.advance(20)
        await until(lambda: keeper.public == OUTSIDE)


@in_loop
async def test_one_missed_answer_after_the_lease_is_a_loss(home: Home, held: HeldClock) -> None:
    async with (
        running() as router,
        home.keeper(router, held, Method.PCP) as (keeper, told),
        kept(keeper),
    ):
        await keeper.first()
        router.script.pcp = router.script.natpmp = False
        held.time += 3 * 3600  # the lid was closed
        began = held.time
        await held.advance(5)
        await until(lambda: len(told) == 4)
        assert held.time - began <= 5
        assert isinstance(told[2], events.MappingLost)
        assert isinstance(told[3], events.MappingFailed)


@in_loop
async def test_what_was_mapped_at_another_router_is_not_unmapped_at_this_one(
    home: Home, held: HeldClock
) -> None:
    elsewhere = "127.0.0.9"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((elsewhere, 0))
        other.settimeout(0)
        async with running() as router:
            async with home.keeper(router, held, Method.PCP) as (keeper, _):
                await keeper.attempt()
                here = keeper.mapping.row
                keeper._find = lambda: Gateway(elsewhere, LOOPBACK, other.getsockname()[1])
                await held.through(keeper.attempt())
            asked = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    asked.append(other.recv(100)[1])
            assert set(asked) == {0}, "only whether it is there, and no mapping"
            assert [*router.table] == [("tcp", PORT)]
            async with home.process("next") as book:
                assert await book.stale() == [here]


@in_loop
async def test_our_own_address_changes(home: Home, held: HeldClock) -> None:
    async with running() as router, home.keeper(router, held, Method.UPNP) as (keeper, told):
        where = router.gateway
        keeper._find = lambda: where
        async with kept(keeper):
            await keeper.first()
            where = Gateway(LOOPBACK, "127.0.0.5", where.port, where.search)
            del router.table[("tcp", PORT)]
            await held.advance(TICK)
            await until(lambda: ("tcp", PORT) in router.table)
            assert router.table[("tcp", PORT)].local == Address("127.0.0.5", PORT)
            assert "address or gateway" in told[2].reason


@in_loop
async def test_a_taken_port(home: Home, held: HeldClock) -> None:
    async with running() as router:
        router.table[("tcp", PORT)] = Row(STRANGER, "their printer")
        async with home.keeper(router, held, Method.UPNP) as (keeper, told):
            diagnosis = await keeper.attempt()
            other = others(LOOPBACK, PORT)[0]
            assert diagnosis.sentence == (
                f"Port {PORT} belongs to 192.168.7.7 (their printer); {other} was taken instead."
            )
            assert keeper.public == Address("1.2.3.4", other)
            assert told[1].note == diagnosis.sentence
        assert router.table == {("tcp", PORT): Row(STRANGER, "their printer")}


@in_loop
async def test_all_other_ports_are_taken_too(home: Home, held: HeldClock) -> None:
    async with running() as router:
        for port in (PORT, *others(LOOPBACK, PORT)):
            router.table[("tcp", port)] = Row(STRANGER)
        before = dict(router.table)
        async with home.keeper(router, held, Method.UPNP) as (keeper, _):
            diagnosis = await keeper.attempt()
            assert (diagnosis.verdict, diagnosis.reason) == (Verdict.LAN_ONLY, Reason.PORT_TAKEN)
            assert diagnosis.error().exit_code == 7
        assert router.table == before


@pytest.mark.parametrize("method", list(Method))
@in_loop
async def test_only_the_wanted_port_will_do(home: Home, held: HeldClock, method: Method) -> None:
    async with running(pick_port=lambda _: 4000) as router:
        router.table[("tcp", PORT)] = Row(STRANGER)
        before = dict(router.table)
        async with home.keeper(router, held, method, any_port=False) as (keeper, _):
            assert (await keeper.attempt()).reason is Reason.PORT_TAKEN
            assert router.table == before
            assert keeper.mapping is None


@pytest.mark.parametrize("any_port", [True, False])
@in_loop
async def test_whose_the_port_is_tells_whichever_method_knows(
    home: Home, held: HeldClock, any_port: bool
) -> None:
    # PCP only gives another port; whose the wanted one is, UPnP knows.
    async with running(pick_port=lambda _: 4000) as router:
        router.table[("tcp", PORT)] = Row(STRANGER, "their printer")
        async with home.keeper(router, held, any_port=any_port) as (keeper, _):
            sentence = (await keeper.attempt()).sentence
            assert sentence.startswith(f"Port {PORT} belongs to 192.168.7.7 (their printer)")
            assert (keeper.mapping is not None) is any_port


@in_loop
async def test_whose_the_port_is_nobody_tells(home: Home, held: HeldClock) -> None:
    async with (
        running(pick_port=lambda _: 4000, upnp=False) as router,
        home.keeper(router, held) as (keeper, _),
    ):
        assert (await held.through(keeper.attempt())).sentence == (
            f"Port {PORT} belongs to another device or program; 4000 was taken instead."
        )


@pytest.mark.parametrize("code", [728, 729])
@in_loop
async def test_other_words_for_taken(home: Home, held: HeldClock, code: int) -> None:
    async with (
        running(codes={"AddPortMapping": [code]}) as router,
        home.keeper(router, held, Method.UPNP) as (keeper, _),
    ):
        assert (await keeper.attempt()).reason is Reason.OTHER_PORT


@in_loop
async def test_the_same_port_only(home: Home, held: HeldClock) -> None:
    async with running(codes={"AddPortMapping": [724]}) as router:
        async with home.keeper(router, held, Method.UPNP, external_port=99) as (keeper, _):
            await keeper.attempt()
            assert keeper.public == OUTSIDE
        assert router.table == {}
    async with (
        running(codes={"AddPortMapping": 724}) as router,
        home.keeper(router, held, Method.UPNP, external_port=99) as (keeper, _),
    ):
        assert (await keeper.attempt()).reason is Reason.ROUTER_FAILED


@pytest.mark.parametrize("code", [725, 402])
@in_loop
async def test_permanent_mappings_only(home: Home, held: HeldClock, code: int) -> None:
    async with running(codes={"AddPortMapping": [code]}) as router:
        async with home.keeper(router, held, Method.UPNP) as (keeper, told):
            diagnosis = await keeper.attempt()
            assert diagnosis.reason is Reason.PERMANENT
            assert router.table[("tcp", PORT)].lease == 0
            assert keeper.mapping.good_until is None
            assert told[1].good_until is None
            assert told[1].note == (
                "Only permanent mappings: removed on exit; "
                f"after a crash `forward-port --remove {PORT}`."
            )
        assert router.table == {}


@pytest.mark.parametrize(
    ("code", "reason", "verdict"),
    [
        (501, Reason.ROUTER_FAILED, Verdict.LAN_ONLY),
        (606, Reason.REFUSED, Verdict.LAN_ONLY),
        (401, Reason.ROUTER_FAILED, Verdict.LAN_ONLY),
        (402, Reason.ROUTER_FAILED, Verdict.LAN_ONLY),
        (725, Reason.ROUTER_FAILED, Verdict.LAN_ONLY),
        (799, Reason.ROUTER_FAILED, Verdict.LAN_ONLY),
    ],
)
@in_loop
async def test_upnp_errors_that_end_it(
    home: Home, held: HeldClock, code: int, reason: Reason, verdict: Verdict
) -> None:
    async with running(codes={"AddPortMapping": code}) as router:
        async with home.keeper(router, held, Method.UPNP) as (keeper, _):
            diagnosis = await keeper.attempt()
            assert (diagnosis.reason, diagnosis.verdict) == (reason, verdict)
            assert router.actions.count("AddPortMapping") <= 2
        async with home.process() as book:
            assert await book.all() == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"pcp_code": 2}, Reason.REFUSED),
        ({"pcp_code": 8}, Reason.ROUTER_FAILED),
        ({"pcp_code": 11}, Reason.PORT_TAKEN),
        ({"pcp_code": 99}, Reason.ROUTER_FAILED),
    ],
)
@in_loop
async def test_pcp_codes(home: Home, held: HeldClock, script: dict, reason: Reason) -> None:
    def only_maps(data: bytes) -> bytes:
        return data if data[1] == 129 else data[:3] + b"\0" + data[4:]

    async with (
        running(**script, change=only_maps) as router,
        home.keeper(router, held, Method.PCP) as (keeper, _),
    ):
        assert (await keeper.attempt()).reason is reason


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"natpmp_map_code": 2}, Reason.REFUSED),
        ({"natpmp_map_code": 3}, Reason.NO_PUBLIC_ADDRESS),
        ({"natpmp_map_code": 4}, Reason.ROUTER_FAILED),
        ({"natpmp_code": 3}, Reason.NO_PUBLIC_ADDRESS),
        ({"external": "0.0.0.0"}, Reason.NO_PUBLIC_ADDRESS),
        ({"external": "100.64.1.1"}, Reason.CARRIER_GRADE_NAT),
        ({"external": "192.168.0.2"}, Reason.DOUBLE_NAT),
        ({"external": "224.0.0.1"}, Reason.NO_PUBLIC_ADDRESS),
    ],
)
@in_loop
async def test_nat_pmp_codes_and_addresses(
    home: Home, held: HeldClock, script: dict, reason: Reason
) -> None:
    async with (
        running(**script) as router,
        home.keeper(router, held, Method.NAT_PMP) as (keeper, told),
    ):
        assert (await keeper.attempt()).reason is reason
        assert keeper.public is None
        assert not any(isinstance(each, events.Mapped) for each in told)


@pytest.mark.parametrize("external", ["", "0.0.0.0", "garbage", "127.0.0.1", "1.2.3.4.5"])
@in_loop
async def test_garbage_for_an_address(home: Home, held: HeldClock, external: str) -> None:
    async with (
        running(external=external) as router,
        home.keeper(router, held, Method.UPNP) as (keeper, _),
    ):
        diagnosis = await keeper.attempt()
        assert diagnosis.sentence == "The router has no usable public address."
        assert router.table == {}


@in_loop
async def test_a_router_that_is_not_connected(home: Home, held: HeldClock) -> None:
    async with (
        running(status="Disconnected") as router,
        home.keeper(router, held, Method.UPNP) as (keeper, _),
    ):
        assert (await keeper.attempt()).reason is Reason.NO_PUBLIC_ADDRESS


@in_loop
async def test_behind_a_second_router_the_port_is_mapped_all_the_same(
    home: Home, held: HeldClock
) -> None:
    async with running(external="10.1.1.1") as router:
        async with home.keeper(router, held) as (keeper, told):
            assert (await keeper.attempt()).reason is Reason.DOUBLE_NAT
            assert ("tcp", PORT) in router.table
            assert keeper.public is None
            assert [type(each) for each in told] == [events.PublicAddress, events.MappingFailed]
        assert router.table == {}


@in_loop
async def test_mapping_requests_are_ignored(home: Home, held: HeldClock) -> None:
    async with (
        running(ignore_maps=True, upnp=False) as router,
        home.keeper(router, held) as (keeper, _),
    ):
        diagnosis = await held.through(keeper.attempt())
        assert diagnosis.sentence == "The router ignores mapping requests."


@in_loop
async def test_a_refusal_tells_more_than_silence(home: Home, held: HeldClock) -> None:
    async with (
        running(ignore_maps=True, codes={"AddPortMapping": 606}) as router,
        home.keeper(router, held) as (keeper, _),
    ):
        assert (await held.through(keeper.attempt())).reason is Reason.REFUSED


@in_loop
async def test_an_html_error_is_no_success(home: Home, held: HeldClock) -> None:
    async with (
        running(html={"AddPortMapping"}) as router,
        home.keeper(router, held, Method.UPNP) as (keeper, _),
    ):
        assert (await keeper.attempt()).reason is Reason.ROUTER_FAILED


@in_loop
async def test_an_entry_that_is_switched_off_is_no_mapping(home: Home, held: HeldClock) -> None:
    async with (
        running(enabled="0") as router,
        home.keeper(router, held, Method.UPNP) as (keeper, _),
    ):
        assert (await keeper.attempt()).reason is Reason.ROUTER_FAILED
        assert keeper.mapping is None
        assert router.table == {}, "nobody would know of it"
    async with (
        running() as router,
        home.keeper(router, held, Method.UPNP) as (keeper, told),
        kept(keeper),
    ):
        await keeper.first()
        router.table[("tcp", PORT)].enabled = "0"
        await held.advance(LOOK_INTERVAL)
        await until(lambda: len(told) == 4)
        assert told[2] == events.MappingLost(reason="the router no longer has the mapping")
        assert router.table[("tcp", PORT)].enabled == "1"


# ---- whose is it


@pytest.mark.parametrize("method", list(Method))
@in_loop
async def test_what_a_dead_process_left_is_removed(
    home: Home, held: HeldClock, method: Method
) -> None:
    async with running() as router:
        async with home.keeper(router, held, method, owner="dead") as (keeper, _):
            await keeper.attempt()
            row = keeper.mapping.row
            # kill -9: nothing is cleaned up
            keeper.aclose = partial(asyncio.sleep, 0)
        assert ("tcp", PORT) in router.table
        request = {"port": 5555}
        async with home.keeper(router, held, method, owner="next", **request) as (keeper, _):
            await keeper.attempt()
            assert [*router.table] == [("tcp", 5555)]
            assert row not in await keeper._book.all()


@pytest.mark.parametrize("method", list(Method))
@in_loop
async def test_what_a_dead_process_left_in_a_way_that_is_not_asked_now_is_removed(
    home: Home, held: HeldClock, method: Method
) -> None:
    async with running() as router:
        async with home.keeper(router, held, method, owner="dead") as (keeper, _):
            await keeper.attempt()
            keeper.aclose = partial(asyncio.sleep, 0)
        others = [each for each in Method if each is not method]
        async with home.keeper(router, held, *others[:1], owner="next", port=5555) as (keeper, _):
            await keeper.attempt()
            assert keeper.mapping.method == others[0]
            assert [*router.table] == [("tcp", 5555)]
            assert await keeper._book.stale() == []


@in_loop
async def test_what_a_living_process_has_stays(home: Home, held: HeldClock) -> None:
    for method in Method:
        async with running() as router:
            async with home.keeper(router, held, method, owner="first") as (first, _):
                await first.attempt()
                async with home.keeper(router, held, method, owner="second") as (second, _):
                    await second.attempt()
                    assert second.public == OUTSIDE
                # Both had the same mapping: the last to leave removes it.
                assert ("tcp", PORT) in router.table
            assert router.table == {}


@in_loop
async def test_a_stranger_in_our_place_is_left_alone(home: Home, held: HeldClock) -> None:
    strangers = (
        Row(STRANGER, home.description),
        Row(LOCAL, "another program"),
        Row(Address(LOOPBACK, 1), home.description),
    )
    for stranger in strangers:
        async with running() as router:
            async with home.keeper(router, held, Method.UPNP) as (keeper, _):
                await keeper.attempt()
                router.table[("tcp", PORT)] = stranger
            assert router.table == {("tcp", PORT): stranger}


@in_loop
async def test_a_forward_made_by_hand_is_used_and_kept(home: Home, held: HeldClock) -> None:
    by_hand = Row(LOCAL, "by hand")
    async with running(codes={"AddPortMapping": 718}) as router:
        router.table[("tcp", PORT)] = by_hand
        async with home.keeper(router, held, Method.UPNP) as (keeper, _):
            await keeper.attempt()
            assert keeper.public == OUTSIDE
            assert keeper.mapping.borrowed
        assert router.table == {("tcp", PORT): by_hand}


@in_loop
async def test_an_old_one_of_ours_is_replaced(home: Home, held: HeldClock) -> None:
    async with running(codes={"AddPortMapping": [718]}) as router:
        router.table[("tcp", PORT)] = Row(LOCAL, home.description, 5)
        async with home.keeper(router, held, Method.UPNP) as (keeper, _):
            await keeper.attempt()
            assert keeper.public == OUTSIDE
            assert router.table[("tcp", PORT)].lease == 3600


@in_loop
async def test_left_to_its_lease(home: Home, held: HeldClock) -> None:
    async with running() as router:
        async with home.keeper(router, held, owner="once") as (keeper, _):
            await keeper.attempt()
            await keeper.leave()
        assert ("tcp", PORT) in router.table
        async with home.keeper(router, held, owner="next", port=5555) as (keeper, _):
            await keeper.attempt()
            assert ("tcp", PORT) in router.table
            assert [row.external.port for row in await keeper._book.removable(None)] == [PORT]


@in_loop
async def test_letting_go_has_its_time(
    home: Home, held: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keeper_module.RELEASE_TIME == 3
    monkeypatch.setattr(keeper_module, "RELEASE_TIME", 0.5)
    async with running() as router:
        async with home.keeper(router, held, Method.UPNP) as (keeper, _):
            await keeper.attempt()
            router.script.delay = 4
            began = asyncio.get_running_loop().time()
        assert 0.4 <= asyncio.get_running_loop().time() - began < 1
        async with home.process("later") as book:
            assert len(await book.stale()) == 1


@in_loop
async def test_cancelled_in_the_middle_of_mapping(home: Home, held: HeldClock) -> None:
    async with running() as router:
        async with home.keeper(router, held, Method.UPNP) as (keeper, _):
            attempt = asyncio.ensure_future(keeper.attempt())
            await until(lambda: "GetExternalIPAddress" in router.actions)
            router.script.delay = 0.3
            await until(lambda: "AddPortMapping" in router.actions)
            router.script.delay = 0
            attempt.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await attempt
        assert router.table == {}


@in_loop
async def test_no_other_program_of_this_computer_is_overwritten(
    home: Home, held: HeldClock
) -> None:
    theirs = Row(Address(LOOPBACK, 7), "a game")
    # This router would let us: it is the same computer.
    async with running(same_host_may_replace=True) as router:
        router.table[("tcp", PORT)] = theirs
        async with home.keeper(router, held, Method.UPNP) as (keeper, _):
            diagnosis = await keeper.attempt()
            assert diagnosis.reason is Reason.OTHER_PORT
            assert f"{LOOPBACK} (a game)" in diagnosis.sentence
        assert router.table == {("tcp", PORT): theirs}


@in_loop
async def test_a_forward_made_by_hand_is_looked_at_and_taken_over_when_it_goes(
    home: Home, held: HeldClock
) -> None:
    async with running() as router:
        router.table[("tcp", PORT)] = Row(LOCAL, "by hand")
        async with home.keeper(router, held, Method.UPNP) as (keeper, _), kept(keeper):
            await keeper.first()
            await held.advance(LOOK_INTERVAL + 1)
            assert keeper.mapping.borrowed
            assert router.table[("tcp", PORT)].description == "by hand"
            router.table.clear()
            await held.advance(LOOK_INTERVAL + 1)
            await until(lambda: ("tcp", PORT) in router.table)
            await until(lambda: keeper.mapping is not None and not keeper.mapping.borrowed)
        assert router.table == {}


@in_loop
async def test_a_router_that_rewrites_descriptions(home: Home, held: HeldClock) -> None:
    async with running(rewrite=str.upper) as router:
        keeping = home.keeper(router, held, Method.UPNP, lease=120)
        async with keeping as (keeper, told), kept(keeper):
            await keeper.first()
            router.table[("tcp", PORT)].lease = 7
            await held.advance(61)
            assert router.table[("tcp", PORT)].lease == 120
            assert not keeper.mapping.borrowed
            assert len(told) == 2
        assert router.table == {}


@in_loop
async def test_a_public_address_of_our_own_needs_no_router(home: Home, held: HeldClock) -> None:
    async with running() as router, home.keeper(router, held) as (keeper, told):
        keeper._find = lambda: Gateway("1.2.3.1", "1.2.3.4")
        assert (await keeper.attempt()).reason is Reason.OWN_ADDRESS
        assert told == [events.PublicAddress(host="1.2.3.4", source="interface", kind="public")]
        assert keeper.public is None
        assert router.packets == []


@in_loop
async def test_without_a_router_it_is_looked_for_less_and_less(home: Home, held: HeldClock) -> None:
    async with (
        running(pcp=False, natpmp=False) as router,
        home.keeper(router, held, Method.PCP) as (keeper, told),
        kept(keeper),
    ):
        began = held.time
        looks = []
        attempt = keeper.attempt

        async def counted():
            looks.append(held.time - began)
            return await attempt()

        keeper.attempt = counted
        await held.advance(1000)
        assert [round(each / 10) * 10 for each in looks] == [0, 10, 20, 330, 630, 930]
        assert [type(each) for each in told] == [events.MappingFailed]


@in_loop
async def test_what_is_on_another_router_is_left_for_its_time(home: Home, held: HeldClock) -> None:
    async with running() as router:
        async with home.keeper(router, held, owner="dead") as (keeper, _):
            await keeper.attempt()
            row = keeper.mapping.row
            keeper.aclose = partial(asyncio.sleep, 0)
        async with home.process("next") as book:
            prober = Prober(held.clock)
            elsewhere = Gateway("127.0.0.9", LOOPBACK, router.gateway.port, ())
            assert await clear_stale(book, prober, lambda: elsewhere) == []

            def none() -> Gateway:
                raise NoGateway("none")

            assert await clear_stale(book, prober, none) == []
            router.script.pcp_code = 2
            assert await clear_stale(book, prober, lambda: router.gateway) == []
            assert await book.stale() == [row]
            router.script.pcp_code = 0
            assert await clear_stale(book, prober, lambda: router.gateway) == [row]
            assert router.table == {}
            packets = len(router.packets)
            assert await clear_stale(book, prober, lambda: router.gateway) == []
            assert len(router.packets) == packets


@pytest.mark.parametrize("method", [Method.PCP, Method.NAT_PMP])
@in_loop
async def test_a_router_that_keeps_silent_is_asked_for_one_thing_only(
    home: Home, held: HeldClock, method: Method
) -> None:
    async with running(ignore_maps=True) as router:
        for number in range(3):
            owner = {"owner": f"dead{number}", "port": PORT + number}
            async with home.keeper(router, held, method, **owner) as (keeper, _):
                await held.through(keeper.attempt())
        async with home.process("next") as book:
            assert len(await book.stale()) == 3
            began = held.time
            prober = Prober(held.clock, (method,))
            assert await held.through(clear_stale(book, prober, lambda: router.gateway)) == []
            assert held.time - began <= 2.5, "the start must not wait for each of them"
            assert len(await book.stale()) == 3
            router.script.ignore_maps = False
            gone = await held.through(clear_stale(book, prober, lambda: router.gateway))
            assert len(gone) == 3


@in_loop
async def test_an_earlier_port_is_given_up(home: Home, held: HeldClock) -> None:
    async with (
        running(pick_port=lambda port: 4000) as router,
        home.keeper(router, held, Method.UPNP) as (keeper, _),
    ):
        router.table[("tcp", PORT)] = Row(STRANGER)
        await keeper.attempt()
        other = keeper.public.port
        assert other != PORT
        del router.table[("tcp", PORT)]
        await keeper.attempt()
        assert keeper.public == OUTSIDE
        assert [*router.table] == [("tcp", PORT)]
        assert [row.external.port for row in await keeper._book.own()] == [PORT]


@in_loop
async def test_the_preferred_method_dies_and_another_takes_over(
    home: Home, held: HeldClock
) -> None:
    async with running() as router, home.keeper(router, held) as (keeper, _), kept(keeper):
        await keeper.first()
        assert keeper.mapping.method == "pcp"
        router.script.pcp = router.script.natpmp = False
        await held.advance(LOOK_INTERVAL + 10)
        await until(lambda: keeper.mapping is not None and keeper.mapping.method == "upnp")


@pytest.mark.parametrize("method", [Method.PCP, Method.NAT_PMP])
@in_loop
async def test_what_was_made_without_an_answer_is_removed_too(
    home: Home, held: HeldClock, method: Method
) -> None:
    async with running(change=lambda data: [] if data[1] > 128 else data) as router:
        async with home.keeper(router, held, method) as (keeper, _):
            assert (await held.through(keeper.attempt())).reason is Reason.IGNORED
            assert ("tcp", PORT) in router.table
            router.script.change = bytes
        assert router.table == {}


@in_loop
async def test_a_row_of_another_router_asks_nothing_of_this_one(
    home: Home, held: HeldClock
) -> None:
    async with (
        running() as router,
        home.process("next") as book,
        home.keeper(router, held, Method.PCP) as (keeper, _),
    ):
        await keeper.attempt()
        row = keeper.mapping.row
        far = msgspec.structs.replace(row, owner="dead", gateway="192.168.9.9")
        await book.note(far)
        assert await clear_stale(book, Prober(held.clock), lambda: router.gateway) == []
        assert ("tcp", PORT) in router.table
        assert far in await book.stale()


@in_loop
async def test_no_thread_outlives_its_use(home: Home, held: HeldClock) -> None:
    def upnp() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "upnp"}

    def threads() -> int:
        return len(upnp() - before)

    before = upnp()  # of tests that play a process which is killed
    async with running() as router:
        async with home.keeper(router, held) as (keeper, _):
            async with keeper._prober.start(router.gateway) as probe:
                assert await probe.answered() == tuple(Method)
                assert threads() == 1
            await until(lambda: threads() == 0)
            await keeper.attempt()
        async with home.keeper(router, held, Method.UPNP) as (keeper, _):
            await keeper.attempt()
            await keeper.attempt()
            await until(lambda: threads() == 1)
        await until(lambda: threads() == 0)
