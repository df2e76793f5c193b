"""Every bound on time, size and number that a node keeps to, in one frozen value.

Sizes that the wire format fixes (record sizes, handshake lengths) stand with their format in
`framing` and `records`; here stand the bounds that a node may choose for itself.
"""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bounds, with their defaults; times in seconds, sizes in bytes."""

    max_message: int = 1 << 20
    """The longest text accepted and sent, in bytes of UTF-8."""

    handshake_timeout: float = 10.0
    """From accepting a connection to a finished handshake."""

    unproven: int = 512
    """Connections that have not yet sent a valid handshake message 1, in total."""

    unproven_per_address: int = 64
    """The same for one IPv4 address or IPv6 /64; loopback counts in the total alone."""

    unfinished: int = 128
    """Connections with a valid message 1 whose handshake is not finished, in total."""

    unfinished_per_address: int = 32
    """The same for one IPv4 address or IPv6 /64; loopback counts in the total alone."""

    links_per_peer: int = 8
    """Links of one peer at the same time; the oldest is closed for the newest."""

    heartbeat_interval: float = 10.0
    """A side that has sent nothing for so long sends a PING."""

    heartbeat_timeout: float = 25.0
    """A link on which nothing arrived for so long is dropped."""

    close_timeout: float = 2.0
    """How long an orderly close waits for the other side."""
