"""The listening side: who is let in, and the links there are.

Until a client has proven that it holds a known key, or brought a valid token, it is a stranger
and gets no answer that would tell it anything.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from securelink import descriptors, directory, events, reach
from securelink.acceptor import BACKLOG, BATCH, Acceptor
from securelink.clock import now_ms
from securelink.delivery import Delivery
from securelink.directory import ME, KnownPeer
from securelink.dispatch import NOBODY, Dispatch, Which
from securelink.errors import ConfigError, LinkClosed, PortUnusable, SecurelinkError, StoreError
from securelink.gate import Gate
from securelink.hello import FILES
from securelink.identity import PublicKey
from securelink.incoming import Incoming
from securelink.link import Link
from securelink.messages import Announce
from securelink.outgoing import Outgoing
from securelink.session import Ended, Introduced, Proven, Replays, Session
from securelink.sparing import Sparing
from securelink.states import State
from securelink.store import outbox, peers

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence

    from securelink.endpoints import Endpoint
    from securelink.hello import ClientHello
    from securelink.incoming import Arriving
    from securelink.node import Node

OWN_FILES = 48
"""Descriptors that are not for connections: the store, the locks, talk with the router."""

TURNED_AWAY = 10
"""Lines a minute about clients that were not let in; anybody can cause them."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Linked:
    """One peer's links; there may be several."""

    outgoing: Outgoing
    deliveries: dict[Link, Delivery] = field(default_factory=dict)
    """Oldest first."""
    leaving: set[Link] = field(default_factory=set)
    """Those that are being closed for newer ones."""
    dispatches: dict[Link, Dispatch] = field(default_factory=dict)
    """Those that take files, oldest first; one at a time is fed."""
    removed: bool = False

    def wake(self) -> None:
        """There may be new rows."""
        self.outgoing.wake()
        for dispatch in self.dispatches.values():
            dispatch.wake()

    def may_drain(self, link: Link) -> bool:
        """Whether the queued files go over this link: a file that has begun stays on its own."""
        return next(iter(self.dispatches), link) is link and self.outgoing.may_drain()


