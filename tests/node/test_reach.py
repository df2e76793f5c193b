"""Where a node can be reached, and who is told of it."""

from __future__ import annotations

import pytest

from securelink import interfaces
from securelink.config import ServerConfig
from securelink.endpoints import Endpoint, Kind
from securelink.reach import announced, own_endpoints

PUBLIC4 = Endpoint(Kind.PUBLIC, "203.0.113.7", 5)
PUBLIC6 = Endpoint(Kind.PUBLIC, "2001:db8::7", 5)
LAN = Endpoint(Kind.LAN, "192.168.1.20", 5)
LINK_LOCAL = Endpoint(Kind.LAN, "169.254.1.1", 5)
LOOPBACK4 = Endpoint(Kind.LOOPBACK, "127.0.0.1", 5)
LOOPBACK6 = Endpoint(Kind.LOOPBACK, "::1", 5)


@pytest.fixture(autouse=True)
def addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "local_addresses", lambda: ["192.168.1.20", "2001:db8::7"])


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ((), (PUBLIC6, LAN, LOOPBACK4, LOOPBACK6)),
        (("0.0.0.0",), (LAN, LOOPBACK4)),
        (("::",), (PUBLIC6, LOOPBACK6)),
        (("0.0.0.0", "::"), (PUBLIC6, LAN, LOOPBACK4, LOOPBACK6)),
        (("127.0.0.1",), (LOOPBACK4,)),
        (("127.0.0.1", "192.168.1.20"), (LAN, LOOPBACK4)),
        (("192.168.1.20", "0.0.0.0"), (LAN, LOOPBACK4)),
        # Not one of the default routes' addresses, and listened on all the same.
        (("203.0.113.7",), (PUBLIC4,)),
    ],
)
def test_as_far_as_it_listens_the_widest_first(
    host: tuple[str, ...], expected: tuple[Endpoint, ...]
) -> None:
    assert own_endpoints(ServerConfig(host=host), 5) == expected


def test_what_a_person_forwarded_stands_first() -> None:
    server = ServerConfig(host=("::",), public="home.example")
    first, *rest = own_endpoints(server, 5)
    assert first == Endpoint(Kind.PUBLIC, "home.example", 5)
    assert tuple(rest) == (PUBLIC6, LOOPBACK6)
    (first, *_) = own_endpoints(ServerConfig(public="127.0.0.1:9"), 5)
    assert first == Endpoint(Kind.PUBLIC, "127.0.0.1", 9)


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "local_addresses", list)
    assert own_endpoints(ServerConfig(), 5) == (LOOPBACK4, LOOPBACK6)


OWN = (PUBLIC4, PUBLIC6, LAN, LINK_LOCAL, LOOPBACK4, LOOPBACK6)


@pytest.mark.parametrize("remote", ["192.168.1.9", "10.0.0.1", "fd00::1", "127.0.0.1"])
def test_who_is_near_is_told_the_near_ones_too(remote: str) -> None:
    assert announced(OWN, remote) == (PUBLIC4, PUBLIC6, LAN)


@pytest.mark.parametrize("remote", ["198.51.100.1", "2001:db8:1::1", None])
def test_who_is_far_is_told_the_public_ones_alone(remote: str | None) -> None:
    assert announced(OWN, remote) == (PUBLIC4, PUBLIC6)


def test_a_forwarder_on_this_machine_is_public_because_a_person_says_so() -> None:
    forwarder = Endpoint(Kind.PUBLIC, "127.0.0.1", 9)
    assert announced([forwarder], "198.51.100.1") == (forwarder,)
