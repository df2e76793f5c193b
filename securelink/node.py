"""One installation, opened: its identity, its configuration, its store, its locks."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Self

from securelink import directory, keyfile
from securelink.admission import Room
from securelink.claims import Claims
from securelink.clock import now_ms
from securelink.hello import FEATURES, ClientHello
from securelink.locks import FileLock, is_held
from securelink.nat.ledger import Ledger, describe
from securelink.session import Scratch
from securelink.store import links, outbox, serving, upkeep
from securelink.store.writer import Store

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from securelink.config import Config
    from securelink.directory import Directory
    from securelink.home import Home
    from securelink.identity import Identity
    from securelink.store.links import LinkRow
    from securelink.store.serving import Serving


CLOSE_TIMEOUT = 1.0
"""Seconds for which the store may finish what waits when the node is closed."""


class Node:
    """What all parts of one running process share. Made by `open`.

    Attributes:
        home: where its files are.
        config: what is in force.
        identity: its key pair.
        store: the mail, peers and invites.
        scratch: the buffers that all its links share.
        claims: which of its links receives which file.
        room: what may still be received.
        owner: this process's name in the outbox, for the rows that it alone delivers.
    """

    def __init__(
        self, home: Home, config: Config, identity: Identity, store: Store, lock: FileLock
    ) -> None:
        self.home = home
        self.config = config
        self.identity = identity
        self.store = store
        self.scratch = Scratch()
        self.claims = Claims()
        self.room = Room(config.files)
        self._lock = lock

    @classmethod
    async def open(cls, home: Home, config: Config) -> Self:
        """Open the node, making what is not there yet, and settle what dead processes left.

        Raises:
            IdentityError, StoreError, ConfigError: as `keyfile.load_or_create`, `Store.open` and
                `Home.create` say.
        """
        home.create()
        identity = keyfile.load_or_create(home.key_file)
        lock = FileLock.acquire(home.owner_lock(str(uuid.uuid4())))
        assert lock is not None, "nobody else knows a name this new"
        try:
            store = await Store.open(home.store_file)
        except BaseException:
            lock.release(unlink=True)
            raise
        node = cls(home, config, identity, store, lock)
        try:
            await node.bury({*await store.read(outbox.owners), *await store.read(links.owners)})
            await store.run(upkeep.prune, now_ms())
        except BaseException:
            await node.aclose()
            raise
        return node

    @property
    def owner(self) -> str:
        """This process's name in the outbox."""
        return self._lock.path.stem

    async def directory(self) -> Directory:
        """Everybody this node knows at this moment."""
        return await self.store.read(directory.read, self.config.peers)

    def hello(
        self, *, token: bytes | None = None, standing: bool = False, takes_files: bool = False
    ) -> ClientHello:
        """What this node says of itself when it dials, and of what the link is for."""
        return ClientHello(
            name=self.config.node.name,
            features=FEATURES,
            max_message=self.config.limits.max_message,
            token=token,
            standing=standing,
            takes_files=takes_files,
        )

    async def bury(self, owners: Iterable[str]) -> None:
        """Settle the rows of those owners whose processes have died, and strike out their links.

        What may have left is queued for the next link, the rest is given up.
        """
        for owner in owners:
            if not self.is_alive(owner):
                await self.store.run(upkeep.bury, owner, now_ms())
                self.home.owner_lock(owner).unlink(missing_ok=True)

    def is_alive(self, owner: str) -> bool:
        """Whether the process that `owner` names still runs."""
        return is_held(self.home.owner_lock(owner))

    async def serving(self) -> Serving | None:
        """What the `serve` of this node that runs now says of itself, if one does."""
        # What a killed process wrote is still there; its lock is not.
        return await self.store.read(serving.get) if is_held(self.home.serve_lock) else None

    async def links_to(self, peer: bytes) -> list[LinkRow]:
        """The links to a peer that other processes of this node have at this moment."""
        rows = await self.store.read(links.of_peer, peer)
        return [row for row in rows if row.owner != self.owner and self.is_alive(row.owner)]

    def ledger(self) -> Ledger:
        """What this node has had mapped on its routers, for this process to use."""
        name = describe(self.identity.public.raw)
        return Ledger(self.store, self.owner, self.is_alive, name)

    def drain_lock(self, peer: bytes) -> FileLock | None:
        """The right to send the queued rows of a peer, or None if another process has it."""
        return FileLock.acquire(self.home.locks / f"drain-{peer.hex()}.lock")

    async def aclose(self) -> None:
        """Close the store and give back the locks, in `CLOSE_TIMEOUT` at most."""
        with contextlib.suppress(TimeoutError):
            # Another process may hold the write lock; nothing that owes a receipt waits here.
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.store.aclose()
        self._lock.release(unlink=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
