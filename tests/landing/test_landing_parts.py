"""Parts, one holder each; and what lies in the receiving folder."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from receiving_disk import KEY, OTHER_KEY, Parts, content, failing

from securelink.errors import BadPlace, PartInUse
from securelink.landing import Conflict, Existing, Kind, Landing, Part, part_path
from securelink.landing import part as part_module

ID = bytes(range(200, 216))
RENAME = Conflict.RENAME

HOLD = """
import sys
from pathlib import Path
from securelink.landing import Landing
landing = Landing(Path(sys.argv[1]), "bob", bytes.fromhex(sys.argv[2]))
part = landing.open_part(bytes.fromhex(sys.argv[3]))
part.write([b"from the other process"])
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that receives into the part of `ID`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root), KEY.hex(), ID.hex()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


@pytest.fixture
def part(landing: Landing) -> Iterator[Part]:
    part = landing.open_part(ID)
    yield part
    part.close()


# ---- parts


def test_a_part_is_made_where_it_is_looked_for(root: Path, landing: Landing, part: Part) -> None:
    path = part_path(root, KEY, ID)
    assert path == root / ".partial" / f"{KEY.hex()[:16]}-{ID.hex()}.part"
    assert (part.created, part.size, part.id, part.links) == (True, 0, ID, 1)
    assert path.stat().st_mode == stat.S_IFREG | 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    part.write([b"some"])
    part.close()
    part.close()
    again = landing.open_part(ID)
    assert (again.created, again.size) == (False, 4)
    again.write([b"more"])
    assert path.read_bytes() == b"somemore"
    again.discard()
    again.discard()
    assert not path.exists()


def test_pieces_are_written_one_after_the_other(root: Path, part: Part) -> None:
    data = os.urandom(100_000)
    views = [memoryview(data)[at : at + 17] for at in range(0, len(data), 17)]
    part.write([])
    part.write([b"", *views, b""])
    part.write([bytearray(b"end")])
    assert part.size == len(data) + 3
    assert part_path(root, KEY, ID).read_bytes() == data + b"end"


def test_what_the_kernel_takes_only_in_part_is_written_whole(
    root: Path, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwritev", lambda fd, views, at: os.pwrite(fd, b"".join(views)[:5], at))
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:3], at))
    part.write([b"01", memoryview(b"234567"), b"", bytearray(b"89abcdef")])
    assert part.size == 16
    assert part_path(root, KEY, ID).read_bytes() == b"0123456789abcdef"


def test_the_size_tells_what_is_there_also_when_the_disk_is_full(
    small_disk: Path, parts_in: Callable[..., Parts]
) -> None:
    parts = parts_in(small_disk / "received")
    part = parts.whole("a", b"").part
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1 << 20))
    data = os.urandom(1 << 21)
    view = memoryview(data)
    for at in range(0, len(data), 1 << 18):
        try:
            part.write([view[at : at + (1 << 17)], view[at + (1 << 17) : at + (1 << 18)]])
        except OSError as error:
            number = error.errno
            break
    assert number == errno.ENOSPC
    assert 0 < part.size == os.fstat(part.fileno()).st_size < len(data)
    filler.unlink()
    part.write([view[part.size : part.size + 1000]])
    path = part_path(small_disk / "received", KEY, part.id)
    assert path.read_bytes() == data[: part.size]


def test_a_part_is_cut_and_goes_on_from_there(root: Path, part: Part) -> None:
    part.write([b"0123456789"])
    part.truncate(4)
    assert part.size == 4
    part.truncate(4)
    part.write([b"x"])
    part.sync()
    assert part_path(root, KEY, ID).read_bytes() == b"0123x"


def test_the_digest_of_what_is_here(part: Part) -> None:
    data = os.urandom((5 << 19) + 7)
    part.write([data])
    for size in (0, 1, 1 << 20, len(data)):
        digest = hashlib.sha256()
        part.digest_prefix(size, digest.update)
        assert digest.digest() == hashlib.sha256(data[:size]).digest()
    blocks: list[int] = []
    part.digest_prefix(len(data), lambda view: blocks.append(len(view)), lambda: len(blocks) == 2)
    assert blocks == [1 << 20, 1 << 20]
    with pytest.raises(OSError, match="Input/output error"):
        part.digest_prefix(len(data) + 1, digest.update)


