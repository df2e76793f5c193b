from __future__ import annotations

import ipaddress
import shutil
import socket
import subprocess
import sys
from typing import Self

import pytest

from securelink import interfaces
from securelink.endpoints import Kind, kind_of


class Routes:
    """A stand-in for the socket class: the kernel's choice for each family, or no route."""

    def __init__(self, **chosen: str) -> None:
        self.chosen = chosen

    def __call__(self, family: socket.AddressFamily, kind: socket.SocketKind) -> Routes.Probe:
        assert kind == socket.SOCK_DGRAM, "anything but UDP would send packets"
        return self.Probe(self.chosen.get(family.name))

    class Probe:
        def __init__(self, chosen: str | None) -> None:
            self.chosen = chosen

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *args: object) -> None:
            pass

        def connect(self, destination: tuple[str, int]) -> None:
            address = ipaddress.ip_address(destination[0])
            documentation = ("192.0.2.0/24", "2001:db8::/32")
            assert any(address in ipaddress.ip_network(each) for each in documentation)
            if self.chosen is None:
                raise OSError("Network is unreachable")

        def getsockname(self) -> tuple[str | None, int]:
            return self.chosen, 40000


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "expected"),
    [
        ("192.168.1.20", None, ["192.168.1.20"]),
        ("192.168.1.20", "2001:db8::5", ["192.168.1.20", "2001:db8::5"]),
        ("203.0.113.5", None, ["203.0.113.5"]),
        (None, "2001:db8::5", ["2001:db8::5"]),
        ("192.168.1.20", "fd00::1", ["192.168.1.20"]),
        ("192.168.1.20", "fe80::1", ["192.168.1.20"]),
        ("127.0.0.1", "::1", []),
        (None, None, []),
    ],
)
def test_what_the_routes_give(
    ipv4: str | None, ipv6: str | None, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"AF_INET": ipv4, "AF_INET6": ipv6}
    routes = Routes(**{family: host for family, host in chosen.items() if host})
    monkeypatch.setattr(socket, "socket", routes)
    assert interfaces.local_addresses() == expected


def test_this_machine() -> None:
    for address in interfaces.local_addresses():
        assert str(ipaddress.ip_address(address)) == address
        assert kind_of(address) is not Kind.LOOPBACK


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.1", False),
        ("198.51.100.7", False),
        ("::ffff:198.51.100.7", False),
        ("2001:db8::7", False),
        ("localhost", False),
    ],
)
def test_which_addresses_are_this_machines(host: str, own: bool) -> None:
    assert interfaces.is_own(host) is own


def namespace(*commands: str, asked: str = "local_addresses()") -> subprocess.CompletedProcess[str]:
    """Run *commands*, then *ask* the module, in a network of its own."""
    code = f"from securelink.interfaces import *; print({asked})"
    script = " && ".join([*commands, 'exec "$0" -c "$1"'])
    return subprocess.run(
        ["unshare", "-rn", "sh", "-c", script, sys.executable, code],
        capture_output=True,
        text=True,
        check=False,
    )


def test_real_routes() -> None:
    if not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("needs unshare and ip")
    alone = namespace("ip link set lo up")
    if alone.returncode != 0:
        pytest.skip("this system does not let us make a network namespace")
    assert alone.stdout == "[]\n"
    connected = namespace(
        "ip link set lo up",
        "ip address add 192.168.7.9/24 dev lo",
        "ip route add default dev lo src 192.168.7.9",
    )
    assert connected.stdout == "['192.168.7.9']\n"


@pytest.mark.parametrize("nonlocal_bind", [0, 1])
def test_addresses_in_networks_are_this_machines_too(nonlocal_bind: int) -> None:
    if not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("needs unshare and ip")
    hosts = ["192.168.7.9", "192.168.7.10", "192.168.7.11", "2001:db8::9", "2001:db8::10"]
    made = namespace(
        "ip link set lo up",
        "ip link add one type veth peer name other",
        "ip link set one up",
        "ip address add 192.168.7.9/24 dev one",
        "ip address add 192.168.7.10/24 dev one",
        "ip address add 2001:db8::9/64 dev one nodad",
        f"echo {nonlocal_bind} > /proc/sys/net/ipv4/ip_nonlocal_bind",
        f"echo {nonlocal_bind} > /proc/sys/net/ipv6/ip_nonlocal_bind",
        asked=f"[is_own(each) for each in {hosts}]",
    )
    if made.returncode != 0:
        pytest.skip("this system does not let us make a network namespace")
    second = nonlocal_bind == 0
    assert made.stdout == f"{[True, second, False, True, False]}\n"
