"""The IPv4 gateway, and this machine's address on the way to it. Nothing is sent."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from pathlib import Path

import msgspec

from securelink.errors import NoGateway
from securelink.nat import pcp, ssdp

LINUX_ROUTES = Path("/proc/net/route")
_RTF_UP, _RTF_GATEWAY = 0x1, 0x2  # linux/route.h
_DISCARD_PORT = 9
_ROUTE_COMMAND = "/sbin/route"
_ROUTE_TIMEOUT = 2.0

_CHOOSE = "choose a network with --interface, or name the router with --gateway"


class Gateway(msgspec.Struct, frozen=True):
    """The router, and where it is asked; made by `find`, or by hand to ask somewhere else."""

    host: str
    """Its IPv4 address on our side."""
    local: str
    """This machine's IPv4 address on that side; packets leave from it."""
    port: int = pcp.PORT
    """Where PCP and NAT-PMP are asked."""
    search: tuple[tuple[str, int], ...] = ()
    """Where a UPnP router is searched for."""


def find(*, gateway: str = "", interface: str = "", platform: str = sys.platform) -> Gateway:
    """Return the gateway of the default route.

    Args:
        gateway: the router's IPv4 address, in place of the default route's.
        interface: only a default route through the interface of that name counts.
        platform: as `sys.platform`; only Linux has its routes in a file.

    Raises:
        NoGateway: there is none, or this machine has no address on the way to it.
    """
    host = gateway
    if not host:
        host = _from_file(interface) if platform == "linux" else _from_command(interface)
    local = _source_address(host)
    return Gateway(host, local, search=((ssdp.MULTICAST, ssdp.PORT), (host, ssdp.PORT)))


def parse_routes(table: str, interface: str = "") -> str | None:
    """Return the gateway that a text like Linux's `/proc/net/route` gives, None without one.

    The default route with the least metric counts. Addresses are hexadecimal, as this machine
    would keep them in a 32-bit number.
    """
    best: tuple[int, str] | None = None
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        name, destination, gateway, flags, _, _, metric, mask = fields[:8]
        needed = _RTF_UP | _RTF_GATEWAY
        if (
            (interface and name != interface)
            or int(destination, 16)
            or int(mask, 16)
            or int(flags, 16) & needed != needed
        ):
            continue
        found = (int(metric), socket.inet_ntoa(struct.pack("=I", int(gateway, 16))))
        best = min(best or found, found, key=lambda each: each[0])
    return best[1] if best else None


def parse_route_command(output: str, interface: str = "") -> str | None:
    """Return the gateway that `route -n get default` prints on BSD and macOS, None without one."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        name, _, value = line.partition(":")
        found[name.strip()] = value.strip()
    if interface and found.get("interface") != interface:
        return None
    gateway = found.get("gateway", "")
    try:
        socket.inet_aton(gateway)
    except OSError:
        return None
    return gateway


def _from_file(interface: str) -> str:
    try:
        table = LINUX_ROUTES.read_text(encoding="ascii")
    except OSError as error:
        raise NoGateway(f"the routes can't be read: {error.strerror}", hint=_CHOOSE) from error
    return _or_none(parse_routes(table, interface), interface)


def _from_command(interface: str) -> str:
    scope = ("-ifscope", interface) if interface else ()
    try:
        ran = subprocess.run(  # noqa: S603 - a fixed command; the name is checked with the configuration
            [_ROUTE_COMMAND, "-n", "get", *scope, "default"],
            capture_output=True,
            check=False,
            text=True,
            timeout=_ROUTE_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoGateway("the routes can't be read", hint=_CHOOSE) from error
    return _or_none(parse_route_command(ran.stdout, interface), interface)


def _or_none(found: str | None, interface: str) -> str:
    if found is not None:
        return found
    where = f" through {interface}" if interface else ""
    raise NoGateway(f"no IPv4 gateway found{where}", hint=_CHOOSE)


def _source_address(host: str) -> str:
    """Return the address from which this machine sends to *host*; connecting UDP sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, _DISCARD_PORT))
            address: str = probe.getsockname()[0]
    except OSError as error:
        raise NoGateway(f"there is no way to {host}: {error.strerror}", hint=_CHOOSE) from error
    return address
