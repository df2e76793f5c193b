"""A node that serves: the server, what it tells its owner, and what it notices of others.

The processes of a node meet only in the store, so everything that another process may change is
looked at again after each commit, whoever made it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, Self

from securelink import events, pairing, reach
from securelink.clock import now_ms
from securelink.errors import AlreadyRunning, StoreError
from securelink.following import event_of, follow
from securelink.incoming import recover
from securelink.invite import choose_endpoints
from securelink.locks import FileLock
from securelink.node import CLOSE_TIMEOUT
from securelink.outward import Outward
from securelink.server import Server
from securelink.store import inbox, outbox, outbox_files, peers, serving, upkeep

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from securelink.invite import Invite
    from securelink.node import Node

_log = logging.getLogger(__name__)

CURSOR = "serve"
LOOK_AROUND_PAUSE = 0.05
"""Seconds between two looks at what other processes have changed."""

LOOK_AROUND_INTERVAL = 5.0
"""Seconds after which to look although nobody has committed."""

ENDPOINTS_INTERVAL = 5.0
"""Seconds between two looks at this machine's own addresses."""

TIDY_INTERVAL = 3600.0
"""Seconds between two rounds of forgetting what is past its time."""


class Teller(Protocol):
    """Where events go. A slow reader must hold up nobody, so telling never waits."""

    def event(self, event: events.Event, /) -> None:
        """Take an event; events stay in order."""

    async def written(self) -> None:
        """Wait until all that was taken is written, as far as it ever will be."""


