"""Endpoints: the addresses where a node can be reached, their kinds, and their two forms.

The text form is `HOST:PORT`, with brackets around an IPv6 address. The wire form, in invites and
announcements, is::

    kind u8 | address | port u16, big-endian

    kind, low nibble:   4: 4 bytes of IPv4;  6: 16 bytes of IPv6;
                        0: length u8 and that many bytes of ASCII host name, in lower case
    kind, high nibble:  0: loopback;  1: lan;  2: public

The kind is not derived from the address: a person may declare the address of a forwarder on
their own machine as public. Each endpoint has exactly one wire form.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from securelink.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ENDPOINTS = 255
MAX_HOST = 253  # RFC 1035, section 2.3.4, as text without the root's dot

_FORM_NAME, _FORM_IPV4, _FORM_IPV6 = 0, 4, 6

# RFC 952 and RFC 1123, section 2.1, and the underscore that real networks use.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")

# A last label like this is no name: some resolvers take it for an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# 100.64.0.0/10 is a provider's side of a router (RFC 6598): reachable inside, not from outside.
_LAN = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "100.64.0.0/10",
        "fc00::/7",
        "fe80::/10",
    )
)

_BROADCAST = ipaddress.IPv4Address("255.255.255.255")

_EXAMPLE = "192.168.1.20:24819"
_LONGEST_SHOWN = 80

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class Kind(enum.StrEnum):
    """From where an endpoint can be reached."""

    LOOPBACK = "loopback"
    LAN = "lan"
    PUBLIC = "public"


_KINDS = (Kind.LOOPBACK, Kind.LAN, Kind.PUBLIC)


class Endpoint(msgspec.Struct, frozen=True):
    """One address of a node: a host name or IP address in canonical form, and a TCP port."""

    kind: Kind
    host: str
    port: int

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"

    def __eq__(self, other: object) -> bool:
        """Two are equal that lead to the same place, whoever named them."""
        return isinstance(other, Endpoint) and self._place == other._place

    def __hash__(self) -> int:
        return hash(self._place)

    @property
    def _place(self) -> tuple[Kind, str, int]:
        return self.kind, self.host, self.port

    @property
    def plain(self) -> Endpoint:
        """The place alone, without a word of who named it."""
        return Endpoint(*self._place)


class IncompleteError(ValueError):
    """The bytes end before the endpoints that they announce."""


def address_of(host: str) -> IPAddress | None:
    """Return the IP address that *host* is, out of its mapping into IPv6, or None for a name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_one_machine(address: IPAddress) -> bool:
    """Tell whether *address* may be that of one machine, and not of none or of many."""
    return not (address.is_unspecified or address.is_multicast or address == _BROADCAST)


def kind_of(host: str) -> Kind:
    """Return from where *host* can be reached, judged by its address.

    Names are public, save `localhost` and those under it (RFC 6761, section 6.3).
    """
    address = address_of(host)
    if address is None:
        name = host.lower()
        local = name == "localhost" or name.endswith(".localhost")
        return Kind.LOOPBACK if local else Kind.PUBLIC
    if address.is_loopback:
        return Kind.LOOPBACK
    return Kind.LAN if any(address in network for network in _LAN) else Kind.PUBLIC


def is_link_local(host: str) -> bool:
    """Tell whether *host* is an address that means another machine on every network.

    RFC 3927 and RFC 4291, section 2.5.6.
    """
    address = address_of(host)
    return address is not None and address.is_link_local


