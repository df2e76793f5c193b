"""`Intake`: one link's files, on the disk. All but its constructor runs in the disk thread.

Bytes are written as they come. What is whole is put under its name by `Placing`; when the store
has taken note of it, its part is let go.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from securelink import filenames
from securelink.admission import BAD_NAME, BUSY, EXISTS, Refusal
from securelink.boot import boot_id
from securelink.diskthread import DiskThread
from securelink.errors import BadPlace, PartInUse, SecurelinkError
from securelink.file_messages import Begin, Cancel, Chunk, End, Offer
from securelink.incoming import talk
from securelink.incoming.digester import Digester, of_file
from securelink.incoming.files import AT_ITS_END, File, NotTaken, Stage, refusal_for, trusted
from securelink.incoming.placing import Placing
from securelink.landing import Conflict, Kind, Landing
from securelink.store import inbox, partials
from securelink.store.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from securelink.directory import KnownPeer
    from securelink.node import Node

SYNC_EVERY = 256 << 20
"""Bytes after which what is here is put on the disk, so that a restart costs no more."""

_log = logging.getLogger(__name__)


class Intake:
    """The disk's side of one link.

    Args:
        node: whose files they become.
        peer: who sends them.
        deliver: takes what comes of it, in the event loop.

    Attributes:
        thread: does `talk.Job`s.
    """

    def __init__(
        self, node: Node, peer: KnownPeer, deliver: Callable[[Sequence[talk.Result]], None]
    ) -> None:
        self._node = node
        self._peer = peer
        self._config = node.config.files
        self._files: dict[int, File] = {}
        self._last_words = ""
        self._do: dict[type, Callable[[Any], None]] = {
            Offer: self._offer,
            Begin: self._begin,
            End: self._end,
            Cancel: self._cancel,
            talk.Drop: self._drop,
            talk.Named: self._named,
            talk.Settled: self._settled,
            talk.Digested: self._digested,
            talk.HangUp: self._hang_up,
        }
        self.thread: DiskThread[talk.Job, talk.Result] = DiskThread(
            "files", work=self._work, deliver=deliver, finish=self._finish
        )

    @cached_property
    def _store(self) -> Database:
        # A connection of SQLite belongs to the thread that opens it.
        return Database.open_reader(self._node.home.store_file)

    @cached_property
    def _landing(self) -> Landing:
        root = self._node.home.files_folder(self._config.folder)
        return Landing(root, self._peer.name, self._peer.key.raw)

    @cached_property
    def _placing(self) -> Placing:
        conflict = Conflict(self._config.conflict)
        return Placing(self._landing, conflict, self._name_of, self.thread.post)

    @cached_property
    def _digester(self) -> Digester:
        def done(number: int, digest: bytes | None) -> None:
            self.thread.put([talk.Digested(number, digest)])

        return Digester(done)

    def _work(self, jobs: Sequence[talk.Job]) -> None:
        """Do what has gathered, then put under their names those that are whole."""
        at = 0
        while at < len(jobs):
            job = jobs[at]
            first = at
            at += 1
            if not isinstance(job, Chunk):
                self._do[type(job)](job)
                continue
            # What comes in one piece is written in one go.
            while at < len(jobs) and _goes_on(jobs[at], job.number):
                at += 1
            chunks = jobs[first:at]
            self._write(job.number, [each.data for each in chunks if isinstance(each, Chunk)])
        for file, refusal in self._placing.place():
            self._refuse(file, refusal)

    def _finish(self) -> None:
        opened = self.__dict__
        if "_digester" in opened:
            self._digester.stop()
        if "_landing" in opened:
            self._landing.close()
        if "_store" in opened:
            self._store.close()

    # ---- what the sender says

    def _offer(self, offer: Offer) -> None:
        try:
            components = filenames.components(offer.name)
        except ValueError:
            self.thread.post(talk.Refuse(offer.number, BAD_NAME))
            self.thread.post(talk.Gone(offer.number))
            return
        file = self._files[offer.number] = File(offer, components)
        with self._telling(file):
            if not offer.folder:
                # Before the look into the store: what we hold nobody else takes in meanwhile.
                file.part = self._landing.open_part(offer.id)
            if self._was_seen(offer):
                self.thread.post(talk.Known(file.number))
                self._let_go(file, keep=False)
            elif not self._lies_here(file):
                self._receive(file)

    def _begin(self, begin: Begin) -> None:
        file = self._files.get(begin.number)
        if file is None:
            return
        with self._telling(file):
            if file.part is None:
                if begin.offset != file.offer.size:
                    raise NotTaken(EXISTS)
                file.stage = Stage.SAME
                return
            file.stage = Stage.WRITING
            if begin.offset < file.told:
                file.start_over()
                assert file.booking is not None
                if refusal := file.booking.start_over(file.told):
                    raise NotTaken(refusal)
            if begin.offset:
                self.thread.post(talk.Synced(file.offer.id, file.synced, boot_id()))
            else:
                self._note_beginning(file)

    def _write(self, number: int, views: Sequence[bytes | memoryview]) -> None:
        file = self._files.get(number)
        size = sum(map(len, views))
        if file is not None and file.stage is Stage.WRITING:
            with self._telling(file):
                assert file.booking is not None
                if refusal := file.booking.take(size):
                    raise NotTaken(refusal)
                file.own_part.write(views)
                if file.hash is not None:
                    for view in views:
                        file.hash.update(view)
                if file.has_row and file.own_part.size - file.synced >= SYNC_EVERY:
                    self._sync(file)
        self.thread.post(talk.Worked(size, len(views)))

    def _end(self, end: End) -> None:
        file = self._files.get(end.number)
        if file is None:
            return
        if file.stage is Stage.SAME:
            file.stage = Stage.LANDED
            self.thread.post(talk.Same(file.number, file.offer.id))
        elif file.stage is Stage.WRITING:
            if end.digest is not None and end.digest != file.digest:
                # No byte was changed on the link. One was in the memory or on the disk of one of
                # us, or in the file while it was read; from the start it may well go right.
                self._refuse(file, BUSY, keep=False)
            else:
                self._placing.add(file)

    def _cancel(self, cancel: Cancel) -> None:
        file = self._files.get(cancel.number)
        if file is not None:
            self._let_go(file)

    # ---- what the loop says

    def _drop(self, drop: talk.Drop) -> None:
        file = self._files.get(drop.number)
        if file is not None and file.stage not in AT_ITS_END:
            self._refuse(file, BUSY)

    def _hang_up(self, _: talk.HangUp) -> None:
        for file in [each for each in self._files.values() if each.stage not in AT_ITS_END]:
            self._let_go(file)

    def _named(self, named: talk.Named) -> None:
        for file, refusal in self._placing.named(named):
            self._refuse(file, refusal)

    def _settled(self, settled: talk.Settled) -> None:
        file = self._files[settled.number]
        keep = False
        if file.landed is not None and not settled.stays:
            self._landing.take_back(file.landed)
            # What has replaced another file stays where it is, and must not be written to.
            keep = not file.landed.replaced
        self._let_go(file, keep=keep)

    def _digested(self, digested: talk.Digested) -> None:
        file = self._files[digested.number]
        file.digesting = False
        if file.dropped:
            self._let_go(file)
        elif digested.digest is None:
            self._refuse(file, BUSY)
        else:
            self.thread.post(talk.Digest(file.number, digested.digest))

    # ---- offers

    def _lies_here(self, file: File) -> bool:
        """Whether something has the name of a file and it is left as it is.

        Raises:
            NotTaken: it is something else than what is offered.
        """
        conflict = Conflict(self._config.conflict)
        if conflict is Conflict.RENAME:
            return False
        offer = file.offer
        try:
            existing = self._landing.existing(file.components)
        except BadPlace:
            raise NotTaken(EXISTS) from None
        if existing is None:
            return False
        if existing.kind is not (Kind.FOLDER if offer.folder else Kind.FILE):
            raise NotTaken(EXISTS)
        if conflict is Conflict.OVERWRITE:
            return False
        if offer.folder:
            file.stage = Stage.LANDED
            self.thread.post(talk.Same(file.number, offer.id))
            return True
        if existing.size != offer.size:
            raise NotTaken(EXISTS)
        file.own_part.discard()
        file.part = None
        if offer.ask or existing.size:
            self._tell(file, existing.size)
        else:
            file.stage = Stage.SAME
        return True

    def _receive(self, file: File) -> None:
        """Take a file's bytes, from the start or from where they were cut.

        Raises:
            NotTaken: there is no room for it.
        """
        offer = file.offer
        if offer.folder:
            self._book(file, 0)
            self._placing.add(file)
            return
        part = file.own_part
        row = None
        if offer.ask:
            with self._store.snapshot() as conn:
                row = partials.get(conn, self._peer.key.raw, offer.id)
        here = trusted(part, row, offer)
        file.has_row = row is not None
        file.synced = min(row.synced, here) if row is not None else 0
        self._book(file, here)
        part.truncate(here)
        if offer.checksum or self._config.checksum:
            file.hash = hashlib.sha256()
        if offer.ask:
            self._tell(file, here)
        else:
            self._note_beginning(file)

    def _book(self, file: File, here: int) -> None:
        booking = self._node.room.book(self._peer.name, self._landing, file.offer.size, here)
        if isinstance(booking, Refusal):
            raise NotTaken(booking)
        file.booking = booking

    def _tell(self, file: File, here: int) -> None:
        """Tell the sender how much is here, and have it digested."""
        file.stage = Stage.COMPARING
        file.told = here
        self.thread.post(talk.Here(file.number, here))
        if not here:
            return
        if file.part is None:
            existing = self._landing.open_existing(file.components)
            work = partial(of_file, existing, here, lambda: file.dropped)
        else:
            work = partial(_of_part, file)
        file.digesting = True
        self._digester.put(file.number, work)

    # ---- the store

    def _was_seen(self, offer: Offer) -> bool:
        with self._store.snapshot() as conn:
            return inbox.was_seen(conn, self._peer.key.raw, offer.id)

    def _name_of(self, group: bytes) -> str | None:
        with self._store.snapshot() as conn:
            return partials.landing_of(conn, self._peer.key.raw, group)

    def _note_beginning(self, file: File) -> None:
        if file.is_large:
            file.has_row = True
            self.thread.post(talk.Began(file.offer, boot_id()))

    def _sync(self, file: File) -> None:
        file.own_part.sync()
        file.synced = file.own_part.size
        self.thread.post(talk.Synced(file.offer.id, file.synced, boot_id()))

    # ---- the end of a file

    @contextmanager
    def _telling(self, file: File) -> Iterator[None]:
        """Whatever goes wrong in the block, the sender is told."""
        try:
            yield
        except NotTaken as no:
            self._refuse(file, no.refusal)
        except PartInUse:
            self._refuse(file, BUSY)
        except (SecurelinkError, OSError) as error:
            self._complain(error)
            self._refuse(file, refusal_for(error))

    def _complain(self, error: Exception) -> None:
        # Of ten thousand files that meet a full disk the first one tells of it.
        words = str(error)
        if words != self._last_words:
            self._last_words = words
            _log.warning("a file from %s was not taken: %s", self._peer.name, words)

    def _refuse(self, file: File, refusal: Refusal, *, keep: bool = True) -> None:
        self.thread.post(talk.Refuse(file.number, refusal))
        self._let_go(file, keep=keep)

    def _let_go(self, file: File, *, keep: bool = True) -> None:
        """The file is over; a large one's part stays if it is to be kept."""
        if file.digesting:
            file.dropped = True
            return
        del self._files[file.number]
        dropped = 0
        if file.part is not None:
            try:
                if keep and file.has_row:
                    self._sync(file)
                    file.part.close()
                else:
                    dropped = file.part.size if file.landed is None else 0
                    file.part.discard()
                    if file.has_row:
                        self.thread.post(talk.Forgotten(file.offer.id))
            except OSError as error:
                self._complain(error)
                file.part.close()
        if file.booking is not None:
            file.booking.release(dropped)
        self.thread.post(talk.Gone(file.number))


def _goes_on(job: talk.Job, number: int) -> bool:
    return isinstance(job, Chunk) and job.number == number


def _of_part(file: File) -> bytes:
    """The SHA-256 of what is here of a file; its running digest knows these bytes from then on."""
    digest = file.hash if file.hash is not None else hashlib.sha256()
    file.own_part.digest_prefix(file.told, digest.update, lambda: file.dropped)
    return bytes(digest.digest())
