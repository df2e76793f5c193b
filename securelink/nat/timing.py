"""When to repeat, to renew and to distrust: no clock here, times are arguments in seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

RETRANSMISSIONS = (0.25, 0.5, 1.0, 0.25)
"""How long to wait for an answer after each of the packets: 2 s in all (RFC 6886, section 3.1)."""

RETRIES = (5.0, 15.0, 60.0)
"""How long to wait after the first, the second and every further failure of a renewal."""

RENEW_SPREAD = 0.1


def renew_after(lease: float, random: float) -> float:
    """Return after how many seconds a lease of *lease* seconds is renewed: half of it, +-10 %.

    Args:
        lease: as granted.
        random: a number from 0 to 1.
    """
    return lease / 2 * (1 - RENEW_SPREAD + 2 * RENEW_SPREAD * random)


def retries() -> Iterator[float]:
    """Seconds to wait after each failure, for ever."""
    yield from RETRIES
    while True:
        yield RETRIES[-1]


class Epoch(msgspec.Struct, frozen=True):
    """What a router said of how long it has kept its state, and when it said so."""

    server: int
    client: float


EpochRule = Callable[[Epoch, Epoch], bool]


def pcp_epoch_holds(previous: Epoch, current: Epoch) -> bool:
    """Whether a PCP server still has the state that it had before (RFC 6887, section 8.5)."""
    if current.server < previous.server - 1:
        return False
    client_delta = current.client - previous.client
    server_delta = current.server - previous.server
    return not (
        client_delta + 2 < server_delta - server_delta / 16
        or server_delta + 2 < client_delta - client_delta / 16
    )


def natpmp_epoch_holds(previous: Epoch, current: Epoch) -> bool:
    """Whether a NAT-PMP router still has its mappings (RFC 6886, section 3.6)."""
    expected = previous.server + (current.client - previous.client) * 7 / 8
    return current.server >= expected - 2


class EpochRecord:
    """What one router has said of its epoch so far.

    Args:
        rule: tells of two values in a row whether the router has kept its state.
    """

    def __init__(self, rule: EpochRule) -> None:
        self._rule = rule
        self._last: Epoch | None = None
        self._restarted = False

    def note(self, current: Epoch) -> None:
        """Keep a further value."""
        if self._last is not None and not self._rule(self._last, current):
            self._restarted = True
        self._last = current

    def take_restarted(self) -> bool:
        """Whether the router has lost its state since this was last asked."""
        restarted, self._restarted = self._restarted, False
        return restarted
