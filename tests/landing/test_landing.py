"""Whole parts get their names: those that they should, nowhere else, and safely on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from receiving_disk import KEY, OTHER_KEY, Parts, content, descriptors, failing, listing, tree

from securelink.errors import BadName, BadPlace, FileExists, NoRoom, TransferError
from securelink.landing import Conflict, Landed, Landing, part_path, prepare
from securelink.landing.naming import Namer

MTIME = 1_600_000_000_123_456_789
RENAME, SKIP, OVERWRITE = Conflict.RENAME, Conflict.SKIP, Conflict.OVERWRITE


def landed(result: Landed | TransferError) -> Landed:
    assert isinstance(result, Landed), result
    return result


# ---- what lands


def test_a_file_lands_with_its_bytes_its_time_and_its_mode(
    root: Path, landing: Landing, parts: Parts
) -> None:
    ready = parts.whole("photos/2026/a.jpg", b"picture", mtime=MTIME, mode=0o700)
    (result,) = landing.finish([ready], RENAME)
    file = root / "bob" / "photos" / "2026" / "a.jpg"
    assert result == Landed(
        file, 7, ("photos", "2026", "a.jpg"), file.stat().st_ino, replaced=False
    )
    assert file.read_bytes() == b"picture"
    assert (file.stat().st_mtime_ns, file.stat().st_mode & 0o7777) == (MTIME, 0o700)
    for folder in (root, root / "bob", root / "bob" / "photos", root / ".partial", file.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    part = part_path(root, KEY, ready.part.id)
    assert part.samefile(file), "the part stays until it is discarded"
    ready.part.discard()
    assert (part.exists(), file.read_bytes()) == (False, b"picture")


@pytest.mark.parametrize(
    ("mode", "kept"), [(0o600, 0o600), (0o500, 0o500), (0o7777, 0o700), (0, 0o400), (0o200, 0o600)]
)
def test_of_a_mode_the_owners_part_is_kept_and_that_it_can_be_read(
    landing: Landing, parts: Parts, mode: int, kept: int
) -> None:
    (result,) = landing.finish([parts.whole("a", mode=mode)], RENAME)
    assert landed(result).path.stat().st_mode & 0o7777 == kept


def test_many_files_in_many_folders_keep_their_order(
    root: Path, landing: Landing, parts: Parts
) -> None:
    names = ["a", "x/a", "y/z/a", "x/b", "b", "y/z/b", "y/c"]
    ready = [parts.whole(name, name.encode()) for name in names]
    results = landing.finish(ready, RENAME)
    assert ["/".join(landed(each).components) for each in results] == names
    assert content(root / "bob") == {name: name.encode() for name in names}


def test_nothing_to_finish(root: Path, landing: Landing) -> None:
    assert landing.finish([], RENAME) == []


def test_times_before_1970_and_far_away(landing: Landing, parts: Parts) -> None:
    times = [-(10**18), 0, 2**63 - 1, -(2**63)]
    results = landing.finish([parts.whole(str(each), mtime=each) for each in times], RENAME)
    assert landed(results[0]).path.stat().st_mtime_ns == -(10**18)
    assert all(isinstance(each, Landed) for each in results)


def test_a_file_system_without_modes_takes_files_too(
    landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = [parts.whole("a", mode=0o700)]
    for call in ("fchmod", "utime"):
        monkeypatch.setattr(os, call, failing(errno.EPERM))
    (result,) = landing.finish(ready, RENAME)
    assert landed(result).path.read_bytes() == b"data"
    assert landing.make_folder(("x",), 0o700, MTIME).is_dir()


# ---- names that are taken


def test_a_taken_name_gets_the_next_number(root: Path, landing: Landing, parts: Parts) -> None:
    ready = [parts.whole("x/a.txt", bytes([number])) for number in range(4)]
    results = landing.finish(ready, RENAME)
    assert [landed(each).components[-1] for each in results] == [
        "a.txt",
        "a (2).txt",
        "a (3).txt",
        "a (4).txt",
    ]
    assert [landed(each).path.read_bytes() for each in results] == [b"\0", b"\1", b"\2", b"\3"]


def test_a_number_is_given_up_in_the_end(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("securelink.landing.naming.MOST_NUMBERS", 4)
    monkeypatch.setattr("securelink.landing.landing.MOST_NUMBERS", 4)
    results = landing.finish([parts.whole("a") for _ in range(4)], RENAME)
    assert [type(each) for each in results] == [Landed, Landed, Landed, FileExists]
    with pytest.raises(FileExists, match="a is there too often"):
        landing.free_top_level("a")


def test_skip_leaves_what_is_there(root: Path, landing: Landing, parts: Parts) -> None:
    results = landing.finish([parts.whole("a", b"first"), parts.whole("a", b"second")], SKIP)
    assert landed(results[0]).path.read_bytes() == b"first"
    assert isinstance(results[1], FileExists)
    assert results[1].message == "a is there already"
    assert content(root / "bob") == {"a": b"first"}


@pytest.mark.parametrize("links", [True, False])
def test_overwrite_replaces_a_file(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM, FileExistsError))
    (first,) = landing.finish([parts.whole("x/a", b"first")], OVERWRITE)
    second = parts.whole("x/a", b"second", mode=0o400)
    (result,) = landing.finish([second], OVERWRITE)
    assert (landed(first).replaced, landed(result).replaced) == (False, True)
    assert content(root / "bob") == {"x/a": b"second"}
    assert second.part.links == (2 if links else 1)
    assert len(list((root / ".partial").glob("*.place"))) == (0 if links else 2)
    for each in parts.made:
        each.discard()
    assert list((root / ".partial").iterdir()) == []
    assert landed(result).path.stat().st_mode & 0o777 == 0o400


def test_a_name_between_that_a_crash_has_left_is_not_in_the_way(
    root: Path, landing: Landing, parts: Parts
) -> None:
    landing.finish([parts.whole("a", b"first")], OVERWRITE)
    ready = parts.whole("a", b"second")
    part_path(root, KEY, ready.part.id).with_suffix(".new").write_bytes(b"older")
    (result,) = landing.finish([ready], OVERWRITE)
    assert landed(result).path.read_bytes() == b"second"


def test_what_takes_the_place_of_a_part_is_not_followed(
    root: Path, tmp_path: Path, landing: Landing, parts: Parts
) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    ready = parts.whole("a", mode=0o700)
    path = part_path(root, KEY, ready.part.id)
    path.unlink()
    path.symlink_to(mine)
    landing.finish([ready], RENAME)
    assert (mine.stat().st_nlink, mine.stat().st_mode & 0o111) == (1, 0)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("conflict", [SKIP, OVERWRITE])
@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe"])
def test_what_is_no_file_is_never_replaced(
    root: Path,
    tmp_path: Path,
    landing: Landing,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    conflict: Conflict,
    links: bool,
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM, FileExistsError))
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    place = root / "bob" / "a"
    place.parent.mkdir(parents=True)
    match kind:
        case "folder":
            place.mkdir()
        case "link":
            place.symlink_to(outside)
        case "dangling link":
            place.symlink_to(tmp_path / "nothing")
        case "pipe":
            os.mkfifo(place)
    before = place.lstat()
    (result,) = landing.finish([parts.whole("a")], conflict)
    assert isinstance(result, FileExists)
    assert os.path.samestat(place.lstat(), before)
    assert outside.read_bytes() == b"mine"
    assert not (tmp_path / "nothing").exists()
    (result,) = landing.finish([parts.whole("a")], RENAME)
    assert landed(result).path == root / "bob" / "a (2)"


def test_names_that_differ_in_case_alone_stay_apart_where_they_are_one(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Mac: the file system says that the name is taken."""
    link = os.link

    def folding(source: str, name: str, **kwargs: Any) -> None:
        folder = kwargs["dst_dir_fd"]
        if name.casefold() in {each.casefold() for each in listing(folder)}:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        link(source, name, **kwargs)

    monkeypatch.setattr(os, "link", folding)
    ready = [parts.whole(name, name.encode()) for name in ("ReadMe", "README", "readme")]
    landing.finish(ready, RENAME)
    assert content(root / "bob") == {
        "ReadMe": b"ReadMe",
        "README (2)": b"README",
        "readme (3)": b"readme",
    }