class Service:
    """A running `serve`. Made by `open`; `run` goes on until it is cancelled.

    Attributes:
        server: the listening side.
        invite: the invite that was asked for, or None; it follows the node's endpoints.
        settled: set once it is known whether the router forwards our port, if it is to.
    """

    def __init__(
        self,
        node: Node,
        server: Server,
        invite: Invite | None,
        lock: FileLock,
        tell: Teller,
    ) -> None:
        self.node = node
        self.server = server
        self.invite = invite
        self._lock = lock
        self._tell = tell
        self.settled = asyncio.Event()
        self._moved = asyncio.Event()
        self._outward = Outward(node, server.port, tell=tell.event, changed=self._moved.set)
        self._configured = {entry.key.raw for entry in node.config.peers.values()}
        self._changed = asyncio.Event()
        self._arrived = asyncio.Event()
        self._unsubscribe = node.store.on_change(self._on_change)

    @classmethod
    async def open(cls, node: Node, tell: Teller, *, with_invite: bool = False) -> Self:
        """Listen, and write down where, for the node's other processes.

        Nobody is let in before `run`, so that `ready` can be told before all other events.

        Args:
            tell: takes each event after the commit that it tells of.
            with_invite: make an invite too.

        Raises:
            AlreadyRunning: another process serves this node.
            SecurelinkError, ConfigError: as `Server.open`.
        """
        lock = FileLock.acquire(node.home.serve_lock)
        if lock is None:
            running = await node.store.read(serving.get)
            raise AlreadyRunning(
                f"this node is being served already, by process {running.pid if running else '?'}",
                hint="stop it first, or play a second machine with SECURELINK_HOME=FOLDER",
            )
        async with contextlib.AsyncExitStack() as undo:
            undo.callback(lock.release)
            server = await Server.open(node, tell.event)
            undo.push_async_callback(server.aclose)
            await node.store.run(_begin_to_tell)
            invite = None
            if with_invite:
                invite = await node.store.run(
                    pairing.mint, node.identity, node.config, server.endpoints
                )
            service = cls(node, server, invite, lock, tell)
            undo.callback(service._unsubscribe)
            await service._write_down()
            undo.pop_all()
        return service

    def ready(self) -> events.Ready:
        """The event that says that the node listens."""
        return events.Ready(
            id=self.node.identity.public.peer_id,
            name=self.node.config.node.name,
            port=self.server.port,
            endpoints=self.server.endpoints,
            invite=self.invite.encode() if self.invite else None,
        )

    async def run(self) -> None:
        """Let peers in, tell of what arrives and notice what changes, until cancelled.

        Raises:
            StoreError: the store can be read no more.
        """
        with _logged():
            await recover(self.node)
        await self.server.start()
        self._on_change()
        self._moved.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tell_messages())
                tasks.create_task(self._look_around())
                tasks.create_task(self._watch_endpoints())
                tasks.create_task(self._tidy())
                tasks.create_task(self._outward.run())
        except BaseExceptionGroup as group:
            failed, rest = group.split(StoreError)
            if failed is None or rest is not None:
                raise
            raise failed.exceptions[0] from None

    async def aclose(self) -> None:
        """End all links in order and give back the lock."""
        self._unsubscribe()
        await self.server.aclose()
        with contextlib.suppress(TimeoutError, StoreError):
            # A stale row is harmless: the lock tells whether anybody serves.
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.node.store.run(serving.clear, os.getpid())
        self._lock.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # ---- inside

    def _on_change(self) -> None:
        self._changed.set()
        self._arrived.set()

    async def _write_down(self) -> None:
        await self.node.store.run(
            serving.record,
            pid=os.getpid(),
            port=self.server.port,
            endpoints=self.server.endpoints,
            started_at=now_ms(),
        )

    async def _tell_messages(self) -> None:
        store = self.node.store
        seq = await store.read(inbox.cursor, CURSOR) or 0
        async for messages in follow(store, self.node.config.peers, self._arrived, seq):
            for message in messages:
                self._tell.event(event_of(message))
            await self._tell.written()
            # Only now: a crash before this tells a message twice rather than never.
            with _logged():
                await store.run(inbox.raise_cursor, CURSOR, messages[-1].seq)

    async def _look_around(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                # A process that is killed commits nothing.
                async with asyncio.timeout(LOOK_AROUND_INTERVAL):
                    await self._changed.wait()
            self._changed.clear()
            keys, owners, queued = await self.node.store.read(
                _what_others_change, self.server.linked
            )
            self.server.keep_only(keys | self._configured)
            with _logged():
                await self.node.bury(owners)
            self.server.wake(queued)
            await asyncio.sleep(LOOK_AROUND_PAUSE)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_INTERVAL)
            with _logged():
                await self.node.store.run(upkeep.prune, now_ms())
                await recover(self.node)

    async def _watch_endpoints(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ENDPOINTS_INTERVAL):
                    await self._moved.wait()
            self._moved.clear()
            await self._look_at_endpoints()
            if self._outward.known:
                self.settled.set()

    async def _look_at_endpoints(self) -> None:
        """Tell everybody who should know when this node can be reached elsewhere than before."""
        config, port = self.node.config.server, self.server.port
        present = reach.own_endpoints(config, port, self._outward.mapped)
        if present == self.server.endpoints:
            return
        self.server.moved(present)
        with _logged():
            await self._write_down()
        if self.invite is not None:
            chosen = choose_endpoints(present)
            if chosen != self.invite.endpoints:
                self.invite = replace(self.invite, endpoints=chosen)
                self._tell.event(events.Invite(invite=self.invite.encode(), endpoints=chosen))


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    """Log that the store could not be written, and go on serving."""
    try:
        yield
    except StoreError as error:
        _log.error("%s", error)


def _begin_to_tell(conn: sqlite3.Connection) -> None:
    """The first start tells of nothing that was there before it."""
    if inbox.cursor(conn, CURSOR) is None:
        inbox.raise_cursor(conn, CURSOR, inbox.newest_seq(conn))


def _what_others_change(
    conn: sqlite3.Connection, linked: Iterable[bytes]
) -> tuple[set[bytes], list[str], set[bytes]]:
    """The keys of the peers, the owners of rows, and who of those linked has queued rows."""
    queued = {
        *outbox.peers_with_queued(conn, linked),
        *outbox_files.peers_with_queued(conn, linked),
    }
    return peers.keys(conn), outbox.owners(conn), queued
