"""`securelink inbox --partial` and `securelink inbox delete --partial`."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from node_files import now

from securelink.identity import Identity
from securelink.ids import from_text, to_text
from securelink.landing import Part, PartInUse, part_path
from securelink.store import partials

HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def part(node):
    """Let a file begin to arrive; return its ID and where its part lies."""
    numbers = iter(range(1, 99))

    def make(peer, name="photos/a.jpg", *, here=3_000_000, size=9_000_000, ago=0, root=None):
        made = (now() << 80 | next(numbers)).to_bytes(16, "big")
        with node.store() as conn:
            partials.begin(
                conn,
                peer=peer.raw,
                message_id=made,
                group=made,
                name=name,
                size=size,
                mtime=0,
                boot="",
                now=now() - 1000 * ago,
            )
        path = part_path(root or node.home / "files", peer.raw, made)
        if here is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * here)
            touched = (now() - 1000 * ago) / 1000
            os.utime(path, (touched, touched))
        return to_text(made), path

    return make


@contextmanager
def held(path):
    """Another process that receives into a part."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def listed(call):
    return [each["name"] for each in call("inbox", "--partial", "--json").results]


def test_nothing_unfinished(call):
    done = call("inbox", "--partial")
    assert (done.status, done.out, done.err) == (0, "", "nothing unfinished\n")
    assert call("inbox", "--partial", "--json").out == ""
    assert call("inbox", "delete", "--partial", "--before", "0s").err == (
        "deleted 0 unfinished files\n"
    )


def test_what_lies_about(call, call_on_terminal, node, part):
    bob, stranger = node.peer("bob"), Identity.generate().public
    first, _ = part(bob, ago=100)
    part(stranger, "b\n.iso", here=None, size=4_700_000_000)
    for command in (call, call_on_terminal):
        one, two = command("inbox", "--partial").out.splitlines()
        assert one.endswith(" bob photos/a.jpg (3.0 MB of 9.0 MB)")
        assert two.endswith(f" {stranger.short} b\\x0a.iso (0 B of 4.7 GB)")
    (line,) = call("inbox", "--partial", "--from", "bob").out.splitlines()
    assert line == one
    heading, what = call("inbox", "--partial", "-v", "--from", "bob").out.splitlines()
    assert heading.endswith(f" bob {first}")
    assert what == "      photos/a.jpg (3.0 MB of 9.0 MB)"


def test_for_scripts(call, node, part):
    bob = node.peer("bob")
    made, path = part(bob, ago=100)
    os.utime(path, (1_767_323_045.5, 1_767_323_045.5))
    told = call("inbox", "--partial", "--json").result
    began = told.pop("began_at")
    assert began.endswith("Z")
    assert told == {
        "id": made,
        "peer": "bob",
        "peer_id": bob.peer_id,
        "name": "photos/a.jpg",
        "size": 9_000_000,
        "received": 3_000_000,
        "touched_at": "2026-01-02T03:04:05.500Z",
        "path": str(path),
    }
    path.unlink()
    told = call("inbox", "--partial", "--json").result
    assert (told["received"], told["touched_at"]) == (0, began)


def test_files_from_this_node_itself(call, node, part):
    call("id")
    own = Identity.generate().public
    part(own)
    (line,) = call("inbox", "--partial").out.splitlines()
    assert f" {own.short} " in line
    from securelink import keyfile

    part(keyfile.load_or_create(node.home / "identity.key").public, "mine")
    assert " me mine (" in call("inbox", "--partial").out


def test_delete(call, node, part):
    bob = node.peer("bob")
    (one, first), (_, second) = part(bob, "one"), part(bob, "two")
    done = call("inbox", "delete", "--partial", one)
    assert (done.status, done.out, done.err) == (0, "", "deleted 1 unfinished file\n")
    assert (first.exists(), second.exists(), listed(call)) == (False, True, ["two"])
    node.receive("hello", peer=bob)
    second.unlink()
    done = call("inbox", "delete", "--partial", "--before", "0s", "--json")
    assert done.result == {"status": "deleted", "count": 1, "in_use": 0}
    assert listed(call) == []
    assert len(call("inbox", "--json").results) == 1


def test_delete_what_is_old(call, node, part):
    bob = node.peer("bob")
    _, old = part(bob, "old", ago=8 * 86_400)
    _, grown = part(bob, "grown", ago=8 * 86_400)
    grown.write_bytes(b"more")
    part(bob, "gone", ago=8 * 86_400, here=None)
    done = call("inbox", "delete", "--partial", "--before", "7d")
    assert done.err == "deleted 2 unfinished files\n"
    assert (old.exists(), grown.exists(), listed(call)) == (False, True, ["grown"])


def test_delete_what_is_old_of_one_peer(call, node, part):
    for name in ("bob", "eve"):
        part(node.peer(name), f"of-{name}", ago=8 * 86_400)
    part(node.peer("carol"), "of-carol")
    done = call("inbox", "delete", "--partial", "--before", "7d", "--from", "bob")
    assert (done.status, done.err) == (0, "deleted 1 unfinished file\n")
    assert listed(call) == ["of-eve", "of-carol"]


