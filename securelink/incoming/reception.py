"""`Reception`: what becomes of an offer: known, lying here, refused, or received from an offset."""

from __future__ import annotations

import hashlib
import os
import threading
from functools import partial
from typing import TYPE_CHECKING

from securelink.admission import BUSY, EXISTS, NOT_ALLOWED, Refusal
from securelink.boot import boot_id
from securelink.errors import BadPlace
from securelink.incoming import talk
from securelink.incoming.digester import of_file, of_part
from securelink.incoming.files import File, NotTaken, Stage, trusted
from securelink.landing import Conflict, Existing, Kind, part_path
from securelink.store import inbox, partials

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from securelink.directory import KnownPeer
    from securelink.file_messages import Offer
    from securelink.incoming.digester import Work
    from securelink.incoming.placing import Placing
    from securelink.landing import Landing
    from securelink.node import Node
    from securelink.store.partials import Partial


class Reception:
    """Looks at offers, for one link.

    Args:
        node: whose files they become.
        peer: who sends them.
        landing: the peer's folder.
        placing: the names in it.
        store: to look up what came before.
        post: takes results to the event loop.
        digest: has a digest made, which comes back as `talk.Digested`.
    """

    def __init__(
        self,
        node: Node,
        peer: KnownPeer,
        landing: Landing,
        placing: Placing,
        store: Callable[[], AbstractContextManager[sqlite3.Connection]],
        post: Callable[[talk.Result], None],
        digest: Callable[[int, Work], None],
    ) -> None:
        self._room = node.room
        self._root = node.home.files_folder(node.config.files.folder)
        self._peer = peer
        self._conflict = Conflict(node.config.files.conflict)
        self._checksum = node.config.files.checksum
        self._landing = landing
        self._placing = placing
        self._store = store
        self._post = post
        self._start_digest = digest

    def look_at(self, file: File) -> None:
        """Decide what becomes of a file, and tell the sender if it waits for that.

        Raises:
            NotTaken, TransferError, StoreError, OSError: it can't be taken.
        """
        offer = file.offer
        if not self._room.accepts(self._peer.name):
            # Nothing of it touches the folder, which need not be of any use then.
            if not self._look_up(offer)[0]:
                raise NotTaken(NOT_ALLOWED)
            file.stage = Stage.KNOWN
            return
        if not offer.folder:
            # To open the part of a file that was never committed takes its name back.
            if self._has_part(offer) and self._look_up(offer)[0]:
                file.stage = Stage.KNOWN
                return
            # Before the look into the store: what we hold nobody else takes in meanwhile.
            self._open_part(file)
        seen, row = self._look_up(offer)
        file.has_row = row is not None
        if seen:
            file.stage = Stage.KNOWN
        elif not self._lies_here(file):
            self._receive(file, row)

    def note_beginning(self, file: File) -> None:
        """Its first byte comes: from now on it can be gone on with, if it is worth that."""
        if file.is_large:
            file.has_row = True
            file.noted = threading.Event()
            self._post(talk.Began(file.offer, boot_id(), file.noted))

    def _open_part(self, file: File) -> None:
        if not self._room.open_part(self._peer.name):
            raise NotTaken(BUSY)
        try:
            file.part = self._landing.open_part(file.offer.id)
        except BaseException:
            self._room.close_part(self._peer.name)
            raise

    def _has_part(self, offer: Offer) -> bool:
        return os.path.lexists(part_path(self._root, self._peer.key.raw, offer.id))

    def _look_up(self, offer: Offer) -> tuple[bool, Partial | None]:
        """Whether a file was taken in before, and its row if it may go on."""
        key = self._peer.key.raw
        with self._store() as conn:
            row = partials.get(conn, key, offer.id) if offer.ask else None
            return inbox.was_seen(conn, key, offer.id), row

    def begin(self, file: File) -> None:
        """What lies here under its name is another file: take this one, from its first byte on.

        Raises:
            NotTaken, TransferError, OSError: as for `look_at`.
        """
        if self._conflict is Conflict.SKIP:
            raise NotTaken(EXISTS)
        self._open_part(file)
        self._take(file, 0)
        file.stage = Stage.WRITING
        self.note_beginning(file)

    def _lies_here(self, file: File) -> bool:
        """Whether what has the name may be the same; then nothing is written before that is known.

        Raises:
            NotTaken: what has the name stays, and is something else.
        """
        if self._conflict is Conflict.RENAME:
            return self._came_before(file)
        offer = file.offer
        try:
            existing = self._landing.existing(file.components)
        except BadPlace:
            raise NotTaken(EXISTS) from None
        if existing is None:
            return False
        if existing.kind is not (Kind.FOLDER if offer.folder else Kind.FILE):
            raise NotTaken(EXISTS)
        if self._conflict is Conflict.OVERWRITE:
            return False
        if offer.folder:
            file.stage = Stage.LANDED
            self._post(talk.Same(file.number, offer.id))
            return True
        if existing.size != offer.size:
            raise NotTaken(EXISTS)
        self._compare(file, file.components)
        return True

    def _came_before(self, file: File) -> bool:
        """Conflict "rename": whether an earlier attempt at the same folder may have brought it.

        Its sender may offer all of the folder anew, also what was delivered.
        """
        offer = file.offer
        if offer.folder or len(file.components) == 1 or file.has_row:
            return False
        name = self._placing.name_from_before(offer.group)
        if name is None:
            return False
        components = (name, *file.components[1:])
        try:
            existing = self._landing.existing(components)
        except BadPlace:
            return False
        if existing != Existing(Kind.FILE, offer.size or 0) or offer.size is None:
            return False
        self._compare(file, components)
        return True

    def _compare(self, file: File, components: tuple[str, ...]) -> None:
        """Have a file of the same size compared with what is offered."""
        size = file.offer.size
        assert size is not None
        file.own_part.discard()
        file.part = None
        self._room.close_part(self._peer.name)
        if not size and not file.offer.ask:
            file.stage = Stage.SAME
            return
        self._tell(file, size)
        if size:
            descriptor = self._landing.open_existing(components)
            self._digest(file, partial(of_file, descriptor, size, lambda: file.dropped))

    def _receive(self, file: File, row: Partial | None) -> None:
        """Take a folder, or the bytes of a file, from the start or from where they were cut."""
        if file.part is None:
            # Of a folder that can't be made, what is free on its parent's disk tells nothing.
            self._landing.make()
            self._book(file, 0)
            file.stage = Stage.WHOLE
            return
        here = trusted(file.part, row, file.offer)
        if row is not None:
            file.synced = min(row.synced, here)
        self._take(file, here)
        if not file.offer.ask:
            self.note_beginning(file)
            return
        self._tell(file, here)
        if here:
            self._digest(file, partial(of_part, file))

    def _take(self, file: File, here: int) -> None:
        """Make a part ready to be written to."""
        self._book(file, here)
        file.own_part.truncate(here)
        if file.offer.checksum or self._checksum:
            file.hash = hashlib.sha256()

    def _book(self, file: File, here: int) -> None:
        booking = self._room.book(self._peer.name, self._landing, file.offer.size, here)
        if isinstance(booking, Refusal):
            raise NotTaken(booking)
        file.booking = booking

    def _tell(self, file: File, here: int) -> None:
        """Tell the sender how much is here."""
        file.stage = Stage.COMPARING
        file.told = here
        self._post(talk.Here(file.number, here))

    def _digest(self, file: File, work: Work) -> None:
        file.digesting = True
        self._start_digest(file.number, work)
