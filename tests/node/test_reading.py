"""Files and pipes that are read while they are sent: at once, or in a thread that leaks nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from parties import until

from securelink import reading
from securelink.reading import FileReader, StreamReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONTENT = os.urandom(3 * reading.BLOCK_SIZE + 17)


class Ready:
    """Counts how often a reader said that there is more."""

    def __init__(self) -> None:
        self.times = 0
        self._more = asyncio.Event()

    def __call__(self) -> None:
        self.times += 1
        self._more.set()

    async def wait(self) -> None:
        await self._more.wait()
        self._more.clear()


async def all_of(reader: FileReader | StreamReader, ready: Ready, room: int = 65_000) -> bytes:
    """Read to the end, as the link does; whatever has failed is raised."""
    data = bytearray()
    buffer = memoryview(bytearray(room))
    while not reader.ended:
        if reader.error is not None:
            raise Failed(bytes(data), reader.error)
        if not reader.is_ready:
            await ready.wait()
        elif count := reader.read_into(buffer):
            data += buffer[:count]
    assert reader.read_into(buffer) == 0
    assert reader.is_ready
    return bytes(data)


class Failed(Exception):
    def __init__(self, data: bytes, error: OSError) -> None:
        super().__init__(error)
        self.data = data
        self.error = error


def opened(folder: Path, content: bytes = CONTENT) -> int:
    path = folder / "file"
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


def is_closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError as error:
        return error.errno == errno.EBADF
    return False


# ---- what the kernel can say


def never_waits(real: Callable[..., int], *args: Any) -> int:
    """A kernel that has everything in memory."""
    return real(*args[:3])


def always_waits(_: Callable[..., int], *args: Any) -> int:
    """A kernel that has nothing in memory."""
    raise BlockingIOError(errno.EAGAIN, "would wait")


class WaitsNowAndThen:
    """A kernel that has every third piece in memory, and some of them in part."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, real: Callable[..., int], *args: Any) -> int:
        self._calls += 1
        if self._calls % 3:
            raise BlockingIOError(errno.EAGAIN, "would wait")
        descriptor, (room,), offset, _ = args
        return real(descriptor, [room[:1000]], offset)


def does_not_know(real: Callable[..., int], *args: Any) -> int:
    """A file system that does not know the flag."""
    if len(args) > 3:
        raise OSError(errno.EOPNOTSUPP, "not supported")
    return real(*args)


@pytest.mark.parametrize("offset", [0, 1, reading.BLOCK_SIZE, len(CONTENT)])
@pytest.mark.parametrize(
    "kernel", [None, never_waits, always_waits, WaitsNowAndThen(), does_not_know]
)
async def test_a_file_is_read_whole_whatever_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., int] | None, offset: int
) -> None:
    real = os.preadv
    if kernel is not None:
        monkeypatch.setattr(reading, "_NOWAIT", 8)
        monkeypatch.setattr(os, "preadv", lambda *args: kernel(real, *args))
    ready = Ready()
    descriptor = opened(tmp_path)
    reader = FileReader(descriptor, offset, ready)
    assert await all_of(reader, ready) == CONTENT[offset:]
    reader.close()
    reader.close()
    assert is_closed(descriptor)


async def test_an_empty_file(tmp_path: Path) -> None:
    ready = Ready()
    reader = FileReader(opened(tmp_path, b""), 0, ready)
    assert await all_of(reader, ready) == b""
    reader.close()


async def test_no_thread_reads_what_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    start = threading.Thread.start
    monkeypatch.setattr(
        threading.Thread, "start", lambda self: (threads.append(self), start(self))[1]
    )
    monkeypatch.setattr(reading, "_NOWAIT", 8)
    monkeypatch.setattr(os, "preadv", lambda *args, real=os.preadv: never_waits(real, *args))
    ready = Ready()
    reader = FileReader(opened(tmp_path), 0, ready)
    assert await all_of(reader, ready) == CONTENT
    reader.close()
    assert threads == []


