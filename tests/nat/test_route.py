"""The gateway: found in the kernel's routes, or named."""

from __future__ import annotations

import subprocess
import sys

import pytest

from securelink.config import NatConfig
from securelink.errors import NoGateway
from securelink.nat import route
from securelink.nat.keeper import Keeper, locate, request_of
from securelink.nat.mapping import Request
from securelink.nat.route import Gateway, parse_route_command, parse_routes
from securelink.nat.terms import Protocol

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
LITTLE = sys.byteorder == "little"


def row(name: str, destination: str, gateway: str, flags: str, metric: int, mask: str) -> str:
    def number(address: str) -> str:
        octets = [int(part) for part in address.split(".")]
        return "".join(f"{each:02X}" for each in (octets[::-1] if LITTLE else octets))

    return (
        f"{name}\t{number(destination)}\t{number(gateway)}\t{flags}\t0\t0\t{metric}\t"
        f"{number(mask)}\t0\t0\t0\n"
    )


ANY = "0.0.0.0"
WIRED = row("eth0", ANY, "192.168.50.1", "0003", 100, ANY)
WIRELESS = row("wlan0", ANY, "10.0.0.1", "0003", 600, ANY)
NEAR = row("eth0", "192.168.50.0", ANY, "0001", 100, "255.255.255.0")
TUNNEL = row("tun0", ANY, ANY, "0001", 1, ANY)
HALF = row("tun0", ANY, "10.8.0.1", "0003", 1, "128.0.0.0")
DOWN = row("eth1", ANY, "10.9.0.1", "0002", 1, ANY)


@pytest.mark.parametrize(
    ("table", "interface", "gateway"),
    [
        ("", "", None),
        (HEAD, "", None),
        (HEAD + NEAR, "", None),
        (HEAD + WIRED, "", "192.168.50.1"),
        (HEAD + WIRELESS + NEAR + WIRED, "", "192.168.50.1"),
        (HEAD + WIRED + WIRELESS, "wlan0", "10.0.0.1"),
        (HEAD + WIRED + WIRELESS, "wlan1", None),
        (HEAD + TUNNEL + HALF + DOWN + "cut off\n" + WIRELESS, "", "10.0.0.1"),
        (HEAD + TUNNEL, "", None),
    ],
)
def test_linux(table: str, interface: str, gateway: str | None) -> None:
    assert parse_routes(table, interface) == gateway


BSD = """   route to: default
destination: default
       mask: default
    gateway: 192.168.1.1
  interface: en0
      flags: <UP,GATEWAY,DONE,STATIC,PRCLONING,GLOBAL>
"""


@pytest.mark.parametrize(
    ("output", "interface", "gateway"),
    [
        (BSD, "", "192.168.1.1"),
        (BSD, "en0", "192.168.1.1"),
        (BSD, "en1", None),
        (BSD.replace("192.168.1.1", "link#12"), "", None),
        ("route: writing to routing socket: not in table\n", "", None),
    ],
)
def test_bsd(output: str, interface: str, gateway: str | None) -> None:
    assert parse_route_command(output, interface) == gateway


def test_a_named_gateway_needs_no_route(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(route, "LINUX_ROUTES", tmp_path / "none")
    found = route.find(gateway="127.0.0.1")
    assert (found.host, found.local, found.port) == ("127.0.0.1", "127.0.0.1", 5351)
    assert found.search == (("239.255.255.250", 1900), ("127.0.0.1", 1900))
    assert locate(NatConfig(gateway="127.0.0.1")) == found


def test_the_routes_file(monkeypatch, tmp_path) -> None:
    table = tmp_path / "route"
    monkeypatch.setattr(route, "LINUX_ROUTES", table)
    with pytest.raises(NoGateway, match="can't be read"):
        route.find(platform="linux")
    table.write_text(HEAD + row("lo", ANY, "127.0.0.1", "0003", 0, ANY))
    assert route.find(platform="linux").host == "127.0.0.1"
    with pytest.raises(NoGateway, match="no IPv4 gateway found through eth7") as caught:
        route.find(platform="linux", interface="eth7")
    assert "--interface" in caught.value.hint


def test_the_route_command(monkeypatch) -> None:
    asked = []

    def run(command, **options):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, BSD.replace("192.168.1.1", "127.0.0.1"))

    monkeypatch.setattr(subprocess, "run", run)
    assert route.find(platform="darwin", interface="en0").host == "127.0.0.1"
    assert asked == [["/sbin/route", "-n", "get", "-ifscope", "en0", "default"]]

    def fail(command, **options):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(NoGateway):
        route.find(platform="darwin")


def test_no_way_there() -> None:
    with pytest.raises(NoGateway, match=r"no way to 255\.255\.255\.255"):
        route.find(gateway="255.255.255.255")


def test_the_configuration_becomes_a_request() -> None:
    config = NatConfig(external_port=5, lease=60, stun=("stun.example",), method="pcp")
    request = request_of(config, 24819, Protocol.UDP, any_port=False)
    assert request == Request(24819, Protocol.UDP, 5, 60, any_port=False, stun=("stun.example",))
    assert (request.wanted_port, Request(9).wanted_port) == (5, 9)


def test_a_configured_keeper_asks_as_configured() -> None:
    import asyncio

    async def make() -> Keeper:
        return Keeper.configured(None, NatConfig(method="upnp", gateway="127.0.0.1"), Request(1))

    keeper = asyncio.run(make())
    assert keeper._prober.methods == ("upnp",)
    assert keeper._find() == Gateway(
        "127.0.0.1", "127.0.0.1", search=(("239.255.255.250", 1900), ("127.0.0.1", 1900))
    )
