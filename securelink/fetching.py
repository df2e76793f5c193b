"""Taking what waits at one peer's server: link after link, until nothing more comes for now."""

from __future__ import annotations

import asyncio
import enum
import math
import random
from typing import TYPE_CHECKING, Any

from securelink import backoff
from securelink.connect import FIRST_DELAY, LONGEST_DELAY
from securelink.errors import Unreachable
from securelink.reading import SLOWEST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from securelink.connect import Connected
    from securelink.directory import KnownPeer
    from securelink.errors import SecurelinkError
    from securelink.registry import Carriage, Registry

QUIET = 2.0
"""Seconds without anything coming in, after which the server is asked what it still has. A server
that is slow gets twice as long each time in a row."""

STALLED = 30.0
"""Seconds after which a server is given up that says it has something and sends nothing, if no
patience says so."""

LOOK_INTERVAL = 0.05
"""Seconds between two looks at what has come in."""


class _Pause(enum.Enum):
    """Why nothing more is taken over a link."""

    TAKEN = "as much has come as the server said"
    QUIET = "less has come, and nothing more does"
    ENDED = "the link has ended"


class Fetching:
    """One call of `receive --once`.

    Args:
        peer: whose server it is.
        registry: where the links are carried.
        dial: makes a link until a moment in the loop's time, or raises; None for ever.
        patience: seconds since the last progress until there must be a link; None for never.

    Attributes:
        put_off: how much this side has refused for now, over the last link.
        left: how much the server said it has, and sends nothing of.
    """

    def __init__(
        self,
        peer: KnownPeer,
        registry: Registry,
        dial: Callable[[float | None], Awaitable[Connected]],
        patience: float | None,
    ) -> None:
        self.put_off = 0
        self.left = 0
        self._peer = peer
        self._registry = registry
        self._dial = dial
        self._patience = patience
        self._moved_at = 0.0
        self._progress = (0, 0)

    async def run(self) -> None:
        """Return when as much has come as the server said, or when nothing more comes for now.

        Raises:
            PeerRefused, NotThem, Unreachable: there was no link, or none that held, or a file
                that has begun does not go on.
            UnknownPeer: the peer was removed.
            StoreError: the store fails.
        """
        loop = asyncio.get_running_loop()
        limit = STALLED if self._patience is None else self._patience
        delays = backoff.delays(FIRST_DELAY, LONGEST_DELAY, random.random)
        wanted_at = self._moved_at = loop.time()
        fewest, quiet = math.inf, QUIET
        while True:
            deadline = None if self._patience is None else wanted_at + self._patience
            connected = await self._dial(deadline)
            waiting, ready_at = connected.ready.waiting, loop.time()
            if waiting < fewest:
                # A link alone is no progress; that less waits than ever before is some.
                fewest, self._moved_at = waiting, ready_at
            left = limit - (ready_at - self._moved_at)
            pause, error = await self._take_over(connected, max(QUIET, min(quiet, left)))
            if pause is _Pause.TAKEN or (pause is _Pause.QUIET and self.put_off):
                return
            if pause is _Pause.QUIET:
                if ready_at - self._moved_at >= limit:
                    self.left = waiting
                    return
                # What was to come may have been withdrawn there, or have gone over another link of
                # this node; or the server is slow. It tells with the next READY.
                quiet = QUIET if self._moved_at > ready_at else 2 * quiet
                wanted_at = loop.time()
                continue
            wanted_at = self._moved_at
            delay = next(delays)
            late = loop.time() + delay - self._moved_at
            if self._patience is not None and late >= self._patience:
                reason = "was ended" if error is None else f"is lost: {error.message}"
                raise Unreachable(f"the link to {self._peer.name} {reason}")
            await asyncio.sleep(delay)

    async def _take_over(
        self, connected: Connected, quiet: float
    ) -> tuple[_Pause, SecurelinkError | None]:
        """Take what comes over one link; return why nothing more does, and why the link has ended.

        Raises:
            Unreachable: a file that has begun does not go on.
            StoreError: the link could not be written down.
        """
        waiting = connected.ready.waiting
        carriage = await self._registry.enter_dialled(connected, self._peer, standing=False)
        carrying = asyncio.create_task(carriage.run(connected.early))
        self._progress = 0, self._registry.taken
        try:
            pause = await self._until_pause(carriage, carrying, waiting, quiet)
        finally:
            await carriage.aclose()
            error = await carrying
        # What had been read by then was taken all the same.
        self._note_progress(carriage)
        self.put_off = carriage.put_off
        if pause is _Pause.QUIET and carriage.answered >= waiting:
            pause = _Pause.TAKEN
        return pause, error

    async def _until_pause(
        self, carriage: Carriage, carrying: asyncio.Task[Any], waiting: int, quiet: float
    ) -> _Pause:
        """Wait until so much has come, or nothing has for so many seconds, or the link has ended.

        Raises:
            Unreachable: a file that has begun does not go on.
        """
        loop = asyncio.get_running_loop()
        moved_at, begun = loop.time(), 0
        while True:
            # Of a text that is cut nothing is kept: while it comes the link is not quiet, no more.
            if self._note_progress(carriage) or carriage.begun > begun:
                moved_at = loop.time()
            begun = carriage.begun
            if carrying.done():
                return _Pause.ENDED
            still, incoming = loop.time() - moved_at, self._registry.incoming()
            if not incoming and carriage.answered >= waiting:
                return _Pause.TAKEN
            if not incoming and still >= quiet:
                return _Pause.QUIET
            # What is here of a file is read on both sides, and nothing comes meanwhile.
            compared = max((each.received for each in incoming if each.is_compared), default=0)
            patience = math.inf if self._patience is None else self._patience
            if incoming and still >= patience + compared / SLOWEST:
                raise Unreachable(f"{self._peer.name} has begun to send, and does not go on")
            await asyncio.wait([carrying], timeout=LOOK_INTERVAL)

    def _note_progress(self, carriage: Carriage) -> bool:
        """Whether anything has come since the last look that is kept."""
        present = carriage.answered, self._registry.taken
        if present == self._progress:
            return False
        self._progress = present
        self._moved_at = asyncio.get_running_loop().time()
        return True