def test_what_is_being_received_is_left(call, node, part):
    bob = node.peer("bob")
    (one, first), (two, second) = part(bob, "one"), part(bob, "two")
    with held(first):
        done = call("inbox", "delete", "--partial", one, two)
        assert done.status == 1
        assert done.err == (
            "securelink: warning: one from bob is being received: not deleted\n"
            "deleted 1 unfinished file\n"
        )
        assert (first.exists(), second.exists(), listed(call)) == (True, False, ["one"])
        done = call("inbox", "delete", "--partial", "--before", "0s", "--json")
        assert (done.status, done.result) == (
            0,
            {"status": "deleted", "count": 0, "in_use": 1},
        )
    assert call("inbox", "delete", "--partial", one).status == 0
    assert not first.exists()


def test_nobody_begins_to_receive_into_what_is_being_deleted(call, node, part, monkeypatch):
    made, path = part(node.peer("bob"))
    forget = partials.forget

    def forget_and_look(*args):
        folder = os.open(path.parent, os.O_RDONLY)
        with pytest.raises(PartInUse):
            Part.open(from_text(made), folder, path.name)
        os.close(folder)
        return forget(*args)

    monkeypatch.setattr(partials, "forget", forget_and_look)
    assert call("inbox", "delete", "--partial", made).err == "deleted 1 unfinished file\n"


def test_what_has_its_name_already_is_left_to_serve(call, node, part):
    bob = node.peer("bob")
    made, path = part(bob)
    whole = node.home / "files" / "bob-a.jpg"
    whole.hardlink_to(path)
    assert call("inbox", "delete", "--partial", made).status == 1
    assert path.exists()
    assert listed(call) == ["photos/a.jpg"]


def test_a_link_in_the_place_of_a_part_is_not_followed(call, node, part, tmp_path):
    bob = node.peer("bob")
    made, path = part(bob, here=None)
    path.parent.mkdir(parents=True)
    target = tmp_path / "precious"
    target.write_text("kept")
    path.symlink_to(target)
    done = call("inbox", "delete", "--partial", made)
    assert done.status == 1
    assert "can't remove" in done.err
    assert target.read_text() == "kept"
    assert listed(call) == ["photos/a.jpg"]


def test_a_folder_that_is_none(call, node, part):
    made, path = part(node.peer("bob"), here=None)
    path.parent.parent.mkdir()
    path.parent.write_text("a file")
    for words in (["--partial"], ["delete", "--partial", made]):
        done = call("inbox", *words)
        assert (done.status, done.out) == (1, "")
        assert done.err.startswith(f"securelink: error: can't look at {path}: not a directory\n")


def test_a_folder_of_ones_own(call, node, part, tmp_path):
    root = tmp_path / "elsewhere"
    node.configure(f'[files]\nfolder = "{root}"\n')
    made, path = part(node.peer("bob"), root=root)
    assert call("inbox", "--partial", "--json").result["path"] == str(path)
    assert call("inbox", "delete", "--partial", made).status == 0
    assert not path.exists()


def test_files_of_several_peers_with_one_id(call, node, part):
    bob, eve = node.peer("bob"), node.peer("eve")
    made, path = part(bob)
    with node.store() as conn:
        partials.begin(
            conn,
            peer=eve.raw,
            message_id=from_text(made),
            group=bytes(16),
            name="hers",
            size=9,
            mtime=0,
            boot="",
            now=now(),
        )
    done = call("inbox", "delete", "--partial", made)
    assert (done.status, path.exists()) == (2, True)
    assert "--from NAME" in done.err
    assert call("inbox", "delete", "--partial", made, "--from", "eve").status == 0
    assert listed(call) == ["photos/a.jpg"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--partial", "--unread"], "--partial goes with --from alone"),
        (["--partial", "--follow"], "--partial goes with --from alone"),
        (["--partial", "--since", "1d"], "--partial goes with --from alone"),
        (["--partial", "--limit", "0"], "--partial goes with --from alone"),
        (["delete", "--partial"], "give either messages' IDs or --before"),
        (["delete", "--partial", "xyz"], "that is not the ID of a partial file"),
        (["delete", "--partial", "ff"], "no partial file has the ID ff"),
        (["delete", "--partial", "0"], "several partial files' IDs begin with 0"),
        (["--partial", "delete", "0"], "options of 'delete' stand after it"),
    ],
)
def test_wrong_usage(words, error, call, node, part):
    bob = node.peer("bob")
    (one, first), _ = part(bob, "one"), part(bob, "two")
    done = call("inbox", *words)
    assert (done.status, done.out) == (2, "")
    assert done.err.splitlines()[0] == f"securelink: error: {error}"
    assert call("inbox", "delete", "--partial", one, "ff").status == 2
    assert first.exists()
    assert listed(call) == ["one", "two"]
