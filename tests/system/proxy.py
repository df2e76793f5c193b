"""A TCP proxy on loopback that records, and does to a connection what a bad network does."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

# What crosses before a link is ready (docs/protocol.md), each with its length of 4 bytes.
MESSAGE_1 = 4 + 1252
MESSAGE_2 = 4 + 1216
MESSAGE_3 = 4 + 320
SMALL = 4 + 80
"""A frame with one small record: READY, a short text, a receipt, CLOSE."""

INTRODUCED = MESSAGE_1 + MESSAGE_3
"""What a client sends before it waits for READY."""

READY = MESSAGE_2 + SMALL
"""What a server sends until the link is ready."""


KERNEL_HOLDS = 1 << 20
"""About how many bytes are received and not read when they are held back; by itself the kernel may
take tens of MiB, and then all of a file has left."""


class Action(enum.Enum):
    """What to do with the bytes from some place on."""

    CUT = "drop both connections"
    SWALLOW = "take them and pass nothing on"
    CORRUPT = "flip one bit of the first"
    HOLD = "keep them back until `release`"


@dataclass(frozen=True)
class Fault:
    """What happens in one direction to every byte from the offset `after` on."""

    action: Action
    after: int = 0


class Connection:
    """One connection through the proxy, and what crossed it so far."""

    def __init__(self) -> None:
        self.up = bytearray()
        self.down = bytearray()


class Proxy:
    """Forwards from a port of its own to another; `up` is from the client to the server.

    `up` and `down` may be changed at any time; they hold for bytes that come after it.

    Attributes:
        port: where it listens.
        target: where it connects to; may be set later.
        up, down: what happens to the bytes of each direction; None for nothing.
        struck: set when a fault has done something for the first time.
        connections: all that there were.
    """

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self.port = 0
        self.up: Fault | None = None
        self.down: Fault | None = None
        self.struck = threading.Event()
        self.connections: list[Connection] = []
        self._loop = asyncio.new_event_loop()
        self._released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._listen())

    def release(self) -> None:
        """Let go of what is held back, and hold no more."""
        self._loop.call_soon_threadsafe(self._released.set)

    def cut(self) -> None:
        """Drop all connections."""
        self._run(self._cut())

    def close(self) -> None:
        """Drop all connections and listen no more."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ---- inside, in the thread

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        for sock in self._server.sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_HOLDS)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _close(self) -> None:
        self._server.close()
        await self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        pair = [writer]
        self._writers.add(writer)
        connection = Connection()
        self.connections.append(connection)
        try:
            their_reader, theirs = await asyncio.open_connection("127.0.0.1", self.target)
            pair.append(theirs)
            sock = theirs.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_HOLDS)
            self._writers.add(theirs)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, theirs, connection.up, "up"))
                both.create_task(self._pump(their_reader, writer, connection.down, "down"))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for each in pair:
                each.transport.abort()
                self._writers.discard(each)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        crossed: bytearray,
        direction: str,
    ) -> None:
        while data := await reader.read(65536):
            fault: Fault | None = getattr(self, direction)
            sound = len(data) if fault is None else max(0, fault.after - len(crossed))
            crossed += data
            writer.write(data[:sound])
            rest = data[sound:]
            if fault is not None and rest:
                rest = await self._strike(fault, rest, writer)
            writer.write(rest)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _strike(self, fault: Fault, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        """Do what the fault says; return what is to be passed on."""
        first = not self.struck.is_set()
        match fault.action:
            case Action.CUT:
                await writer.drain()
                await self._cut()
                data = b""
            case Action.SWALLOW:
                data = b""
            case Action.CORRUPT if first:
                data = bytes([data[0] ^ 1]) + data[1:]
            case Action.HOLD:
                self.struck.set()
                await self._released.wait()
        self.struck.set()
        return data


class CuttingProxy(Proxy):
    """Cuts one connection after the other, and keeps counts, not bytes: for large files.

    Attributes:
        passed: bytes that went up, over all connections.
        cuts: how many of the offsets were reached.
    """

    def __init__(
        self, target: int, offsets: Iterable[int], act: Callable[[], object] | None = None
    ) -> None:
        """
        Args:
            target: the port to connect to.
            offsets: the first connection with so many bytes up is cut there, then the next.
            act: what to do there instead; it runs in a thread, and meanwhile nothing goes up.
        """
        self.passed = 0
        self.cuts = 0
        self._offsets = deque(offsets)
        self._act = act
        super().__init__(target)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        crossed: bytearray,
        direction: str,
    ) -> None:
        count = 0
        while data := await reader.read(65536):
            if direction == "up":
                if self._offsets and count + len(data) > self._offsets[0]:
                    sound = max(0, self._offsets.popleft() - count)
                    await self._pass_up(data[:sound], writer)
                    count += sound
                    data = data[sound:]
                    self.cuts += 1
                    if self._act is None:
                        await self._cut()
                        return
                    await asyncio.to_thread(self._act)
                await self._pass_up(data, writer)
                count += len(data)
            else:
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _pass_up(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        self.passed += len(data)
        writer.write(data)
        await writer.drain()
