"""`Placing`: what is whole is put under its name, all that is whole at a time together.

Under `rename` all that one argument of the sender led to, a group, goes below one name, which is
free when the first of it is placed. It is in the store before anything lies there, so that what
comes of the group after a cut, or after a crash, finds its way to the same place.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from securelink.admission import EXISTS
from securelink.errors import BadPlace, FileExists, StoreError, TransferError
from securelink.incoming import talk
from securelink.incoming.files import File, Stage, refusal_for
from securelink.landing import Conflict, Ready
from securelink.store import partials

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from securelink.admission import Refusal
    from securelink.landing import Landing

MOST_TOGETHER = 256
"""Files that share their way to the disk."""

_naming = threading.Lock()
"""Held from the look for a free name until it is taken, by whichever link's thread."""


class Placing:
    """The names in a peer's folder, for one link.

    Args:
        landing: the folder.
        conflict: what happens when a name is taken.
        peer: the peer's key, 32 bytes.
        store: to look up the names of groups.
        post: takes results to the event loop, all of one `place` together.
        complain: told what the owner of this machine should know.
    """

    def __init__(
        self,
        landing: Landing,
        conflict: Conflict,
        peer: bytes,
        store: Callable[[], AbstractContextManager[sqlite3.Connection]],
        post: Callable[[talk.Result], None],
        complain: Callable[[Exception], None],
    ) -> None:
        self._landing = landing
        self._conflict = conflict
        self._peer = peer
        self._store = store
        self._post = post
        self._complain = complain
        self._whole: list[File] = []
        self._groups: dict[bytes, str | None] = {}
        """None while the store takes note of the name."""
        self._from_before: dict[bytes, str | None] = {}

    def name_from_before(self, group: bytes) -> str | None:
        """The name of a group of which something has landed before this link brought any of it."""
        if group not in self._from_before:
            with self._store() as conn:
                self._from_before[group] = partials.landing_of(conn, self._peer, group)
        return self._from_before[group]

    def add(self, file: File) -> None:
        """This one is whole."""
        file.stage = Stage.WHOLE
        self._whole.append(file)

    def named(self, named: talk.Named) -> Iterator[tuple[File, Refusal]]:
        """The store has a group's name; yield the files that are refused if it has not."""
        if named.name != named.free_name:
            self._landing.remove_top_level(named.free_name)
        if isinstance(named.name, str):
            self._groups[named.group] = named.name
            return
        del self._groups[named.group]
        refused = [each for each in self._whole if each.offer.group == named.group]
        self._whole = [each for each in self._whole if each not in refused]
        for file in refused:
            yield file, named.name

    def place(self) -> Iterator[tuple[File, Refusal]]:
        """Put under their names all whose names are known; yield those where it fails."""
        while self._whole:
            placeable: list[tuple[File, tuple[str, ...]]] = []
            waiting: list[File] = []
            for file in self._whole:
                components = None
                if len(placeable) < MOST_TOGETHER:
                    try:
                        components = self._components(file)
                    except (TransferError, StoreError, OSError) as error:
                        self._complain(error)
                        yield file, refusal_for(error)
                        continue
                if components is None:
                    waiting.append(file)
                else:
                    placeable.append((file, components))
            self._whole = waiting
            if not placeable:
                return
            yield from self._files([each for each in placeable if each[0].part is not None])
            # A folder's time is set last: whatever is put into it changes that.
            yield from self._folders([each for each in placeable if each[0].part is None])

    def _components(self, file: File) -> tuple[str, ...] | None:
        """Where a file goes; None while that is not known."""
        components = file.components
        if self._conflict is not Conflict.RENAME or (len(components) == 1 and file.part):
            return components
        group = file.offer.group
        if group not in self._groups:
            with self._store() as conn:
                known = partials.landing_of(conn, self._peer, group)
            if known is None:
                self._post(talk.NameGroup(group, self._take_name(file)))
            self._groups[group] = known
        name = self._groups[group]
        return None if name is None else (name, *components[1:])

    def _take_name(self, file: File) -> str:
        with _naming:
            name = self._landing.free_top_level(file.components[0])
            self._landing.make_folder((name,), 0o700, file.offer.mtime)
        return name

    def _files(
        self, placeable: list[tuple[File, tuple[str, ...]]]
    ) -> Iterator[tuple[File, Refusal]]:
        ready = [
            Ready(file.own_part, components, file.offer.mtime, file.offer.mode)
            for file, components in placeable
        ]
        results = self._landing.finish(ready, self._conflict)
        for (file, components), result in zip(placeable, results, strict=True):
            if isinstance(result, TransferError):
                yield file, self._refusal(result, components)
            else:
                file.landed = result
                self._post(_landed(file, result.path, result.size))

    def _folders(
        self, placeable: list[tuple[File, tuple[str, ...]]]
    ) -> Iterator[tuple[File, Refusal]]:
        for file, components in placeable:
            offer = file.offer
            try:
                path = self._landing.make_folder(components, offer.mode, offer.mtime)
            except TransferError as error:
                yield file, self._refusal(error, components)
            else:
                self._post(_landed(file, path, 0))

    def _refusal(self, error: TransferError, components: tuple[str, ...]) -> Refusal:
        """What to tell the sender: a file where a folder should be stays there."""
        if isinstance(error, BadPlace):
            try:
                self._landing.existing(components)
            except BadPlace:
                return EXISTS
            except OSError as worse:
                self._complain(worse)
                return refusal_for(worse)
        if not isinstance(error, FileExists):
            self._complain(error)
        return refusal_for(error)


def _landed(file: File, path: Path, size: int) -> talk.Landed:
    file.stage = Stage.LANDED
    return talk.Landed(
        number=file.number,
        id=file.offer.id,
        name=file.offer.name,
        path=str(path),
        size=size,
        sha256=file.digest,
        kind="folder" if file.offer.folder else "file",
    )
