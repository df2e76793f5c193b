"""The search for UPnP routers: M-SEARCH and its answers (UPnP Device Architecture 2.0, 1.3).

Answers come from anybody in the network, so a description is believed to be at its sender's
address only: nobody can have us fetch from elsewhere.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from securelink.nat.terms import NotAnAnswer, is_port

MULTICAST = "239.255.255.250"
PORT = 1900
LONGEST_ANSWER = 8192

SEARCH_TARGETS = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)

_SECONDS_TO_ANSWER = 1


def encode_search(target: str, host: str, port: int = PORT) -> bytes:
    """Return a search for *target*, to be sent to *host* and *port*, multicast or not."""
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {host}:{port}",
        'MAN: "ssdp:discover"',
        f"MX: {_SECONDS_TO_ANSWER}",
        f"ST: {target}",
        "",
        "",
    )
    return "\r\n".join(lines).encode("ascii")


def decode_answer(data: bytes, sender: str) -> str:
    """Return the URL of the router's description that an answer from *sender* gives.

    Raises:
        NotAnAnswer: it is no answer to a search for a router, or names another host than its
            sender.
    """
    if len(data) > LONGEST_ANSWER:
        raise NotAnAnswer("too long for an answer")
    first, *lines = data.decode("latin-1").split("\r\n")
    status = first.split()
    if len(status) < 2 or not status[0].startswith("HTTP/1.") or status[1] != "200":
        raise NotAnAnswer("no answer to a search")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    if headers.get("st") not in SEARCH_TARGETS:
        raise NotAnAnswer("an answer about something else")
    location = headers.get("location", "")
    if not location.isascii() or not location.isprintable() or " " in location:
        raise NotAnAnswer("a location that is no URL")
    try:
        url = urlsplit(location)
        host = ipaddress.IPv4Address(url.hostname or "")
        port = 80 if url.port is None else url.port
    except ValueError:
        raise NotAnAnswer("a location that is not at an IPv4 address") from None
    if url.scheme != "http" or url.username is not None or not is_port(port):
        raise NotAnAnswer("a location that is not plain HTTP")
    if str(host) != sender:
        raise NotAnAnswer("a location at another host")
    return location
