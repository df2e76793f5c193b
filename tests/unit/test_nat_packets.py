"""PCP, NAT-PMP, STUN and SSDP: the packets, byte by byte, and every way of being none."""

from __future__ import annotations

import struct
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.nat import natpmp, pcp, ssdp, stun
from securelink.nat.terms import LARGEST_PORT, Method, NotAnAnswer, Protocol, is_port

NONCE = bytes(range(12))
MAPPED = bytes(10) + b"\xff\xff"
REQUEST = pcp.MapRequest("192.168.1.20", NONCE, Protocol.TCP, 24819, 4000, 3600)


def test_words() -> None:
    assert [method.label for method in Method] == ["PCP", "NAT-PMP", "UPnP"]
    assert (Protocol.TCP.number, Protocol.UDP.number) == (6, 17)
    assert [is_port(each) for each in (0, 1, LARGEST_PORT, LARGEST_PORT + 1)] == [
        False,
        True,
        True,
        False,
    ]


# ---- PCP


def pcp_answer(
    *,
    version: int = 2,
    opcode: int = 0x81,
    result: int = 0,
    lifetime: int = 1800,
    epoch: int = 77,
    nonce: bytes = NONCE,
    protocol: int = 6,
    internal: int = 24819,
    external: int = 4001,
    address: bytes = MAPPED + b"\1\2\3\4",
) -> bytes:
    return (
        struct.pack(">BBBBII12x", version, opcode, 0, result, lifetime, epoch)
        + struct.pack(">12sB3xHH", nonce, protocol, internal, external)
        + address
    )


def test_pcp_requests_on_the_wire() -> None:
    client = "00000000000000000000ffffc0a80114"
    assert pcp.encode_announce("192.168.1.20").hex() == "02000000" + "00000000" + client
    assert pcp.encode_map(REQUEST).hex() == (
        "02010000" + "00000e10" + client
        + "000102030405060708090a0b" + "06000000" + "60f3" + "0fa0"
        + "00000000000000000000ffff00000000"
    )  # fmt: skip
    udp = msgspec.structs.replace(REQUEST, protocol=Protocol.UDP, external_port=0, lifetime=0)
    assert pcp.encode_map(udp)[36] == 17


@pytest.mark.parametrize(
    "change",
    [
        {"internal_port": 0},
        {"internal_port": 65536},
        {"external_port": -1},
        {"external_port": 65536},
        {"nonce": b"short"},
        {"lifetime": -1},
        {"lifetime": 1 << 32},
        {"client": "::1"},
        {"client": "router"},
    ],
)
def test_pcp_requests_that_can_be_none(change: dict) -> None:
    with pytest.raises(ValueError, match=r"."):
        pcp.encode_map(msgspec.structs.replace(REQUEST, **change))


def test_pcp_answers() -> None:
    assert pcp.decode_map(pcp_answer(), REQUEST) == pcp.MapResponse(0, 1800, 77, "1.2.3.4", 4001)
    # Options may follow (section 7.3).
    assert pcp.decode_map(pcp_answer() + bytes(8), REQUEST).external_port == 4001
    assert pcp.decode_announce(pcp_answer(opcode=0x80)[:24]) == pcp.Response(0, 1800, 77)
    gone = pcp_answer(lifetime=0, external=0)
    assert pcp.decode_map(gone, msgspec.structs.replace(REQUEST, lifetime=0)).lifetime == 0
    refused = pcp.decode_map(pcp_answer(result=2, external=0, address=bytes(16)), REQUEST)
    assert (refused.result, refused.external_address) == (pcp.ResultCode.NOT_AUTHORIZED, "")
    assert pcp.decode_map(pcp_answer(result=200), REQUEST).result == 200


