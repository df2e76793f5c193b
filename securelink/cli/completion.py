"""What the shell offers to complete; whatever goes wrong, it offers nothing, and says nothing."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

import typer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Mapping

    from securelink.config import ConfiguredPeer

_Found = TypeVar("_Found", str, tuple[str, str])


def peer_names(incomplete: str) -> list[str]:
    """Return the names of this node's peers that begin with *incomplete*."""
    return _fitting(_found(_peers), incomplete)


def recipients(incomplete: str) -> list[str]:
    """Return what `send --to` takes and begins with *incomplete*: peers, `me` and `all`."""
    return _fitting([*_found(_peers), "me", "all"], incomplete)


def peers_or_ids(ctx: typer.Context, incomplete: str) -> list[str] | list[tuple[str, str]]:
    """Return what `outbox` takes: behind --flush peers and `me`, behind --cancel IDs, each with
    what it stands for."""
    if ctx.params.get("cancel"):
        return [each for each in _found(_waiting) if each[0].startswith(incomplete)]
    if ctx.params.get("flush"):
        return _fitting([*_found(_peers), "me"], incomplete)
    return []


def invite_labels(incomplete: str) -> list[tuple[str, str]]:
    """Return the labels of invites that still hold, each with whom it was made for."""
    return [each for each in _found(_open_invites) if each[0].startswith(incomplete)]


def endpoints(incomplete: str) -> list[str]:
    """Return what `--endpoint` takes beside an address."""
    from securelink.endpoints import Kind

    return _fitting(["auto", *Kind], incomplete)


def conflicts(incomplete: str) -> list[str]:
    """Return what `--conflict` takes."""
    from securelink.config.model import CONFLICTS

    return _fitting(CONFLICTS, incomplete)


def nat_methods(incomplete: str) -> list[str]:
    """Return what `--method` takes."""
    from securelink.config.model import NAT_METHODS

    return _fitting(NAT_METHODS, incomplete)


# ---- inside


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    return [str(word) for word in words if word.startswith(incomplete)]


def _found(
    look: Callable[[sqlite3.Connection | None, Mapping[str, ConfiguredPeer]], list[_Found]],
) -> list[_Found]:
    """Return what *look* finds in the store, None if there is none yet, and the configuration."""
    import sqlite3

    from securelink.config import load
    from securelink.errors import SecurelinkError
    from securelink.home import Home
    from securelink.store.database import Database

    try:
        home = Home.find()
        configured = load(home.config_file).config.peers
        # Not `Database.open`, which would make what is not there, or bring it up to date.
        if not home.store_file.exists():
            return look(None, configured)
        with closing(Database.open_reader(home.store_file)) as database:
            return look(database.connection, configured)
    except (SecurelinkError, sqlite3.Error, OSError):
        return []


def _peers(conn: sqlite3.Connection | None, configured: Mapping[str, ConfiguredPeer]) -> list[str]:
    from securelink import directory

    return sorted(configured if conn is None else directory.read(conn, configured).names)


def _waiting(
    conn: sqlite3.Connection | None, configured: Mapping[str, ConfiguredPeer]
) -> list[tuple[str, str]]:
    from securelink import directory
    from securelink.clock import now_ms
    from securelink.identity import PublicKey
    from securelink.ids import to_text
    from securelink.store import outbox_list

    if conn is None:
        return []
    known = directory.read(conn, configured)
    found: dict[str, str] = {}
    for entry in outbox_list.entries(conn, now_ms()):
        if entry.is_open:
            key = PublicKey(entry.peer)
            peer = known.by_key(key)
            found.setdefault(
                to_text(entry.id), f"{entry.kind} for {peer.name if peer else key.short}"
            )
    return list(found.items())


def _open_invites(
    conn: sqlite3.Connection | None, _: Mapping[str, ConfiguredPeer]
) -> list[tuple[str, str]]:
    from securelink.clock import now_ms
    from securelink.store import invites

    if conn is None:
        return []
    now = now_ms()
    return [
        (each.label, f"for {each.name or 'anybody'}")
        for each in invites.list_all(conn)
        if each.uses_left and not each.revoked and each.expires_at > now
    ]
