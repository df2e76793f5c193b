"""What somebody else does in the folder of parts, or to a peer's, while files come."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from receiving_disk import KEY, OTHER_KEY, Parts, content, failing, tree

from securelink.errors import BadPlace
from securelink.landing import Conflict, Landed, Landing, Ready, part_path, recover

PEERS = {KEY: "bob", OTHER_KEY: "alice"}
ODD = ("link", "dangling link", "folder", "pipe")


def plant(path: Path, kind: str, outside: Path) -> None:
    match kind:
        case "link":
            path.symlink_to(outside)
        case "dangling link":
            path.symlink_to(outside.with_name("nothing"))
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "file":
            path.write_bytes(b"half of it")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that is nobody's business, and must stay as it is."""
    path = tmp_path / "outside"
    path.write_bytes(b"mine")
    return path


def path_of(root: Path, ready: Ready) -> Path:
    return part_path(root, KEY, ready.part.id)


@pytest.mark.parametrize("conflict", Conflict)
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("kind", ["nothing", "file", *ODD])
def test_what_has_taken_the_name_of_a_part_is_never_taken_for_it(
    root: Path,
    outside: Path,
    landing: Landing,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    links: bool,
    conflict: Conflict,
) -> None:
    """As the half that another attempt has of the same file, when the first part was removed."""
    if not links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM, FileExistsError))
    landing.finish([parts.whole("x/a", b"before")], Conflict.RENAME)
    ready = parts.whole("x/a")
    path_of(root, ready).unlink()
    plant(path_of(root, ready), kind, outside)
    before = tree(root)
    (result,) = landing.finish([ready], conflict)
    assert isinstance(result, BadPlace)
    assert result.message == "a was removed while it was received"
    assert content(root / "bob") == {"x/a": b"before"}
    assert (tree(root), outside.read_bytes()) == (before, b"mine")


@pytest.mark.parametrize("kind", ["file", *ODD[:2], "pipe"])
def test_a_note_is_never_written_into_what_was_there(
    root: Path,
    outside: Path,
    landing: Landing,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    ready = parts.whole("x/a")
    note = path_of(root, ready).with_suffix(".place")
    plant(note, kind, outside)
    if kind == "file":
        outside.unlink()
        note.rename(outside)
        note.hardlink_to(outside)
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    before = outside.read_bytes()
    (result,) = landing.finish([ready], Conflict.RENAME)
    assert isinstance(result, Landed)
    assert (note.read_text(), note.is_symlink()) == ("x/a", False)
    assert outside.read_bytes() == before
    assert not outside.with_name("nothing").exists()


@pytest.mark.parametrize("suffix", [".place", ".new"])
def test_a_folder_in_the_way_of_what_is_beside_a_part(
    root: Path, landing: Landing, parts: Parts, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    landing.finish([parts.whole("a", b"before")], Conflict.RENAME)
    ready = parts.whole("a")
    path_of(root, ready).with_suffix(suffix).mkdir()
    if suffix == ".place":
        monkeypatch.setattr(os, "link", failing(errno.EPERM, FileExistsError))
    (result,) = landing.finish([ready], Conflict.OVERWRITE)
    assert isinstance(result, BadPlace)
    assert content(root / "bob") == {"a": b"before"}


def test_all_that_came_is_gone_before_it_has_its_names(
    root: Path, landing: Landing, parts: Parts
) -> None:
    ready = [parts.whole("x/a"), parts.whole("b")]
    shutil.rmtree(root)
    assert [type(each) for each in landing.finish(ready, Conflict.RENAME)] == [BadPlace] * 2
    assert (landing.used(), landing.total(), content(root)) == (0, 0, {})
    (result,) = landing.finish([parts.whole("x/a")], Conflict.RENAME)
    assert isinstance(result, Landed)


def test_a_peers_folder_that_is_gone_is_made_again(
    root: Path, landing: Landing, parts: Parts
) -> None:
    landing.finish([parts.whole("x/a")], Conflict.RENAME)
    shutil.rmtree(root / "bob")
    landing.finish([parts.whole("x/b")], Conflict.RENAME)
    assert content(root / "bob") == {"x/b": b"data"}


@pytest.mark.parametrize("then", ["closed", "removed"])
def test_a_folder_that_cant_be_looked_into_is_not_counted(
    unprivileged: Path,
    parts_in: Callable[..., Parts],
    monkeypatch: pytest.MonkeyPatch,
    then: str,
) -> None:
    root = unprivileged / "received"
    parts = parts_in(root)
    parts.landing.finish([parts.whole("x/a"), parts.whole("b", b"1")], Conflict.RENAME)
    for each in parts.made:
        each.discard()
    opening = os.open

    def late(name: Any, *args: Any, **kwargs: Any) -> int:
        if name == "x":
            (root / "bob" / "x").rename(root / "bob" / "was x")
        return opening(name, *args, **kwargs)

    if then == "closed":
        (root / "bob" / "x").chmod(0)
    else:
        monkeypatch.setattr(os, "open", late)
    assert parts.landing.used() == 1
    monkeypatch.undo()
    if then == "closed":
        (root / "bob" / "x").chmod(0o700)


# ---- after a crash


@pytest.mark.parametrize("suffix", [".part", ".new", ".place"])
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_thing_keeps_nothing_from_being_recovered(
    root: Path, outside: Path, landing: Landing, parts: Parts, suffix: str, kind: str
) -> None:
    landing.finish([parts.whole("a")], Conflict.RENAME)
    odd = part_path(root, KEY, bytes(16)).with_suffix(suffix)
    plant(odd, kind, outside)
    parts.made[0].close()
    (found,) = recover(root, PEERS, lambda *_: False)
    found.forget()
    assert found.name == "a"
    assert list((root / ".partial").iterdir()) == [odd]
    assert outside.read_bytes() == b"mine"


def test_a_peers_folder_that_is_closed_keeps_no_other_from_being_recovered(
    unprivileged: Path, parts_in: Callable[..., Parts]
) -> None:
    root = unprivileged / "received"
    for name, key in (("bob", KEY), ("alice", OTHER_KEY)):
        parts = parts_in(root, name, key)
        parts.landing.finish([parts.whole("a")], Conflict.RENAME)
        parts.made[0].close()
    (root / "bob").chmod(0)
    (found,) = recover(root, PEERS, lambda *_: False)
    found.forget()
    assert found.peer == OTHER_KEY
    (root / "bob").chmod(0o700)
    (found,) = recover(root, PEERS, lambda *_: False)
    found.forget()
    assert found.peer == KEY
    assert list((root / ".partial").iterdir()) == []


def test_a_file_of_another_disk_is_not_taken_for_a_part(
    small_disk: Path, parts_in: Callable[..., Parts]
) -> None:
    """Its number may be the same."""
    root = small_disk / "received"
    parts = parts_in(root)
    (result,) = parts.landing.finish([parts.whole("a")], Conflict.RENAME)
    assert isinstance(result, Landed)
    parts.made[0].close()
    result.path.rename(small_disk / "moved")
    other = root / "bob" / "other disk"
    other.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(other)], check=True)
    try:
        names = (other / str(number) for number in range(1000))
        same = next((each for each in names if made_file(each).st_ino == result.inode), None)
        if same is None:
            pytest.skip("its numbers differ here")
        assert recover(root, PEERS, lambda *_: True) == []
        parts.landing.open_part(parts.made[0].id).discard()
        assert same.exists()
    finally:
        subprocess.run(["umount", "--lazy", str(other)], check=True)


def made_file(path: Path) -> os.stat_result:
    path.touch()
    return path.stat()
