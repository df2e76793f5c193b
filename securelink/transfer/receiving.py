"""The files that come over one link: what the sender may say, and at which offset it counts.

`TRANSITIONS` is the whole of it. What arrives and has no place in the table is the sender's fault
(`RemoteProtocolError`), what we decide and has none is ours (`LocalProtocolError`). What arrives
for a transfer that is over is dropped: our answer and the sender's bytes may have crossed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from securelink.errors import LocalProtocolError, RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securelink.file_messages import Begin, Cancel, Chunk, End, Offer

MOST_OPEN = 256
"""Transfers without an answer, in one direction of a link."""


class State(enum.Enum):
    """Where one transfer stands; the values say it in words."""

    ASKED = "the sender waits for our answer"
    DIGESTING = "we owe the digest of what is here"
    ACCEPTED = "the sender owes a BEGIN"
    EAGER = "its bytes come unasked"
    EAGER_WHOLE = "all has come unasked"
    STOPPING = "its bytes come unasked, and we owe the digest of what is here"
    STOPPED = "its bytes come unasked, and the sender owes a BEGIN"
    BEGUN = "its bytes come from the offset of its BEGIN on"
    WHOLE = "all of it has come"
    OVER = "it was answered or cancelled"

    # Members are singletons, and enum's own hash is a call in Python at every look-up.
    __hash__ = object.__hash__


class Input(enum.Enum):
    """What moves a transfer from one state to another."""

    BEGIN = "a BEGIN"
    CHUNK = "a CHUNK"
    END = "an END"
    CANCEL = "a CANCEL"
    ACCEPT = "accept()"
    ACCEPT_NOTHING = "accept() from the start"
    PREFIX = "prefix()"
    CLOSE = "close()"

    __hash__ = object.__hash__


THEIRS = frozenset({Input.BEGIN, Input.CHUNK, Input.END, Input.CANCEL})

TRANSITIONS: dict[tuple[State, Input], State] = {
    # there was an earlier attempt: the sender asks
    (State.ASKED, Input.ACCEPT_NOTHING): State.ACCEPTED,
    (State.ASKED, Input.ACCEPT): State.DIGESTING,
    (State.DIGESTING, Input.PREFIX): State.ACCEPTED,
    (State.ACCEPTED, Input.BEGIN): State.BEGUN,
    # there was none
    (State.EAGER, Input.CHUNK): State.EAGER,
    (State.EAGER, Input.END): State.EAGER_WHOLE,
    # something to compare with is here: what was sent before the sender knows does not count
    (State.EAGER, Input.ACCEPT): State.STOPPING,
    (State.EAGER_WHOLE, Input.ACCEPT): State.STOPPING,
    (State.STOPPING, Input.PREFIX): State.STOPPED,
    **{
        (state, by): state
        for state in (State.STOPPING, State.STOPPED)
        for by in (Input.CHUNK, Input.END)
    },
    (State.STOPPED, Input.BEGIN): State.BEGUN,
    # both
    (State.BEGUN, Input.CHUNK): State.BEGUN,
    (State.BEGUN, Input.END): State.WHOLE,
    **{
        (state, Input.CANCEL): State.OVER
        for state in State
        if state not in {State.EAGER_WHOLE, State.WHOLE, State.OVER}
    },
    **{(state, Input.CLOSE): State.OVER for state in State if state is not State.OVER},
}


_DROPPING = frozenset({State.STOPPING, State.STOPPED})

COMPARED = frozenset({State.ASKED, State.DIGESTING, State.ACCEPTED}) | _DROPPING
"""Where both sides look how much is here, and no byte of use comes."""


@dataclass(slots=True, eq=False)
class Transfer:
    """One file on its way, as far as its sender has told."""

    offer: Offer
    state: State
    received: int = 0
    """Bytes that are here, and so where the next chunk belongs."""
    resumed: int = 0
    """How many of these came in earlier attempts."""
    accepted: int = 0
    """The offset that the sender was told."""

    def move(self, by: Input) -> None:
        """Change the state.

        Raises:
            LocalProtocolError, RemoteProtocolError: that is not possible now.
        """
        try:
            self.state = TRANSITIONS[self.state, by]
        except KeyError:
            text = f"{by.value} is not possible for a file when {self.state.value}"
            raise (RemoteProtocolError if by in THEIRS else LocalProtocolError)(text) from None


class Receiving:
    """All transfers of one direction of a link, by number."""

    def __init__(self) -> None:
        self._open: dict[int, Transfer] = {}
        self._ids: set[bytes] = set()
        self._last = -1

    @property
    def open(self) -> Mapping[int, Transfer]:
        """Those that are not over, by number."""
        return self._open

    # ---- what arrives

    def offer(self, offer: Offer) -> Transfer:
        """A file is announced.

        Raises:
            RemoteProtocolError: the number does not grow, its ID is under way already, or
                `MOST_OPEN` transfers wait for an answer.
        """
        if offer.number <= self._last:
            raise RemoteProtocolError("the numbers of the files on a link do not grow")
        if len(self._open) >= MOST_OPEN:
            raise RemoteProtocolError("too many files are under way without an answer")
        if offer.id in self._ids:
            raise RemoteProtocolError("a file is offered again while it is under way")
        transfer = self._open[offer.number] = Transfer(offer, _first(offer))
        self._ids.add(offer.id)
        self._last = offer.number
        return transfer

    def begin(self, begin: Begin) -> Transfer | None:
        """Chunks follow from an offset on; None if the transfer is over.

        Raises:
            RemoteProtocolError: no offset was accepted, or another one.
        """
        transfer = self._find(begin.number)
        if transfer is None:
            return None
        transfer.move(Input.BEGIN)
        if begin.offset not in (0, transfer.accepted):
            raise RemoteProtocolError("a file begins at an offset that was not accepted")
        transfer.received = transfer.resumed = begin.offset
        return transfer

    def chunk(self, chunk: Chunk) -> int | None:
        """Bytes of a file: the offset at which they belong, or None if they are dropped.

        Raises:
            RemoteProtocolError: there is no such transfer, it is not its time for bytes, or they
                are more than was offered.
        """
        transfer = self._find(chunk.number)
        if transfer is None:
            return None
        transfer.move(Input.CHUNK)
        if transfer.state in _DROPPING:
            return None
        offset = transfer.received
        transfer.received = offset + len(chunk.data)
        if transfer.offer.size is not None and transfer.received > transfer.offer.size:
            raise RemoteProtocolError("a file is longer than was offered")
        return offset

    def end(self, end: End) -> Transfer | None:
        """A file's bytes are complete; None if that is dropped.

        Raises:
            RemoteProtocolError: it is not its time, the size is not what came or was offered, or
                a digest is missing or was not offered.
        """
        transfer = self._find(end.number)
        if transfer is None:
            return None
        transfer.move(Input.END)
        if transfer.state in _DROPPING:
            return None
        offer = transfer.offer
        if end.size != transfer.received or offer.size not in (None, end.size):
            raise RemoteProtocolError("a file ends with another size than it has")
        if (end.digest is not None) != offer.checksum:
            raise RemoteProtocolError("a file's digest is missing, or was not offered")
        return transfer

    def cancel(self, cancel: Cancel) -> Transfer | None:
        """The sender does not go on; None if the transfer was over before.

        Raises:
            RemoteProtocolError: there was no such transfer, or all of it has come.
        """
        transfer = self._find(cancel.number)
        if transfer is not None:
            transfer.move(Input.CANCEL)
            self._forget(cancel.number)
        return transfer

    # ---- what we decide

    def accept(self, number: int, offset: int) -> None:
        """Have the sender go on from an offset, if the digest of what is here, `prefix`, fits.

        Raises:
            LocalProtocolError: it was accepted before, is over, or is not as long; or nothing
                of it is here and the sender has not asked.
        """
        transfer = self._ours(number)
        if transfer.offer.size is None or not 0 <= offset <= transfer.offer.size:
            raise LocalProtocolError("an offset beyond the end of a file, or in a stream")
        transfer.move(Input.ACCEPT if offset else Input.ACCEPT_NOTHING)
        transfer.accepted = offset
        transfer.received = 0

    def prefix(self, number: int) -> None:
        """The digest of what was accepted is known, and goes to the sender.

        Raises:
            LocalProtocolError: nothing was accepted, or it was told before.
        """
        self._ours(number).move(Input.PREFIX)

    def close(self, number: int) -> None:
        """The transfer was answered for good: what still comes of it is dropped.

        Raises:
            LocalProtocolError: it is over, or never was.
        """
        self._ours(number).move(Input.CLOSE)
        self._forget(number)

    # ---- inside

    def _find(self, number: int) -> Transfer | None:
        """The transfer with that number, None if it is over; RemoteProtocolError if none was."""
        if number > self._last:
            raise RemoteProtocolError("a file that was not offered")
        return self._open.get(number)

    def _ours(self, number: int) -> Transfer:
        try:
            return self._open[number]
        except KeyError:
            raise LocalProtocolError("an answer to a file that is not under way") from None

    def _forget(self, number: int) -> None:
        self._ids.discard(self._open.pop(number).offer.id)


def _first(offer: Offer) -> State:
    if offer.folder:
        return State.WHOLE
    return State.ASKED if offer.ask else State.EAGER