class Server:
    """Listens, and carries mail over every link that is made. Made by `open`.

    Attributes:
        node: whose server it is.
        port: the TCP port that it listens on.
        endpoints: where it can be reached; its owner keeps them up to date with `moved`.
    """

    def __init__(
        self, node: Node, sockets: Sequence[socket.socket], emit: Callable[[events.Event], None]
    ) -> None:
        self.node = node
        self.port: int = sockets[0].getsockname()[1]
        self.endpoints: tuple[Endpoint, ...] = reach.own_endpoints(node.config.server, self.port)
        self._emit = emit
        self._gate: Gate[Link] = Gate(node.config.limits)
        self._replays = Replays()
        self._linked: dict[bytes, _Linked] = {}
        self._incoming: dict[Link, Incoming] = {}
        self._taken = 0  # over the links that have ended
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptor = Acceptor(sockets, self)
        self._turned_away = Sparing(_log, TURNED_AWAY, "%d more clients were turned away")
        # What was taken in together is there before anybody is put out for it.
        self._most = max(descriptors.allowed() - OWN_FILES - BATCH, 1)

    @classmethod
    async def open(cls, node: Node, emit: Callable[[events.Event], None]) -> Server:
        """Listen where the configuration says; who connects waits until `start`.

        Raises:
            PortUnusable: the port is in use, or may not be used.
            ConfigError: an address is not one of this machine's.
        """
        return cls(node, _listen(node.config.server.host, node.config.server.port), emit)

    async def start(self) -> None:
        """Let in who has connected and who will."""
        self._acceptor.start()

    async def aclose(self) -> None:
        """Listen no more, end all links in order, drop who is not linked yet."""
        await self._acceptor.aclose()
        deliveries = [
            each for linked in self._linked.values() for each in linked.deliveries.values()
        ]
        await asyncio.gather(*(delivery.aclose() for delivery in deliveries))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._turned_away.close()

    @property
    def linked(self) -> tuple[bytes, ...]:
        """The keys of the peers that have links."""
        return tuple(self._linked)

    def incoming(self) -> list[Arriving]:
        """The files that are coming in at this moment."""
        return [each for incoming in self._incoming.values() for each in incoming.active()]

    @property
    def taken(self) -> int:
        """The bytes of files that have ever come in."""
        return self._taken + sum(incoming.taken for incoming in self._incoming.values())

    # ---- what its owner has noticed

    def wake(self, keys: Iterable[bytes]) -> None:
        """There are queued rows for the peers with these keys."""
        for key in keys:
            if key in self._linked:
                self._linked[key].wake()

    def keep_only(self, keys: Collection[bytes]) -> None:
        """End the links of whoever is neither this node nor one of the peers with these keys.

        Nobody waits for it: one that does not answer would hold up the end of the others.
        """
        own = self.node.identity.public.raw
        for key, linked in self._linked.items():
            if key not in keys and key != own and not linked.removed:
                linked.removed = True
                for delivery in linked.deliveries.values():
                    self._start(delivery.aclose())

    def moved(self, endpoints: tuple[Endpoint, ...]) -> None:
        """The node can be reached elsewhere now: tell everybody who is linked."""
        self.endpoints = endpoints
        for key, linked in self._linked.items():
            for link in linked.deliveries:
                self._announce(link, PublicKey(key))

    # ---- for the acceptor

    def make(self) -> Link:
        """A link for a new connection."""
        session = Session.server(
            self.node.identity,
            limits=self.node.config.limits,
            now=asyncio.get_running_loop().time(),
            scratch=self.node.scratch,
            replays=self._replays,
        )
        return Link(session, close_timeout=self.node.config.limits.close_timeout)

    def accepted(self, link: Link) -> None:
        """It is connected, and what it had sent by then is read."""
        if self._used > self._most:
            self._put_out(self._gate.oldest(1))
        if link.remote is not None and link.session.state is State.AWAIT_MESSAGE_1:
            self._put_out(self._gate.enter(link, link.remote[0]))
        self._start(self._welcome(link))

    def room(self) -> int:
        """How many more connections there may be now."""
        return self._most + BATCH - self._used

    def shed(self) -> None:
        """Descriptors have run out: drop the strangers who have been here longest."""
        self._put_out(self._gate.oldest(BATCH))

    @property
    def _used(self) -> int:
        """Descriptors in use: each connection has a task, each linked peer a lock."""
        return len(self._tasks) + len(self._linked)

    def _put_out(self, links: Iterable[Link]) -> None:
        for each in links:
            each.abort()

    # ---- one connection

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _welcome(self, link: Link) -> None:
        try:
            admitted = await self._let_in(link)
            if admitted is not None:
                self._gate.leave(link)
                await self._carry(link, *admitted)
        except StoreError as error:
            self._turned_away.write(logging.ERROR, "a client was sent away: %s", error)
        finally:
            self._gate.leave(link)
            link.abort()

    async def _let_in(self, link: Link) -> tuple[KnownPeer, ClientHello] | None:
        """The handshake and the decision; None if it came to nothing."""
        if link.remote is None:
            return None
        while True:
            for happening in await link.receive():
                match happening:
                    case Proven():
                        self._put_out(self._gate.prove(link, link.remote[0]))
                    case Introduced(key, hello):
                        peer = await self._decide(link, key, hello)
                        return None if peer is None else (peer, hello)
                    case Ended(error):
                        _log.debug("%s: %s", _host(link), error.message if error else "closed")
                        return None

    async def _decide(self, link: Link, key: PublicKey, hello: ClientHello) -> KnownPeer | None:
        try:
            verdict, peer, waiting = await self.node.store.run(self._recognise, key, hello)
        except StoreError:
            # A full disk keeps nobody out whom we know: their texts are refused for now, and
            # they are told why.
            peer, waiting = await self.node.store.read(self._look_up, key)
            if peer is None:
                raise
            verdict = peers.Verdict.KNOWN
        if peer is not None and verdict is peers.Verdict.ENROLLED:
            self._emit(
                events.Paired(peer=peer.name, id=key.peer_id, calls_itself=peer.calls_itself)
            )
        if link.session.state is not State.DECIDING:
            return None
        if peer is None:
            self._turned_away.write(
                logging.WARNING, "%s at %s was denied: %s", key.short, _host(link), verdict
            )
            link.deny()
            await link.aclose()
            return None
        link.admit(self.node.config.node.name, waiting)
        return peer

    def _look_up(self, conn: sqlite3.Connection, key: PublicKey) -> tuple[KnownPeer | None, int]:
        """Who holds this key, if it is a known one, and how much waits for them."""
        if key == self.node.identity.public:
            return KnownPeer(ME, key), 0
        known = directory.read(conn, self.node.config.peers).by_key(key)
        return known, outbox.count_queued(conn, key.raw)

    def _recognise(
        self, conn: sqlite3.Connection, key: PublicKey, hello: ClientHello
    ) -> tuple[peers.Verdict, KnownPeer | None, int]:
        """Who holds this key, enrolled now if it brought a valid token; runs in a transaction."""
        if key == self.node.identity.public:
            return peers.Verdict.KNOWN, KnownPeer(ME, key), 0
        configured = {entry.key: name for name, entry in self.node.config.peers.items()}
        if key in configured:
            peers.touch(conn, key.raw, now_ms(), hello.name)
            peer = KnownPeer(configured[key], key, calls_itself=hello.name, configured=True)
            return peers.Verdict.KNOWN, peer, outbox.count_queued(conn, key.raw)
        enrolment = peers.enrol(
            conn,
            key=key.raw,
            calls_itself=hello.name,
            token_hash=hello.token_hash,
            taken=self.node.config.peers,
            now=now_ms(),
        )
        if enrolment.peer is None:
            return enrolment.verdict, None, 0
        peer = KnownPeer(enrolment.peer.name, key, calls_itself=hello.name)
        return enrolment.verdict, peer, outbox.count_queued(conn, key.raw)

    # ---- one link

    async def _carry(self, link: Link, peer: KnownPeer, hello: ClientHello) -> None:
        key = peer.key.raw
        is_me = peer.key == self.node.identity.public
        linked = self._linked.get(key)
        if linked is None:
            linked = self._linked[key] = _Linked(Outgoing(self.node, key, drains=not is_me))
        linked.removed = False
        if hello.takes_files and link.session.features & FILES and not is_me:
            which = Which(own=False, queued=partial(linked.may_drain, link))
            linked.dispatches[link] = Dispatch(self.node, key, link, which, NOBODY)
        incoming = self._incoming[link] = Incoming(self.node, peer, link)
        delivery = Delivery(
            self.node,
            peer,
            link,
            linked.outgoing,
            incoming=incoming,
            dispatch=linked.dispatches.get(link),
        )
        linked.deliveries[link] = delivery
        linked.outgoing.attach(link, standing=hello.standing)
        self._bound(linked)
        address = events.Address(*link.remote) if link.remote else None
        self._emit(events.LinkUp(peer=peer.name, address=address))
        error: SecurelinkError | None = None
        try:
            self._announce(link, peer.key)
            error = await delivery.run()
        finally:
            reason = "removed" if linked.removed else error.message if error else "closed"
            self._emit(events.LinkDown(peer=peer.name, address=address, reason=reason))
            del linked.deliveries[link], self._incoming[link]
            self._taken += incoming.taken
            if linked.dispatches.pop(link, None) is not None:
                linked.wake()
            linked.leaving.discard(link)
            if not linked.deliveries:
                del self._linked[key]
                await linked.outgoing.aclose()

    def _bound(self, linked: _Linked) -> None:
        """Close a peer's oldest links while it has too many."""
        most = self.node.config.limits.links_per_peer
        staying = [link for link in linked.deliveries if link not in linked.leaving]
        for link in staying[:-most]:
            linked.leaving.add(link)
            self._start(linked.deliveries[link].aclose())
        # Whoever makes links faster than it lets them be closed gains nothing by it.
        for link in [*linked.deliveries][: -2 * most]:
            link.abort()

    def _announce(self, link: Link, to: PublicKey) -> None:
        if to == self.node.identity.public:
            return
        told = reach.announced(self.endpoints, link.remote[0] if link.remote else None)
        if told and self.node.config.server.announce:
            try:
                link.send(Announce(told))
            except LinkClosed:
                return


def _host(link: Link) -> str:
    return link.remote[0] if link.remote else "an address that is gone"


def _listen(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Sockets bound to one and the same port on all the addresses; none stands for every one."""
    sockets: list[socket.socket] = []
    try:
        for host in hosts or ("0.0.0.0", "::"):  # noqa: S104 - what `serve` is for
            sock = _bind(host, port, required=bool(hosts) or not sockets)
            if sock is not None:
                sockets.append(sock)
                port = sock.getsockname()[1]
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind(host: str, port: int, *, required: bool) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortUnusable(
                f"port {port} is in use", hint="choose another with --port, or stop its owner"
            ) from None
        if not required:
            # A machine without IPv6 still has IPv4.
            return None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PortUnusable(
                f"port {port} may not be used by this user", hint="choose one from 1024 on"
            ) from None
        raise ConfigError(
            f"cannot listen on {host}: {(error.strerror or str(error)).lower()}",
            hint="[server] host lists this machine's own addresses",
        ) from None
    return sock
