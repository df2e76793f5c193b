"""What a peer may have this machine dial, judged by where the peer was met."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.announced import (
    MOST_ANNOUNCED,
    MOST_OF_A_NAME,
    AnnouncedEndpoint,
    may_announce,
    usable,
    usable_addresses,
)
from securelink.endpoints import Endpoint, Kind

# A local network's, or a provider's.
NEAR = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"]

# This machine; another one on each link; no machine, or many.
NEVER = ["127.0.0.0/8", "0.0.0.0/8", "::/127"]
NEVER += ["169.254.0.0/16", "192.0.0.0/24", "fe80::/10", "fec0::/10"]
NEVER += ["224.0.0.0/4", "240.0.0.0/4", "ff00::/8", "::/96", "100::/64"]
NEVER += ["64:ff9b:1::/48", "::ffff:0:0:0/96"]

SPECIAL = [ipaddress.ip_network(each) for each in (*NEAR, *NEVER)]


def within(networks: list[str]) -> st.SearchStrategy[str]:
    """Addresses in one of these, its first and its last among them."""

    def at(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> st.SearchStrategy[str]:
        last = network.num_addresses - 1
        places = st.sampled_from([0, last]) | st.integers(0, last)
        return places.map(lambda place: str(network[place]))

    return st.sampled_from([ipaddress.ip_network(each) for each in networks]).flatmap(at)


def is_common(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return not any(parsed.version == each.version and parsed in each for each in SPECIAL)


COMMON4 = st.ip_addresses(v=4).map(str).filter(is_common)
COMMON6 = st.ip_addresses(v=6, network="2000::/3").filter(lambda each: each.sixtofour is None)
COMMON = COMMON4 | COMMON6.map(str)


def forms(address: str) -> list[str]:
    """An IPv4 address, as it is and in IPv6 addresses that lead to it."""
    four = ipaddress.IPv4Address(address)
    number = int(four)
    return [
        address,
        str(ipaddress.IPv6Address((0xFFFF << 32) | number)),
        str(ipaddress.IPv6Address((0x64FF9B << 96) | number)),
        str(ipaddress.IPv6Address((0x2002 << 112) | (number << 80) | 1)),
    ]


def all_forms(addresses: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def choose(address: str) -> st.SearchStrategy[str]:
        return st.just(address) if ":" in address else st.sampled_from(forms(address))

    return addresses.flatmap(choose)


@given(all_forms(COMMON), st.sampled_from(Kind))
def test_what_is_in_the_internet_may_be_announced_from_everywhere(address: str, met: Kind) -> None:
    assert may_announce(address, met)


@given(all_forms(within(NEAR)))
def test_what_is_in_a_local_network_only_from_within_one(address: str) -> None:
    assert [met for met in Kind if may_announce(address, met)] == [Kind.LOOPBACK, Kind.LAN]


@given(all_forms(within(NEVER)))
def test_what_means_this_machine_or_another_one_elsewhere_only_from_here(address: str) -> None:
    assert not may_announce(address, Kind.LAN)
    assert not may_announce(address, Kind.PUBLIC)


@given(all_forms(within(["127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10"])))
def test_from_here_every_machine(address: str) -> None:
    assert may_announce(address, Kind.LOOPBACK)


@given(all_forms(COMMON | within([*NEAR, *NEVER])) | st.text(max_size=20), st.sampled_from(Kind))
def test_who_is_nearer_may_announce_all_that_others_may(host: str, met: Kind) -> None:
    if may_announce(host, Kind.PUBLIC):
        assert may_announce(host, Kind.LAN)
    if may_announce(host, Kind.LAN):
        assert may_announce(host, Kind.LOOPBACK)


@pytest.mark.parametrize("host", ["224.0.0.1", "255.255.255.255", "0.0.0.0", "::", "ff02::1"])
@pytest.mark.parametrize("met", Kind)
def test_what_is_not_one_machine_from_nowhere(host: str, met: Kind) -> None:
    assert not may_announce(host, met)


@pytest.mark.parametrize("host", ["fe80::1%eth0", "fd00::1%eth0", "2001:db8::1%eth0", "::1%lo"])
def test_a_scope_is_this_machines_own_affair(host: str) -> None:
    assert not may_announce(host, Kind.LAN)
    assert not may_announce(host, Kind.PUBLIC)


@pytest.mark.parametrize(
    ("host", "kinds"),
    [
        ("home.example", [Kind.LOOPBACK, Kind.LAN, Kind.PUBLIC]),
        ("nas", [Kind.LOOPBACK, Kind.LAN, Kind.PUBLIC]),
        ("localhost", [Kind.LOOPBACK]),
        ("a.localhost", [Kind.LOOPBACK]),
    ],
)
def test_a_name_as_such(host: str, kinds: list[Kind]) -> None:
    assert [met for met in Kind if may_announce(host, met)] == kinds


HOSTS = all_forms(COMMON | within([*NEAR, *NEVER])) | st.sampled_from(["a.example", "localhost"])
ENDPOINTS = st.lists(st.builds(Endpoint, st.sampled_from(Kind), HOSTS, st.integers(1, 65535)))


@given(ENDPOINTS, st.sampled_from(Kind))
def test_what_is_taken_is_what_was_said_in_order_and_bears_where_the_peer_was(
    said: list[Endpoint], met: Kind
) -> None:
    taken = usable(said, met)
    assert {each.met for each in taken} <= {met}
    assert all(may_announce(each.host, met) for each in taken)
    # Nobody claims to be nearer than where it was met, either.
    order = list(Kind)
    assert all(order.index(each.kind) >= order.index(met) for each in taken)
    good = [
        each
        for each in said
        if may_announce(each.host, met) and order.index(each.kind) >= order.index(met)
    ]
    assert taken == good[:MOST_ANNOUNCED]


@given(st.lists(all_forms(COMMON | within([*NEAR, *NEVER])), max_size=20), st.sampled_from(Kind))
def test_a_name_leads_where_the_peer_might_have_said(addresses: list[str], met: Kind) -> None:
    name = AnnouncedEndpoint(Kind.PUBLIC, "home.example", 1, met)
    allowed = usable_addresses(name, addresses)
    assert allowed == [each for each in addresses if may_announce(each, met)][:MOST_OF_A_NAME]
    assert usable_addresses(name.plain, addresses) == addresses


@pytest.mark.parametrize("met", Kind)
def test_a_name_leads_to_addresses_alone(met: Kind) -> None:
    name = AnnouncedEndpoint(Kind.PUBLIC, "home.example", 1, met)
    assert usable_addresses(name, ["a.example", "fe80::1%a%b", "1.2.3", ""]) == []


def test_who_named_an_endpoint_makes_it_no_other() -> None:
    plain = Endpoint(Kind.PUBLIC, "home.example", 1)
    told = AnnouncedEndpoint(Kind.PUBLIC, "home.example", 1, Kind.LAN)
    assert plain == told
    assert told == plain
    assert hash(plain) == hash(told)
    assert plain != Endpoint(Kind.LAN, "home.example", 1)
    assert plain != ("public", "home.example", 1)
    assert type(told.plain) is Endpoint
    # Of two, the first counts: a person's word stands before the peer's.
    assert list(map(type, dict.fromkeys([plain, told]))) == [Endpoint]
