"""One call of `send` for one recipient."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from securelink.client.others import Others
from securelink.client.outcome import Outcome, outcome_of
from securelink.client.own import Own
from securelink.client.remains import Remains, remains
from securelink.client.terms import Terms
from securelink.clock import now_ms
from securelink.errors import LinkError, PeerError, SecurelinkError
from securelink.parcel import Parcel, let_go

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from securelink.directory import KnownPeer
    from securelink.items import Item
    from securelink.node import Node
    from securelink.sources import Skipped


class Sending:
    """Items on their way to one recipient.

    Args:
        node: the node that sends.
        peer: the recipient; this node itself is allowed.
        choice: which of its endpoints may be used, as for `choose`.
        timeout: seconds since the last progress until all must have left; None for ever.
        queue: what is not delivered by then stays queued.
        life: for how long it may wait then, in ms of the store's own time; None for as long as it
            takes.
        checksum: every file brings its SHA-256.
        failed: told of each attempt to connect that failed and is followed by another.
        skipped: told of what is not sent, such as a symbolic link.

    Attributes:
        parcel: what is sent, once `send` was called.
    """

    def __init__(
        self,
        node: Node,
        peer: KnownPeer,
        *,
        choice: str,
        timeout: float | None,
        queue: bool = False,
        life: int | None = None,
        checksum: bool = False,
        failed: Callable[[SecurelinkError], None] = lambda _: None,
        skipped: Callable[[Skipped], None] = lambda _: None,
    ) -> None:
        self.parcel: Parcel | None = None
        self._began = asyncio.get_running_loop().time()
        self._terms = Terms(
            node=node,
            peer=peer,
            choice=choice,
            timeout=timeout,
            queue=queue,
            life=life,
            checksum=checksum,
            failed=failed,
            skipped=skipped,
        )
        self._own = Own(self._terms)

    @property
    def received(self) -> int:
        """How many texts were taken in on the way."""
        return self._own.received

    async def send(self, items: Sequence[Item]) -> list[Outcome]:
        """Put the items into the outbox and see them delivered, or say why they were not.

        A cancelled call withdraws what has not left yet, and leaves the rest to the next link.

        Returns:
            One outcome for each item, in order.
        """
        terms, own = self._terms, self._own
        others = Others(terms, items)
        elsewhere = not terms.dials or bool(await others.links())
        parcel = self.parcel = Parcel(
            terms.node,
            terms.peer,
            items,
            queue=terms.queue,
            shared=elsewhere or (terms.queue and not others.has_stream),
            patience=None if terms.queue else terms.timeout,
            life=terms.life if terms.queue else None,
            skipped=terms.skipped,
        )
        kept: set[int] = set()
        error: SecurelinkError | None = None
        parcel.start()
        try:
            # It may be settled already.
            await parcel.until_not_idle()
            await parcel.look()
            if not elsewhere:
                await own.carry(parcel, others)
            while not parcel.is_done():
                await others.carry(parcel)
                await own.carry(parcel, others)
        except SecurelinkError as raised:
            error = raised
        finally:
            finish = terms.queue and error is not None and not parcel.reads_lines
            in_vain = None if own.endpoint is not None or others.were_linked else error
            letting_go = asyncio.create_task(self._let_go(parcel, in_vain, finish=finish))
            try:
                kept = await asyncio.shield(letting_go)
            except asyncio.CancelledError:
                # Only afterwards is it known what remains.
                await asyncio.wait([letting_go])
                raise
        if isinstance(parcel.failure, SecurelinkError):
            error = error or parcel.failure
        elif parcel.failure is not None:
            raise parcel.failure
        seconds = asyncio.get_running_loop().time() - self._began
        return [
            outcome_of(tally, terms, error, kept, endpoint=own.endpoint, seconds=seconds)
            for tally in parcel.tallies
        ]

    async def remains(self) -> list[Remains]:
        """Return how each item stands after a call of `send` that was cancelled, in order.

        Nothing, if not even the first was put.

        Raises:
            StoreError: the store does not tell.
        """
        if self.parcel is None:
            return []
        return await remains(self._terms.node, self.parcel, queue=self._terms.queue)

    async def _let_go(
        self, parcel: Parcel, in_vain: SecurelinkError | None, *, finish: bool
    ) -> set[int]:
        """Give up the rows that are left; return those that may have left this machine.

        Args:
            parcel: what they are of.
            in_vain: why there was no link at all; None if there was one.
            finish: whether what is not put yet is put first.
        """
        terms = self._terms
        # A row that is put while the call is cancelled is put all the same.
        await parcel.stop(finish=finish)
        rows = parcel.rows.seqs
        if not rows:
            return set()
        failure = None
        if terms.queue and isinstance(in_vain, LinkError | PeerError):
            failure = (terms.peer.key.raw, in_vain.message)
        return await terms.node.store.run(
            let_go, rows, terms.node.owner, now_ms(), queue=terms.queue, in_vain=failure
        )