async def test_a_file_system_that_is_slow_and_does_not_say_so_goes_to_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.preadv
    in_loop = []

    def slow(*args: Any) -> int:
        in_loop.append(args)
        time.sleep(reading.SLOW * 1.5)
        return real(*args)

    monkeypatch.setattr(reading, "_NOWAIT", 0)
    monkeypatch.setattr(os, "preadv", slow)
    ready = Ready()
    reader = FileReader(opened(tmp_path), 0, ready)
    assert await all_of(reader, ready) == CONTENT
    reader.close()
    assert len(in_loop) == 1


async def test_a_file_that_becomes_shorter_ends_there(tmp_path: Path) -> None:
    ready = Ready()
    reader = FileReader(opened(tmp_path), 0, ready)
    buffer = memoryview(bytearray(1000))
    while not reader.read_into(buffer):
        await ready.wait()
    os.truncate(tmp_path / "file", 1000)
    rest = await all_of(reader, ready)
    # A block that was read before is here all the same.
    assert len(rest) <= reading.BLOCK_SIZE - 1000
    reader.close()


# ---- disks that fail


@pytest.mark.parametrize("where", ["loop", "loop, without a flag", "thread"])
async def test_an_error_after_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    preadv, pread = os.preadv, os.pread

    def failing(*args: Any) -> int:
        if where == "thread":
            raise BlockingIOError(errno.EAGAIN, "would wait")
        if where == "loop, without a flag" and len(args) > 3:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        if args[2] >= 130_000:
            raise OSError(errno.EIO, "Input/output error")
        return preadv(*args[:3])

    def failing_block(descriptor: int, count: int, offset: int) -> bytes:
        if offset >= reading.BLOCK_SIZE:
            raise OSError(errno.EIO, "Input/output error")
        return pread(descriptor, count, offset)

    monkeypatch.setattr(reading, "_NOWAIT", 8)
    monkeypatch.setattr(os, "preadv", failing)
    monkeypatch.setattr(os, "pread", failing_block)
    ready = Ready()
    descriptor = opened(tmp_path)
    reader = FileReader(descriptor, 0, ready)
    with pytest.raises(Failed) as failed:
        await all_of(reader, ready)
    expected = reading.BLOCK_SIZE if where == "thread" else 130_000
    assert failed.value.data == CONTENT[:expected]
    assert failed.value.error.errno == errno.EIO
    assert reader.read_into(memoryview(bytearray(10))) == 0
    reader.close()
    assert is_closed(descriptor)


# ---- closed while a thread reads


