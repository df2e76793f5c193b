from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securelink import endpoints
from securelink.endpoints import (
    Endpoint,
    IncompleteError,
    Kind,
    is_link_local,
    kind_of,
    parse,
)
from securelink.errors import UsageError

HOME = Endpoint(Kind.PUBLIC, "home.example", 24819)
LAN = Endpoint(Kind.LAN, "192.168.1.20", 24819)
IPV6 = Endpoint(Kind.PUBLIC, "2001:db8::5", 1)
FORWARDER = Endpoint(Kind.PUBLIC, "127.0.0.1", 65535)


@pytest.mark.parametrize(
    ("host", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.0.9", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("localhost", "loopback"),
        ("LocalHost", "loopback"),
        ("a.localhost", "loopback"),
        ("10.1.2.3", "lan"),
        ("172.16.0.1", "lan"),
        ("172.31.255.255", "lan"),
        ("192.168.1.20", "lan"),
        ("169.254.7.7", "lan"),
        ("100.64.0.1", "lan"),
        ("100.127.255.255", "lan"),
        ("::ffff:192.168.1.20", "lan"),
        ("fd12::1", "lan"),
        ("fe80::1", "lan"),
        ("fe80::1%eth0", "lan"),
        ("172.15.255.255", "public"),
        ("172.32.0.1", "public"),
        ("100.63.255.255", "public"),
        ("100.128.0.0", "public"),
        ("203.0.113.5", "public"),
        ("2001:db8::5", "public"),
        ("home.example", "public"),
        ("notlocalhost", "public"),
    ],
)
def test_the_kind_of_a_host(host: str, kind: str) -> None:
    assert kind_of(host) == kind


