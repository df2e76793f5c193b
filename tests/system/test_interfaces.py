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


def namespace(*commands: str) -> subprocess.CompletedProcess[str]:
    """Run *commands*, then the module, in a network of its own."""
    code = "from securelink.interfaces import local_addresses; print(local_addresses())"
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