@contextmanager
def held_up(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[threading.Event]:
    """Hold reads in a thread until the block is left; the event tells that one has begun."""
    real = getattr(os, name)
    begun, go_on = threading.Event(), threading.Event()

    def slow(*args: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            begun.set()
            assert go_on.wait(10)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, slow)
        patch.setattr(os, "preadv", lambda *args: always_waits(lambda: 0, *args))
        patch.setattr(reading, "_NOWAIT", 8)
        try:
            yield begun
        finally:
            go_on.set()


async def test_a_file_that_is_closed_while_a_thread_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = Ready()
    descriptor = opened(tmp_path)
    reader = FileReader(descriptor, 0, ready)
    with held_up(monkeypatch, "pread") as begun:
        assert reader.read_into(memoryview(bytearray(10))) == 0
        await until(begun.is_set)
        assert not reader.is_ready
        # It is not read a second time beside that.
        assert reader.read_into(memoryview(bytearray(10))) == 0
        reader.close()
        # A descriptor that is closed under a read may be another file's a moment later.
        assert not is_closed(descriptor)
    await until(lambda: is_closed(descriptor))
    assert ready.times == 0


def test_a_loop_that_ends_while_a_thread_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = opened(tmp_path)

    async def begin(begun: threading.Event) -> None:
        reader = FileReader(descriptor, 0, lambda: None)
        reader.read_into(memoryview(bytearray(10)))
        await until(begun.is_set)
        reader.close()

    with held_up(monkeypatch, "pread") as begun:
        asyncio.run(begin(begun))
    for thread in threading.enumerate():
        if thread.name == "reading":
            thread.join(10)
    assert is_closed(descriptor)


# ---- pipes


@contextmanager
def a_pipe() -> Iterator[tuple[int, int]]:
    reading_end, writing_end = os.pipe()
    try:
        yield reading_end, writing_end
    finally:
        for each in (reading_end, writing_end):
            if not is_closed(each):
                os.close(each)


async def test_a_pipe_is_read_as_it_comes_and_to_its_end() -> None:
    with a_pipe() as (source, sink):
        ready = Ready()
        reader = StreamReader(source, ready)
        assert not reader.is_ready
        buffer = memoryview(bytearray(4))
        assert reader.read_into(buffer) == 0
        os.write(sink, b"abcdef")
        await ready.wait()
        assert (reader.is_ready, reader.ended) == (True, False)
        assert reader.read_into(buffer) == 4
        assert bytes(buffer) == b"abcd"
        assert reader.read_into(buffer) == 2
        assert not reader.is_ready
        os.write(sink, b"ghi")
        os.close(sink)
        assert await all_of(reader, ready) == b"ghi"
        reader.close()
        # It belongs to whoever opened it.
        assert not is_closed(source)


async def test_an_end_is_told_once_all_before_it_was_taken() -> None:
    with a_pipe() as (source, sink):
        os.write(sink, b"abc")
        os.close(sink)
        reader = StreamReader(source, Ready())
        await until(lambda: reader._at_end)
        assert not reader.ended
        assert reader.read_into(memoryview(bytearray(2))) == 2
        assert not reader.ended
        assert reader.read_into(memoryview(bytearray(2))) == 1
        assert reader.ended


async def test_an_error_is_told_once_all_before_it_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pieces: list[bytes | OSError] = [b"abc", b"def", OSError(errno.EIO, "Input/output error")]

    def read(*_: object) -> bytes:
        piece = pieces.pop(0)
        if isinstance(piece, OSError):
            raise piece
        return piece

    monkeypatch.setattr(os, "read", read)
    reader = StreamReader(-1, Ready())
    await until(lambda: reader._at_end)
    assert (reader.error, reader.ended) == (None, False)
    room = memoryview(bytearray(10))
    assert reader.read_into(room) == 3
    assert reader.error is None
    assert reader.read_into(room) == 3
    assert bytes(room[:3]) == b"def"
    assert reader.error is not None
    assert not reader.ended
    assert reader.read_into(room) == 0


async def test_no_more_is_read_than_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def endless(_: int, size: int) -> bytes:
        read.append(size)
        return bytes(size)

    monkeypatch.setattr(os, "read", endless)
    ready = Ready()
    reader = StreamReader(-1, ready)
    await until(lambda: len(read) == StreamReader.BLOCKS_AHEAD and ready.times == len(read))
    room = memoryview(bytearray(StreamReader.SIZE - 1))
    assert reader.read_into(room) == len(room)
    await asyncio.sleep(0.05)
    assert len(read) == StreamReader.BLOCKS_AHEAD, "the block is not taken yet"
    assert reader.read_into(room) == 1
    await until(lambda: len(read) == StreamReader.BLOCKS_AHEAD + 1)
    reader.close()
    await until(lambda: not any(each.name == "reading" for each in threading.enumerate()))
    assert len(read) <= StreamReader.BLOCKS_AHEAD + 2


async def test_a_pipe_that_is_closed_while_a_thread_reads_it() -> None:
    with a_pipe() as (source, sink):
        ready = Ready()
        reader = StreamReader(source, ready)
        reader.close()
        # A read of a pipe can't be called off: it ends with the next bytes.
        os.write(sink, b"x")
        await until(lambda: not any(each.name == "reading" for each in threading.enumerate()))
