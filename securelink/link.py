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

from securelink.errors import LinkClosed, RemoteProtocolError
from securelink.file_messages import TYPES as FILE_TYPES
from securelink.messages import Announce, Receipt, Refused
from securelink.pacing import Pace
from securelink.session import BATCH_SIZE, Ended, Happening, Session
from securelink.states import ENDED, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from securelink.errors import LinkTruncated
    from securelink.file_messages import Accept, FileMessage, Prefix
    from securelink.messages import Text
    from securelink.session import FileSource
    from securelink.window import Window


MOST_PUT_OFF = 1024
"""IDs that are remembered of what was refused for now: a peer may bring it again and again."""


class Link(asyncio.BufferedProtocol):
    """One encrypted duplex connection.

    Attributes:
        session: what the link speaks; read its state, but act through the link.
        remote: the other side's address and port, or None when it was gone at once.
        answers: how many texts and files were answered; one that comes again after it was refused
            for now counts once.
        put_off: the IDs of what this side has refused for now, and not taken since.
    """

    def __init__(self, session: Session, *, close_timeout: float) -> None:
        self.session = session
        self.remote: tuple[str, int] | None = None
        self.answers = 0
        self.put_off: set[bytes] = set()
        self._close_timeout = close_timeout
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pace = Pace(self._loop.time())
        self._paused = False
        self._reading_paused = False
        self._sink: Callable[[FileMessage], None] | None = None
        self._before_sink: list[Happening] = []
        self._flush_soon: asyncio.Handle | None = None
        self._happenings: list[Happening] = []
        self._arrived = asyncio.Event()
        self._nudged = False
        self._lost = asyncio.Event()

    # ---- for the owner

    async def receive(self) -> list[Happening]:
        """All that has happened since the last call; `Ended` is the last thing ever.

        Waits until there is something; nothing at all is returned only after a `nudge`.

        Raises:
            LinkClosed: `Ended` was returned before.
        """
        while not self._happenings and not self._nudged:
            if self.session.state in ENDED:
                raise LinkClosed("the link has ended")
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

    def take_files(self, sink: Callable[[FileMessage], None]) -> None:
        """Hand all that belongs to files to `sink`, in order, as soon as it is read.

        Until then the first of it stops the reading. `sink` raises RemoteProtocolError for what
        breaks the rules, which ends the link.
        """
        self._sink = sink
        if self._before_sink:
            waiting, self._before_sink = self._before_sink, []
            self._tell(waiting)
            self.resume_receiving()

    def send_files(self, source: FileSource) -> None:
        """Ask `source` for the items of files whenever nothing else waits to be sent.

        Raises:
            LocalProtocolError: one of the sides does not know files.
        """
        self.session.send_files(source)

    def more_of_files(self) -> None:
        """The source of files has something to send again."""
        self._flush_later()

    def pause_receiving(self) -> None:
        """Read no more for now, because our own disk is behind."""
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def resume_receiving(self) -> None:
        """Read on."""
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self.session.heard(self._loop.time())
            self._transport.resume_reading()

    def send(self, message: Text | Receipt | Refused | Announce | Accept | Prefix) -> None:
        """Queue a message.

        Raises:
            LinkClosed: the link has ended, or is ending; after the other side's CLOSE receipts
                and refusals may still be sent.
        """
        state = self.session.state
        if state is State.CLOSE_SENT or (
            state is State.CLOSE_RECEIVED and not isinstance(message, Receipt | Refused)
        ):
            raise LinkClosed("the link is ending")
        self._refuse_the_end()
        self.session.send(message)
        if isinstance(message, Receipt | Refused):
            self._count(message)
        self._flush_later()

    def _count(self, answer: Receipt | Refused) -> None:
        self.answers += answer.id not in self.put_off
        if isinstance(answer, Refused) and not answer.permanent:
            if len(self.put_off) < MOST_PUT_OFF:
                self.put_off.add(answer.id)
        else:
            self.put_off.discard(answer.id)

    def proceed(self) -> None:
        """Client: introduce ourselves to the server, which has shown that it holds its key.

        Raises:
            LinkClosed: the link has ended meanwhile.
        """
        self._refuse_the_end()
        self.session.proceed()
        self._flush()

    def admit(self, name: str, waiting: int) -> None:
        """Server: take the link; `waiting` texts and files wait for the client.

        Raises:
            LinkClosed: the link has ended meanwhile.
        """
        self._refuse_the_end()
        self.session.admit(name, waiting)
        self._flush()
        self._set_timer()

    def deny(self) -> None:
        """Server: turn the client away, if it has not gone by itself."""
        if self.session.state not in ENDED:
            self._tell(self.session.deny())
            self._flush()

    async def aclose(self) -> None:
        """End the link in order, as far as the other side lets us, in the close timeout.

        Both sides send their last record, then end of file, and read until the other's: closing
        at once would reset the connection and lose what the other side has not read yet.
        """
        try:
            async with asyncio.timeout(self._close_timeout):
                await self._end_in_order()
        except TimeoutError:
            pass
        finally:
            self.abort()
        await self._lost.wait()

    def drop(self, error: LinkTruncated) -> None:
        """Drop the connection at once, for a reason that only its owner knows."""
        if self.session.state not in ENDED:
            self._tell([self.session.fail(error)])
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
        peer = transport.get_extra_info("peername")
        if peer:
            self.remote = (peer[0], peer[1])
        with contextlib.suppress(OSError):
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._keep_pace(transport)
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

    def _refuse_the_end(self) -> None:
        if self.session.state in ENDED:
            raise LinkClosed("the link has ended")

    async def _end_in_order(self) -> None:
        transport = self._transport
        assert transport is not None
        self.resume_receiving()
        self._tell(self.session.close())
        # It is not much, and nothing comes after it: this goes past a pause in writing.
        self._write()
        while self.session.state not in ENDED:
            self._arrived.clear()
            await self._arrived.wait()
        if self.session.state is State.CLOSED and not transport.is_closing():
            # The other side may have gone a moment ago, and the kernel knows before we do.
            with contextlib.suppress(OSError):
                transport.write_eof()
            await self._lost.wait()

    def _tell(self, happenings: list[Happening]) -> None:
        happenings = self._without_files(happenings)
        if not happenings:
            return
        # The window bounds what may wait for the owner; announcements have none, but each
        # replaces those before it.
        announced = [each for each in happenings if isinstance(each, Announce)]
        if announced:
            self._happenings = [
                each
                for each in (*self._happenings, *happenings)
                if each is announced[-1] or not isinstance(each, Announce)
            ]
        else:
            self._happenings += happenings
        self._arrived.set()
        last = happenings[-1]
        transport = self._transport
        if (
            isinstance(last, Ended)
            and last.error is not None
            and transport is not None
            and not transport.is_closing()
        ):
            # Whoever broke the rules, or has gone, gets no answer.
            transport.abort()
        self._set_timer()

    def _without_files(self, happenings: list[Happening]) -> list[Happening]:
        """Give the sink what is for it; return the rest."""
        if not any(type(each) in FILE_TYPES for each in happenings):
            return happenings
        rest: list[Happening] = []
        for each in happenings:
            if type(each) not in FILE_TYPES:
                rest.append(each)
                continue
            if self._sink is None:
                self._before_sink.append(each)
                self.pause_receiving()
                continue
            try:
                self._sink(cast("FileMessage", each))
            except RemoteProtocolError as error:
                if self.session.state not in ENDED:
                    return [*rest, self.session.fail(error)]
        return rest

    def _flush_later(self) -> None:
        if self._flush_soon is None:
            self._flush_soon = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        # One batch a turn of the loop: a file always has more.
        if not self._paused and self._write():
            self._flush_later()

    def _write(self) -> bool:
        """Hand over one batch; tell whether there was one."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        now = self._loop.time()
        data = self.session.data_to_send(now, max(BATCH_SIZE, self._pace.low_water))
        if data:
            transport.write(data)
            if self._pace.sent(len(data), now):
                self._keep_pace(transport)
        return bool(data)

    def _keep_pace(self, transport: asyncio.Transport) -> None:
        """Let a receipt overtake all but what leaves in a moment."""
        low_water = self._pace.low_water
        transport.set_write_buffer_limits(high=max(BATCH_SIZE, low_water))
        with contextlib.suppress(OSError):
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, low_water)

    def _set_timer(self) -> None:
        """Let the timer go off when the session is due, or before.

        Traffic only moves that on, so it is set anew when it has gone off, and not for each
        record; the handshake's end may bring it nearer.
        """
        due = self.session.deadline()
        if due is None or (self._timer is not None and self._timer.when() <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._reading_paused:
            self.session.heard(self._loop.time())
        self._tell(self.session.tick(self._loop.time()))
        self._flush()
        self._set_timer()


def _reason(exc: Exception | None) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return f"the connection was cut ({exc.strerror.lower()})"
    return "the connection was cut"
