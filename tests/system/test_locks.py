from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from securelink.errors import StoreError
from securelink.locks import FileLock, is_held

HOLD = """
import sys
from pathlib import Path
from securelink.locks import FileLock
lock = FileLock.acquire(Path(sys.argv[1]))
print("held" if lock else "refused", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.lock"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_one_holder_at_a_time(path: Path) -> None:
    lock = FileLock.acquire(path)
    assert lock is not None
    assert path.stat().st_mode & 0o777 == 0o600
    assert FileLock.acquire(path) is None
    assert is_held(path)
    lock.release()
    assert not is_held(path)
    again = FileLock.acquire(path)
    assert again is not None
    lock.release()
    assert is_held(path), "a second release must not touch the next holder"
    again.release()


def test_another_process_holds_it_until_it_is_killed(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    assert FileLock.acquire(path) is None
    assert is_held(path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_held(path)
    lock = FileLock.acquire(path)
    assert lock is not None
    lock.release()


def test_a_program_started_by_the_holder_does_not_inherit_it(path: Path) -> None:
    lock = FileLock.acquire(path)
    assert lock is not None
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    ) as child:
        # Until it runs, it is a copy of this process, with all that is open here.
        assert child.stdout is not None
        child.stdout.readline()
        lock.release()
        assert not is_held(path)
        child.kill()


def test_as_a_context_manager(path: Path) -> None:
    lock = FileLock.acquire(path)
    assert lock is not None
    with lock as entered:
        assert entered is lock
        assert is_held(path)
    assert not is_held(path)
    assert path.exists()


def test_a_released_lock_may_take_its_file_along(path: Path) -> None:
    lock = FileLock.acquire(path)
    assert lock is not None
    lock.release(unlink=True)
    assert not path.exists()
    assert not is_held(path)


def test_a_file_that_is_unlinked_meanwhile_is_not_locked(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder unlinks and releases between our open and our lock, and somebody is faster."""
    real_open = os.open
    others: list[FileLock | None] = []

    def open_late(name: Path, flags: int, mode: int = 0o777) -> int:
        fd = real_open(name, flags, mode)
        if not others:
            monkeypatch.setattr(os, "open", real_open)
            path.unlink()
            others.append(FileLock.acquire(path))
        return fd

    path.touch()
    monkeypatch.setattr(os, "open", open_late)
    assert FileLock.acquire(path) is None, "the new file at the path is held by somebody else"
    assert others[0] is not None
    others[0].release()


def test_a_file_that_is_gone_when_it_is_locked_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def open_late(name: Path, flags: int, mode: int = 0o777) -> int:
        monkeypatch.setattr(os, "open", real_open)
        fd = real_open(name, flags, mode)
        path.unlink()
        return fd

    monkeypatch.setattr(os, "open", open_late)
    lock = FileLock.acquire(path)
    assert lock is not None
    assert is_held(path)
    lock.release()


def test_looking_does_not_turn_anybody_away(path: Path) -> None:
    path.touch()
    looking, enough = threading.Event(), threading.Event()

    def look() -> None:
        while not enough.is_set():
            is_held(path)
            looking.set()

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    looking.wait()
    try:
        for _ in range(2000):
            lock = FileLock.acquire(path)
            assert lock is not None
            lock.release()
    finally:
        enough.set()
        for watcher in watchers:
            watcher.join()


def test_whoever_looks_at_the_same_moment_is_waited_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same without chance: somebody looks just as we try, and is gone when we look."""
    import fcntl

    path.touch()
    watcher = os.open(path, os.O_RDONLY)
    fcntl.flock(watcher, fcntl.LOCK_SH)
    real_flock = fcntl.flock
    tried: list[int] = []

    def flock(fd: int, operation: int) -> None:
        tried.append(operation)
        if operation == fcntl.LOCK_UN:
            real_flock(watcher, fcntl.LOCK_UN)
        real_flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    lock = FileLock.acquire(path)
    assert lock is not None
    assert len(tried) == 4
    lock.release()
    os.close(watcher)


def test_of_many_processes_one_gets_it(path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    answers = [process.stdout.readline() for process in processes if process.stdout]
    for process in processes:
        process.communicate()
    assert sorted(answers) == ["held\n"] + ["refused\n"] * 5


def test_a_missing_file_is_not_held(path: Path) -> None:
    assert not is_held(path)
    assert not path.exists()


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link.lock").symlink_to(tmp_path / "file")
    for path in (tmp_path / "file" / "x.lock", tmp_path / "link.lock"):
        for call in (FileLock.acquire, is_held):
            with pytest.raises(StoreError, match=f"cannot lock {path}: ") as raised:
                call(path)
            assert raised.value.hint
    with pytest.raises(StoreError, match="cannot lock"):
        FileLock.acquire(tmp_path / "missing" / "x.lock")


def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    path.touch()
    monkeypatch.setattr(fcntl, "flock", flock)
    before = len(list(Path("/dev/fd").iterdir()))
    for call in (FileLock.acquire, is_held):
        with pytest.raises(StoreError, match="cannot lock"):
            call(path)
    assert len(list(Path("/dev/fd").iterdir())) == before
