"""What a crash has left: taken in, gone on with, or tidied away; never two files, never half."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from landing_child import DATA, ID, OVERWRITING, WITH_LINKS, WITHOUT_LINKS
from receiving_disk import KEY, OTHER_KEY, Parts, content, failing

from securelink.errors import PartInUse
from securelink.landing import Conflict, Found, Landed, Landing, Ready, part_path, recover

PEERS = {KEY: "bob", OTHER_KEY: "alice"}
CHILD = Path(__file__).with_name("landing_child.py")


def nothing(*_: object) -> bool:
    return False


def everything(*_: object) -> bool:
    return True


@contextmanager
def stopped(
    root: Path, step: str, conflict: Conflict = Conflict.RENAME
) -> Iterator[subprocess.Popen[str]]:
    """A process that receives a file, and waits at a step of it."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(root), step, conflict, "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
        process.kill()


def crash(root: Path, step: str, conflict: Conflict = Conflict.RENAME) -> None:
    command = [sys.executable, str(CHILD), str(root), step, conflict, "die"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def recovered(root: Path, keep: Callable[..., bool] = nothing) -> list[Found]:
    """What was found, let go of again."""
    found = recover(root, PEERS, keep)
    for each in found:
        each.release()
    return found


def left(root: Path) -> list[str]:
    return sorted(each.name for each in (root / ".partial").iterdir())


def age(path: Path) -> None:
    os.utime(path, (0, 0))


# ---- a crash at every step


@pytest.mark.parametrize(
    ("step", "conflict"),
    [(step, Conflict.RENAME) for step in (*WITH_LINKS, *WITHOUT_LINKS, "before the part goes")]
    + [(step, Conflict.OVERWRITE) for step in OVERWRITING],
)
@pytest.mark.parametrize("first", ["a new start", "the sender"])
def test_a_crash_neither_loses_nor_doubles_nor_leaves_a_half(
    root: Path, parts_in: Callable[..., Parts], step: str, conflict: Conflict, first: str
) -> None:
    other = {}
    if conflict is Conflict.OVERWRITE:
        (root / "bob" / "x").mkdir(parents=True)
        (root / "bob" / "x" / "a").write_bytes(b"before")
        other = {"x/a": b"before"}
    crash(root, step, conflict)
    linkless = step in WITHOUT_LINKS and conflict is Conflict.RENAME
    if first == "a new start" or linkless:
        found = recover(root, PEERS, everything)
        if found:
            (one,) = found
            assert (one.peer, one.id, one.name, one.size) == (KEY, ID, "x/a", len(DATA))
            assert one.path == root / "bob" / "x" / "a"
            one.forget()
            assert content(root / "bob") == {"x/a": DATA}
            assert left(root) == []
            return
        assert content(root / "bob") == other
        assert len(left(root)) == 1
    parts = parts_in(root)
    part = parts.landing.open_part(ID)
    parts.made.append(part)
    assert (part.created, part.size, part.links) == (False, len(DATA), 1)
    if step != "when it has replaced the other":
        assert content(root / "bob") == other
    (result,) = parts.landing.finish([Ready(part, ("x", "a"), 0, 0o600)], conflict)
    assert isinstance(result, Landed)
    part.discard()
    assert content(root / "bob") == {"x/a": DATA}
    assert left(root) == []


@pytest.mark.parametrize("step", [*WITH_LINKS, *WITHOUT_LINKS])
def test_what_a_living_process_holds_is_left_alone(root: Path, step: str) -> None:
    with stopped(root, step):
        (part,) = (root / ".partial").glob("*.part") if step != WITHOUT_LINKS[-1] else (None,)
        if part is not None:
            age(part)
        before = content(root)
        assert recovered(root) == []
        assert content(root) == before


@pytest.mark.parametrize("step", OVERWRITING)
def test_so_is_what_it_is_about_to_replace(root: Path, step: str) -> None:
    (root / "bob" / "x").mkdir(parents=True)
    (root / "bob" / "x" / "a").write_bytes(b"before")
    with stopped(root, step, Conflict.OVERWRITE):
        before = content(root)
        assert recovered(root) == []
        assert content(root) == before


# ---- what has its name


def land(parts: Parts, *names: str, data: bytes = b"data", mode: int = 0o600) -> list[Landed]:
    """Files that have their names; their process has died since."""
    ready = [parts.whole(name, data, mode=mode) for name in names]
    results = parts.landing.finish(ready, Conflict.RENAME)
    for each in parts.made:
        each.close()
    return [each for each in results if isinstance(each, Landed)]


def test_what_has_its_name_is_held_until_it_is_committed(
    root: Path, landing: Landing, parts: Parts
) -> None:
    land(parts, "a")
    part_id = parts.made[0].id
    (found,) = recover(root, PEERS, nothing)
    with pytest.raises(PartInUse):
        landing.open_part(part_id)
    assert recovered(root) == []
    found.release()
    (found,) = recover(root, PEERS, nothing)
    found.forget()
    found.forget()
    assert left(root) == []
    assert content(root / "bob") == {"a": b"data"}
    landing.open_part(part_id).discard()


def test_another_attempt_is_not_forgotten_for_an_older_one(root: Path, parts: Parts) -> None:
    land(parts, "a")
    (found,) = recover(root, PEERS, nothing)
    part = part_path(root, KEY, parts.made[0].id)
    part.unlink()
    part.write_bytes(b"anew")
    found.forget()
    assert part.read_bytes() == b"anew"


def test_many_of_several_peers(root: Path, parts_in: Callable[..., Parts]) -> None:
    bob, alice = parts_in(root), parts_in(root, "alice", OTHER_KEY)
    land(bob, "x/a", "x/y/b", "c")
    land(alice, "c")
    unfinished = alice.whole("d", b"123").part
    unfinished.close()
    asked: list[tuple[bytes, bytes]] = []

    def keep(peer: bytes, message_id: bytes) -> bool:
        asked.append((peer, message_id))
        return True

    found = recovered(root, keep)
    assert {(each.peer, each.name, each.size) for each in found} == {
        (KEY, "x/a", 4),
        (KEY, "x/y/b", 4),
        (KEY, "c", 4),
        (OTHER_KEY, "c", 4),
    }
    assert all(each.path.read_bytes() == b"data" for each in found)
    assert asked == [(OTHER_KEY, unfinished.id)]


def test_a_file_for_reading_alone(unprivileged: Path, parts_in: Callable[..., Parts]) -> None:
    root = unprivileged / "received"
    land(parts_in(root), "x/a", mode=0o400)
    (found,) = recover(root, PEERS, nothing)
    found.forget()
    assert (left(root), found.path.read_bytes()) == ([], b"data")


@pytest.mark.parametrize("keep", [nothing, everything])
def test_what_was_moved_away_since_is_no_more_than_a_part(
    root: Path, tmp_path: Path, parts: Parts, keep: Callable[..., bool]
) -> None:
    (landed, _) = land(parts, "x/a", "b")
    landed.path.rename(tmp_path / "moved")
    (root / "bob" / "link").symlink_to(tmp_path)
    assert [each.name for each in recovered(root, keep)] == ["b"]
    assert (tmp_path / "moved").read_bytes() == b"data"
    assert part_path(root, KEY, parts.made[0].id).exists() is (keep is everything)


@pytest.mark.parametrize("made", ["link", "nothing"])
def test_a_peers_folder_that_is_none_any_more(
    root: Path, tmp_path: Path, parts: Parts, made: str
) -> None:
    land(parts, "a")
    (root / "bob").rename(tmp_path / "moved")
    if made == "link":
        (root / "bob").symlink_to(tmp_path / "moved")
    assert recovered(root, everything) == []
    assert len(left(root)) == 1
    assert recovered(root) == []
    assert left(root) == []
    assert content(tmp_path / "moved") == {"a": b"data"}


def test_a_file_of_a_name_like_our_own_is_a_file(root: Path, parts: Parts) -> None:
    land(parts, "a.new", "b.place", ".securelink-x")
    assert {each.name for each in recovered(root)} == {"a.new", "b.place", ".securelink-x"}
    assert len(content(root / "bob")) == 3


# ---- what has none


def test_parts_are_kept_or_removed(root: Path, parts: Parts) -> None:
    made = [parts.whole(name, b"123").part for name in "abc"]
    for each in made:
        each.close()
    assert recovered(root, lambda peer, each: (peer, each) == (KEY, made[1].id)) == []
    assert left(root) == [made[1].name]


def test_a_part_that_was_just_made_may_be_about_to_be_locked(root: Path, parts: Parts) -> None:
    part = parts.whole("a", b"").part
    part.close()
    path = part_path(root, KEY, part.id)
    recovered(root)
    assert path.exists()
    age(path)
    recovered(root)
    assert not path.exists()


def test_what_is_not_ours_is_left_alone(root: Path, tmp_path: Path) -> None:
    folder = root / ".partial"
    folder.mkdir(parents=True)
    prefix = KEY.hex()[:16]
    stranger = f"{'0' * 16}-{ID.hex()}"
    for name in (f"{stranger}.part", f"{stranger}.place", "notes.txt", f"{prefix}-nonsense.part"):
        (folder / name).write_bytes(b"123")
    (folder / f"{prefix}-{'1' * 32}.part").mkdir()
    (folder / f"{prefix}-{'2' * 32}.part").symlink_to(tmp_path)
    os.mkfifo(folder / f"{prefix}-{'3' * 32}.part")
    before = left(root)
    assert recovered(root, everything) == []
    assert left(root) == before


def test_nothing_has_come_yet(root: Path, tmp_path: Path) -> None:
    assert recovered(root) == []
    assert not root.exists()
    root.mkdir()
    assert recovered(root) == []
    (root / ".partial").symlink_to(tmp_path)
    assert recovered(root) == []
    assert recovered(root / ".partial" / "nothing") == []
    (tmp_path / "file").write_bytes(b"")
    assert recovered(tmp_path / "file") == []


def test_a_name_between_whose_part_is_gone(root: Path, parts: Parts) -> None:
    part = parts.whole("a").part
    part.close()
    path = part_path(root, KEY, part.id)
    path.rename(path.with_suffix(".new"))
    assert recovered(root, everything) == []
    assert left(root) == []


# ---- notes, from file systems without hard links


def note(root: Path, words: str, *, part: bytes | None = None) -> Path:
    path = part_path(root, KEY, ID)
    path.parent.mkdir(parents=True, exist_ok=True)
    (root / "bob" / "x").mkdir(parents=True, exist_ok=True)
    path.with_suffix(".place").write_text(words)
    if part is not None:
        path.write_bytes(part)
    return path


@pytest.mark.parametrize(
    "words", ["", "../../x", "/etc/passwd", "x", "x/b", "y/a", "x/a/b", "link", "link/a", "x\0a"]
)
@pytest.mark.parametrize("part", [None, b"part"])
def test_a_note_of_what_is_not_there(
    root: Path, tmp_path: Path, words: str, part: bytes | None
) -> None:
    path = note(root, words, part=part)
    (root / "bob" / "x" / "a").write_bytes(b"mine")
    (root / "bob" / "link").symlink_to(tmp_path)
    for name in "ax":
        (tmp_path / name).write_bytes(b"")
    before = content(root / "bob")
    assert recovered(root, everything) == []
    assert left(root) == ([] if part is None else [path.name])
    assert content(root / "bob") == before
    assert (tmp_path / "a").exists()
    assert (tmp_path / "x").exists()


def test_a_note_that_is_no_text(root: Path) -> None:
    note(root, "").with_suffix(".place").write_bytes(b"\xff\xfe")
    assert recovered(root) == []
    assert left(root) == []


def test_only_an_empty_file_that_came_after_the_note_held_the_name(root: Path) -> None:
    file = root / "bob" / "x" / "a"
    for data, old, stays in ((b"mine", False, True), (b"", True, True), (b"", False, False)):
        path = note(root, "x/a", part=b"part")
        file.write_bytes(data)
        if old:
            age(file)
        assert recovered(root, everything) == []
        assert (file.exists(), left(root)) == (stays, [path.name])
        file.unlink(missing_ok=True)


# ---- what fails


def test_a_part_that_goes_while_we_look(root: Path, parts: Parts) -> None:
    """Its holder has discarded it."""
    for name in "ab":
        parts.whole(name, b"123").part.close()

    def keep(_: bytes, message_id: bytes) -> bool:
        assert message_id == parts.made[0].id
        part_path(root, KEY, parts.made[1].id).unlink(missing_ok=True)
        return False

    assert recovered(root, keep) == []
    assert left(root) == []


def test_a_disk_without_locks(root: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    land(parts, "a")
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOLCK))
    with pytest.raises(OSError, match="No locks available"):
        recover(root, PEERS, nothing)


def test_no_descriptor_is_left_when_it_fails(
    root: Path, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which the fixture for all of these tests sees."""
    land(parts, "a", "b")
    parts.close()
    note(root, "x/c")
    (root / "bob" / "x" / "c").write_bytes(b"landed")
    for call in ("lstat", "fstat", "scandir"):
        monkeypatch.setattr(os, call, failing(errno.EIO))
        with pytest.raises(OSError, match="Input/output error"):
            recover(root, PEERS, nothing)
        monkeypatch.undo()
    monkeypatch.setattr("securelink.landing.recovery.find", failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        recover(root, PEERS, nothing)
    monkeypatch.undo()
    assert sorted(each.name for each in recovered(root)) == ["a", "b", "x/c"]