# ---- file systems without hard links


@pytest.mark.parametrize(
    "number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS]
)
def test_without_hard_links_files_land_too(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "link", failing(number))
    ready = [parts.whole("x/a", bytes([number]), mode=0o500) for number in range(3)]
    results = landing.finish(ready, RENAME)
    assert content(root / "bob") == {"x/a": b"\0", "x/a (2)": b"\1", "x/a (3)": b"\2"}
    assert landed(results[2]).path.stat().st_mode & 0o777 == 0o500
    notes = {path.read_text() for path in (root / ".partial").iterdir()}
    assert notes == {"x/a", "x/a (2)", "x/a (3)"}, "they tell of it after a crash"
    for each in ready:
        each.part.discard()
    assert list((root / ".partial").iterdir()) == []
    (result,) = landing.finish([parts.whole("x/a")], SKIP)
    assert isinstance(result, FileExists)
    assert not list((root / ".partial").glob("*.place"))


def test_without_hard_links_what_fails_leaves_no_empty_file(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    monkeypatch.setattr(os, "replace", failing(errno.EIO))
    ready = parts.whole("a")
    (result,) = landing.finish([ready], RENAME)
    assert isinstance(result, BadPlace)
    assert list((root / "bob").iterdir()) == []
    monkeypatch.undo()
    (result,) = landing.finish([ready], RENAME)
    assert landed(result).path.read_bytes() == b"data"
    ready.part.discard()
    assert list((root / ".partial").iterdir()) == []


# ---- links and folders that are swapped


@pytest.mark.parametrize("depth", range(4))
@pytest.mark.parametrize("made", ["a link", "a dangling link", "a file"])
def test_no_planted_link_is_followed_at_any_level(
    root: Path, tmp_path: Path, landing: Landing, parts: Parts, depth: int, made: str
) -> None:
    outside = tmp_path / "outside"
    (outside / "y" / "z").mkdir(parents=True)
    place = root.joinpath(*("bob", "x", "y", "z")[: depth + 1])
    place.parent.mkdir(parents=True)
    match made:
        case "a link":
            place.symlink_to(outside)
        case "a dangling link":
            place.symlink_to(tmp_path / "nothing")
        case "a file":
            place.write_bytes(b"mine")
    before = tree(tmp_path)
    components = ("x", "y", "z", "a")
    for conflict in Conflict:
        (result,) = landing.finish([parts.whole("x/y/z/a")], conflict)
        assert isinstance(result, BadPlace)
        assert result.message == (f"{place.name} is a link or a file where a folder should be")
    with pytest.raises(BadPlace):
        landing.make_folder(components, 0o700, 0)
    # Of what a sender's folders are it may hear; the peer's own is none of its doing.
    with pytest.raises(BadPlace if depth else NotADirectoryError):
        landing.existing(components)
    with pytest.raises(BadPlace):
        landing.open_existing(components)
    landing.remove_top_level("y")
    assert tree(tmp_path) - tree(root / ".partial") - {root / ".partial"} == before


def test_a_peers_folder_that_became_a_link_before_the_end(
    root: Path, tmp_path: Path, landing: Landing, parts: Parts
) -> None:
    landing.finish([parts.whole("x/a")], RENAME)
    ready = parts.whole("x/b")
    outside = tmp_path / "outside"
    (outside / "x").mkdir(parents=True)
    (root / "bob").rename(root / "moved")
    (root / "bob").symlink_to(outside)
    (result,) = landing.finish([ready], RENAME)
    assert isinstance(result, BadPlace)
    assert tree(outside) == {outside / "x"}
    assert content(root / "moved") == {"x/a": b"data"}


@pytest.mark.parametrize("conflict", Conflict)
@pytest.mark.parametrize("links", [True, False])
def test_a_folder_that_becomes_a_link_just_then(
    root: Path,
    tmp_path: Path,
    landing: Landing,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    conflict: Conflict,
    links: bool,
) -> None:
    """Between the last look at the way there, and the name: nothing is put behind the link."""
    outside = tmp_path / "outside"
    outside.mkdir()
    name = Namer.name
    if not links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))

    def swap_and_name(*args: Any) -> Any:
        (root / "bob" / "x").rename(root / "bob" / "moved")
        (root / "bob" / "x").symlink_to(outside)
        monkeypatch.setattr(Namer, "name", name)
        return name(*args)

    monkeypatch.setattr(Namer, "name", swap_and_name)
    landing.finish([parts.whole("x/a"), parts.whole("x/b")], conflict)
    assert tree(outside) == set()
    assert content(root / "bob" / "moved") == {"a": b"data", "b": b"data"}
    (result,) = landing.finish([parts.whole("x/c")], conflict)
    assert isinstance(result, BadPlace)
    assert tree(outside) == set()


