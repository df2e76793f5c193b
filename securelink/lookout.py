"""What a process that stays does beside its links: it tells of what has arrived and of what never
will, notices what other processes of the node have changed, and forgets what is past its time.

The processes of a node meet only in the store, so everything that another process may change is
looked at again after each commit, whoever made it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from securelink.clock import now_ms
from securelink.errors import StoreError
from securelink.following import event_of, messages_after, notice_event, notices_after
from securelink.incoming import recover
from securelink.store import inbox, links, notices, outbox, outbox_files, peers, upkeep

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

    from securelink import events
    from securelink.node import Node
    from securelink.registry import Registry

_log = logging.getLogger(__name__)

LOOK_AROUND_PAUSE = 0.05
"""Seconds between two looks at what other processes have changed."""

LOOK_AROUND_INTERVAL = 5.0
"""Seconds after which to look although nobody has committed."""

LAST_NOTES = 0.5
"""Seconds that a reader has at the end to read what was told, for that to be noted."""

TIDY_INTERVAL = 3600.0
"""Seconds between two rounds of forgetting what is past its time."""


class Teller(Protocol):
    """Where events go. A slow reader must hold up nobody, so telling never waits."""

    def event(self, event: events.Event, /) -> None:
        """Take an event; events stay in order."""

    async def written(self) -> bool:
        """Wait until all that was taken is written; return False if it never will be."""


class Lookout:
    """One process's eyes on the store. Made by `open`; `run` goes on until it is cancelled."""

    def __init__(
        self,
        node: Node,
        command: str,
        told: tuple[int, int],
        tell: Teller,
        registry: Registry,
        queued: Callable[[Collection[bytes]], None],
    ) -> None:
        self._node = node
        self._command = command
        self._message_seq, self._notice_seq = told
        self._noted = told
        self._tell = tell
        self._registry = registry
        self._queued = queued
        self._configured = {entry.key.raw for entry in node.config.peers.values()}
        self._changed = asyncio.Event()
        self._arrived = asyncio.Event()
        self._noticed = asyncio.Event()
        self._unsubscribe = node.store.on_change(self._on_change)
        self._on_change()

    @classmethod
    async def open(
        cls,
        node: Node,
        command: str,
        tell: Teller,
        registry: Registry,
        *,
        queued: Callable[[Collection[bytes]], None] = lambda _: None,
    ) -> Lookout:
        """Begin to follow the inbox where the same command has stopped; first at the newest.

        Args:
            node: the node.
            command: `serve` or `receive`, each of which has told up to a place of its own.
            tell: takes each event after the commit that it tells of.
            registry: the links of this process.
            queued: told of the keys of all peers for whom something is queued, at each look.

        Raises:
            StoreError: the store fails.
        """
        told = await node.store.run(_begin_to_tell, command)
        return cls(node, command, told, tell, registry, queued)

    async def run(self) -> None:
        """Look and tell.

        Raises:
            StoreError: the store can be read no more.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tell_as_it_comes(self._arrived, self._tell_messages))
                tasks.create_task(self._tell_as_it_comes(self._noticed, self._tell_notices))
                tasks.create_task(self._look_around())
                tasks.create_task(self._tidy())
        except* StoreError as failed:
            failure = failed.exceptions[0]
        else:
            return
        raise failure from None

    async def finish(self) -> None:
        """Tell what `run`, which was cancelled, has not told yet.

        Raises:
            StoreError: the store can be read no more.
        """
        await self._tell_messages()
        await self._tell_notices()
        await self._note()

    async def aclose(self) -> None:
        """Look no more, after `run` has ended."""
        self._unsubscribe()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_NOTES):
                await self._note()

    # ---- inside

    def _on_change(self) -> None:
        self._changed.set()
        self._arrived.set()
        self._noticed.set()

    async def _tell_as_it_comes(
        self, changed: asyncio.Event, tell: Callable[[], Awaitable[None]]
    ) -> None:
        while True:
            await changed.wait()
            changed.clear()
            await tell()

    async def _tell_messages(self) -> None:
        read, configured = self._node.store.read, self._node.config.peers
        while found := await read(messages_after, configured, self._message_seq):
            for message in found:
                self._tell.event(event_of(message))
            self._message_seq = found[-1].seq
            await self._note()

    async def _tell_notices(self) -> None:
        read, configured = self._node.store.read, self._node.config.peers
        while found := await read(notices_after, configured, self._notice_seq):
            for name, notice in found:
                self._tell.event(notice_event(name, notice))
            self._notice_seq = found[-1][1].seq
            await self._note()

    async def _note(self) -> None:
        """Note up to where was told, once it is written."""
        told = self._message_seq, self._notice_seq
        # Only then: a crash before this tells a message twice rather than never.
        if told != self._noted and await self._tell.written():
            with logged():
                await self._node.store.run(_raise_cursors, self._command, told)
                self._noted = max(self._noted[0], told[0]), max(self._noted[1], told[1])

    async def _look_around(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                # A process that is killed commits nothing.
                async with asyncio.timeout(LOOK_AROUND_INTERVAL):
                    await self._changed.wait()
            self._changed.clear()
            linked = self._registry.linked
            keys, owners, queued, has_expired = await self._node.store.read(
                _what_others_change, self._configured, now_ms()
            )
            self._registry.keep_only(keys, among=linked)
            with logged():
                await self._node.bury(owners)
            self._registry.wake(queued)
            self._queued(queued)
            await self._registry.rows.strike_out_gone()
            if has_expired:
                # What ends is told as a notice; what fails is tried again with the next look.
                with contextlib.suppress(StoreError):
                    await self._node.store.run(outbox.prune, now_ms())
            await asyncio.sleep(LOOK_AROUND_PAUSE)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(TIDY_INTERVAL)
            with logged():
                await self._node.store.run(upkeep.prune, now_ms())
                await recover(self._node)


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Log that the store could not be written, and go on."""
    try:
        yield
    except StoreError as error:
        _log.error("%s", error)


def _for_notices(command: str) -> str:
    return f"{command} notices"


def _raise_cursors(conn: sqlite3.Connection, command: str, told: tuple[int, int]) -> None:
    messages, notices = told
    inbox.raise_cursor(conn, command, messages)
    inbox.raise_cursor(conn, _for_notices(command), notices)


def _begin_to_tell(conn: sqlite3.Connection, command: str) -> tuple[int, int]:
    """Up to where messages and notices were told: the first start tells of nothing before it."""
    return (
        _place(conn, command, inbox.newest_seq(conn)),
        _place(conn, _for_notices(command), notices.newest_seq(conn)),
    )


def _place(conn: sqlite3.Connection, name: str, newest: int) -> int:
    told = inbox.cursor(conn, name)
    if told is None:
        inbox.raise_cursor(conn, name, newest)
        return newest
    return told


def _what_others_change(
    conn: sqlite3.Connection, configured: Iterable[bytes], now: int
) -> tuple[set[bytes], list[str], set[bytes], bool]:
    """The keys of the peers, the owners of rows and links, for which peers rows are queued, and
    whether a row has expired.
    """
    keys = peers.keys(conn) | set(configured)
    queued = {
        *outbox.peers_with_queued(conn),
        *outbox_files.peers_with_queued(conn),
    }
    owners = [*{*outbox.owners(conn), *links.owners(conn)}]
    return keys, owners, queued & keys, outbox.has_expired(conn, now)