def parse(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """Read `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT` or a bare IPv6 address from a person.

    The host comes back in canonical form: an address as `ipaddress` writes it (IPv4 if it is one
    mapped into IPv6), a name in lower case and ASCII (IDNA).

    Raises:
        UsageError: saying what is wrong and what would be right; also if the text names no port
            and there is no *default_port*.
    """
    text = text.strip()
    if "://" in text:
        raise UsageError(
            f"{_shown(text)} is a URL, not an address", hint=f"write HOST:PORT, such as {_EXAMPLE}"
        )
    host_text, port_text = _split(text)
    if not host_text:
        raise UsageError(
            f"{_shown(text)} names no host", hint=f"write HOST:PORT, such as {_EXAMPLE}"
        )
    host = _canonical(host_text)
    if port_text is not None:
        return host, _port(port_text, host)
    if default_port is None:
        raise UsageError(
            f"{_shown(text)} names no port", hint=f"write {_bracketed(host)}:PORT with its port"
        )
    return host, default_port


def encode(endpoints: Sequence[Endpoint]) -> bytes:
    """Return the wire form: their number as u8, then one after the other.

    Raises:
        ValueError: for more than 255; for a port outside 1 to 65535; for a host that is not in
            canonical form, not one machine, or an IPv6 address that is link-local or has a scope,
            which means nothing on another machine.
    """
    if len(endpoints) > MAX_ENDPOINTS:
        raise ValueError(f"more than {MAX_ENDPOINTS} endpoints")
    return bytes([len(endpoints)]) + b"".join(map(_encode_one, endpoints))


def decode(data: bytes) -> tuple[tuple[Endpoint, ...], int]:
    """Return the endpoints that *data* begins with, and how many bytes they take.

    Raises:
        IncompleteError: if *data* ends before them.
        ValueError: for anything else that `encode` does not write.
    """
    position = 0

    def take(size: int) -> bytes:
        nonlocal position
        if len(data) - position < size:
            raise IncompleteError("the endpoints are cut off")
        position += size
        return data[position - size : position]

    endpoints = []
    for _ in range(take(1)[0]):
        kind, form = divmod(take(1)[0], 16)
        if kind >= len(_KINDS):
            raise ValueError("an endpoint of an unknown kind")
        if form == _FORM_IPV4:
            host = _on_the_wire(ipaddress.IPv4Address(take(4)))
        elif form == _FORM_IPV6:
            host = _on_the_wire(ipaddress.IPv6Address(take(16)))
        elif form == _FORM_NAME:
            host = take(take(1)[0]).decode("ascii")
            if not _is_name(host):
                raise ValueError("an endpoint's host name is not in canonical form")
        else:
            raise ValueError("an endpoint of an unknown form")
        port = int.from_bytes(take(2), "big")
        if port == 0:
            raise ValueError("an endpoint with port 0")
        endpoints.append(Endpoint(_KINDS[kind], host, port))
    return tuple(endpoints), position


def _encode_one(endpoint: Endpoint) -> bytes:
    if not 1 <= endpoint.port <= 65535:
        raise ValueError("the port is outside 1 to 65535")
    kind = _KINDS.index(endpoint.kind) << 4
    port = endpoint.port.to_bytes(2, "big")
    address = address_of(endpoint.host)
    if address is not None:
        if _on_the_wire(address) != endpoint.host:
            raise ValueError("the address is not in canonical form")
        form = _FORM_IPV4 if address.version == 4 else _FORM_IPV6
        return bytes([kind | form]) + address.packed + port
    if not _is_name(endpoint.host):
        raise ValueError("the host name is not in canonical form")
    name = endpoint.host.encode("ascii")
    return bytes([kind | _FORM_NAME, len(name)]) + name + port


def _on_the_wire(address: IPAddress) -> str:
    """Return the host that *address* stands for in the wire form, or raise ValueError."""
    if not is_one_machine(address):
        raise ValueError("the address is not one machine's")
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_link_local or address.scope_id is not None:
            raise ValueError("the address means nothing without its scope")
        if address.ipv4_mapped is not None:
            raise ValueError("an IPv4 address in the form of an IPv6 address")
    return str(address)


def _is_name(host: str) -> bool:
    """Tell whether *host* is a host name in canonical form."""
    labels = host.split(".")
    return (
        len(host) <= MAX_HOST
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )


def _split(text: str) -> tuple[str, str | None]:
    """Return the host in *text* and, if it names one, the port."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise UsageError(
                f"{_shown(text)} is not an address", hint="write IPv6 as [ADDRESS]:PORT"
            )
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _canonical(host: str) -> str:
    """Return the canonical form of the *host* that a person wrote."""
    address = address_of(host)
    if address is not None:
        if not is_one_machine(address):
            raise UsageError(
                f"{address} is not one machine's address", hint="write the machine's own address"
            )
        return str(address)
    if ":" in host:
        raise UsageError(
            f"{_shown(host)} is not an IPv6 address",
            hint="write HOST:PORT, or IPv6 as [ADDRESS]:PORT",
        )
    try:
        name = host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        name = ""
    name = name.lower().removesuffix(".")
    if not _is_name(name):
        raise UsageError(
            f"{_shown(host)} is neither an IP address nor a host name",
            hint=f"write HOST:PORT, such as {_EXAMPLE} or home.example:24819",
        )
    return name


def _port(text: str, host: str) -> int:
    # int() alone would also take signs, underscores and the digits of other scripts.
    if re.fullmatch(r"[0-9]{1,5}", text) and 1 <= int(text) <= 65535:
        return int(text)
    raise UsageError(
        f"{_shown(text)} is not a port",
        hint=f"write {_bracketed(host)}:PORT, with a number from 1 to 65535",
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _shown(text: str) -> str:
    """Return *text* quoted for a message; what is too long to be an address may be a secret."""
    return ascii(text) if len(text) <= _LONGEST_SHOWN else f"a text of {len(text)} characters"
