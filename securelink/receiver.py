"""A node that receives from one peer's server: the link to it, and what this node tells its owner.

Either a standing link, kept for ever; or one link, for as long as it takes to get what waits.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, NoReturn, Self

from securelink.choice import choose
from securelink.connect import dial
from securelink.errors import LinkTruncated, NotAllTaken, UnknownPeer, Unreachable, UsageError
from securelink.fetching import Fetching
from securelink.incoming import prepare, recover
from securelink.lookout import LOOK_AROUND_INTERVAL, LOOK_AROUND_PAUSE, Lookout, logged
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

COMMAND = "receive"
"""Under this name the store keeps what was told."""


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
            ConfigError: as `prepare`.
            StoreError: the store fails.
        """
        if not choose(peer, choice):
            raise UsageError(
                f"no address of {peer.name} is known",
                hint=f"give one with --endpoint HOST:PORT, or join again with an invite of "
                f"{peer.name}'s",
            )
        await prepare(node)
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
        fetching = Fetching(self._peer, self.registry, self._dial, self._patience)
        await self._beside(self._fetch(fetching))
        await self._lookout.finish()
        if fetching.put_off:
            raise NotAllTaken(
                f"{fetching.put_off} of what {self._peer.name} has could not be taken for now",
                hint="it still waits there; make room, or mend what is said above, then repeat",
            )
        if fetching.left:
            raise NotAllTaken(
                f"{fetching.left} of what {self._peer.name} has for this node did not come",
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

    async def _fetch(self, fetching: Fetching) -> None:
        with logged():
            await recover(self._node)
        await fetching.run()

    async def _dial(self, deadline: float | None, *, standing: bool = False) -> Connected:
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
