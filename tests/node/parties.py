"""Nodes in one process, and peers led by hand: real files, real SQLite, real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from securelink.clock import new_id, now_ms
from securelink.config import Config, ConfiguredPeer, NodeConfig, ServerConfig
from securelink.delivery import Delivery
from securelink.directory import KnownPeer
from securelink.endpoints import Endpoint, Kind
from securelink.errors import LinkClosed
from securelink.hello import FEATURES, ClientHello
from securelink.home import Home
from securelink.identity import Identity
from securelink.limits import Limits
from securelink.link import Link
from securelink.messages import Ready, Receipt, Refused, Text
from securelink.node import Node
from securelink.outgoing import Outgoing
from securelink.server import Server
from securelink.service import Service
from securelink.session import Ended, Introduced, Session, Verified
from securelink.states import State
from securelink.store import addresses, inbox, outbox, peers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from pathlib import Path

    from securelink import events
    from securelink.errors import SecurelinkError
    from securelink.identity import PublicKey
    from securelink.session import Happening

BOB = Identity.from_private_bytes(bytes([2]) * 32)
"""A peer without a node, whose links a test leads by hand."""

KERNEL_HOLDS = 1 << 20
"""About how many bytes a peer led by hand receives without reading them."""

QUICK = Limits(handshake_timeout=5, close_timeout=0.3)
"""Limits with which nobody waits long for a peer that does not answer."""


class Parties:
    """Nodes in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def home(self, name: str) -> Home:
        folder = self.folder / name
        return Home(folder, folder)

    @asynccontextmanager
    async def node(
        self,
        name: str = "alice",
        *,
        knows: dict[str, PublicKey] | None = None,
        limits: Limits = QUICK,
        server: ServerConfig | None = None,
    ) -> AsyncIterator[Node]:
        """A node, whose configuration pins those whom it `knows`."""
        config = Config(
            node=NodeConfig(name=name),
            server=server or ServerConfig(host=("127.0.0.1",), port=0),
            peers={each: ConfiguredPeer(key=key) for each, key in (knows or {}).items()},
            limits=limits,
        )
        async with await Node.open(self.home(name), config) as node:
            yield node


@asynccontextmanager
async def serving(node: Node) -> AsyncIterator[tuple[Server, Told]]:
    """The node's server, and what it tells."""
    told = Told()
    server = await Server.open(node, told.event)
    try:
        await server.start()
        yield server, told
    finally:
        await server.aclose()


@asynccontextmanager
async def running(
    node: Node, tell: Told | None = None, *, with_invite: bool = False
) -> AsyncIterator[tuple[Service, Told]]:
    """A service that runs; whatever ends it by itself is raised."""
    tell = tell if tell is not None else Told()
    async with await Service.open(node, tell, with_invite=with_invite) as service:
        run = asyncio.create_task(service.run())
        try:
            yield service, tell
        finally:
            run.cancel()
            await asyncio.wait([run])
        if not run.cancelled():
            run.result()


class Told(list):  # type: ignore[type-arg]
    """The events that were told, as a list; some tests wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self._more = asyncio.Event()

    def event(self, event: events.Event, /) -> None:
        self.append(event)
        self._more.set()

    async def written(self) -> bool:
        return True

    async def of(self, kind: type, count: int = 1) -> list:  # type: ignore[type-arg]
        """The events of that kind, as soon as there are so many."""
        while len(found := [each for each in self if isinstance(each, kind)]) < count:
            self._more.clear()
            await self._more.wait()
        return found


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop turns until something holds; the test's own deadline ends it."""
    while not condition():  # noqa: ASYNC110 - nothing tells of what other connections see
        await asyncio.sleep(0.001)


async def introduce(
    node: Node, key: PublicKey, name: str, endpoints: Iterable[Endpoint] = ()
) -> KnownPeer:
    """Make somebody a paired peer, as a finished `join` does."""

    def write(conn: sqlite3.Connection) -> None:
        peers.add_pending(conn, key=key.raw, name_wanted=name, taken=(), now=1)
        peers.confirm(conn, key.raw, calls_itself=name, now=1)
        addresses.set_endpoints(conn, key.raw, addresses.Source.INVITE, list(endpoints), 1)

    await node.store.run(write)
    return (await node.directory()).by_name(name)


def at(port: int, host: str = "127.0.0.1", kind: Kind = Kind.LOOPBACK) -> Endpoint:
    return Endpoint(kind, host, port)


# ---- the store, seen by another connection


def rows(node: Node) -> list[tuple[str, str, str | None]]:
    """Text, state and owner of all rows of the outbox, as another process sees them."""
    with contextlib.closing(sqlite3.connect(node.home.store_file)) as conn:
        return conn.execute("SELECT text, state, owner FROM outbox ORDER BY seq").fetchall()