@pytest.mark.parametrize(
    ("host", "link_local"),
    [
        ("169.254.0.1", True),
        ("::ffff:169.254.0.1", True),
        ("fe80::1", True),
        ("192.168.1.1", False),
        ("fd00::1", False),
        ("127.0.0.1", False),
        ("home.example", False),
    ],
)
def test_what_means_another_machine_on_every_network(host: str, link_local: bool) -> None:
    assert is_link_local(host) is link_local


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.168.1.20:80", ("192.168.1.20", 80)),
        (" 192.168.1.20:80\n", ("192.168.1.20", 80)),
        ("home.example:65535", ("home.example", 65535)),
        ("Home.Example.:1", ("home.example", 1)),
        ("my_box:1", ("my_box", 1)),
        ("Bücher.example:1", ("xn--bcher-kva.example", 1)),
        ("[::1]:5", ("::1", 5)),
        ("[2001:DB8:0::0005]:5", ("2001:db8::5", 5)),
        ("[fe80::1%eth0]:5", ("fe80::1%eth0", 5)),
        ("[::ffff:10.0.0.1]:5", ("10.0.0.1", 5)),
        ("localhost:00080", ("localhost", 80)),
    ],
)
def test_hosts_with_ports(text: str, expected: tuple[str, int]) -> None:
    assert parse(text) == expected
    assert parse(text, default_port=9) == expected


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("192.168.1.20", "192.168.1.20"),
        ("home.example", "home.example"),
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("2001:db8::5:80", "2001:db8::5:80"),
    ],
)
def test_hosts_without_ports(text: str, host: str) -> None:
    assert parse(text, default_port=24819) == (host, 24819)
    with pytest.raises(UsageError, match="names no port") as raised:
        parse(text)
    assert raised.value.hint == (
        f"write [{host}]:PORT with its port" if ":" in host else f"write {host}:PORT with its port"
    )


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "'' names no host", "HOST:PORT, such as 192.168.1.20:24819"),
        (":80", "':80' names no host", "HOST:PORT"),
        ("http://home.example:80/", "is a URL, not an address", "HOST:PORT"),
        ("home.example:", "'' is not a port", "home.example:PORT, with a number from 1 to 65535"),
        ("home.example:0", "'0' is not a port", "1 to 65535"),
        ("home.example:65536", "'65536' is not a port", "1 to 65535"),
        ("home.example:+80", "'+80' is not a port", "1 to 65535"),
        ("home.example:8_0", "'8_0' is not a port", "1 to 65535"),
        ("home.example:\u0663", r"'\u0663' is not a port", "1 to 65535"),
        ("[::1]:http", "'http' is not a port", "[::1]:PORT"),
        ("[::1", "'[::1' is not an address", "[ADDRESS]:PORT"),
        ("[::1]80", "'[::1]80' is not an address", "[ADDRESS]:PORT"),
        ("[10.0.0.1]:80", "'[10.0.0.1]:80' is not an address", "[ADDRESS]:PORT"),
        ("home:80:90", "'home:80:90' is not an IPv6 address", "[ADDRESS]:PORT"),
        ("[::g]:80", "'::g' is not an IPv6 address", "[ADDRESS]:PORT"),
        ("0.0.0.0:80", "0.0.0.0 is not one machine's address", "own address"),
        ("[::]:80", ":: is not one machine's address", "own address"),
        ("[::ffff:0.0.0.0]:80", "0.0.0.0 is not one machine's address", "own address"),
        ("224.0.0.1:80", "224.0.0.1 is not one machine's address", "own address"),
        ("255.255.255.255:80", "255.255.255.255 is not one machine's address", "own address"),
        ("192.168.1:80", "'192.168.1' is neither an IP address nor a host name", "HOST:PORT"),
        ("192.168.1.256:80", "is neither an IP address nor a host name", "HOST:PORT"),
        ("home.0x7f:80", "is neither an IP address nor a host name", "HOST:PORT"),
        ("my box:80", "'my box' is neither an IP address nor a host name", "home.example:24819"),
        ("-box:80", "'-box' is neither an IP address nor a host name", "HOST:PORT"),
        ("box-:80", "'box-' is neither an IP address nor a host name", "HOST:PORT"),
        ("a..b:80", "'a..b' is neither an IP address nor a host name", "HOST:PORT"),
        ("ü..b:80", r"'\xfc..b' is neither an IP address nor a host name", "HOST:PORT"),
        (f"{'a' * 64}:80", "is neither an IP address nor a host name", "HOST:PORT"),
        (f"{'a.' * 126}aa:80", "a text of 254 characters is neither an IP", "HOST:PORT"),
    ],
)
def test_each_wrong_address_says_what_is_wrong_and_what_would_be_right(
    text: str, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text, default_port=24819)
    assert message in raised.value.message
    assert hint in (raised.value.hint or "")


def test_a_secret_in_the_place_of_an_address_is_not_shown() -> None:
    secret = "slinv1" + "a7" * 60
    for text in (secret, f"{secret}:80", f"http://{secret}", f"[{secret}", f":{secret}:"):
        with pytest.raises(UsageError) as raised:
            parse(text)
        assert "a7a7" not in f"{raised.value.message}{raised.value.hint}"


def test_the_longest_host_name_is_accepted() -> None:
    host = f"{'a.' * 126}a"
    assert parse(f"{host}:80") == (host, 80)


@given(st.text())
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        host, port = parse(text)
    except UsageError:
        return
    assert parse(str(Endpoint(kind_of(host), host, port))) == (host, port)


hosts = (
    st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str)
    | st.from_regex(r"[a-z][a-z0-9]{0,9}(\.[a-z]{1,5}){0,3}", fullmatch=True)
)


def has_wire_form(endpoint: Endpoint) -> bool:
    try:
        endpoints.encode([endpoint])
    except ValueError:
        return False
    return True


valid = st.builds(Endpoint, st.sampled_from(Kind), hosts, st.integers(1, 65535)).filter(
    has_wire_form
)


def test_the_wire_form_never_changes() -> None:
    assert endpoints.encode([HOME, LAN, IPV6, FORWARDER]).hex(" ") == (
        "04"
        " 20 0c 68 6f 6d 65 2e 65 78 61 6d 70 6c 65 60 f3"
        " 14 c0 a8 01 14 60 f3"
        " 26 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 05 00 01"
        " 24 7f 00 00 01 ff ff"
    )
    assert endpoints.encode([]) == b"\0"


