"""A node that serves: the server, what it tells its owner, and what it notices of others."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from securelink import events, pairing, reach
from securelink.clock import now_ms
from securelink.courier import Courier
from securelink.errors import AlreadyRunning, StoreError
from securelink.incoming import prepare, recover
from securelink.invite import choose_endpoints
from securelink.locks import FileLock
from securelink.lookout import Lookout, logged
from securelink.node import CLOSE_TIMEOUT
from securelink.outward import Outward
from securelink.server import Server
from securelink.store import serving

if TYPE_CHECKING:
    from types import TracebackType

    from securelink.invite import Invite
    from securelink.lookout import Teller
    from securelink.node import Node

COMMAND = "serve"
"""Under this name the store keeps what was told."""

ENDPOINTS_INTERVAL = 5.0
"""Seconds between two looks at this machine's own addresses."""


class Service:
    """A running `serve`. Made by `open`; `run` goes on until it is cancelled.

    Attributes:
        server: the listening side.
        registry: its links.
        invite: the invite that was asked for, or None; it follows the node's endpoints.
        settled: set once it is known whether the router forwards our port, if it is to.
    """

    def __init__(
        self,
        node: Node,
        server: Server,
        courier: Courier,
        lookout: Lookout,
        invite: Invite | None,
        lock: FileLock,
        tell: Teller,
    ) -> None:
        self.node = node
        self.server = server
        self.invite = invite
        self.registry = server.registry
        self._courier = courier
        self._lookout = lookout
        self._lock = lock
        self._tell = tell
        self.settled = asyncio.Event()
        self._moved = asyncio.Event()
        self._outward = Outward(node, server.port, tell=tell.event, changed=self._moved.set)

    @classmethod
    async def open(cls, node: Node, tell: Teller, *, with_invite: bool = False) -> Self:
        """Listen, and write down where, for the node's other processes.

        Nobody is let in before `run`, so that `ready` can be told before all other events.

        Args:
            tell: takes each event after the commit that it tells of.
            with_invite: make an invite too.

        Raises:
            AlreadyRunning: another process serves this node.
            SecurelinkError, ConfigError: as `prepare` and `Server.open`.
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
            await prepare(node)
            server = await Server.open(node, tell.event)
            undo.push_async_callback(server.aclose)
            courier = Courier(node, server.registry)
            undo.push_async_callback(courier.aclose)
            lookout = await Lookout.open(node, COMMAND, tell, server.registry, queued=courier.look)
            undo.push_async_callback(lookout.aclose)
            invite = None
            if with_invite:
                invite = await node.store.run(
                    pairing.mint, node.identity, node.config, server.registry.endpoints
                )
            service = cls(node, server, courier, lookout, invite, lock, tell)
            await service._write_down()
            undo.pop_all()
        return service

    def ready(self) -> events.Ready:
        """The event that says that the node listens."""
        return events.Ready(
            id=self.node.identity.public.peer_id,
            name=self.node.config.node.name,
            port=self.server.port,
            endpoints=self.registry.endpoints,
            invite=self.invite.encode() if self.invite else None,
        )

    async def run(self) -> None:
        """Let peers in, tell of what arrives and notice what changes, until cancelled.

        Raises:
            StoreError: the store can be read no more.
        """
        with logged():
            await recover(self.node)
        await self.server.start()
        self._moved.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._lookout.run())
                tasks.create_task(self._watch_endpoints())
                tasks.create_task(self._outward.run())
        except BaseExceptionGroup as group:
            failed, rest = group.split(StoreError)
            if failed is None or rest is not None:
                raise
            raise _first(failed) from None

    async def aclose(self) -> None:
        """End all links in order and give back the lock."""
        await asyncio.gather(self._lookout.aclose(), self._courier.aclose(), self.server.aclose())
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

    async def _write_down(self) -> None:
        await self.node.store.run(
            serving.record,
            pid=os.getpid(),
            port=self.server.port,
            endpoints=self.registry.endpoints,
            started_at=now_ms(),
        )

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
        if present == self.registry.endpoints:
            return
        self.registry.moved(present)
        self._courier.network_changed()
        with logged():
            await self._write_down()
        if self.invite is not None:
            chosen = choose_endpoints(present)
            if chosen != self.invite.endpoints:
                self.invite = replace(self.invite, endpoints=chosen)
                self._tell.event(events.Invite(invite=self.invite.encode(), endpoints=chosen))


def _first(group: BaseExceptionGroup[StoreError]) -> StoreError:
    """The first error of a group of groups."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
