"""A session over an asyncio connection.

The link owns the connection and the timer, and nothing else: what arrives is handed on as
happenings by `receive`, what is sent is queued and written in one go, one turn of the loop
later, so that what was sent together leaves in one record.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Self, cast

from securelink.errors import LinkClosed
from securelink.session import Ended, Happening, Session
from securelink.states import ENDED, State

if TYPE_CHECKING:
    from types import TracebackType

    from securelink.messages import Announce, Receipt, Refused, Text
    from securelink.window import Window

WRITE_BUFFER = 256 * 1024
"""Bytes that may stand in our own buffer before sealing pauses."""

NOT_SENT_LOW_WATER = 128 * 1024
"""Bytes that the kernel takes beyond what it has sent: a receipt overtakes all the rest."""


class Link(asyncio.BufferedProtocol):
    """One encrypted duplex connection.

    Attributes:
        session: what the link speaks; read its state, but act through the link.
        remote: the other side's address and port, or None when it was gone at once.
    """

    def __init__(self, session: Session, *, close_timeout: float) -> None:
        self.session = session
        self.remote: tuple[str, int] | None = None
        self._close_timeout = close_timeout
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._flush_soon: asyncio.Handle | None = None
        self._happenings: list[Happening] = []
        self._arrived = asyncio.Event()
        self._nudged = False
        self._lost = asyncio.Event()

    # ---- for the owner

    async def receive(self) -> list[Happening]:
        """All that has happened since the last call; `Ended` is the last thing ever.

        Waits until there is something; nothing at all is returned only after a `nudge`.
        """
        while not self._happenings and not self._nudged:
            self._arrived.clear()
            await self._arrived.wait()
        self._nudged = False
        return self.rest()

    def rest(self) -> list[Happening]:
        """All that has happened since the last call, without waiting."""
        happenings, self._happenings = self._happenings, []
        return happenings

    def nudge(self) -> None:
        """Have `receive` return soon, whatever has happened."""
        self._nudged = True
        self._arrived.set()

    def fits(self, size: int) -> bool:
        """Whether a text of `size` bytes may be sent now."""
        return self.session.fits(size)

    def room(self) -> Window:
        """A copy of the window of what was sent without a receipt, to try in it what fits."""
        return self.session.room()

    def send(self, message: Text | Receipt | Refused | Announce) -> None:
        """Queue a message.

        Raises:
            LinkClosed: the link has ended, or is ending.
        """
        if self.session.state not in {State.OPEN, State.CLOSE_RECEIVED}:
            raise LinkClosed("the link has ended")
        self.session.send(message)
        if self._flush_soon is None:
            self._flush_soon = self._loop.call_soon(self._flush)

    def proceed(self) -> None:
        """Client: introduce ourselves to the server, which has shown that it holds its key."""
        self.session.proceed()
        self._flush()

    def admit(self, name: str, waiting: int) -> None:
        """Server: take the link."""
        self.session.admit(name, waiting)
        self._flush()

    def deny(self) -> None:
        """Server: turn the client away."""
        self.session.deny()
        self._flush()

    async def aclose(self) -> None:
        """End the link in order, as far as the other side lets us, in the close timeout.

        Both sides send their last record, then end of file, and read until the other's: closing
        at once would reset the connection and lose what the other side has not read yet.
        """
        assert self._transport is not None
        try:
            async with asyncio.timeout(self._close_timeout):
                self.session.close()
                self._flush()
                while self.session.state not in ENDED:
                    self._arrived.clear()
                    await self._arrived.wait()
                if self.session.state is State.CLOSED and not self._transport.is_closing():
                    self._transport.write_eof()
                    await self._lost.wait()
        except TimeoutError:
            pass
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        assert self._transport is not None
        self._transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # ---- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is there."""
        # uvloop's transports are not asyncio's, they only behave like them.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        peer = transport.get_extra_info("peername")
        if peer:
            self.remote = (peer[0], peer[1])
        sock = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT_LOW_WATER)
        self._flush()
        self._set_timer()

    def get_buffer(self, sizehint: int) -> memoryview:
        """asyncio: where to read into; `buffer_updated` follows before anything else runs."""
        return self.session.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """asyncio: so much was read."""
        self._tell(self.session.buffer_updated(nbytes, self._loop.time()))
        self._flush()

    def eof_received(self) -> bool:
        """asyncio: the other side sends nothing more."""
        self._tell(self.session.receive_eof())
        return False

    def pause_writing(self) -> None:
        """asyncio: the buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """asyncio: the buffer has room again."""
        self._paused = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
        self._lost.set()
        self._tell(self.session.receive_eof(_reason(exc)))

    # ---- inside

    def _tell(self, happenings: list[Happening]) -> None:
        if not happenings:
            return
        self._happenings += happenings
        self._arrived.set()
        last = happenings[-1]
        if isinstance(last, Ended) and last.error is not None and self._transport is not None:
            # Whoever broke the rules, or has gone, gets no answer.
            self._transport.abort()

    def _flush(self) -> None:
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        while not self._paused and (data := self.session.data_to_send(self._loop.time())):
            transport.write(data)

    def _set_timer(self) -> None:
        due = self.session.deadline()
        if due is not None:
            self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        # Traffic since then has only moved the deadline on, so one timer at a time is enough.
        self._tell(self.session.tick(self._loop.time()))
        self._flush()
        self._set_timer()


def _reason(exc: Exception | None) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return f"the connection was cut ({exc.strerror.lower()})"
    return "the connection was cut"
