"""One question by UDP, repeated on schedule until its answer comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from securelink.errors import RouterSilent
from securelink.nat.terms import NotAnAnswer
from securelink.nat.timing import RETRANSMISSIONS

if TYPE_CHECKING:
    from securelink.nat.clock import Clock

T = TypeVar("T")


async def ask(
    packet: bytes,
    read: Callable[[bytes], T],
    *,
    to: tuple[str, int],
    local: str,
    clock: Clock,
    waits: Iterable[float] = RETRANSMISSIONS,
) -> T:
    """Send *packet* and return what *read* makes of the answer.

    The socket is connected: the kernel drops what comes from any other address or port, and
    tells when nobody listens there.

    Args:
        read: returns the answer's meaning; raises NotAnAnswer for what is to be ignored. What
            else it raises goes to the caller.
        to: IPv4 address and port.
        local: the IPv4 address to send from.
        waits: how many seconds to wait after each time that the packet is sent.

    Raises:
        RouterSilent: no answer came, or the other side refuses.
    """
    loop = asyncio.get_running_loop()
    exchange = _Exchange(read)
    try:
        transport, _ = await loop.create_datagram_endpoint(
            lambda: exchange, local_addr=(local, 0), remote_addr=to
        )
    except OSError as error:
        raise _silent(to, error) from error
    try:
        for wait in waits:
            transport.sendto(packet)
            if await clock.wait(exchange.ended, wait):
                break
    finally:
        transport.close()
    if isinstance(exchange.error, OSError):
        raise _silent(to, exchange.error) from exchange.error
    if exchange.error is not None:
        raise exchange.error
    if not exchange.answers:
        raise _silent(to)
    return exchange.answers[0]


class _Exchange(asyncio.DatagramProtocol, Generic[T]):
    """What came back so far: one answer or one error, then no more."""

    def __init__(self, read: Callable[[bytes], T]) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers: list[T] = []
        self.error: Exception | None = None
        self._read = read

    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        if self.ended.done():
            return
        try:
            self.answers.append(self._read(data))
        except NotAnAnswer:
            return
        except ValueError as error:
            self.error = error
        self.ended.set_result(None)

    def error_received(self, exc: Exception) -> None:
        if not self.ended.done():
            self.error = exc
            self.ended.set_result(None)


def _silent(to: tuple[str, int], error: OSError | None = None) -> RouterSilent:
    why = f": {error.strerror}" if error is not None else ""
    return RouterSilent(f"no answer from {to[0]}{why}")