def states(node: Node) -> list[str]:
    return [state for _, state, _ in rows(node)]


def state_of(node: Node, message_id: bytes) -> str:
    with contextlib.closing(sqlite3.connect(node.home.store_file)) as conn:
        (state,) = conn.execute("SELECT state FROM outbox WHERE id = ?", (message_id,)).fetchone()
    assert isinstance(state, str)
    return state


def texts(node: Node) -> list[str]:
    """The inbox, as another process sees it."""
    with contextlib.closing(sqlite3.connect(node.home.store_file)) as conn:
        return [text for (text,) in conn.execute("SELECT text FROM inbox ORDER BY seq")]


async def put(
    node: Node, peer: PublicKey, text: str, *, owner: str | None = None, deadline: int | None = None
) -> int:
    return await node.store.run(
        outbox.put,
        message_id=new_id(),
        peer=peer.raw,
        text=text,
        sent_at=now_ms(),
        owner=owner,
        deadline=deadline,
    )


async def put_many(node: Node, peer: PublicKey, texts: Sequence[str]) -> list[int]:
    """Put queued rows, all in one transaction."""

    def write(conn: sqlite3.Connection) -> list[int]:
        return [
            outbox.put(conn, message_id=new_id(), peer=peer.raw, text=text, sent_at=1)
            for text in texts
        ]

    return await node.store.run(write)


async def inbox_size(node: Node) -> int:
    return await node.store.read(inbox.newest_seq)


# ---- a peer led by hand


class ByHand:
    """The other end of a node's link: what it hears is kept, what it says a test decides."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.heard: list[Happening] = []
        self._answered = 0
        transport = link._transport
        if transport is not None and not transport.is_closing():
            # Else the kernel's buffer may grow until it holds all that a test thinks is held up.
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_HOLDS)

    async def hear(self, kind: type, count: int = 1) -> list:  # type: ignore[type-arg]
        """All it has heard of that kind, as soon as there are so many."""
        while len(found := [each for each in self.heard if isinstance(each, kind)]) < count:
            self.heard += await self.link.receive()
        return found

    async def ended(self) -> SecurelinkError | None:
        """Why the link has ended."""
        (end,) = await self.hear(Ended)
        return end.error

    def say(self, text: str, message_id: bytes | None = None) -> bytes:
        message_id = message_id or new_id()
        self.link.send(Text(message_id, 1, text))
        return message_id

    def receipt(self, message: Text) -> None:
        self.link.send(Receipt(message.id))

    def heard_texts(self) -> list[Text]:
        return [each for each in self.heard if isinstance(each, Text)]

    async def receipt_all(self, count: int) -> list[str]:
        """Receipt each text as it comes, until so many are answered; return those from here."""
        first = self._answered
        while True:
            texts = self.heard_texts()
            for each in texts[self._answered :]:
                self.receipt(each)
            self._answered = len(texts)
            if self._answered >= count:
                return [each.text for each in texts[first:]]
            self.heard += await self.link.receive()

    async def refuse(self, count: int, code: int, *, permanent: bool = False) -> list[Text]:
        """Refuse the next so many texts, and return them."""
        wanted = self._answered + count
        texts = (await self.hear(Text, wanted))[self._answered : wanted]
        self._answered = wanted
        for each in texts:
            self.link.send(Refused(each.id, permanent=permanent, code=code))
        return texts


@asynccontextmanager
async def call(
    server: Server,
    identity: Identity = BOB,
    *,
    name: str = "bob",
    token: bytes | None = None,
    limits: Limits = QUICK,
    host: str = "127.0.0.1",
    standing: bool = False,
    takes_files: bool = False,
) -> AsyncIterator[ByHand]:
    """Dial a server by hand, up to message 3; what it answers is heard."""
    loop = asyncio.get_running_loop()
    hello = ClientHello(
        name,
        FEATURES,
        limits.max_message,
        token=token,
        standing=standing,
        takes_files=takes_files,
    )

    def make() -> Link:
        session = Session.client(
            identity,
            server.node.identity.public,
            hello,
            limits=limits,
            now=loop.time(),
        )
        return Link(session, close_timeout=limits.close_timeout)

    _, link = await loop.create_connection(make, host, server.port)
    peer = ByHand(link)
    try:
        await peer.hear(Verified)
        link.proceed()
        yield peer
    finally:
        link.abort()
        await until(lambda: link.session.state.name in {"CLOSED", "FAILED"})


async def linked(
    node: Node, identity: Identity = BOB, *, limits: Limits = QUICK, dials: bool = True
) -> tuple[Link, ByHand]:
    """A ready link of the node to a peer led by hand, over two sockets that know only each other.

    Args:
        limits: the peer's.
        dials: whether the node is the client.
    """
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    me = node.identity
    common = {"limits": node.config.limits, "now": loop.time()}
    other = {"limits": limits, "now": loop.time()}
    if dials:
        ours_session = Session.client(me, identity.public, node.hello(), **common)
        their_session = Session.server(identity, **other)
    else:
        hello = ClientHello("bob", FEATURES, limits.max_message)
        ours_session = Session.server(me, **common)
        their_session = Session.client(identity, me.public, hello, **other)
    _, link = await loop.create_connection(
        lambda: Link(ours_session, close_timeout=node.config.limits.close_timeout), sock=ours
    )
    _, other_link = await loop.create_connection(
        lambda: Link(their_session, close_timeout=limits.close_timeout), sock=theirs
    )
    client, server = (link, other_link) if dials else (other_link, link)
    assert isinstance((await client.receive())[0], Verified)
    client.proceed()
    happened: list[Happening] = []
    while not any(isinstance(each, Introduced) for each in happened):
        happened += await server.receive()
    server.admit("server", 0)
    assert isinstance((await client.receive())[0], Ready)
    return link, ByHand(other_link)


class Carried:
    """A node's mail for one peer on links led by hand: one `Outgoing`, a `Delivery` for each."""

    def __init__(self, node: Node, peer: KnownPeer, outgoing: Outgoing) -> None:
        self.node = node
        self.peer = peer
        self.outgoing = outgoing
        self.settled: list = []  # type: ignore[type-arg]
        self.deliveries: list[Delivery] = []
        self.runs: list[asyncio.Task[SecurelinkError | None]] = []

    async def link(self, *, standing: bool = False, limits: Limits = QUICK) -> ByHand:
        link, by_hand = await linked(self.node, limits=limits)
        return self.carry(link, by_hand, standing=standing)

    def carry(self, link: Link, by_hand: ByHand, *, standing: bool = False) -> ByHand:
        delivery = Delivery(self.node, self.peer, link, self.outgoing)
        self.deliveries.append(delivery)
        self.runs.append(asyncio.create_task(delivery.run()))
        self.outgoing.attach(link, standing=standing)
        return by_hand


