"""The doctor's ladder against a router on loopback: what the lab's real one never says."""

from __future__ import annotations

import sys

import msgspec
import pytest
from fake_router import LOOPBACK, Row, running
from held import HeldClock, in_loop
from nat_home import PORT, Home

from securelink.config import NatConfig
from securelink.events import Address
from securelink.nat import ladder as ladder_module
from securelink.nat.clock import Clock
from securelink.nat.ladder import Ladder
from securelink.nat.rungs import Place, Rung
from securelink.nat.terms import Method
from securelink.store.mappings import LEFT

UPNP = {"pcp": False, "natpmp": False}


async def climb(home: Home, monkeypatch, router, **config: object):
    """The verdict, and the rungs by their names."""
    monkeypatch.setattr(ladder_module, "locate", lambda _: router.gateway)
    rungs: list[Rung] = []
    async with home.process() as book:
        place = Place(PORT, (LOOPBACK,))
        found = await Ladder(book, NatConfig(**config), place, rungs.append).climb()
        assert await book.all() == []
    return found, {rung.name: (rung.result, rung.evidence) for rung in rungs}


@pytest.mark.parametrize(
    ("script", "address", "mapping", "reason"),
    [
        (
            {"external": "100.64.1.1"},
            ("failed", "100.64.1.1, shared (100.64/10), by NAT-PMP"),
            "skipped",
            "carrier-grade-nat",
        ),
        (
            {"external": "10.0.0.2"},
            ("failed", "10.0.0.2, private, by NAT-PMP"),
            "ok",
            "double-nat",
        ),
        ({**UPNP, "external": ""}, ("failed", "the router has none"), "skipped", None),
        ({**UPNP, "external": "x.y"}, ("failed", "x.y, empty, by UPnP"), "skipped", None),
        ({**UPNP, "status": "Disconnected"}, ("failed", "the router has none"), "skipped", None),
        ({"natpmp_code": 3, "upnp": False}, ("failed", "the router has none"), "skipped", None),
        (
            {**UPNP, "codes": {"AddPortMapping": 501}},
            ("ok", "1.2.3.4, public, by UPnP"),
            "failed",
            "router-failed",
        ),
        (
            {**UPNP, "html": {"AddPortMapping"}},
            ("ok", "1.2.3.4, public, by UPnP"),
            "failed",
            "router-failed",
        ),
        (
            {**UPNP, "codes": {"AddPortMapping": [725]}},
            ("ok", "1.2.3.4, public, by UPnP"),
            "ok",
            "permanent",
        ),
        (
            {"natpmp_map_code": 2, "pcp": False, "upnp": False},
            ("ok", "1.2.3.4, public, by NAT-PMP"),
            "failed",
            "refused",
        ),
    ],
    ids=lambda each: str(each) if isinstance(each, dict) else "",
)
@in_loop
async def test_what_the_router_says(
    home: Home, monkeypatch, script: dict, address: tuple, mapping: str, reason: str | None
) -> None:
    async with running(**script) as router:
        found, rungs = await climb(home, monkeypatch, router)
        assert rungs["external-address"] == address
        assert rungs["mapping"][0] == mapping
        assert found.reason == (reason or "no-public-address")
        assert router.table == {}


@in_loop
async def test_each_method_has_its_own_time(home: Home, monkeypatch) -> None:
    monkeypatch.setattr(ladder_module, "locate", lambda _: router.gateway)
    rungs: list[Rung] = []
    async with running(pcp=False, natpmp=False, upnp=False) as router, home.process() as book:
        await Ladder(book, NatConfig(), Place(PORT, (LOOPBACK,)), rungs.append).climb()
    took = [rung.seconds for rung in rungs if rung.name in tuple(Method)]
    # They are asked side by side, for 2 s each.
    assert len(took) == 3
    assert min(took) >= 1.9


@in_loop
async def test_a_mapping_that_the_router_does_not_remove(home: Home, monkeypatch) -> None:
    monkeypatch.setattr(ladder_module, "locate", lambda _: router.gateway)
    async with running(**UPNP, codes={"DeletePortMapping": 606}) as router, home.process() as book:
        rungs: list[Rung] = []
        await Ladder(book, NatConfig(), Place(PORT, (LOOPBACK,)), rungs.append).climb()
        (mapping,) = (rung for rung in rungs if rung.name == "mapping")
        assert mapping.result == "failed"
        assert "not removed by the router" in mapping.evidence
        assert len(await book.own()) == 1, "the next start tries again"


@in_loop
async def test_a_forward_made_by_hand(home: Home, monkeypatch) -> None:
    by_hand = Row(Address(LOOPBACK, PORT), "by hand")
    async with running(**UPNP) as router:
        router.table[("tcp", PORT)] = by_hand
        found, rungs = await climb(home, monkeypatch, router)
        assert (found.verdict, rungs["mapping"][0]) == ("mapped", "ok")
        assert "which was there before" in rungs["mapping"][1]
        assert router.table == {("tcp", PORT): by_hand}


@pytest.mark.parametrize(("ago", "evidence"), [(60, "left open"), (3700, "made and removed")])
@in_loop
async def test_what_once_left_counts_for_its_lease(
    home: Home, held: HeldClock, monkeypatch, ago: int, evidence: str
) -> None:
    async with running(**UPNP) as router:
        async with home.keeper(router, held, Method.UPNP, owner="once") as (keeper, _):
            await keeper.attempt()
            row = keeper.mapping.row
            made_at = Clock().wall() - ago * 1000
            left = msgspec.structs.replace(row, owner=LEFT, made_at=made_at)
            await keeper._book.replace(row, left)
        if ago > row.lease:
            router.table.clear()
        monkeypatch.setattr(ladder_module, "locate", lambda _: router.gateway)
        rungs: list[Rung] = []
        async with home.process() as book:
            await Ladder(book, NatConfig(), Place(PORT, (LOOPBACK,)), rungs.append).climb()
        (mapping,) = (rung for rung in rungs if rung.name == "mapping")
        assert mapping.result == "ok"
        assert evidence in mapping.evidence


@in_loop
async def test_without_miniupnpc(home: Home, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "miniupnpc", None)
    async with running(**UPNP) as router:
        found, rungs = await climb(home, monkeypatch, router)
        assert rungs["upnp"] == ("absent", "UPnP can't be used: miniupnpc is not installed")
        assert found.reason == "upnp-missing"
        assert "pip install miniupnpc" in found.hint
