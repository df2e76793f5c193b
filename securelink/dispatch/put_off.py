"""Rows that the peer would not take for now: when they go again, and what goes meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.resting import Rest

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.store.outbox_files import FileRow


class PutOff:
    """What was refused for now goes again after a rest, and once all else has had its turn.

    Somebody waits to be told of every row that is not lasting: such a row goes although another
    was refused. A queue of lasting ones rests as a whole, or a full disk would be offered all of
    it again and again; after the rest those go first that were passed over.

    Args:
        rested: called when a rest is over.
    """

    def __init__(self, rested: Callable[[], None]) -> None:
        self._rest = Rest(rested)
        self._seqs: set[int] = set()
        self._is_due = False
        self._passed_over = False

    def add(self, seq: int | None) -> None:
        """The row was refused for now; None: one that is of no interest here any more."""
        if seq is not None:
            self._seqs.add(seq)
        self._is_due = True
        self._rest.begin()

    def taken(self) -> None:
        """Something was taken: the next rest is a short one."""
        self._rest.forget()

    def may_go(self, row: FileRow) -> bool:
        """Whether a row may go at present."""
        if row.seq in self._seqs:
            return False
        is_passed_over = row.lasting and self._rest.is_on
        self._passed_over |= is_passed_over
        return not is_passed_over

    def end(self) -> bool:
        """All that may go has gone: return whether to begin again with the first row."""
        if not self._is_due or self._rest.is_on:
            return False
        if self._passed_over:
            self._passed_over = False
        else:
            self._seqs.clear()
            self._is_due = False
        return True

    def close(self) -> None:
        """Call nobody any more."""
        self._rest.close()