@asynccontextmanager
async def carried(
    node: Node,
    *,
    peer: Identity = BOB,
    own: Iterable[int] = (),
    drains: bool = True,
    limits: Limits = QUICK,
) -> AsyncIterator[tuple[Carried, ByHand]]:
    """The node's mail for a peer led by hand, over one link at first."""
    settled: list = []  # type: ignore[type-arg]
    outgoing = Outgoing(node, peer.public.raw, own=own, settled=settled.append, drains=drains)
    mail = Carried(node, KnownPeer("bob", peer.public), outgoing)
    mail.settled = settled
    others: list[ByHand] = []
    try:
        by_hand = await mail.link(limits=limits)
        others.append(by_hand)
        yield mail, by_hand
    finally:
        await asyncio.gather(*(delivery.aclose() for delivery in mail.deliveries))
        await asyncio.gather(*mail.runs)
        await outgoing.aclose()
        for other in others:
            other.link.abort()


class Stopwatch:
    """How long something took, in seconds of the wall."""

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._start


class HandServer:
    """A server led by hand: whoever brings a handshake is let in, and the rest is a test's.

    Attributes:
        waiting: how many texts and files it says wait for the client.
        denies: it turns everybody away.
        calls: the links so far.
        hellos: what everybody said who came.
    """

    def __init__(self, identity: Identity = BOB, *, waiting: int = 0, port: int = 0) -> None:
        self.identity = identity
        self.waiting = waiting
        self.denies = False
        self.port = port
        self.calls: list[ByHand] = []
        self.hellos: list[ClientHello] = []
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def call(self, number: int = 1) -> ByHand:
        """The link that came as number so and so, once it is ready."""
        while len(self.calls) < number:
            self._arrived.clear()
            await self._arrived.wait()
        return self.calls[number - 1]

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._make, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for call in self.calls:
            call.link.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _make(self) -> Link:
        now = asyncio.get_running_loop().time()
        link = Link(Session.server(self.identity, limits=QUICK, now=now), close_timeout=0.3)
        task = asyncio.create_task(self._welcome(link))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return link

    async def _welcome(self, link: Link) -> None:
        happened: list[Happening] = []
        with contextlib.suppress(LinkClosed):
            while not any(isinstance(each, Introduced) for each in happened):
                happened += await link.receive()
            self.hellos += [each.hello for each in happened if isinstance(each, Introduced)]
            if self.denies:
                link.deny()
                await link.aclose()
                return
            link.admit("bob's own", self.waiting)
        if link.session.state is not State.OPEN:
            link.abort()
            return
        self.calls.append(ByHand(link))
        self._arrived.set()