@pytest.mark.parametrize(
    "data",
    [
        b"",
        pcp_answer()[:3],
        pcp_answer()[:20],
        pcp_answer()[:24],
        pcp_answer()[:56],
        pcp_answer()[:-1],
        pcp_answer() + b"\0",
        pcp_answer() + bytes(1044),
        pcp_answer(opcode=0x01),
        pcp_answer(opcode=0x80),
        pcp_answer(opcode=0x82),
        pcp_answer(nonce=bytes(12)),
        pcp_answer(protocol=17),
        pcp_answer(internal=1),
        pcp_answer(external=0),
        pcp_answer(lifetime=0),
        pcp_answer(address=bytes(16)),
    ],
)
def test_what_is_no_pcp_answer(data: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        pcp.decode_map(data, REQUEST)


def test_pcp_longest_answer() -> None:
    longest = pcp_answer() + bytes(pcp.LONGEST_PACKET - 60)
    assert pcp.decode_map(longest, REQUEST).external_port == 4001


@pytest.mark.parametrize(
    "data",
    [
        pcp_answer(result=1),
        pcp_answer(version=1),
        pcp_answer(version=3),
        bytes([0, 0x81, 0, 1, 0, 0, 0, 9]),  # a NAT-PMP server's answer
        bytes([0, 0x81, 0, 1]),
    ],
)
def test_pcp_of_another_version(data: bytes) -> None:
    with pytest.raises(pcp.OtherVersion):
        pcp.decode_map(data, REQUEST)


@given(st.binary(max_size=80), st.integers(0, 60))
def test_pcp_takes_any_bytes(junk: bytes, position: int) -> None:
    for data in (junk, pcp_answer()[:position] + junk):
        try:
            answer = pcp.decode_map(data, REQUEST)
        except (NotAnAnswer, pcp.OtherVersion):
            continue
        assert answer.result or (is_port(answer.external_port) and answer.lifetime)


# ---- NAT-PMP

ASKED = natpmp.MapRequest(Protocol.TCP, 24819, 4000, 3600)


def natpmp_answer(
    version: int = 0,
    opcode: int = 130,
    result: int = 0,
    internal: int = 24819,
    external: int = 4001,
    lifetime: int = 1800,
) -> bytes:
    return struct.pack(">BBHIHHI", version, opcode, result, 77, internal, external, lifetime)


ADDRESS = bytes([0, 128, 0, 0, 0, 0, 0, 77, 1, 2, 3, 4])


def test_natpmp_requests_on_the_wire() -> None:
    assert natpmp.encode_address() == b"\0\0"
    assert natpmp.encode_map(ASKED).hex() == "00020000" + "60f3" + "0fa0" + "00000e10"
    udp = natpmp.MapRequest(Protocol.UDP, 1, 0, 0)
    assert natpmp.encode_map(udp).hex() == "00010000" + "0001" + "0000" + "00000000"


@pytest.mark.parametrize(
    "change",
    [
        {"internal_port": 0},
        {"internal_port": 65536},
        {"external_port": -1},
        {"external_port": 65536},
        {"lifetime": -1},
        {"lifetime": 1 << 32},
    ],
)
def test_natpmp_requests_that_can_be_none(change: dict) -> None:
    with pytest.raises(ValueError, match=r"."):
        natpmp.encode_map(msgspec.structs.replace(ASKED, **change))


def test_natpmp_answers() -> None:
    assert natpmp.decode_map(natpmp_answer(), ASKED) == natpmp.MapResponse(0, 77, 4001, 1800)
    assert natpmp.decode_map(natpmp_answer() + b"more", ASKED).lifetime == 1800
    assert natpmp.decode_address(ADDRESS) == natpmp.AddressResponse(0, 77, "1.2.3.4")
    gone = natpmp.MapRequest(Protocol.TCP, 24819, 0, 0)
    assert natpmp.decode_map(natpmp_answer(external=0, lifetime=0), gone).external_port == 0
    udp = msgspec.structs.replace(ASKED, protocol=Protocol.UDP)
    assert natpmp.decode_map(natpmp_answer(opcode=129), udp).external_port == 4001


def test_natpmp_failures_may_be_short() -> None:
    refused = natpmp_answer(result=2, external=0, lifetime=0)
    for data in (refused, refused[:8]):
        assert natpmp.decode_map(data, ASKED) == natpmp.MapResponse(2, 77, 0, 0)
    for data in (ADDRESS[:2] + b"\0\3" + ADDRESS[4:], ADDRESS[:2] + b"\0\3" + ADDRESS[4:8]):
        assert natpmp.decode_address(data) == natpmp.AddressResponse(3, 77, "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        natpmp_answer()[:3],
        natpmp_answer()[:7],
        natpmp_answer()[:8],
        natpmp_answer()[:15],
        natpmp_answer(opcode=2),
        natpmp_answer(opcode=129),
        natpmp_answer(opcode=128),
        natpmp_answer(internal=1),
        natpmp_answer(external=0),
        natpmp_answer(lifetime=0),
    ],
)
def test_what_is_no_natpmp_answer(data: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        natpmp.decode_map(data, ASKED)


@pytest.mark.parametrize("data", [b"", ADDRESS[:11], ADDRESS[:8], natpmp_answer()])
def test_what_is_no_natpmp_address(data: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        natpmp.decode_address(data)


@pytest.mark.parametrize(
    "data", [natpmp_answer(version=2), natpmp_answer(result=1), pcp_answer(result=1)]
)
def test_natpmp_of_another_version(data: bytes) -> None:
    with pytest.raises(natpmp.OtherVersion):
        natpmp.decode_map(data, ASKED)


@given(st.binary(max_size=20), st.integers(0, 16))
def test_natpmp_takes_any_bytes(junk: bytes, position: int) -> None:
    for data in (junk, natpmp_answer()[:position] + junk):
        for decode in (natpmp.decode_address, lambda data: natpmp.decode_map(data, ASKED)):
            try:
                decode(data)
            except (NotAnAnswer, natpmp.OtherVersion):
                continue


# ---- STUN

TRANSACTION = bytes(range(100, 112))
COOKIE = b"\x21\x12\xa4\x42"


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack(">HH", kind, len(value)) + value + bytes(-len(value) % 4)


def message(*attributes: bytes, kind: int = 0x0101, transaction: bytes = TRANSACTION) -> bytes:
    body = b"".join(attributes)
    return struct.pack(">HH", kind, len(body)) + COOKIE + transaction + body


def with_fingerprint(data: bytes) -> bytes:
    longer = data[:2] + struct.pack(">H", len(data) - 20 + 8) + data[4:]
    return longer + attribute(0x8028, struct.pack(">I", zlib.crc32(longer) ^ 0x5354554E))


XOR_V4 = attribute(0x0020, b"\0\1\xa1\x47" + bytes([0xE1, 0x12, 0xA6, 0x43]))
PLAIN_V4 = attribute(0x0001, b"\0\1\x80\x55" + bytes([1, 2, 3, 4]))


def test_stun_request_on_the_wire() -> None:
    assert stun.encode_request(TRANSACTION) == b"\0\1\0\0" + COOKIE + TRANSACTION
    with pytest.raises(ValueError, match="12 bytes"):
        stun.encode_request(b"short")


def test_stun_vectors_of_rfc_5769() -> None:
    """Sections 2.2 and 2.3, which RFC 8489 keeps: an IPv4 and an IPv6 response."""
    transaction = bytes.fromhex("b7e7a701bc34d686fa87dfae")
    software = "8022000b7465737420766563746f7220"
    v4 = bytes.fromhex(
        "0101003c2112a442b7e7a701bc34d686fa87dfae" + software
        + "002000080001a147e112a643" + "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d7"
        + "80280004c07d4c96"
    )  # fmt: skip
    # MESSAGE-INTEGRITY was not asked for, so it is one that we do not understand.
    with pytest.raises(NotAnAnswer, match="must be understood"):
        stun.decode_response(v4, transaction)
    plain = v4[:2] + struct.pack(">H", 28) + v4[4:48]
    assert stun.decode_response(plain, transaction) == stun.BindingSuccess("192.0.2.1", 32853)
    v6 = bytes.fromhex(
        "010100182112a442b7e7a701bc34d686fa87dfae002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    )
    assert stun.decode_response(v6, transaction) == stun.BindingSuccess(
        "2001:db8:1234:5678:11:2233:4455:6677", 32853
    )


def test_stun_answers() -> None:
    def decode(data: bytes):
        return stun.decode_response(data, TRANSACTION)

    assert decode(message(XOR_V4)) == stun.BindingSuccess("192.0.2.1", 32853)
    assert decode(message(PLAIN_V4)) == stun.BindingSuccess("1.2.3.4", 32853)
    assert decode(message(PLAIN_V4, XOR_V4)).host == "192.0.2.1"
    assert decode(message(XOR_V4, attribute(0x0020, b"junk"))).host == "192.0.2.1"
    assert decode(message(attribute(0x8022, b"soft"), XOR_V4)).host == "192.0.2.1"
    assert decode(message(attribute(0x0004, bytes(8)), XOR_V4)).host == "192.0.2.1"
    assert decode(with_fingerprint(message(XOR_V4))).host == "192.0.2.1"
    error = message(attribute(0x0009, b"\0\0\4\x14no"), kind=0x0111)
    assert decode(error) == stun.BindingError(420)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        message(XOR_V4)[:19],
        message(XOR_V4)[:-4],
        message(XOR_V4) + bytes(4),
        message(XOR_V4)[:3] + b"\x0b" + message(XOR_V4)[4:-1],
        message(XOR_V4, transaction=bytes(12)),
        message(XOR_V4)[:4] + bytes(4) + message(XOR_V4)[8:],
        message(XOR_V4, kind=0x0001),
        message(XOR_V4, kind=0x0102),
        message(),
        message(attribute(0x0020, b"")),
        message(attribute(0x0020, b"\0\2" + bytes(6))),
        message(attribute(0x0020, b"\0\1" + bytes(18))),
        message(attribute(0x0006, b"user"), XOR_V4),
        message(b"\0\x20\0\x09" + XOR_V4[4:]),
        with_fingerprint(message(XOR_V4))[:-1] + b"!",
        message(attribute(0x8028, b"no"), XOR_V4),
        message(kind=0x0111),
        message(attribute(0x0009, b"\0\0\2\0"), kind=0x0111),
        message(attribute(0x0009, b"\0\0\7\0"), kind=0x0111),
        message(attribute(0x0009, b"\0\0\4\x64"), kind=0x0111),
    ],
)
def test_what_is_no_stun_answer(data: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        stun.decode_response(data, TRANSACTION)


@given(st.binary(max_size=60))
def test_stun_takes_any_bytes(junk: bytes) -> None:
    padded = junk + bytes(-len(junk) % 4)
    for data in (junk, message(padded), message(padded, kind=0x0111)):
        try:
            stun.decode_response(data, TRANSACTION)
        except NotAnAnswer:
            continue


# ---- SSDP

IGD = ssdp.SEARCH_TARGETS[0]


def found(
    location: str = "http://192.168.1.1:5000/rootDesc.xml", *, st_: str = IGD, first: str = ""
) -> bytes:
    lines = (
        first or "HTTP/1.1 200 OK",
        "CACHE-CONTROL: max-age=120",
        f"St:{st_}",
        "no colon here",
        f"Location:  {location}",
        "LOCATION: http://192.168.1.1/second",
        "EXT:",
        "",
        "",
    )
    return "\r\n".join(lines).encode("latin-1")


def test_a_search_on_the_wire() -> None:
    assert ssdp.encode_search(IGD, ssdp.MULTICAST) == (
        b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n"
        b'MAN: "ssdp:discover"\r\nMX: 1\r\n'
        b"ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
    )
    assert b"HOST: 192.168.1.1:19\r\n" in ssdp.encode_search(IGD, "192.168.1.1", 19)


@pytest.mark.parametrize(
    "location",
    ["http://192.168.1.1:5000/rootDesc.xml", "http://192.168.1.1", "http://192.168.1.1/a?b=c"],
)
def test_an_answer_to_a_search(location: str) -> None:
    assert ssdp.decode_answer(found(location), "192.168.1.1") == location
    for target in ssdp.SEARCH_TARGETS:
        assert ssdp.decode_answer(found(location, st_=target), "192.168.1.1") == location
    assert ssdp.decode_answer(found(location, first="HTTP/1.0 200 "), "192.168.1.1")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        found(first="NOTIFY * HTTP/1.1"),
        found(first="HTTP/1.1"),
        found(first="HTTP/1.1 404 no"),
        found(first="HTTP/2 200 OK"),
        found(st_="upnp:rootdevice"),
        found(""),
        found("/rootDesc.xml"),
        found("https://192.168.1.1/"),
        found("http://user@192.168.1.1/"),
        found("http://192.168.1.2/"),
        found("http://router.local/"),
        found("http://[fe80::1]/"),
        found("http://[fe80/"),
        found("http://192.168.1.1:0/"),
        found("http://192.168.1.1:99999/"),
        found("http://192.168.1.1:x/"),
        found("http://192.168.1.1/a b"),
        found("http://192.168.1.1/\x1b"),
        found("http://192.168.1.1/\xe9"),
        found() + bytes(ssdp.LONGEST_ANSWER),
    ],
)
def test_what_is_no_answer_to_a_search(data: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        ssdp.decode_answer(data, "192.168.1.1")


@given(st.text(max_size=60), st.binary(max_size=60))
def test_ssdp_takes_any_bytes(location: str, junk: bytes) -> None:
    written = found().replace(b"/rootDesc.xml", location.encode())
    for data in (junk, written, found()[: len(junk)] + junk):
        try:
            assert ssdp.decode_answer(data, "192.168.1.1").startswith("http://192.168.1.1")
        except NotAnAnswer:
            continue
