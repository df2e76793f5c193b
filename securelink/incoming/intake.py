"""`Intake`: one link's files, on the disk. All but its constructor runs in the disk thread.

Bytes are written as they come. What is whole is put under its name by `Placing`; when the store
has taken note of it, its part is let go.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from securelink import filenames
from securelink.admission import BAD_NAME, BUSY
from securelink.boot import boot_id
from securelink.diskthread import DiskThread
from securelink.errors import PartInUse, SecurelinkError
from securelink.file_messages import Begin, Cancel, Chunk, End, Offer
from securelink.incoming import talk
from securelink.incoming.digester import Digester
from securelink.incoming.files import AT_ITS_END, File, NotTaken, Stage, refusal_for
from securelink.incoming.placing import Placing
from securelink.incoming.reception import Reception
from securelink.landing import Conflict, Landing
from securelink.store.database import Database, explain

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator, Sequence

    from securelink.admission import Refusal
    from securelink.directory import KnownPeer
    from securelink.incoming.digester import Work
    from securelink.node import Node

SYNC_EVERY = 256 << 20
"""Bytes after which what is here is put on the disk, so that a restart costs no more."""

MOST_UNNOTED = 1 << 20
"""Bytes of a large file that are written before it is in the store: if we die, they are lost."""

MOST_CHUNKS = 512
"""Chunks that are written in one go; the kernel takes twice as many."""

TELL_EVERY = 512 << 10
"""After so much work the loop is told, as it may wait with reading."""

AT_ONCE = (talk.Refuse, talk.Here, talk.Digest, talk.Began)
"""The sender waits for these, or they are lost if we die; all else is told by the batch."""

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
        self._peer = peer
        self._room = node.room
        self._store_file = node.home.store_file
        self._store: Database | None = None
        self._digester: Digester | None = None
        self._files: dict[int, File] = {}
        self._results: list[talk.Result] = []
        self._worked = 0
        self._last_words = "", ""
        self._root = node.home.files_folder(node.config.files.folder)
        self._landing = Landing(self._root, peer.name, peer.key.raw)
        self._placing = Placing(
            self._landing,
            Conflict(node.config.files.conflict),
            peer.key.raw,
            self._looking,
            self._post,
            self._complain,
        )
        self._reception = Reception(
            node, peer, self._landing, self._placing, self._looking, self._post, self._digest
        )
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

    def _work(self, jobs: deque[talk.Job]) -> None:
        """Do what has gathered, then put under their names those that are whole."""
        while jobs:
            job = jobs.popleft()
            if isinstance(job, Chunk):
                self._write(job.number, run := _run(job, jobs))
                self._worked += sum(map(talk.cost, run))
            else:
                self._do[type(job)](job)
                self._worked += talk.cost(job)
            if self._worked >= TELL_EVERY:
                self._tell()
        # Nobody has to wait for the disk because of what others have sent.
        self._tell()
        for file, refusal in self._placing.place():
            self._refuse(file, refusal)
        self._tell()

    def _tell(self) -> None:
        """Let the loop know what has come of it; each time costs as much as a small file."""
        if self._worked:
            self._results.append(talk.Worked(self._worked))
            self._worked = 0
        if self._results:
            self.thread.post(*self._results)
            self._results.clear()

    def _finish(self) -> None:
        if self._digester is not None:
            self._digester.stop()
        self._landing.close()
        if self._store is not None:
            self._store.close()

    def _post(self, result: talk.Result) -> None:
        self._results.append(result)
        if isinstance(result, AT_ONCE):
            self._tell()

    def _digest(self, number: int, work: Work) -> None:
        if self._digester is None:
            self._digester = Digester(
                lambda number, digest: self.thread.put([talk.Digested(number, digest)])
            )
        self._digester.put(number, work)

    @contextmanager
    def _looking(self) -> Iterator[sqlite3.Connection]:
        """The store, to look things up in; each statement sees what is committed by then."""
        try:
            if self._store is None:
                # A connection of SQLite belongs to the thread that opens it.
                self._store = Database.open_reader(self._store_file)
            yield self._store.connection
        except sqlite3.Error as error:
            raise explain(error, self._store_file) from error

    # ---- what the sender says

    def _offer(self, offer: Offer) -> None:
        try:
            components = filenames.components(offer.name)
        except ValueError:
            self._post(talk.Refuse(offer.number, BAD_NAME))
            self._post(talk.Gone(offer.number))
            return
        file = self._files[offer.number] = File(offer, components)
        with self._telling(file):
            self._reception.look_at(file)
            if file.stage is Stage.KNOWN:
                self._post(talk.Known(file.number))
                self._let_go(file, keep=False)
            elif file.stage is Stage.WHOLE:
                self._placing.add(file)

    def _begin(self, begin: Begin) -> None:
        file = self._files.get(begin.number)
        if file is None:
            return
        with self._telling(file):
            if file.part is None:
                if begin.offset == file.offer.size:
                    file.stage = Stage.SAME
                else:
                    self._reception.begin(file)
                return
            file.stage = Stage.WRITING
            if begin.offset < file.told:
                file.start_over()
                assert file.booking is not None
                if refusal := file.booking.start_over(file.told):
                    raise NotTaken(refusal)
            if begin.offset:
                self._post(talk.Synced(file.offer.id, file.synced, boot_id()))
            else:
                self._reception.note_beginning(file)

    def _write(self, number: int, chunks: Sequence[Chunk]) -> None:
        file = self._files.get(number)
        if file is not None and file.stage is Stage.WRITING:
            views = [chunk.data for chunk in chunks]
            length = sum(map(len, views))
            with self._telling(file):
                assert file.booking is not None
                if refusal := file.booking.take(length):
                    raise NotTaken(refusal)
                if file.noted is not None and file.own_part.size + length > MOST_UNNOTED:
                    file.noted.wait()
                    file.noted = None
                file.own_part.write(views)
                if file.hash is not None:
                    for view in views:
                        file.hash.update(view)
                if file.has_row and file.own_part.size - file.synced >= SYNC_EVERY:
                    self._tell()
                    self._sync(file)

    def _end(self, end: End) -> None:
        file = self._files.get(end.number)
        if file is None:
            return
        if file.stage is Stage.SAME:
            file.stage = Stage.LANDED
            self._post(talk.Same(file.number, file.offer.id))
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
        if settled.stays:
            # Its row has gone in the same transaction.
            file.has_row = False
        elif file.landed is not None:
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
            self._post(talk.Digest(file.number, digested.digest))

    # ---- the end of a file

    @contextmanager
    def _telling(self, file: File) -> Iterator[None]:
        """Whatever goes wrong in the block, the sender is told."""
        try:
            yield
        except (NotTaken, PartInUse) as error:
            self._refuse(file, refusal_for(error))
        except (SecurelinkError, OSError) as error:
            self._complain(error)
            self._refuse(file, refusal_for(error))

    def _complain(self, error: Exception) -> None:
        # Of ten thousand files that meet a full disk the first one tells of it.
        where, words = str(self._root), str(error)
        if isinstance(error, OSError):
            words = (error.strerror or words).lower()
            # Below the receiving folder an error names what lies in a folder that is open.
            if isinstance(error.filename, str) and error.filename.startswith("/"):
                where = error.filename
        if (where, words) != self._last_words:
            self._last_words = where, words
            _log.warning("a file from %s was not taken into %s: %s", self._peer.name, where, words)

    def _sync(self, file: File) -> None:
        file.own_part.sync()
        file.synced = file.own_part.size
        self._post(talk.Synced(file.offer.id, file.synced, boot_id()))

    def _refuse(self, file: File, refusal: Refusal, *, keep: bool = True) -> None:
        self._post(talk.Refuse(file.number, refusal))
        self._let_go(file, keep=keep and not refusal.permanent)

    def _let_go(self, file: File, *, keep: bool = True) -> None:
        """The file is over; a large one's part stays if it is to be kept."""
        if file.digesting:
            file.dropped = True
            return
        del self._files[file.number]
        keep = keep and file.has_row and file.part is not None
        dropped = 0
        if file.part is not None:
            try:
                if keep:
                    self._sync(file)
                    file.part.close()
                else:
                    dropped = file.part.size if file.landed is None else 0
                    file.part.discard()
            except OSError as error:
                self._complain(error)
                file.part.close()
            self._room.close_part(self._peer.name)
        if file.has_row and not keep:
            self._post(talk.Forgotten(file.offer.id))
        if file.booking is not None:
            file.booking.release(dropped)
        self._post(talk.Gone(file.number))


def _run(first: Chunk, jobs: deque[talk.Job]) -> list[Chunk]:
    """What follows a chunk in one piece, taken from the jobs, to be written in one go."""
    run = [first]
    while jobs and len(run) < MOST_CHUNKS:
        following = jobs[0]
        if not isinstance(following, Chunk) or following.number != first.number:
            break
        run.append(following)
        jobs.popleft()
    return run
