"""A peer's endpoints to one ready link: tried side by side, again and again, and one used.

All attempts race up to a verified message 2, which only the holder of the pinned key can make;
we introduce ourselves to the first that gets there, and to no other. One endpoint that is
somebody else never ends the attempt while others remain.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import os
import random
import socket
import threading
from typing import TYPE_CHECKING

import msgspec

from securelink import backoff, interfaces
from securelink.announced import is_from_elsewhere, usable_addresses
from securelink.endpoints import Kind
from securelink.errors import (
    LinkClosed,
    LinkError,
    LinkTruncated,
    NotThem,
    PeerRefused,
    SecurelinkError,
    Unreachable,
)
from securelink.link import Link
from securelink.messages import Deny, Ready
from securelink.session import Happening, Session, Verified

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from securelink.endpoints import Endpoint
    from securelink.hello import ClientHello
    from securelink.identity import PublicKey
    from securelink.node import Node

STAGGER = 0.25
"""Seconds by which one endpoint is tried before the next (RFC 8305, section 5)."""

NOT_THEM = "not them"

_LED_ASTRAY = "announced from elsewhere, and leads to this machine or its network"

FIRST_DELAY = 0.1
LONGEST_DELAY = 2.0
"""Seconds between two attempts while somebody waits at the keyboard."""


class Connected(msgspec.Struct, frozen=True):
    """A ready link, and how it came about. `early` is what arrived along with READY."""

    link: Link
    endpoint: Endpoint
    ready: Ready
    early: tuple[Happening, ...]


def in_order(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """The order in which to try: near before far, IPv6 before IPv4, else as given."""

    def rank(endpoint: Endpoint) -> tuple[int, bool]:
        near = (Kind.LOOPBACK, Kind.LAN, Kind.PUBLIC).index(endpoint.kind)
        return near, endpoint.kind is Kind.PUBLIC and ":" not in endpoint.host

    return sorted(dict.fromkeys(endpoints), key=rank)


async def dial(
    node: Node,
    peer: PublicKey,
    name: str,
    endpoints: Callable[[], Awaitable[Sequence[Endpoint]]],
    hello: ClientHello,
    *,
    deadline: float | None,
    failed: Callable[[SecurelinkError], None] = lambda _: None,
) -> Connected:
    """Make one link to the holder of `peer`, who is called `name`; try until it is there.

    Args:
        endpoints: asked anew for every attempt, as they may change meanwhile.
        deadline: when to give up, in the event loop's time; None for never.
        failed: told of each attempt that failed and is followed by another.

    Raises: what the attempt that came furthest met.
        PeerRefused: they answered, and do not take us. Final.
        NotThem: somebody answered, and nobody of them holds the key.
        Unreachable: nobody answered at all.
        LinkTruncated: the right one answered, and broke off before the link was ready.
    """
    loop = asyncio.get_running_loop()
    if deadline is None:
        deadline = math.inf
    nearest: NotThem | LinkError | None = None
    best = 0, False
    for delay in backoff.delays(FIRST_DELAY, LONGEST_DELAY, random.random):
        try:
            return await connect(node, peer, name, await endpoints(), hello, deadline)
        except (NotThem, LinkError) as error:
            # A round that the deadline has cut short knows less than one that was not.
            rank = _nearness(error), loop.time() < deadline
            if nearest is None or rank >= best:
                nearest, best = error, rank
            if loop.time() + delay >= deadline:
                raise nearest from None
            failed(error)
        await asyncio.sleep(delay)
    raise AssertionError("there is always another delay")


def _nearness(error: NotThem | LinkError) -> int:
    """How far an attempt came: to nobody, to somebody, or to the holder of the key."""
    if isinstance(error, Unreachable):
        return 0
    return 1 if isinstance(error, NotThem) else 2


async def connect(
    node: Node,
    peer: PublicKey,
    name: str,
    endpoints: Sequence[Endpoint],
    hello: ClientHello,
    deadline: float = math.inf,
) -> Connected:
    """Try each endpoint once, side by side; return the link to the first that is `peer`.

    Args:
        deadline: when to give up, in the event loop's time.

    Raises: as `dial`.
    """
    link, endpoint = await _race(node, peer, name, in_order(endpoints), hello, deadline)
    try:
        link.proceed()
        async with asyncio.timeout_at(_finite(deadline)):
            happenings = await link.receive()
    except TimeoutError:
        link.abort()
        raise LinkTruncated(
            f"{name} did not take the link in time", hint=f"tried: {endpoint}"
        ) from None
    except LinkClosed:
        # It was cut before we could introduce ourselves.
        happenings = []
    except BaseException:
        link.abort()
        raise
    match happenings:
        case [Ready() as ready, *early]:
            return Connected(link, endpoint.plain, ready, tuple(early))
        case [Deny(), *_]:
            # There is nothing left to send, and nothing to wait for.
            link.abort()
            raise PeerRefused(
                f"{name} refused: it does not know this node",
                hint="ask for a new invite, and run `securelink join`",
            )
    link.abort()
    raise LinkTruncated(f"{name} broke off before the link was ready", hint=f"tried: {endpoint}")


async def _race(
    node: Node,
    peer: PublicKey,
    name: str,
    endpoints: Sequence[Endpoint],
    hello: ClientHello,
    deadline: float,
) -> tuple[Link, Endpoint]:
    """The first link whose server has shown that it holds the key."""
    if not endpoints:
        raise Unreachable(
            f"no address of {name} is known", hint="give one with --endpoint HOST:PORT"
        )
    # An endpoint, and the address that stands for it: one of several if it is a name.
    waiting = [(endpoint, endpoint.host) for endpoint in endpoints]
    running: dict[asyncio.Task[Link | list[str]], tuple[Endpoint, str]] = {}
    failures: list[tuple[str, SecurelinkError]] = []
    try:
        while waiting or running:
            if waiting:
                endpoint, host = waiting.pop(0)
                attempt = _attempt(node, peer, endpoint, host, hello, deadline)
                running[asyncio.create_task(attempt)] = endpoint, host
            done, _ = await asyncio.wait(
                running, timeout=STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                error = task.exception()
                if error is None:
                    result = task.result()
                    endpoint, _ = running.pop(task)
                    if isinstance(result, Link):
                        return result, endpoint
                    waiting = [(endpoint, host) for host in result] + waiting
                elif isinstance(error, SecurelinkError):
                    endpoint, host = running.pop(task)
                    named = "" if host == endpoint.host else f" at {host}"
                    failures.append((f"{endpoint}{named}", error))
                else:
                    raise error
    finally:
        # Without waiting for them: whoever is cancelled here would lose the link that has won.
        for task in running:
            task.cancel()
            task.add_done_callback(_drop)
    raise _verdict(name, failures)


def _drop(loser: asyncio.Task[Link | list[str]]) -> None:
    """Close the link of an attempt that came second."""
    if not loser.cancelled() and loser.exception() is None:
        link = loser.result()
        if isinstance(link, Link):
            link.abort()


async def _attempt(
    node: Node,
    peer: PublicKey,
    endpoint: Endpoint,
    host: str,
    hello: ClientHello,
    deadline: float,
) -> Link | list[str]:
    """A connection to one address, up to the server's proof; or the addresses of a name."""
    loop = asyncio.get_running_loop()
    limits = node.config.limits

    def make() -> Link:
        session = Session.client(
            node.identity, peer, hello, limits=limits, now=loop.time(), scratch=node.scratch
        )
        return Link(session, close_timeout=limits.close_timeout)

    # Before the session's own deadline, so that silence is told from a refusal.
    until = min(deadline, loop.time() + limits.handshake_timeout)
    try:
        async with asyncio.timeout_at(until):
            if not _is_address(host):
                return _allowed(endpoint, await _look_up(host, endpoint.port))
            if is_from_elsewhere(endpoint) and interfaces.is_own(host):
                raise Unreachable(_LED_ASTRAY)
            _, link = await loop.create_connection(make, host, endpoint.port)
    except TimeoutError:
        raise Unreachable("no answer") from None
    except OSError as error:
        raise Unreachable(_reason(error)) from error
    happening = None
    try:
        async with asyncio.timeout_at(until):
            happening = (await link.receive())[0]
    except TimeoutError:
        pass
    finally:
        if not isinstance(happening, Verified):
            link.abort()
    if isinstance(happening, Verified):
        return link
    raise NotThem(NOT_THEM if happening else "connected, but no answer")