def test_on_a_mac_the_memory_of_the_disk_is_emptied_too(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("securelink.landing.folder._F_FULLFSYNC", 51)
    monkeypatch.setattr(fcntl, "fcntl", lambda *args: asked.append(args))
    monkeypatch.setattr(os, "fsync", asked.append)
    part.sync()
    assert asked == [(part.fileno(), 51)]
    # A network's disk has no such call.
    monkeypatch.setattr(fcntl, "fcntl", failing(errno.ENOTSUP))
    part.sync()
    assert asked[1:] == [part.fileno()]
    monkeypatch.setattr(fcntl, "fcntl", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        part.sync()


# ---- one holder


def test_one_part_has_one_holder_in_a_process(landing: Landing, part: Part) -> None:
    with pytest.raises(PartInUse, match="another process receives this file at present"):
        landing.open_part(ID)
    landing.open_part(bytes(16)).discard()
    part.close()
    landing.open_part(ID).close()


def test_another_process_holds_it_until_it_is_killed(root: Path, landing: Landing) -> None:
    with other_holder(root) as holder:
        with pytest.raises(PartInUse):
            landing.open_part(ID)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        part = landing.open_part(ID)
        assert (part.created, part.size) == (False, 22)
        part.close()


def test_a_part_that_is_tidied_away_just_before_it_is_locked(
    root: Path, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process starts, and finds what nobody holds yet."""
    path = part_path(root, KEY, ID)
    flock = part_module.lock

    def late(descriptor: int) -> bool:
        monkeypatch.setattr(part_module, "lock", flock)
        path.unlink()
        return flock(descriptor)

    monkeypatch.setattr(part_module, "lock", late)
    part = landing.open_part(ID)
    assert os.path.samestat(path.stat(), os.fstat(part.fileno()))
    part.discard()


@pytest.mark.parametrize("then", ["discarded", "made anew", "named"])
def test_a_part_that_goes_just_before_it_is_locked(
    root: Path, landing: Landing, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """Who held it has let go between our open and our lock."""
    path = part_path(root, KEY, ID)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    flock = part_module.lock

    def late(descriptor: int) -> bool:
        monkeypatch.setattr(part_module, "lock", flock)
        match then:
            case "discarded":
                path.unlink()
            case "made anew":
                path.unlink()
                path.write_bytes(b"newer")
            case "named":
                path.rename(root / "named")
        return flock(descriptor)

    monkeypatch.setattr(part_module, "lock", late)
    part = landing.open_part(ID)
    assert part.size == (5 if then == "made anew" else 0)
    assert part.created is (then != "made anew")
    part.write([b"!"])
    assert path.stat().st_size == part.size
    if then == "named":
        assert (root / "named").read_bytes() == b"old"
    part.discard()


def test_a_part_that_goes_just_before_it_is_opened(
    root: Path, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = part_path(root, KEY, ID)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    real_open = os.open

    def late(name: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if name == path.name and not flags & os.O_CREAT:
            monkeypatch.setattr(os, "open", real_open)
            path.unlink()
        return real_open(name, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", late)
    part = landing.open_part(ID)
    assert part.created
    part.discard()


@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe"])
def test_nothing_but_a_file_is_a_part(
    root: Path, tmp_path: Path, landing: Landing, kind: str
) -> None:
    path = part_path(root, KEY, ID)
    path.parent.mkdir(parents=True)
    (tmp_path / "mine").write_bytes(b"mine")
    match kind:
        case "link":
            path.symlink_to(tmp_path / "mine")
        case "dangling link":
            path.symlink_to(tmp_path / "nothing")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    with pytest.raises(BadPlace, match=rf"{path.name} in .partial is no file"):
        landing.open_part(ID)
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("kind", ["link", "file"])
def test_the_folder_of_parts_is_a_folder(root: Path, tmp_path: Path, kind: str) -> None:
    root.mkdir()
    (tmp_path / "outside").mkdir()
    if kind == "link":
        (root / ".partial").symlink_to(tmp_path / "outside")
    else:
        (root / ".partial").write_bytes(b"")
    with pytest.raises(BadPlace, match=r"^\.partial is a link or a file where a folder should be$"):
        Landing(root, "bob", KEY).open_part(ID)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_folder_of_parts_that_is_removed_is_made_again(
    root: Path, landing: Landing, part: Part
) -> None:
    path = part_path(root, KEY, ID)
    path.unlink()
    path.parent.rmdir()
    other = landing.open_part(bytes(16))
    assert [each.name for each in path.parent.iterdir()] == [other.name]
    part.discard()
    other.discard()


def test_a_disk_without_locks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    landing = Landing(root, "bob", KEY)
    with pytest.raises(OSError, match="No locks available"):
        landing.open_part(ID)
    landing.close()


def test_a_disk_that_fails(
    root: Path, landing: Landing, part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    part.close()
    monkeypatch.setattr(os, "open", failing_at(part.name, errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        landing.open_part(ID)
    real_open = os.open

    def there(name: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_CREAT:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return real_open(name, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", there)
    with pytest.raises(OSError, match="Input/output error"):
        landing.open_part(ID)


# ---- parts that had landed when their process died


def left_by_a_crash(parts: Parts, name: str = "x/a", *, mode: int = 0o600) -> Path:
    """A file that has its name, and was not committed; of the ID of which there is no part yet."""
    ready = parts.whole(name, b"landed", mode=mode)
    parts.landing.finish([ready], RENAME)
    ready.part.close()
    return part_path(parts.landing._root, KEY, ready.part.id)


def test_what_landed_and_was_not_committed_loses_its_name_again(
    root: Path, landing: Landing, parts: Parts
) -> None:
    path = left_by_a_crash(parts, mode=0o700)
    landing.finish([parts.whole("x/b")], RENAME)
    part = landing.open_part(parts.made[0].id)
    assert (part.created, part.size, part.links) == (False, 6, 1)
    assert sorted(content(root / "bob")) == ["x/b"]
    assert path.read_bytes() == b"landed"
    assert path.stat().st_mode & 0o777 == 0o600
    part.close()


def test_what_landed_for_reading_alone_can_be_written_again(
    unprivileged: Path, parts_in: Callable[..., Parts]
) -> None:
    parts = parts_in(unprivileged / "received")
    path = left_by_a_crash(parts, mode=0o400)
    part = parts.landing.open_part(parts.made[0].id)
    part.write([b"!"])
    assert path.stat().st_mode & 0o777 == 0o600
    assert content(unprivileged / "received" / "bob") == {}
    part.close()
    path.chmod(0o400)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PartInUse):
            parts.landing.open_part(part.id)
    assert path.stat().st_mode & 0o777 == 0o400
    parts.landing.open_part(part.id).close()


@pytest.mark.parametrize("where", ["moved away", "linked by its owner", "below a link"])
def test_what_landed_and_is_out_of_reach_is_left_alone(
    root: Path, tmp_path: Path, landing: Landing, parts: Parts, where: str
) -> None:
    left_by_a_crash(parts)
    file = root / "bob" / "x" / "a"
    match where:
        case "moved away":
            file = file.rename(tmp_path / "a")
        case "linked by its owner":
            (tmp_path / "b").hardlink_to(file)
        case "below a link":
            (root / "bob").rename(tmp_path / "bob")
            (root / "bob").symlink_to(tmp_path / "bob")
            file = tmp_path / "bob" / "x" / "a"
    if where == "below a link":
        with pytest.raises(BadPlace):
            landing.open_part(parts.made[0].id)
    else:
        part = landing.open_part(parts.made[0].id)
        assert (part.created, part.size) == (True, 0)
        part.write([b"anew"])
        part.close()
    assert file.read_bytes() == b"landed"


def test_the_name_between_goes_too(root: Path, landing: Landing, parts: Parts) -> None:
    """A crash when it was about to replace another file."""
    ready = parts.whole("a", b"new")
    ready.part.close()
    path = part_path(root, KEY, ready.part.id)
    path.with_suffix(".new").hardlink_to(path)
    part = landing.open_part(ready.part.id)
    assert (part.created, part.size, part.links) == (False, 3, 1)
    assert list(path.parent.iterdir()) == [path]
    part.close()


# ---- what is there


def test_what_lies_at_a_name(root: Path, tmp_path: Path, landing: Landing, parts: Parts) -> None:
    assert landing.existing(("a",)) is None
    assert not root.exists()
    landing.finish([parts.whole("x/a", b"12345")], RENAME)
    (root / "bob" / "link").symlink_to(tmp_path)
    os.mkfifo(root / "bob" / "pipe")
    assert landing.existing(("x", "a")) == Existing(Kind.FILE, 5)
    assert landing.existing(("x",)) == Existing(Kind.FOLDER, 0)
    assert landing.existing(("link",)) == Existing(Kind.OTHER, 0)
    assert landing.existing(("pipe",)) == Existing(Kind.OTHER, 0)
    assert landing.existing(("x", "b")) is None
    assert landing.existing(("y", "b")) is None
    for on_the_way in ("link", "pipe"):
        with pytest.raises(BadPlace, match=f"^{on_the_way} is a link or a file where"):
            landing.existing((on_the_way, "a"))


def test_only_a_file_is_opened(root: Path, tmp_path: Path, landing: Landing, parts: Parts) -> None:
    landing.finish([parts.whole("x/a", b"12345")], RENAME)
    (tmp_path / "mine").write_bytes(b"mine")
    (root / "bob" / "link").symlink_to(tmp_path / "mine")
    os.mkfifo(root / "bob" / "pipe")
    with os.fdopen(landing.open_existing(("x", "a")), "rb") as file:
        assert file.read() == b"12345"
        assert fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    for names, words in {
        ("x",): "x is no file",
        ("pipe",): "pipe is no file",
        ("link",): "link can't be opened: too many levels of symbolic links",
        ("x", "b"): "b can't be opened: no such file or directory",
        ("y", "b"): "b can't be opened: no such file or directory",
    }.items():
        with pytest.raises(BadPlace) as raised:
            landing.open_existing(names)
        assert str(raised.value) == words


def test_a_free_name_at_the_top(root: Path, tmp_path: Path, landing: Landing, parts: Parts) -> None:
    assert landing.free_top_level("photos") == "photos"
    assert not root.exists()
    landing.finish([parts.whole("photos/a"), parts.whole("a.txt")], RENAME)
    (root / "bob" / "a (2).txt").symlink_to(tmp_path / "nothing")
    assert landing.free_top_level("photos") == "photos (2)"
    assert landing.free_top_level("a.txt") == "a (3).txt"
    assert landing.free_top_level("b") == "b"


def test_how_much_is_there(
    root: Path, tmp_path: Path, parts: Parts, parts_in: Callable[..., Parts]
) -> None:
    landing = parts.landing
    alice = parts_in(root, "alice", OTHER_KEY)
    assert (landing.used(), landing.total()) == (0, 0)
    assert landing.free() == alice.landing.free() > 0
    assert not root.exists(), "nothing is made before it is needed"
    parts.whole("unfinished", b"123")
    assert (landing.used(), landing.total()) == (3, 3)
    ready = parts.whole("x/y/a", b"12345")
    landing.finish([ready], RENAME)
    assert (landing.used(), landing.total()) == (8, 8), "what has landed counts once"
    ready.part.discard()
    assert (landing.used(), landing.total()) == (8, 8)
    alice.landing.finish([alice.whole("b", b"1234567")], RENAME)
    alice.whole("c", b"1")
    assert (alice.landing.used(), landing.used(), landing.total()) == (8, 8, 16)
    (tmp_path / "large").write_bytes(bytes(1000))
    (root / "bob" / "link").symlink_to(tmp_path)
    (root / "file").write_bytes(b"1")
    link = (root / "bob" / "link").lstat().st_size
    assert (landing.used(), landing.total()) == (8 + link, 17 + link)


def test_how_much_is_free(small_disk: Path) -> None:
    landing = Landing(small_disk / "not" / "made", "bob", KEY)
    before = landing.free()
    assert 0 < before <= 2 << 20
    (small_disk / "filler").write_bytes(bytes(1 << 20))
    assert landing.free() == before - (1 << 20)
    assert not (small_disk / "not").exists()


def test_what_goes_while_it_is_counted(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = landing.finish([parts.whole("x/y/a", b"12345"), parts.whole("b", b"1")], RENAME)
    for each in parts.made:
        each.discard()
    assert all(results)
    real_open = os.open

    def late(name: Any, *args: Any, **kwargs: Any) -> int:
        if name == "y":
            (root / "bob" / "x" / "y").rename(root / "elsewhere")
            (root / "bob" / "x" / "y").symlink_to(root)
        return real_open(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", late)
    assert landing.used() == 1
    monkeypatch.undo()
    (root / "bob" / "x" / "y").unlink()
    monkeypatch.setattr(os, "open", failing_at("x", errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        landing.used()


def failing_at(name: str, number: int) -> Callable[..., int]:
    real_open = os.open

    def fail(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == name:
            raise OSError(number, os.strerror(number))
        return real_open(path, *args, **kwargs)

    return fail


def test_folders_deeper_than_any_of_ours_are_not_counted(root: Path, landing: Landing) -> None:
    folder = root / "bob"
    folder.mkdir(parents=True)
    descriptor = os.open(folder, os.O_RDONLY)
    for depth in range(300):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
        if depth in (150, 299):
            file = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
            os.write(file, b"12345")
            os.close(file)
    os.close(descriptor)
    assert landing.used() == 5
