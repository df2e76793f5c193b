"""Takes in connections, a few at a time, and only while there is room for them.

asyncio's own server takes in as many as wait in one turn of the loop, 4,096 of them if that is the
backlog, before anybody can judge one; and when descriptors run out it logs each of those attempts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from securelink.sparing import Sparing

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from securelink.link import Link

BACKLOG = 4096
"""Connections that wait in the kernel; 100 overflow at a few hundred newcomers a second."""

BATCH = 64
"""The most that are taken in together."""

PAUSE = 0.05
"""Seconds to wait when nobody can be taken in."""

_log = logging.getLogger(__name__)


class House(Protocol):
    """Who lets the connections in."""

    def make(self) -> Link:
        """A link for a new connection."""

    def accepted(self, link: Link) -> None:
        """It is connected, and what it had sent by then is read."""

    def room(self) -> int:
        """How many more connections there may be now."""

    def shed(self) -> None:
        """Descriptors have run out: drop whom we can do without."""


class Acceptor:
    """Accepts on listening sockets, which are its own from now on.

    Args:
        sockets: bound, and listening already: who connects waits until `start`.
        house: lets the connections in.
    """

    def __init__(self, sockets: Sequence[socket.socket], house: House) -> None:
        self._sockets = sockets
        self._house = house
        self._accepting: list[asyncio.Task[None]] = []
        self._taking = asyncio.Lock()
        self._trouble = Sparing(_log, 1, "%d more times nobody could be taken in")
        for sock in sockets:
            sock.setblocking(False)  # noqa: FBT003 - there is no other way to call it

    def start(self) -> None:
        """Begin to take in."""
        self._accepting = [asyncio.create_task(self._accept(sock)) for sock in self._sockets]

    async def aclose(self) -> None:
        """Take nobody in any more, and close the sockets."""
        for each in self._accepting:
            each.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for sock in self._sockets:
            sock.close()
        self._trouble.close()

    async def _accept(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                first, _ = await loop.sock_accept(sock)
            except ConnectionAbortedError:
                continue
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                self._trouble.write(logging.WARNING, "nobody can be taken in: %s", reason)
                self._house.shed()
                await asyncio.sleep(PAUSE)
                continue
            try:
                await self._taking.acquire()
            except asyncio.CancelledError:
                first.close()
                raise
            try:
                await self._take_in([first, *self._waiting(sock)])
                while self._house.room() <= 0:
                    self._trouble.write(logging.WARNING, "nobody can be taken in: no room")
                    await asyncio.sleep(PAUSE)
            finally:
                self._taking.release()

    def _waiting(self, sock: socket.socket) -> list[socket.socket]:
        """Who waits beside the first, as far as there is room."""
        found: list[socket.socket] = []
        try:
            while len(found) + 1 < min(BATCH, self._house.room()):
                found.append(sock.accept()[0])
        except OSError:
            # Nobody else waits; or the next first one tells what is wrong.
            pass
        return found

    async def _take_in(self, sockets: Sequence[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        opening = [
            asyncio.create_task(loop.connect_accepted_socket(self._house.make, each))
            for each in sockets
        ]
        try:
            await asyncio.wait(opening)
            # One turn of the loop, so that what a peer has sent already is read before it is
            # judged.
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await asyncio.wait(opening)
            for each in opening:
                each.result()[0].abort()
            raise
        for each in opening:
            self._house.accepted(each.result()[1])
