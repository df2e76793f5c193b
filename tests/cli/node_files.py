"""A node's home for the tests of commands: what a person and other processes have put into it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from securelink.clock import new_id
from securelink.endpoints import Endpoint, kind_of
from securelink.identity import Identity
from securelink.ids import uuid7
from securelink.store import addresses, inbox, outbox, outbox_files, peers
from securelink.store.database import Database
from securelink.store.file_terms import Kind, NewFile

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from securelink.identity import PublicKey


def now() -> int:
    return time.time_ns() // 1_000_000


class NodeFiles:
    """The home of a node that no process has open."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._messages = 0

    @contextmanager
    def store(self) -> Iterator[sqlite3.Connection]:
        database = Database.open(self.home / "securelink.db")
        try:
            with database.transaction() as conn:
                yield conn
        finally:
            database.close()

    def configure(self, text: str) -> Path:
        self.home.mkdir(exist_ok=True)
        file = self.home / "config.toml"
        file.write_text(text)
        return file

    def peer(
        self,
        name: str,
        *at: str,
        calls_itself: str | None = None,
        pending: bool = False,
        invite: bytes | None = None,
        last_seen: int | None = None,
    ) -> PublicKey:
        """Pair with a new key; *at* are its HOSTs, all on port 24819."""
        key = Identity.generate().public
        with self.store() as conn:
            if invite is not None:
                peers.enrol(
                    conn,
                    key=key.raw,
                    calls_itself=calls_itself or name,
                    token_hash=invite,
                    taken=(),
                    now=last_seen or now(),
                )
            else:
                peers.add_pending(conn, key=key.raw, name_wanted=name, taken=(), now=now())
                if not pending:
                    peers.confirm(
                        conn, key.raw, calls_itself=calls_itself or name, now=last_seen or now()
                    )
            ends = [Endpoint(kind_of(host), host, 24819) for host in at]
            addresses.set_endpoints(conn, key.raw, addresses.Source.INVITE, ends, now())
        return key

    def receive(
        self,
        text: str,
        *,
        peer: PublicKey | None = None,
        name: str = "bob",
        ago: int = 0,
        message_id: bytes | None = None,
    ) -> bytes:
        """Put a text into the inbox as if it had come *ago* seconds before now; return its ID."""
        self._messages += 1
        at = now() - 1000 * ago
        made = message_id or uuid7(at, self._messages.to_bytes(10, "big"))
        key = peer or Identity.generate().public
        with self.store() as conn:
            inbox.receive(
                conn,
                peer=key.raw,
                peer_name=name,
                message_id=made,
                sent_at=at,
                text=text,
                received_at=at,
            )
        return made

    def receive_file(
        self,
        name: str,
        *,
        path: str | None = None,
        size: int = 5,
        sha256: bytes | None = None,
        kind: Literal["file", "folder"] = "file",
        peer: PublicKey | None = None,
        ago: int = 0,
    ) -> bytes:
        """Put a file into the inbox as if it had come *ago* seconds before now; return its ID."""
        self._messages += 1
        at = now() - 1000 * ago
        made = uuid7(at, self._messages.to_bytes(10, "big"))
        with self.store() as conn:
            inbox.receive_file(
                conn,
                peer=(peer or Identity.generate().public).raw,
                peer_name="bob",
                message_id=made,
                name=name,
                path=path or f"{self.home}/files/bob/{name}",
                size=size,
                sha256=sha256,
                received_at=at,
                kind=kind,
            )
        return made

    def queue(
        self,
        peer: PublicKey,
        text: str,
        *,
        ago: int = 0,
        owner: str | None = None,
        life: int | None = None,
        message_id: bytes | None = None,
    ) -> bytes:
        """Put a text into the outbox as if that was *ago* seconds before now; return its ID."""
        self._messages += 1
        at = now() - 1000 * ago
        made = message_id or uuid7(at, self._messages.to_bytes(10, "big"))
        with self.store() as conn:
            outbox.put(
                conn,
                message_id=made,
                peer=peer.raw,
                text=text,
                sent_at=at,
                owner=owner,
                life=life,
            )
        return made

    def queue_files(self, peer: PublicKey, *names: str, size: int = 5) -> bytes:
        """Put files into the outbox, as one argument of `send` led to them; return the group."""
        self._messages += 1
        group = uuid7(now(), self._messages.to_bytes(10, "big"))
        files = [
            NewFile(name, f"/source/{name}".encode(), Kind.FILE, size, 1, 1, 0o600)
            for name in names
        ]
        with self.store() as conn:
            outbox_files.put(
                conn,
                peer=peer.raw,
                files=files,
                group=group,
                new_id=new_id,
                sent_at=now(),
                owner=None,
            )
        return group

    def hand(self, message_id: bytes) -> None:
        """Have a message of the outbox leave."""
        with self.store() as conn:
            rows = conn.execute("SELECT seq FROM outbox WHERE id = ?", (message_id,))
            outbox.hand(conn, [seq for (seq,) in rows], now())

    def states(self) -> list[str]:
        """The states of the outbox's rows, in order."""
        with self.store() as conn:
            return [state for (state,) in conn.execute("SELECT state FROM outbox ORDER BY seq")]

    def unread(self) -> list[str]:
        with self.store() as conn:
            return [message.text for message in inbox.after(conn, 0, unread=True)]
