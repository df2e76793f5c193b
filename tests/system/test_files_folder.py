"""A folder that can't take files: said at the start, or when it has become so, with its path."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from nodes import Done, Machine, Machines
from trees import make_file, names


def unusable(done: Done, folder: Path, reason: str) -> None:
    """It did not start, because of that folder."""
    assert done.code == 2, done
    assert done.err == ""
    assert done.result["code"] == "config"
    assert str(folder) in done.result["error"]
    assert reason in done.result["error"]
    assert "--folder" in done.result["hint"]


def in_the_way(folder: Path) -> Path:
    """Have a file lie where the folder should be made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    return folder


def test_serve_does_not_start_without_its_folder(machines: Machines, tmp_path: Path) -> None:
    alice = machines("alice")
    serve = ("serve", "--json", "--host", "127.0.0.1", "--port", "0")
    file = in_the_way(tmp_path / "file")
    for folder in (file, file / "below"):
        unusable(alice.run(*serve, "--folder", str(folder)), folder, "not a directory")
    if Path("/proc/self").exists():
        nowhere = Path("/proc/x")
        unusable(alice.run(*serve, "--folder", str(nowhere)), nowhere, "no folder can be made")
    (tmp_path / "in").mkdir()
    in_the_way(tmp_path / "in" / ".partial")
    unusable(alice.run(*serve, "--folder", str(tmp_path / "in")), tmp_path / "in", ".partial is")

    alice.configure(f'[files]\nfolder = "{file}"\n')
    unusable(alice.run(*serve), file, "not a directory")
    person = alice.run("serve", "--port", "0", "--host", "127.0.0.1")
    assert person.code == 2
    first, second = person.err.splitlines()
    assert first.startswith("securelink: error: ")
    assert str(file) in first
    assert second.startswith("hint: ")


def test_receive_does_not_start_without_its_folder(machines: Machines, tmp_path: Path) -> None:
    _, _, bob = machines.pair()
    file = in_the_way(tmp_path / "file")
    for words in ((), ("--once",)):
        done = bob.run("receive", "--json", "--folder", str(file), *words)
        unusable(done, file, "not a directory")


def test_who_takes_no_files_needs_no_folder(machines: Machines, tmp_path: Path) -> None:
    alice = machines("alice")
    file = in_the_way(tmp_path / "file")
    settings = f'[files]\nfolder = "{file}"\naccept = false\n'
    alice.configure(settings)
    serving = alice.serve("--invite")
    bob = machines("bob")
    bob.join(serving.invite)
    done = bob.send("--file", str(make_file(tmp_path / "a.bin", 10)))
    assert done.code == 5, done
    assert done.result["error"] == "alice takes no files from this node"
    assert "WARNING" not in serving.stop().err

    alice.configure(f"{settings}[files.peers.bob]\naccept = true\n")
    unusable(alice.run("serve", "--json", "--port", "0"), file, "not a directory")


def test_a_read_only_disk(machines: Machines, small_disk: Path) -> None:
    folder = small_disk / "in"
    folder.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    serve = ("serve", "--json", "--host", "127.0.0.1", "--port", "0", "--folder")
    alice = machines("alice")
    unusable(alice.run(*serve, str(folder)), folder, "read-only")
    unusable(alice.run(*serve, str(small_disk / "new")), small_disk / "new", "read-only")


def test_a_full_disk_is_no_reason_not_to_start(machines: Machines, small_disk: Path) -> None:
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    os.sync()
    assert machines("alice").serve("--folder", str(small_disk / "in")).stop().code == 0


def replaced(folder: Path) -> None:
    """Have its parent, and so the folder, be something that no folder can be made in."""
    shutil.rmtree(folder.parent)
    in_the_way(folder.parent)


@pytest.mark.parametrize("kind", ["file", "folder", "empty folder"])
def test_a_folder_that_becomes_impossible(machines: Machines, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "disk" / "in"
    _, serving, bob = machines.pair(SECURELINK_FILES_FOLDER=str(folder))
    file = make_file(tmp_path / "report.pdf", 10)
    assert bob.send("--file", str(file)).code == 0
    replaced(folder)
    what = {"file": file, "folder": tmp_path / "photos", "empty folder": tmp_path / "empty"}[kind]
    if kind == "folder":
        make_file(what / "a", 10)
    elif kind == "empty folder":
        what.mkdir()
    done = bob.send("--file", str(what))
    assert done.code == 5, done
    assert "alice refused" in done.result["error"]
    assert "it can't store it at present" in done.result["error"]
    assert done.result["hint"] == "try again later"
    line = serving.stderr("a file from bob was not taken")
    assert str(folder) in line
    assert "not a directory" in line
    assert bob.send("texts go on").code == 0
    # What is mended is good again.
    folder.parent.unlink()
    assert bob.send("--file", str(file)).code == 0
    assert names(folder / "bob") == ["report.pdf"]


def test_a_file_in_place_of_the_peers_folder_is_no_other_file_of_that_name(
    machines: Machines, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    alice, serving, bob = machines.pair(SECURELINK_FILES_FOLDER=str(folder))
    in_the_way(folder / "bob")
    done = bob.send("--file", str(make_file(tmp_path / "report.pdf", 10)))
    assert done.code == 5, done
    assert done.result["status"] == "failed"
    assert "it can't store it at present" in done.result["error"]
    line = serving.stderr("a file from bob was not taken")
    assert f"{folder / 'bob'}: not a directory" in line

    # And for whoever takes what waits, it still waits.
    _queued_for_bob(alice, tmp_path)
    in_the_way(tmp_path / "bobs" / "alice")
    done = bob.run("receive", "--json", "--once", "--folder", str(tmp_path / "bobs"))
    assert done.code == 1, done
    assert done.results[-1]["code"] == "not-all-taken"
    assert f"{tmp_path / 'bobs' / 'alice'}: not a directory" in done.err
    assert alice.states()[-1] == "waiting"


def _queued_for_bob(alice: Machine, tmp_path: Path) -> None:
    file = make_file(tmp_path / "for bob", 10)
    done = alice.send("--to", "bob", "--queue", "--timeout", "0.2", "--file", str(file))
    assert done.code == 75, done