@settings(max_examples=50)
@given(st.lists(valid, max_size=4), st.binary(max_size=8))
def test_what_is_encoded_decodes_and_what_follows_is_left(
    some: list[Endpoint], rest: bytes
) -> None:
    data = endpoints.encode(some)
    assert endpoints.decode(data + rest) == (tuple(some), len(data))


@settings(max_examples=50)
@given(st.lists(valid, min_size=1, max_size=4), st.data())
def test_every_cut_is_told_apart_from_other_faults(
    some: list[Endpoint], draw: st.DataObject
) -> None:
    data = endpoints.encode(some)
    with pytest.raises(IncompleteError):
        endpoints.decode(data[: draw.draw(st.integers(0, len(data) - 1))])


@given(st.binary(max_size=60))
def test_any_bytes_that_decode_are_what_encode_writes(data: bytes) -> None:
    try:
        some, size = endpoints.decode(data)
    except ValueError:
        return
    assert endpoints.encode(some) == data[:size]


def wire(kind_and_form: int, address: bytes, port: int = 80) -> bytes:
    return bytes([1, kind_and_form]) + address + port.to_bytes(2, "big")


def ip(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (wire(0x34, ip("10.0.0.1")), "unknown kind"),
        (wire(0xF4, ip("10.0.0.1")), "unknown kind"),
        (wire(0x15, ip("10.0.0.1")), "unknown form"),
        (wire(0x14, ip("10.0.0.1"), port=0), "port 0"),
        (wire(0x24, ip("0.0.0.0")), "not one machine's"),
        (wire(0x24, ip("224.0.0.1")), "not one machine's"),
        (wire(0x24, ip("255.255.255.255")), "not one machine's"),
        (wire(0x26, ip("::")), "not one machine's"),
        (wire(0x26, ip("ff02::1")), "not one machine's"),
        (wire(0x16, ip("fe80::1")), "without its scope"),
        (wire(0x26, ip("::ffff:10.0.0.1")), "in the form of an IPv6 address"),
        (wire(0x20, b"\x00"), "canonical"),
        (wire(0x20, b"\x04Home"), "canonical"),
        (wire(0x20, b"\x05home."), "canonical"),
        (wire(0x20, b"\x0810.0.0.1"), "canonical"),
        (wire(0x20, b"\x03::1"), "canonical"),
        (wire(0x20, b"\x05a b.c"), "canonical"),
        (wire(0x20, b"\x02\xc3\xbc"), "ascii"),
        (wire(0x20, b"\xfe" + b"a." * 126 + b"aa"), "canonical"),
    ],
)
def test_what_encode_does_not_write_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        endpoints.decode(data)
    assert not isinstance(raised.value, IncompleteError)


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("10.0.0.1", 0, "1 to 65535"),
        ("10.0.0.1", 65536, "1 to 65535"),
        ("2001:DB8::1", 1, "canonical"),
        ("::ffff:10.0.0.1", 1, "canonical"),
        ("Home", 1, "canonical"),
        ("", 1, "canonical"),
        ("bücher", 1, "canonical"),
        ("0.0.0.0", 1, "not one machine's"),
        ("fe80::1", 1, "without its scope"),
        ("fe80::1%eth0", 1, "without its scope"),
        ("fd00::1%eth0", 1, "without its scope"),
    ],
)
def test_what_has_no_wire_form(host: str, port: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        endpoints.encode([Endpoint(Kind.LAN, host, port)])


def test_the_largest_number_of_endpoints() -> None:
    assert endpoints.decode(endpoints.encode([LAN] * 255))[0] == (LAN,) * 255
    with pytest.raises(ValueError, match="255"):
        endpoints.encode([LAN] * 256)


def test_shown_as_host_and_port() -> None:
    assert [str(each) for each in (HOME, LAN, IPV6)] == [
        "home.example:24819",
        "192.168.1.20:24819",
        "[2001:db8::5]:1",
    ]
