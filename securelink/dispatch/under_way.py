"""The files under way over one link, from when they are open until their answers: no store here."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from securelink.file_messages import Cancel
from securelink.store.outbox import State as RowState
from securelink.transfer.sending import State

if TYPE_CHECKING:
    from securelink.file_messages import Offer
    from securelink.leaving import Leaving

MOST_OPEN = 256
"""Files without an answer; the other side takes no more."""

MOST_READY = 64
"""Files that are opened ahead."""


class UnderWay:
    """First a file is ready, then it is offered, then it is present until its END has left.

    Attributes:
        present: the file of which something goes next.
    """

    def __init__(self) -> None:
        self.present: Leaving | None = None
        self._by_id: dict[bytes, Leaving] = {}
        self._ready: deque[Leaving] = deque()
        self._offered: dict[int, Leaving] = {}
        self._again: deque[Leaving] = deque()
        self._cancels: deque[Cancel] = deque()

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def room(self) -> int:
        """How many more may be added."""
        return min(MOST_READY, MOST_OPEN - len(self._by_id)) - len(self._ready)

    @property
    def runs_low(self) -> bool:
        """Whether it is time to open more."""
        return len(self._ready) <= MOST_READY // 2

    @property
    def unfinished(self) -> list[int]:
        """The rows that may have been handed here, and what would complete them has not left."""
        return [each.row.seq for each in self._by_id.values() if self._is_unfinished(each)]

    def get(self, message_id: bytes) -> Leaving | None:
        """Return the file, by the 16 bytes of its ID."""
        return self._by_id.get(message_id)

    def offered(self, number: int) -> Leaving | None:
        """Return the file that the other side knows by this number."""
        return self._offered.get(number)

    def has(self, leaving: Leaving) -> bool:
        """Whether it is still under way; its row may be so anew, after a rest."""
        return self._by_id.get(leaving.row.id) is leaving

    # ---- what goes next

    def add(self, leaving: Leaving) -> None:
        """It is open, and may be offered."""
        self._by_id[leaving.row.id] = leaving
        self._ready.append(leaving)

    def go_back_to(self, leaving: Leaving) -> None:
        """All of it may have gone, but the other side has a part of it, and wants to compare."""
        if leaving is not self.present:
            self._again.append(leaving)

    def next_cancel(self) -> Cancel | None:
        """Take what says that the other side is to forget a file, if anything does."""
        return self._cancels.popleft() if self._cancels else None

    def take_again(self) -> Leaving | None:
        """Make a file present that was so before, if one is to be gone back to."""
        while self._again:
            leaving = self._again.popleft()
            if leaving.transfer.state is State.COMPARING:
                self.present = leaving
                return leaving
        return None

    def offer_next(self) -> Offer | None:
        """Make the next one present, if the other side takes another, and return its offer.

        Of a folder that is all that goes.
        """
        if not self._ready or len(self._offered) >= MOST_OPEN:
            return None
        leaving = self._ready.popleft()
        offer = leaving.transfer.offer
        self._offered[offer.number] = leaving
        if not offer.folder:
            self.present = leaving
        return offer

    # ---- the end of one

    def cancel(self, leaving: Leaving) -> None:
        """Have the other side forget it, unless it never heard of it."""
        if leaving.transfer.offer.number in self._offered:
            self._cancels.append(Cancel(leaving.transfer.offer.number))

    def let_go(self, leaving: Leaving) -> None:
        """Send no more of it."""
        if self._offered.pop(leaving.transfer.offer.number, None) is None:
            self._ready.remove(leaving)
        del self._by_id[leaving.row.id]
        if leaving.transfer.state is not State.OVER:
            leaving.transfer.close()
        leaving.close()
        if self.present is leaving:
            self.present = None

    def let_all_go(self) -> None:
        """Send no more at all."""
        for leaving in list(self._by_id.values()):
            self.let_go(leaving)

    def _is_unfinished(self, leaving: Leaving) -> bool:
        transfer = leaving.transfer
        has_left = transfer.offer.number in self._offered
        return (
            leaving.row.state is RowState.WAITING
            and (leaving.handed or leaving.handing)
            and transfer.state is not State.ENDED
            and not (transfer.offer.folder and has_left)
        )
