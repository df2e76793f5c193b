"""One file that goes over one link: what may be said next, and from which offset on.

`TRANSITIONS` is the whole of it. An answer that has no place in the table is the receiver's fault
(`RemoteProtocolError`), a step of ours that has none is ours (`LocalProtocolError`).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from securelink.errors import LocalProtocolError, RemoteProtocolError
from securelink.file_messages import Begin, End

if TYPE_CHECKING:
    from securelink.file_messages import Accept, Offer, Prefix


class State(enum.Enum):
    """Where one transfer stands; the values say it in words."""

    ASKING = "the receiver was asked what it has"
    COMPARING = "both sides digest what the receiver has"
    SENDING = "its bytes go"
    WHOLE = "all its bytes have gone"
    ENDED = "its END has gone"
    OVER = "it was answered or given up"

    __hash__ = object.__hash__


class Input(enum.Enum):
    """What moves a transfer from one state to another."""

    ACCEPT = "an ACCEPT"
    PREFIX = "a PREFIX"
    BEGIN = "begin()"
    ALL_SENT = "the last byte"
    END = "end()"
    CLOSE = "close()"

    __hash__ = object.__hash__


THEIRS = frozenset({Input.ACCEPT, Input.PREFIX})

TRANSITIONS: dict[tuple[State, Input], State] = {
    (State.ASKING, Input.ACCEPT): State.COMPARING,
    # Unasked: it has found something to compare with.
    (State.SENDING, Input.ACCEPT): State.COMPARING,
    (State.WHOLE, Input.ACCEPT): State.COMPARING,
    (State.ENDED, Input.ACCEPT): State.COMPARING,
    (State.COMPARING, Input.PREFIX): State.COMPARING,
    (State.COMPARING, Input.BEGIN): State.SENDING,
    (State.SENDING, Input.ALL_SENT): State.WHOLE,
    (State.WHOLE, Input.END): State.ENDED,
    **{(state, Input.CLOSE): State.OVER for state in State if state is not State.OVER},
}


class Outbound:
    """One transfer, from its offer on.

    Attributes:
        offer: what was offered.
        offset: bytes of the file that need not be sent any more.
        accepted: bytes that the receiver said to have.
        resumed: bytes that were not sent because the receiver had them.
    """

    __slots__ = (
        "_is_accepted",
        "_ours",
        "_theirs",
        "accepted",
        "offer",
        "offset",
        "resumed",
        "state",
    )

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.offset = 0
        self.accepted = 0
        self.resumed = 0
        self._is_accepted = False
        self._ours: bytes | None = None
        self._theirs: bytes | None = None
        self.state = State.ASKING if offer.ask else State.SENDING
        if offer.folder or (not offer.ask and offer.size == 0):
            self.state = State.WHOLE

    # ---- what the receiver says

    def accept(self, accept: Accept) -> None:
        """The receiver has some of it already.

        Raises:
            RemoteProtocolError: it has said so before; it was not asked and has nothing, or more
                than there is.
        """
        size = self.offer.size
        self._move(Input.ACCEPT)
        if self._is_accepted:
            # Else it could have us read the file again and again.
            raise RemoteProtocolError("a file is accepted twice")
        self._is_accepted = True
        if size is None or self.offer.folder or accept.offset > size:
            raise RemoteProtocolError("more of a file is accepted than there is")
        if not accept.offset and not self.offer.ask:
            raise RemoteProtocolError("nothing of a file is accepted although nobody asked")
        self.accepted = accept.offset

    def prefix(self, prefix: Prefix) -> None:
        """The receiver has digested what it has.

        Raises:
            RemoteProtocolError: it has done so before, or has nothing.
        """
        self._move(Input.PREFIX)
        if self._theirs is not None or not self.accepted:
            raise RemoteProtocolError("a digest of nothing, or a second one")
        self._theirs = prefix.digest

    # ---- what we do

    def digested(self, digest: bytes) -> None:
        """We have digested as much of the file as the receiver has."""
        self._ours = digest

    @property
    def is_compared(self) -> bool:
        """Whether `begin` may be called."""
        return self.state is State.COMPARING and (
            not self.accepted or (self._ours is not None and self._theirs is not None)
        )

    def begin(self) -> Begin:
        """Go on from where the receiver is if the contents are the same, else from the start.

        Raises:
            LocalProtocolError: the two sides have not compared yet.
        """
        if not self.is_compared:
            raise LocalProtocolError("a file goes on before the two sides have compared")
        self._move(Input.BEGIN)
        self.offset = self.resumed = self.accepted if self._ours == self._theirs else 0
        self._note_the_end()
        return Begin(self.offer.number, self.offset)

    def sent(self, count: int) -> None:
        """So many more bytes have gone."""
        self.offset += count
        self._note_the_end()

    def exhausted(self) -> None:
        """A stream has come to its end."""
        self._move(Input.ALL_SENT)

    def end(self, digest: bytes | None = None) -> End:
        """Say that it is complete.

        Raises:
            LocalProtocolError: not all of it has gone.
        """
        self._move(Input.END)
        return End(self.offer.number, self.offset, digest)

    def close(self) -> None:
        """It was answered, or is given up."""
        self._move(Input.CLOSE)

    def _note_the_end(self) -> None:
        if self.offset == self.offer.size:
            self._move(Input.ALL_SENT)

    def _move(self, by: Input) -> None:
        try:
            self.state = TRANSITIONS[self.state, by]
        except KeyError:
            text = f"{by.value} is not possible for a file when {self.state.value}"
            raise (RemoteProtocolError if by in THEIRS else LocalProtocolError)(text) from None
