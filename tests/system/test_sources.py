"""The walk over files to send, on a real disk that also changes under its feet."""

from __future__ import annotations

import gc
import os
import resource
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from securelink import sources
from securelink.errors import ExitCode, SourceChanged, SourceUnreadable, UsageError
from securelink.filenames import LONGEST_NAME, MOST_COMPONENTS
from securelink.sources import (
    Argument,
    Skipped,
    Source,
    file_id,
    look_again,
    open_source,
    top_level,
    unchanged,
    walk,
)
from securelink.store.file_terms import Kind

NOBODY = 65534


def found(path: Path | str) -> list[Source | Skipped]:
    return list(walk(top_level(os.fspath(path))))


def names(path: Path | str) -> list[str]:
    return [each.name if isinstance(each, Source) else "!" for each in found(path)]


def the_only(path: Path) -> Source:
    (one,) = found(path)
    assert isinstance(one, Source)
    return one


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


@pytest.fixture(autouse=True)
def nothing_stays_open():
    gc.collect()  # what tests before this one have dropped closes now, not in between
    before = descriptors()
    yield
    assert descriptors() == before


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty folder that is also the current one."""
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def deep_place(place):
    """Like `place`, but what is in it may be too deep for pytest to delete it."""
    yield place
    subprocess.run(["rm", "-rf", place], check=True)


@pytest.fixture
def common_place():
    """A folder of a user who may not read everything, as root may."""
    before = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        os.seteuid(NOBODY if before == 0 else before)
        try:
            yield Path(folder)
        finally:
            os.seteuid(before)


# ---- what a person named


def test_a_file(place):
    (place / "a.txt").write_bytes(b"hello")
    (place / "a.txt").chmod(0o754)
    os.utime(place / "a.txt", ns=(1, 1_700_000_000_123_456_789))
    assert the_only(place / "a.txt") == Source(
        name="a.txt",
        path=os.fsencode(place / "a.txt"),
        kind=Kind.FILE,
        size=5,
        mtime=1_700_000_000_123_456_789,
        inode=(place / "a.txt").stat().st_ino,
        mode=0o700,
    )


@pytest.mark.parametrize(
    ("given", "relative"),
    [
        ("photos", "photos"),
        ("photos/", "photos"),
        ("photos///", "photos"),
        ("./photos", "photos"),
        ("photos/2026", "photos/2026"),
        ("photos/2026/..", "photos"),
        ("photos/.", "photos"),
        ("photos/../photos", "photos"),
        (".", "."),
        ("./", "."),
        ("..", ".."),
        # Behind a symbolic link `..` is where the kernel goes, not where the letters say.
        ("link/..", "photos"),
        ("link/.", "photos/2026"),
        ("link/a.jpg", "photos/2026/a.jpg"),
    ],
)
def test_how_a_person_may_name_it(given, relative, place):
    (place / "photos" / "2026").mkdir(parents=True)
    (place / "photos" / "2026" / "a.jpg").touch()
    (place / "link").symlink_to("photos/2026")
    meant = (place / relative).resolve()
    assert top_level(given) == Argument(os.fsencode(meant), meant.name)


def test_the_same_file_has_the_same_path_whichever_way_leads_there(place, tmp_path):
    (place / "a").touch()
    (tmp_path / "way").symlink_to(place)
    ways = ("a", "./a", str(place / "a"), str(tmp_path / "way" / "a"), "../place/a")
    assert len({top_level(way) for way in ways}) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "an empty path names no file"),
        ("none", "none: no such file or folder"),
        ("none/a", "none/a: no such file or folder"),
        ("file/a", "file/a: a file stands where a folder should be"),
        ("/", "/ has no name to be sent under"),
        ("//", "// has no name to be sent under"),
        ("/..", "/.. has no name to be sent under"),
        ("pipe", "pipe is neither a file nor a folder"),
        ("socket", "socket is neither a file nor a folder"),
        ("/dev/null", "/dev/null is neither a file nor a folder"),
        ("x" * 300, f"{'x' * 300} can't be read: file name too long"),
    ],
)
def test_what_can_not_be_sent(given, message, place):
    (place / "file").touch()
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        with pytest.raises((UsageError, SourceUnreadable)) as caught:
            top_level(given)
    assert caught.value.message == message
    if isinstance(caught.value, UsageError):
        assert caught.value.exit_code == ExitCode.USAGE


def test_a_folder_that_is_gone_while_we_are_in_it(place):
    place.rmdir()
    with pytest.raises(UsageError, match=r"^\.: no such file or folder$"):
        top_level(".")


def test_a_name_that_is_not_utf_8(place):
    Path(os.fsdecode(b"a\xff")).mkdir()
    with pytest.raises(UsageError, match="has a name that is not UTF-8"):
        top_level(os.fsdecode(b"a\xff"))


def test_a_symbolic_link_by_name_is_not_followed(place):
    (place / "a").write_text("secret")
    (place / "folder").mkdir()
    for number, target in enumerate(("a", "folder", "nothing")):
        (place / f"link{number}").symlink_to(target)
        for given in (f"link{number}", f"link{number}/"):
            assert found(given) == [Skipped(os.fsencode(place / f"link{number}"), sources.IS_LINK)]


@pytest.mark.parametrize("kind", [Path.touch, Path.mkdir])
def test_what_may_not_be_read_is_found_before_the_walk(kind, common_place):
    kind(common_place / "a")
    (common_place / "a").chmod(0)
    with pytest.raises(SourceUnreadable) as caught:
        top_level(str(common_place / "a"))
    assert caught.value.message == f"{common_place}/a can't be read: permission denied"
    assert caught.value.exit_code == ExitCode.ERROR


def test_a_path_through_a_folder_that_is_closed(common_place):
    (common_place / "closed").mkdir(mode=0)
    with pytest.raises(SourceUnreadable, match="closed/a can't be read: permission denied"):
        top_level(str(common_place / "closed" / "a"))


# ---- the walk


def test_a_folder_comes_after_all_that_is_in_it(place):
    for path in ("b/z", "b/a", "b/c/d/e", "b/c/a", "b/a.d/x", "b/B"):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).touch()
    (place / "b" / "empty").mkdir()
    assert names("b") == [
        *("b/B", "b/a", "b/z"),
        *("b/a.d/x", "b/a.d"),
        *("b/c/a", "b/c/d/e", "b/c/d", "b/c"),
        "b/empty",
        "b",
    ]


def test_what_a_folder_says_of_itself(place):
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b").chmod(0o550)
    os.utime(place / "a" / "b", ns=(1, 5))
    folder = found("a")[0]
    inode = (place / "a" / "b").stat().st_ino
    path = os.fsencode(place / "a" / "b")
    assert folder == Source("a/b", path, Kind.FOLDER, None, 5, inode, 0o500)


def test_what_is_skipped_in_a_folder(place):
    (place / "a").mkdir()
    (place / "a" / "good").touch()
    (place / "a" / "link").symlink_to("good")
    (place / "a" / "folders").symlink_to("/")
    (place / "a" / "loop").symlink_to("loop")
    os.mkfifo(place / "a" / "pipe")
    (place / "a" / os.fsdecode(b"\xff")).touch()
    path = os.fsencode(place / "a")
    *rest, good, folder = sorted(found("a"), key=lambda each: isinstance(each, Source))
    assert [good.name, folder.name] == ["a/good", "a"]
    assert rest == [
        Skipped(path + b"/folders", sources.IS_LINK),
        Skipped(path + b"/link", sources.IS_LINK),
        Skipped(path + b"/loop", sources.IS_LINK),
        Skipped(path + b"/pipe", sources.IS_SPECIAL),
        Skipped(path + b"/\xff", sources.IS_UNNAMED),
    ]


def test_what_may_not_be_read_in_a_folder(common_place):
    top = common_place / "a"
    for path in ("closed/x", "listed/x", "file", "good"):
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).touch()
    (top / "file").chmod(0)
    (top / "closed").chmod(0)
    (top / "listed").chmod(0o400)
    try:
        walked = found(top)
    finally:
        for each in ("closed", "listed"):
            (top / each).chmod(0o700)
    skipped = {each.path.decode(): each.reason for each in walked if isinstance(each, Skipped)}
    assert skipped == dict.fromkeys(
        (f"{top}/file", f"{top}/closed", f"{top}/listed/x"), "permission denied"
    )
    assert [each.name for each in walked if isinstance(each, Source)] == [
        "a/good",
        "a/listed",
        "a",
    ]


def test_the_key_that_is_kept_is_found_by_what_it_is(place):
    (place / "home").mkdir()
    (place / "home" / "key").write_text("secret")
    (place / "a").mkdir()
    for name in ("b", "c"):
        os.link("home/key", f"a/{name}")
    (place / "a" / "key").write_text("secret")
    (place / "link").symlink_to("home/key")
    path = os.fsencode(place)
    for way in ("home/key", "link"):
        key = file_id(place / way)
        assert key is not None
        assert [each.path for each in walk(top_level("a"), key) if isinstance(each, Skipped)] == [
            path + b"/a/b",
            path + b"/a/c",
        ]
        for given in ("home/key", "a/b"):
            with pytest.raises(UsageError, match=f"^{given} is this node's private key"):
                top_level(given, key)
            # It may have come there since.
            assert list(walk(top_level(given), key)) == [
                Skipped(os.fsencode(place / given), sources.IS_KEY)
            ]
    assert file_id(place / "none") is None


def test_the_key_in_the_place_of_a_file_that_has_changed(place):
    (place / "a").write_text("text")
    (place / "key").write_text("secret")
    before = the_only(place / "a")
    (place / "a").unlink()
    os.link("key", "a")
    key = file_id(place / "key")
    with pytest.raises(SourceChanged, match="a has changed"):
        open_source(before)
    with pytest.raises(SourceUnreadable, match="a is this node's private key: it is not sent"):
        look_again(before, key)


def test_as_deep_as_an_offer_may_be_with_few_files_open_at_a_time(place):
    for depth in (MOST_COMPONENTS, MOST_COMPONENTS + 1):
        folder = place / str(depth) / Path(*["d"] * (depth - 2))
        folder.mkdir(parents=True)
        (folder / "file").touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 8, hard))
    try:
        walked, too_deep = found(str(MOST_COMPONENTS)), found(str(MOST_COMPONENTS + 1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(walked) == MOST_COMPONENTS
    assert walked[0].name == f"{MOST_COMPONENTS}/" + "d/" * (MOST_COMPONENTS - 2) + "file"
    os.close(open_source(walked[0]))
    assert too_deep[0] == Skipped(os.fsencode(folder / "file"), sources.IS_LONG)
    assert len(too_deep) == MOST_COMPONENTS + 1


def test_deeper_than_any_recursion(deep_place):
    folder = os.open(".", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=folder)
        inner = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    walked = found("d")
    assert [each.reason for each in walked if isinstance(each, Skipped)] == [sources.IS_LONG]
    assert len(walked) == MOST_COMPONENTS + 1


def test_a_path_that_no_offer_can_hold(deep_place):
    deep = deep_place / "a"
    part = "x" * 250
    for _ in range(3):
        deep /= part
    deep.mkdir(parents=True)
    folder = os.open(deep, os.O_RDONLY)
    for _ in range(14):
        os.mkdir(part, dir_fd=folder)
        inner = os.open(part, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    (skipped,) = (each for each in found("a") if isinstance(each, Skipped))
    assert skipped.reason == sources.IS_LONG
    assert (
        len(f"a{f'/{part}' * 16}")
        <= LONGEST_NAME
        < len(skipped.path) - len(os.fsencode(deep_place))
    )


def test_no_more_than_one_folder_is_held(place):
    import tracemalloc

    (place / "a").mkdir()
    for folder in range(20):
        (place / "a" / f"{folder:02}").mkdir()
        for file in range(200):
            (place / "a" / f"{folder:02}" / f"{file:03}").touch()
    most = 0
    tracemalloc.start()
    try:
        count = sum(1 for _ in walk(top_level("a")))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20 * 201 + 1
    assert most < 200_000  # all of them take more than a million


# ---- what changes under its feet


def swap(old: Path, target: Path) -> None:
    """Put a symbolic link where a file or folder was."""
    old.rename(old.with_name(f"{old.name}.away"))
    old.symlink_to(target)


def tree(place: Path) -> tuple[Path, Path]:
    """A folder to send, and one with secrets of the same names."""
    for top in ("a", "secret"):
        (place / top / "b" / "c").mkdir(parents=True)
        for file in ("0", "b/1", "b/c/2"):
            (place / top / file).write_text(top)
    return place / "a", place / "secret"


@pytest.mark.parametrize("swapped", ["b", "b/c", ""])
def test_a_folder_that_becomes_a_link_during_the_walk(swapped, place):
    top, secret = tree(place)
    walking = walk(top_level("a"))
    assert next(walking).name == "a/0"
    swap(top / swapped, secret / swapped)
    rest = list(walking)
    gone = [each for each in rest if isinstance(each, Skipped)]
    assert gone == [Skipped(os.fsencode(top / swapped if swapped else top / "b"), sources.IS_LINK)]
    inodes = {path.stat().st_ino for path in secret.rglob("*")}
    assert not inodes & {each.inode for each in rest if isinstance(each, Source)}


@pytest.mark.parametrize("swapped", ["b", "b/c", "b/c/2", ""])
def test_a_link_between_the_walk_and_the_reading(swapped, place):
    top, secret = tree(place)
    source = next(each for each in found("a") if each.name == "a/b/c/2")
    # The secret looks the same in all that can be compared.
    (secret / "b" / "c" / "2").unlink()
    os.link(top / "b" / "c" / "2", secret / "b" / "c" / "2")
    os.close(open_source(source))
    swap(top / swapped, secret / swapped)
    with pytest.raises(SourceChanged) as caught:
        open_source(source)
    assert caught.value.message == f"{top}/b/c/2 has changed"


def test_a_file_that_is_gone_during_the_walk(place):
    (place / "a").mkdir()
    (place / "a" / "1").touch()
    (place / "a" / "2").touch()
    walking = walk(top_level("a"))
    assert next(walking).name == "a/1"
    (place / "a" / "2").unlink()
    assert next(walking) == Skipped(os.fsencode(place / "a" / "2"), sources.IS_GONE)


def test_a_file_that_becomes_a_pipe_during_the_walk(place):
    (place / "a").mkdir()
    (place / "a" / "1").touch()
    (place / "a" / "2").touch()
    walking = walk(top_level("a"))
    assert next(walking).name == "a/1"
    (place / "a" / "2").unlink()
    os.mkfifo(place / "a" / "2")
    assert next(walking) == Skipped(os.fsencode(place / "a" / "2"), sources.IS_SPECIAL)


def test_an_argument_that_is_gone_when_the_walk_begins(place):
    (place / "a").mkdir()
    argument = top_level("a")
    (place / "a").rmdir()
    assert list(walk(argument)) == [Skipped(os.fsencode(place / "a"), sources.IS_GONE)]


def test_a_walk_that_is_given_up(place):
    (place / "a").mkdir()
    (place / "a" / "1").touch()
    walking = walk(top_level("a"))
    next(walking)
    walking.close()


# ---- opened later


def test_a_file_is_read_as_it_was(place):
    (place / "a").write_bytes(b"hello")
    descriptor = open_source(the_only(place / "a"))
    try:
        assert os.read(descriptor, 10) == b"hello"
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def other_content(file: Path) -> None:
    before = file.stat()
    file.write_bytes(b"other")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def other_size(file: Path) -> None:
    before = file.stat()
    file.write_bytes(b"longer")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def other_file(file: Path) -> None:
    before = file.stat()
    (file.parent / "new").write_bytes(b"hello")
    os.utime(file.parent / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (file.parent / "new").rename(file)


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def a_link(file: Path) -> None:
    file.rename(file.with_name("real"))
    file.symlink_to("real")


def a_file_for_its_folder(file: Path) -> None:
    file.unlink()
    file.parent.rmdir()
    file.parent.touch()


@pytest.mark.parametrize(
    "change",
    [other_content, other_size, other_file, a_pipe, a_folder, a_link, a_file_for_its_folder],
)
def test_a_file_that_is_another_one_now(change, place):
    (place / "d").mkdir()
    file = place / "d" / "a"
    file.write_bytes(b"hello")
    source = found("d")[0]
    change(file)
    with pytest.raises(SourceChanged) as caught:
        open_source(source)
    assert caught.value.message == f"{file} has changed"


def test_a_file_that_is_gone(place):
    (place / "a").touch()
    source = the_only(place / "a")
    (place / "a").unlink()
    with pytest.raises(SourceChanged, match=r"/a is gone$"):
        open_source(source)


def test_a_file_that_may_not_be_read_any_more(common_place):
    (common_place / "a").touch()
    source = the_only(common_place / "a")
    (common_place / "a").chmod(0)
    with pytest.raises(SourceUnreadable, match=r"/a can't be read: permission denied$"):
        open_source(source)


def test_what_does_not_count_as_a_change(place):
    (place / "a").write_bytes(b"hello")
    source = the_only(place / "a")
    (place / "a").chmod(0o400)
    os.link(place / "a", place / "b")
    os.utime(place / "a", ns=(7, source.mtime))
    os.close(open_source(source))


def test_a_change_while_it_is_read(place):
    (place / "a").write_bytes(b"hello")
    source = the_only(place / "a")
    descriptor = open_source(source)
    assert unchanged(descriptor, source)
    with (place / "a").open("ab") as file:
        file.write(b"!")
    assert not unchanged(descriptor, source)
    os.close(descriptor)
    with pytest.raises(SourceUnreadable, match="can't be read: bad file descriptor"):
        unchanged(descriptor, source)
