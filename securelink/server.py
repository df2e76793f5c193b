"""The listening side: who is let in.

Until a client has proven that it holds a known key, or brought a valid token, it is a stranger
and gets no answer that would tell it anything.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import TYPE_CHECKING, Any

import msgspec

from securelink import descriptors, directory, events, reach
from securelink.acceptor import BACKLOG, BATCH, Acceptor
from securelink.clock import now_ms
from securelink.directory import ME, KnownPeer
from securelink.endpoints import Endpoint, kind_of
from securelink.errors import ConfigError, PortUnusable, StoreError
from securelink.gate import Gate
from securelink.hello import FILES
from securelink.identity import PublicKey
from securelink.link import Link
from securelink.registry import Registry
from securelink.session import Ended, Introduced, Proven, Replays, Session
from securelink.sparing import Sparing
from securelink.states import State
from securelink.store import links, outbox, outbox_files, peers

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Coroutine, Iterable, Sequence

    from securelink.hello import ClientHello
    from securelink.node import Node
    from securelink.store.links import LinkRow

OWN_FILES = 48
"""Descriptors that are not for connections: the store, the locks, talk with the router."""

TURNED_AWAY = 10
"""Lines a minute about clients that were not let in; anybody can cause them."""

_log = logging.getLogger(__name__)


class _Admitted(msgspec.Struct, frozen=True):
    """A client that was let in, and what its link is for."""

    peer: KnownPeer
    row: LinkRow | None
    standing: bool


class Server:
    """Listens, and carries mail over every link that is made. Made by `open`.

    Attributes:
        node: whose server it is.
        port: the TCP port that it listens on.
        registry: its links, and where it can be reached.
    """

    def __init__(
        self, node: Node, sockets: Sequence[socket.socket], emit: Callable[[events.Event], None]
    ) -> None:
        self.node = node
        self.port: int = sockets[0].getsockname()[1]
        self.registry = Registry(node, emit, reach.own_endpoints(node.config.server, self.port))
        self._emit = emit
        self._gate: Gate[Link] = Gate(node.config.limits)
        self._replays = Replays()
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
        await self.registry.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._turned_away.close()

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
        return len(self._tasks) + len(self.registry.linked) + self.node.room.parts

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
                await self.registry.carry(
                    link, admitted.peer, admitted.row, standing=admitted.standing
                )
        except StoreError as error:
            self._turned_away.write(logging.ERROR, "a client was sent away: %s", error)
        finally:
            self._gate.leave(link)
            link.abort()

    async def _let_in(self, link: Link) -> _Admitted | None:
        """The handshake and the decision; None if it came to nothing."""
        if link.remote is None:
            return None
        while True:
            for happening in await link.receive():
                match happening:
                    case Proven():
                        self._put_out(self._gate.prove(link, link.remote[0]))
                    case Introduced(key, hello):
                        return await self._decide(link, link.remote, key, hello)
                    case Ended(error):
                        _log.debug("%s: %s", _host(link), error.message if error else "closed")
                        return None

    async def _decide(
        self, link: Link, remote: tuple[str, int], key: PublicKey, hello: ClientHello
    ) -> _Admitted | None:
        row = None
        if key != self.node.identity.public:
            endpoint = Endpoint(kind_of(remote[0]), *remote)
            row = self.registry.rows.new(
                key.raw,
                endpoint,
                dialled=False,
                takes_files=hello.takes_files and bool(link.session.features & FILES),
            )
        try:
            verdict, peer, waiting = await self.node.store.run(self._recognise, key, hello, row)
        except StoreError:
            # A full disk keeps nobody out whom we know: their texts are refused for now, and
            # they are told why.
            peer, waiting = await self.node.store.read(self._look_up, key, hello)
            if peer is None:
                raise
            verdict = peers.Verdict.KNOWN
        if peer is not None and verdict is peers.Verdict.ENROLLED:
            self._emit(
                events.Paired(peer=peer.name, id=key.peer_id, calls_itself=peer.calls_itself)
            )
        if link.session.state is not State.DECIDING:
            if peer is not None and row is not None:
                await self.registry.rows.strike_out(row, peer)
            return None
        if peer is None:
            self._turned_away.write(
                logging.WARNING, "%s at %s was denied: %s", key.short, _host(link), verdict
            )
            link.deny()
            await link.aclose()
            return None
        link.admit(self.node.config.node.name, waiting)
        return _Admitted(peer, row, hello.standing)

    def _look_up(
        self, conn: sqlite3.Connection, key: PublicKey, hello: ClientHello
    ) -> tuple[KnownPeer | None, int]:
        """Who holds this key, if it is a known one, and how much waits for them."""
        if key == self.node.identity.public:
            return KnownPeer(ME, key), 0
        known = directory.read(conn, self.node.config.peers).by_key(key)
        return known, _count_waiting(conn, key, hello)

    def _recognise(
        self,
        conn: sqlite3.Connection,
        key: PublicKey,
        hello: ClientHello,
        row: LinkRow | None,
    ) -> tuple[peers.Verdict, KnownPeer | None, int]:
        """Who holds this key, enrolled now if it brought a valid token; runs in a transaction.

        The link is written down too: so nobody waits for another commit.
        """
        if row is None:
            return peers.Verdict.KNOWN, KnownPeer(ME, key), 0
        configured = {entry.key: name for name, entry in self.node.config.peers.items()}
        if key in configured:
            peer = KnownPeer(configured[key], key, calls_itself=hello.name, configured=True)
            directory.note_seen(conn, peer, now_ms(), hello.name)
            links.up(conn, row)
            return peers.Verdict.KNOWN, peer, _count_waiting(conn, key, hello)
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
        links.up(conn, row)
        peer = KnownPeer(enrolment.peer.name, key, calls_itself=hello.name)
        return enrolment.verdict, peer, _count_waiting(conn, key, hello)


def _count_waiting(conn: sqlite3.Connection, key: PublicKey, hello: ClientHello) -> int:
    """How much waits for a client: texts, and files if it takes them on this link."""
    waiting = outbox.count_queued(conn, key.raw)
    if hello.takes_files:
        waiting += outbox_files.count_queued(conn, key.raw)
    return waiting


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
