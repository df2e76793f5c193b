"""A node's files, opened for a command that needs no event loop."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from securelink.config import Config
    from securelink.directory import Directory
    from securelink.endpoints import Endpoint
    from securelink.home import Home
    from securelink.identity import Identity
    from securelink.store.database import Database


class OpenedNode(msgspec.Struct, frozen=True):
    """Where a node's files are, what is configured, and its store; made by `open_node`."""

    home: Home
    config: Config
    database: Database

    def identity(self) -> Identity:
        """Return the key pair, which is made if there is none yet.

        Raises:
            IdentityError: as `keyfile.load_or_create` says.
        """
        from securelink import keyfile

        return keyfile.load_or_create(self.home.key_file)

    def directory(self) -> Directory:
        """Return everybody this node knows at this moment."""
        from securelink import directory

        with self.database.snapshot() as conn:
            return directory.read(conn, self.config.peers)

    def names(self) -> Callable[[bytes], str]:
        """Return what tells the present name of whoever has a key; of strangers a part of it."""
        from securelink.directory import ME
        from securelink.identity import PublicKey

        known = self.directory()

        def name_of(peer: bytes) -> str:
            key = PublicKey(peer)
            found = known.by_key(key)
            if found is not None:
                return found.name
            return ME if key == self.identity().public else key.short

        return name_of

    def settle(self) -> None:
        """End what is past its time or whose process has died, as the next process would.

        A store that can't be written is shown as it is.
        """
        from securelink.clock import now_ms
        from securelink.errors import StoreError
        from securelink.locks import is_held
        from securelink.store import outbox, upkeep

        with suppress(StoreError), self.database.transaction() as conn:
            for owner in outbox.owners(conn):
                if not is_held(self.home.owner_lock(owner)):
                    upkeep.bury(conn, owner, now_ms())
            outbox.prune(conn, now_ms())

    def reach(self) -> Reach:
        """Return where this node can be reached: by a running `serve`'s word, else its own."""
        from securelink import reach
        from securelink.locks import is_held
        from securelink.store import serving

        server = self.config.server
        with self.database.snapshot() as conn:
            written = serving.get(conn)
        # What a killed process wrote is still there; its lock is not.
        if written is None or not is_held(self.home.serve_lock):
            return Reach(False, server.port, reach.own_endpoints(server, server.port))
        public = server.public_endpoint(written.port)
        endpoints = ((public,) if public else ()) + written.endpoints
        return Reach(True, written.port, tuple(dict.fromkeys(endpoints)))


class Reach(msgspec.Struct, frozen=True):
    """Where a node can be reached."""

    running: bool
    """Whether a `serve` of this node is running."""
    port: int
    """The port it listens on, or would: 0 if that is not known before it runs."""
    endpoints: tuple[Endpoint, ...]
    """The most widely reachable first; what a person named before all."""


@contextmanager
def open_node(*, flags: Mapping[str, Any] | None = None) -> Iterator[OpenedNode]:
    """Open the node's files for the block, making what is not there yet.

    Args:
        flags: the command's flags that stand above the configuration, as `config.load` takes them.

    Raises:
        ConfigError, StoreError: as `config.load`, `Home.create` and `Database.open` say.
    """
    from securelink.config import load
    from securelink.home import Home
    from securelink.store.database import Database

    home = Home.find()
    config = load(home.config_file, flags=flags).config
    home.create()
    database = Database.open(home.store_file)
    try:
        yield OpenedNode(home, config, database)
    finally:
        database.close()