def _allowed(endpoint: Endpoint, addresses: Sequence[str]) -> list[str]:
    """Those of a name's addresses that are tried.

    Raises:
        Unreachable: there is none among them.
    """
    allowed = usable_addresses(endpoint, addresses)
    if not allowed:
        raise Unreachable(_LED_ASTRAY)
    return allowed


async def _look_up(name: str, port: int) -> list[str]:
    """The addresses of a name, each once.

    A thread of its own, as a resolver may hang for longer than anybody waits: it holds up neither
    the caller's deadline nor, as the loop's own threads would, the end of the process.

    Raises:
        OSError: the name has none.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def settle(addresses: list[str], error: OSError | None) -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(list(dict.fromkeys(addresses)))

    def ask() -> None:
        addresses: list[str] = []
        failure = None
        try:
            answer = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
            addresses = [str(address[0]) for *_, address in answer]
        except OSError as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody asks any more
            loop.call_soon_threadsafe(settle, addresses, failure)

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    return await found


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "no such name"
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _finite(deadline: float) -> float | None:
    return None if deadline == math.inf else deadline


def _verdict(name: str, failures: Sequence[tuple[str, SecurelinkError]]) -> SecurelinkError:
    tried = ", ".join(f"{where} ({error.message})" for where, error in failures)
    if any(error.message == NOT_THEM for _, error in failures):
        return NotThem(
            f"whoever answered for {name} does not hold its key",
            hint=f"tried: {tried}; if {name} was set up anew, pair again",
        )
    if any(isinstance(error, NotThem) for _, error in failures):
        # Silence proves nothing: nobody should be led to take a new key for it.
        return NotThem(
            f"whoever answers for {name} has not shown its key",
            hint=f"tried: {tried}; it may be busy, or something else",
        )
    return Unreachable(f"{name} could not be reached", hint=f"tried: {tried}")