def test_the_root_may_be_a_link_but_not_a_file(
    root: Path, tmp_path: Path, landing: Landing, parts: Parts
) -> None:
    (tmp_path / "disk").mkdir()
    root.symlink_to(tmp_path / "disk")
    landing.finish([parts.whole("a")], RENAME)
    assert content(tmp_path / "disk" / "bob") == {"a": b"data"}
    other = Landing(tmp_path / "disk" / "bob" / "a", "bob", KEY)
    with pytest.raises(NotADirectoryError):
        other.open_part(bytes(16))
    with pytest.raises(NotADirectoryError):
        other.existing(("a",))
    assert {type(each) for each in other.finish([parts.whole("b")] * 2, RENAME)} == {BadPlace}


# ---- what fails


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoRoom),
        (errno.EDQUOT, NoRoom),
        (errno.EIO, BadPlace),
        (errno.EROFS, BadPlace),
        (errno.EXDEV, BadPlace),
        (errno.EILSEQ, BadName),
    ],
)
def test_a_disk_that_takes_no_name(
    root: Path,
    landing: Landing,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[TransferError],
) -> None:
    monkeypatch.setattr(os, "link", failing(number))
    ready = [parts.whole("a"), parts.whole("x/b")]
    results = landing.finish(ready, RENAME)
    assert [type(each) for each in results] == [kind, kind]
    assert all("\n" not in str(each) and not str(each).endswith(".") for each in results)
    assert content(root / "bob") == {}
    monkeypatch.undo()
    assert all(isinstance(each, Landed) for each in landing.finish(ready, RENAME))


