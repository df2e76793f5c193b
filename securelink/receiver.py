"""A node that receives from one peer's server: the link to it, and what this node tells its owner.

Either a standing link, kept for ever; or one link, for as long as it takes to get what waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import random
from typing import TYPE_CHECKING, Any, NoReturn, Self

from securelink import backoff
from securelink.choice import choose
from securelink.connect import FIRST_DELAY, LONGEST_DELAY, dial
from securelink.errors import LinkTruncated, NotAllTaken, UnknownPeer, Unreachable, UsageError
from securelink.incoming import recover
from securelink.lookout import LOOK_AROUND_INTERVAL, LOOK_AROUND_PAUSE, Lookout, logged
from securelink.reading import SLOWEST
from securelink.registry import Registry
from securelink.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from types import TracebackType

    from securelink.connect import Connected
    from securelink.directory import KnownPeer
    from securelink.endpoints import Endpoint
    from securelink.errors import SecurelinkError
    from securelink.lookout import Teller
    from securelink.node import Node
    from securelink.registry import Carriage

COMMAND = "receive"
"""Under this name the store keeps what was told."""

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


class Receiver:
    """A running `receive`. Made by `open`; then either `stay` or `take_what_waits`.

    Attributes:
        registry: its links.
    """

    def __init__(
        self,
        node: Node,
        peer: KnownPeer,
        choice: str,
        registry: Registry,
        lookout: Lookout,
        patience: float | None,
        failed: Callable[[SecurelinkError], None],
        not_yet: Callable[[], None],
    ) -> None:
        self.registry = registry
        self._node = node
        self._peer = peer
        self._choice = choice
        self._lookout = lookout
        self._patience = patience
        self._failed = failed
        self._not_yet = not_yet
        self._moved_at = 0.0
        self._progress = (0, 0)
        self._put_off = 0
        self._left = 0

    @classmethod
    async def open(
        cls,
        node: Node,
        peer: KnownPeer,
        tell: Teller,
        *,
        choice: str = "auto",
        patience: float | None = None,
        failed: Callable[[SecurelinkError], None] = lambda _: None,
        not_yet: Callable[[], None] = lambda: None,
    ) -> Self:
        """Prepare to receive; nothing is dialled yet.

        Args:
            node: the node.
            peer: whose server it is.
            tell: takes each event after the commit that it tells of.
            choice: which endpoints may be used, as for `choose`.
            patience: seconds until there must be a link; None for never. `stay` needs a first one
                until then, `take_what_waits` another one since the last progress.
            failed: told why there is no link, while it is tried for ever; of failures of one kind
                in a row the first alone.
            not_yet: told once for each link that there is none yet, while it is tried until the
                patience is over; why, is raised then.

        Raises:
            UsageError: the peer has no such endpoint.
            StoreError: the store fails.
        """
        if not choose(peer, choice):
            raise UsageError(
                f"no address of {peer.name} is known",
                hint=f"give one with --endpoint HOST:PORT, or join again with an invite of "
                f"{peer.name}'s",
            )
        registry = Registry(node, tell.event)
        lookout = await Lookout.open(node, COMMAND, tell, registry)
        return cls(node, peer, choice, registry, lookout, patience, failed, not_yet)

    async def stay(self) -> NoReturn:
        """Keep a link, and tell of what arrives, until cancelled.

        Raises:
            PeerRefused, NotThem, Unreachable: there was none, as for `dial`.
            UnknownPeer: the peer was removed.
            StoreError: the store can be read no more.
        """
        await self._beside(self._stay())
        raise self._removed()

    async def take_what_waits(self) -> None:
        """Take what the server has for this node, and tell of all that is new here.

        Raises:
            NotAllTaken: this node could not take something, such as with a full disk; or the
                server says that it has something, and sends nothing of it.
            PeerRefused, NotThem, Unreachable: there was no link, or none that held, or a file
                that has begun does not go on.
            UnknownPeer: the peer was removed.
            StoreError: the store fails.
        """
        await self._beside(self._take())
        await self._lookout.finish()
        if self._put_off:
            raise NotAllTaken(
                f"{self._put_off} of what {self._peer.name} has could not be taken for now",
                hint="it still waits there; make room on this disk, then repeat",
            )
        if self._left:
            raise NotAllTaken(
                f"{self._left} of what {self._peer.name} has for this node did not come",
                hint="it still waits there, or comes to another process of this node; repeat later",
            )

    async def aclose(self) -> None:
        """End all links in order."""
        await asyncio.gather(self._lookout.aclose(), self.registry.aclose())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # ---- inside

    async def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something while this node looks around; whatever fails first ends both."""
        tasks = [
            asyncio.create_task(work),
            asyncio.create_task(self._lookout.run()),
            asyncio.create_task(self._follow_serve()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            # Of several that have failed the first is raised.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stay(self) -> None:
        with logged():
            await recover(self._node)
        standing = Standing(
            self._node, self.registry, self._peer.key, choice=self._choice, failed=self._failed
        )
        first = None
        if self._patience is not None:
            deadline = asyncio.get_running_loop().time() + self._patience
            first = await self._dial(deadline, standing=True)
        await standing.run(first)

    async def _dial(self, deadline: float | None, *, standing: bool) -> Connected:
        told: type[SecurelinkError] | None = None

        def failed(error: SecurelinkError) -> None:
            nonlocal told
            if deadline is not None and told is None:
                self._not_yet()
            elif deadline is None and type(error) is not told:
                self._failed(error)
            told = type(error)

        try:
            return await dial(
                self._node,
                self._peer.key,
                self._peer.name,
                self._endpoints,
                self._node.hello(standing=standing, takes_files=True),
                deadline=deadline,
                failed=failed,
            )
        except LinkTruncated as error:
            raise Unreachable(error.message, hint=error.hint) from None

    async def _endpoints(self) -> Sequence[Endpoint]:
        present = (await self._node.directory()).by_key(self._peer.key)
        if present is None:
            raise self._removed()
        return choose(present, self._choice)

    def _removed(self) -> UnknownPeer:
        return UnknownPeer(
            f"{self._peer.name} was removed", hint="pair again to receive from there"
        )

    async def _take(self) -> None:
        with logged():
            await recover(self._node)
        loop = asyncio.get_running_loop()
        limit = STALLED if self._patience is None else self._patience
        delays = backoff.delays(FIRST_DELAY, LONGEST_DELAY, random.random)
        wanted_at = self._moved_at = loop.time()
        fewest, quiet = math.inf, QUIET
        while True:
            deadline = None if self._patience is None else wanted_at + self._patience
            connected = await self._dial(deadline, standing=False)
            waiting, ready_at = connected.ready.waiting, loop.time()
            if waiting < fewest:
                # A link alone is no progress; that less waits than ever before is some.
                fewest, self._moved_at = waiting, ready_at
            left = limit - (ready_at - self._moved_at)
            pause, error = await self._take_over(connected, max(QUIET, min(quiet, left)))
            if pause is _Pause.TAKEN or (pause is _Pause.QUIET and self._put_off):
                return
            if pause is _Pause.QUIET:
                if ready_at - self._moved_at >= limit:
                    self._left = waiting
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
        carriage = await self.registry.enter_dialled(connected, self._peer, standing=False)
        carrying = asyncio.create_task(carriage.run(connected.early))
        self._progress = 0, self.registry.taken
        try:
            pause = await self._until_pause(carriage, carrying, waiting, quiet)
        finally:
            await carriage.aclose()
            error = await carrying
        # What had been read by then was taken all the same.
        self._note_progress(carriage)
        self._put_off = carriage.put_off
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
            still, incoming = loop.time() - moved_at, self.registry.incoming()
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
        present = carriage.answered, self.registry.taken
        if present == self._progress:
            return False
        self._progress = present
        self._moved_at = asyncio.get_running_loop().time()
        return True

    async def _follow_serve(self) -> None:
        """Announce where a `serve` of this node can be reached, for as long as one runs."""
        store = self._node.store
        changed = asyncio.Event()
        unsubscribe = store.on_change(changed.set)
        try:
            while True:
                changed.clear()
                present = await _served(self._node)
                if present != self.registry.endpoints:
                    self.registry.moved(present)
                with contextlib.suppress(TimeoutError):
                    # One that is killed commits nothing.
                    async with asyncio.timeout(LOOK_AROUND_INTERVAL):
                        await changed.wait()
                await asyncio.sleep(LOOK_AROUND_PAUSE)
        finally:
            unsubscribe()


async def _served(node: Node) -> tuple[Endpoint, ...]:
    running = await node.serving()
    return () if running is None else running.endpoints