def test_a_disk_that_takes_no_folder(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = [parts.whole("a"), parts.whole("b")]
    monkeypatch.setattr("securelink.landing.folder.os.mkdir", failing(errno.EROFS))
    results = landing.finish(ready, RENAME)
    assert [type(each) for each in results] == [BadPlace, BadPlace]
    monkeypatch.setattr(Path, "mkdir", failing(errno.EROFS))
    results = landing.finish(ready, RENAME)
    assert [type(each) for each in results] == [BadPlace, BadPlace]
    assert str(results[0]).startswith(str(root))


def test_names_and_paths_that_are_too_long(root: Path, landing: Landing, parts: Parts) -> None:
    ready = [parts.whole("x" * 256), parts.whole("/".join(["y" * 240] * 17)), parts.whole("z")]
    results = landing.finish(ready, RENAME)
    assert [type(each) for each in results] == [BadName, BadName, Landed]
    assert content(root / "bob") == {"z": b"data"}
    assert not (root / "bob" / ("y" * 240)).exists()
    with pytest.raises(BadName):
        landing.make_folder(("x" * 256,), 0o700, 0)
    with pytest.raises(BadName):
        landing.make_folder(["y" * 240] * 17, 0o700, 0)


def test_of_a_batch_only_what_fails_fails(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = [parts.whole(name) for name in "abc"]
    broken = ready[1].part.fileno()
    fsync = os.fsync

    def failing_once(fd: int) -> None:
        if fd == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", failing_once)
    results = landing.finish(ready, RENAME)
    assert [type(each) for each in results] == [Landed, BadPlace, Landed]
    assert sorted(content(root / "bob")) == ["a", "c"]


def test_names_that_may_not_ge_on_the_disk_are_taken_back(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.finish([parts.whole("x/old", b"old")], RENAME)
    ready = [parts.whole("x/new"), parts.whole("x/old", b"new"), parts.whole("x")]
    fsync, folder = os.fsync, (root / "bob" / "x").stat()

    def failing_there(fd: int) -> None:
        if os.path.samestat(os.fstat(fd), folder):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", failing_there)
    results = landing.finish(ready, OVERWRITE)
    assert [type(each) for each in results] == [BadPlace, BadPlace, FileExists]
    # What has replaced another file can't be taken back.
    assert content(root / "bob") == {"x/old": b"new"}
    with pytest.raises(BadPlace):
        landing.make_folder(("x", "y"), 0o700, 0)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_sync_folders(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    fsync = os.fsync

    def files_only(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", files_only)
    (result,) = landing.finish([parts.whole("x/a")], RENAME)
    assert landed(result).path.read_bytes() == b"data"


def test_names_come_after_bytes_and_before_the_end_all_is_on_the_disk(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = [parts.whole(name) for name in ("x/a", "x/b", "y/c", "d")]
    done: list[tuple[str, str]] = []
    fsync, link, mkdir = os.fsync, os.link, os.mkdir

    def at(fd: int) -> str:
        return str(Path(f"/proc/self/fd/{fd}").readlink()).removeprefix(f"{root}/")

    def note(what: str, call: Callable[..., None], where: Callable[..., str]) -> None:
        def noting(*args: Any, **kwargs: Any) -> None:
            call(*args, **kwargs)
            done.append((what, where(*args, **kwargs)))

        monkeypatch.setattr(os, call.__name__, noting)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    note("fsync", fsync, at)
    note("link", link, lambda _, name, dst_dir_fd, **__: f"{at(dst_dir_fd)}/{name}")
    note("mkdir", mkdir, lambda name, mode, dir_fd: f"{at(dir_fd)}/{name}")
    landing.finish(ready, RENAME)
    monkeypatch.undo()
    synced = [("fsync", f".partial/{each.part.name}") for each in ready]
    assert done == [
        *synced,
        ("mkdir", f"{root}/bob"),
        ("mkdir", "bob/x"),
        ("link", "bob/x/a"),
        ("link", "bob/x/b"),
        ("fsync", "bob/x"),
        ("mkdir", "bob/y"),
        ("link", "bob/y/c"),
        ("fsync", "bob/y"),
        ("link", "bob/d"),
        ("fsync", "bob"),
        ("fsync", f"{root}"),
    ]


def test_a_full_disk_leaves_nothing_half(small_disk: Path, parts_in: Callable[..., Parts]) -> None:
    root = small_disk / "received"
    parts = parts_in(root)
    data = bytes(1 << 20)
    first = parts.whole("x/a", data)
    second = parts.whole("b", b"").part
    with pytest.raises(OSError, match="No space left") as raised:
        second.write([memoryview(data)[: 1 << 16]] * 64)
    assert raised.value.errno == errno.ENOSPC
    assert 0 < second.size == os.fstat(second.fileno()).st_size <= len(data)
    assert parts.landing.free() == 0
    (result,) = parts.landing.finish([first], RENAME)
    if not isinstance(result, Landed):
        assert isinstance(result, NoRoom)
        assert content(root / "bob") == {}
    second.discard()
    assert parts.landing.free() > len(data) // 2
    if not isinstance(result, Landed):
        (result,) = parts.landing.finish([first], RENAME)
    assert landed(result).path.read_bytes() == data


# ---- folders


def test_a_folder_is_made_with_its_time_and_mode(root: Path, landing: Landing) -> None:
    path = landing.make_folder(("x", "y"), 0o700, MTIME)
    assert path == root / "bob" / "x" / "y"
    assert (path.stat().st_mtime_ns, path.stat().st_mode & 0o7777) == (MTIME, 0o700)
    assert landing.make_folder(("x", "y"), 0o500, MTIME + 1) == path
    assert (path.stat().st_mtime_ns, path.stat().st_mode & 0o7777) == (MTIME + 1, 0o500)
    landing.make_folder(("x", "y"), 0o200, MTIME)
    assert path.stat().st_mode & 0o7777 == 0o700, "its owner can look into it in any case"


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_does_not_take_the_place_of_anything(
    root: Path, tmp_path: Path, landing: Landing, kind: str
) -> None:
    place = root / "bob" / "x"
    place.parent.mkdir(parents=True)
    if kind == "file":
        place.write_bytes(b"mine")
    else:
        place.symlink_to(tmp_path)
    mode = tmp_path.stat().st_mode
    with pytest.raises(FileExists, match="x is there already, and no folder"):
        landing.make_folder(("x",), 0o500, MTIME)
    assert tmp_path.stat().st_mode == mode


def test_a_folder_on_a_full_disk(
    root: Path, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir()
    (root / "bob").mkdir()
    monkeypatch.setattr("securelink.landing.folder.os.mkdir", failing(errno.ENOSPC))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: None)
    with pytest.raises(NoRoom):
        landing.make_folder(("x",), 0o700, 0)


def test_a_folder_that_its_owner_closed_is_opened_for_what_comes_late(
    unprivileged: Path, parts_in: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_in(unprivileged / "received")
    landing = parts.landing
    folder = landing.make_folder(("x",), 0o500, MTIME)
    ready = [parts.whole("x/a"), parts.whole("x/y/b"), parts.whole("x/c")]
    assert all(isinstance(each, Landed) for each in landing.finish(ready, RENAME))
    assert content(folder) == {"a": b"data", "y/b": b"data", "c": b"data"}
    assert folder.stat().st_mode & 0o777 == 0o500
    made = landing.make_folder(("x", "z"), 0o700, MTIME)
    assert made.is_dir()
    assert folder.stat().st_mode & 0o777 == 0o500
    (result,) = landing.finish([parts.whole("x/d")], RENAME)
    landing.take_back(landed(result))
    assert not (folder / "d").exists()
    # A folder that was opened up, or needs not be, and takes nothing all the same.
    link = os.link

    def not_g(source: str, name: str, **kwargs: Any) -> None:
        if name == "g":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        link(source, name, **kwargs)

    monkeypatch.setattr(os, "link", not_g)
    results = landing.finish([parts.whole(f"x/{name}") for name in "fgh"], RENAME)
    assert [type(each) for each in results] == [Landed, BadPlace, Landed]
    assert folder.stat().st_mode & 0o777 == 0o500
    monkeypatch.setattr(os, "link", failing(errno.EACCES))
    (result,) = landing.finish([parts.whole("e")], RENAME)
    assert isinstance(result, BadPlace)
    monkeypatch.undo()


@pytest.mark.parametrize("closed", ["received", "received/bob"])
def test_a_folder_that_its_person_closed_stays_closed(
    unprivileged: Path, parts_in: Callable[..., Parts], closed: str
) -> None:
    parts = parts_in(unprivileged / "received")
    whole = parts.whole("a")
    (unprivileged / closed).mkdir(exist_ok=True)
    folder = unprivileged / closed
    folder.chmod(0o555)
    before = folder.stat().st_ctime_ns
    (result,) = parts.landing.finish([whole], RENAME)
    assert isinstance(result, BadPlace)
    with pytest.raises(BadPlace, match="permission denied"):
        parts.landing.make_folder(("x",), 0o700, MTIME)
    assert folder.stat().st_ctime_ns == before, "its mode was not touched"
    folder.chmod(0o700)


@pytest.mark.parametrize("closed", ["received", "received/.partial"])
@pytest.mark.parametrize("mode", [0o555, 0o600])
def test_a_closed_folder_is_not_prepared(unprivileged: Path, closed: str, mode: int) -> None:
    root = unprivileged / "received"
    prepare(root)
    prepare(root)
    assert [each.name for each in root.iterdir()] == [".partial"]
    folder = unprivileged / closed
    folder.chmod(mode)
    with pytest.raises(PermissionError):
        prepare(root)
    assert folder.stat().st_mode & 0o777 == mode
    folder.chmod(0o700)


def test_a_folder_in_a_closed_one_is_not_prepared(unprivileged: Path) -> None:
    unprivileged.chmod(0o555)
    with pytest.raises(PermissionError):
        prepare(unprivileged / "received")
    with pytest.raises(PermissionError):
        prepare(unprivileged)
    assert list(unprivileged.iterdir()) == []


def test_an_empty_folder_is_removed_again_and_nothing_else(
    root: Path, tmp_path: Path, landing: Landing, parts: Parts
) -> None:
    landing.remove_top_level("nothing")
    assert not root.exists()
    landing.make_folder(("empty",), 0o700, 0)
    landing.finish([parts.whole("full/a"), parts.whole("file")], RENAME)
    (tmp_path / "outside").mkdir()
    (root / "bob" / "link").symlink_to(tmp_path / "outside")
    for name in ("empty", "full", "file", "link"):
        landing.remove_top_level(name)
    assert sorted(each.name for each in (root / "bob").iterdir()) == ["file", "full", "link"]


def test_what_was_not_committed_is_taken_back_and_nothing_else(
    root: Path, landing: Landing, parts: Parts
) -> None:
    ready = [parts.whole(f"x/{name}") for name in "abc"]
    results = [landed(each) for each in landing.finish(ready, RENAME)]
    results[1].path.unlink()
    results[1].path.write_bytes(b"somebody else's")
    results[2].path.unlink()
    for each in results:
        landing.take_back(each)
    assert content(root / "bob") == {"x/b": b"somebody else's"}
    assert ready[0].part.links == 1


def test_no_descriptor_is_left_when_anything_fails(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = [parts.whole("x/y/a"), parts.whole("x/b")]
    before = descriptors()
    for call in ("link", "mkdir", "fsync", "lstat"):
        monkeypatch.setattr(os, call, failing(errno.EIO))
        landing.finish(ready, RENAME)
        for use in (landing.existing, landing.open_existing):
            with contextlib.suppress(OSError, BadPlace):
                use(("x", "y", "nothing"))
        with contextlib.suppress(BadPlace):
            landing.make_folder(("new",), 0o700, 0)
        monkeypatch.undo()
    assert descriptors() == before


def test_another_peer_has_a_folder_of_its_own(root: Path, parts_in: Callable[..., Parts]) -> None:
    for name, key in (("bob", KEY), ("alice", OTHER_KEY)):
        parts = parts_in(root, name, key)
        ready = parts.whole("a", name.encode())
        parts.landing.finish([ready], RENAME)
    assert content(root) == {
        "bob/a": b"bob",
        "alice/a": b"alice",
        f".partial/{KEY.hex()[:16]}-{ready.part.id.hex()}.part": b"bob",
        f".partial/{OTHER_KEY.hex()[:16]}-{ready.part.id.hex()}.part": b"alice",
    }
