"""What a receiver does not take, and what it does when a name is taken: the sender is told why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from nodes import Done, Machine, Machines, Serving
from trees import MIB, digest_tree, make_file, make_tree, names, same


def configured(machines: Machines, text: str) -> tuple[Machine, Serving, Machine]:
    """Alice with that configuration, and bob, who has joined her."""
    alice = machines("alice")
    alice.configure(text)
    serving = alice.serve("--invite")
    bob = machines("bob")
    bob.join(serving.invite)
    serving.event("link-down", peer="bob")
    return alice, serving, bob


REFUSALS = {
    "no files at all": ("[files]\naccept = false\n", "files"),
    "none of this peer": ("[files.peers.bob]\naccept = false\n", "files"),
    "too large": ("[files]\nlargest = 99999\n", "large"),
    "too large for this peer": ("[files.peers.bob]\nlargest = 99999\n", "large"),
    "quota": ("[files]\nquota = 99999\n", "quota"),
    "quota of this peer": ("[files]\nquota = 0\n[files.peers.bob]\nquota = 99999\n", "quota"),
    "all peers together": ("[files]\ntotal = 99999\n", "quota"),
    "space to keep": ('[files]\nkeep_free = "1000 TiB"\n', "disk"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_the_sender_is_told_why_a_file_is_refused(
    machines: Machines, tmp_path: Path, what: str
) -> None:
    config, reason = REFUSALS[what]
    alice, serving, bob = configured(machines, config)
    file = make_file(tmp_path / "a.bin", 100_000)
    done = bob.send("--file", str(file))
    refused(done, reason)
    assert names(alice.received("bob")) == []
    assert alice.parts() == []
    assert not [event for event in serving.events if event["event"] == "file"]

    person = bob.run("send", "--file", str(file))
    assert person.code == 5
    assert reason in person.err
    assert bob.send("texts go on").code == 0
    assert alice.texts() == ["texts go on"]
    assert "waiting" not in bob.states()
    assert "handed" not in bob.states()


def refused(done: Done, reason: str) -> None:
    assert done.code == 5, done
    assert done.result["status"] == "failed", done
    assert reason in done.result["error"], done
    assert done.result["exit"] == 5


def test_what_is_allowed_goes_beside_what_is_not(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = configured(machines, "[files]\nlargest = 99999\n")
    small = make_file(tmp_path / "small.bin", 99_999)
    large = make_file(tmp_path / "large.bin", 100_000)
    done = bob.send("--file", str(large), str(small))
    assert done.code == 5, done
    told = {result["item"]: result["status"] for result in done.results}
    assert told == {str(small): "delivered", str(large): "failed"}
    assert names(alice.received("bob")) == ["small.bin"]

    folder = tmp_path / "folder"
    make_file(folder / "small.bin", 10)
    make_file(folder / "large.bin", 100_000)
    done = bob.send("--file", str(folder))
    refused(done, "large")


def test_a_stream_is_held_to_the_limits_as_it_comes(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = configured(machines, f"[files]\nlargest = {MIB}\n")
    with Path("/dev/zero").open("rb") as endless:
        words = ("send", "--json", "--file", "-", "--name", "a.bin")
        done = bob.start(*words, stdin=endless.fileno()).finish()
    refused(done, "large")
    assert names(alice.received("bob")) == []


def test_a_quota_counts_what_is_there(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = configured(machines, f"[files]\nquota = {3 * MIB}\n")
    file = make_file(tmp_path / "a.bin", MIB)
    for _ in range(3):
        assert bob.send("--file", str(file)).code == 0
    refused(bob.send("--file", str(file)), "quota")
    (alice.received("bob") / "a.bin").unlink()
    assert bob.send("--file", str(file)).code == 0


def mixed(folder: Path) -> Path:
    """Of which the quota below takes the first, the last two, and none of the others."""
    for name, size in {"b1": 300, "b2": 300, "b3": 300, "c-huge": 460, "d": 1, "e": 1}.items():
        make_file(folder / f"{name}.bin", size * 1000)
    return folder


MIXED = "[files]\nquota = 500_000\nlargest = 450_000\n"


def test_what_is_not_taken_keeps_nothing_behind_it_from_landing(
    machines: Machines, tmp_path: Path
) -> None:
    alice, _, bob = configured(machines, MIXED)
    done = bob.send("--file", str(mixed(tmp_path / "mixq")))
    assert done.code == 5, done
    assert done.result["error"] == (
        "3 of 6 were not delivered:"
        " alice refused mixq/c-huge.bin: the file is larger than it takes;"
        " alice refused mixq/b2.bin: its quota is used up (and 1 more)"
    )
    assert done.result["hint"] == "try again later"
    assert names(alice.received("bob") / "mixq") == ["b1.bin", "d.bin", "e.bin"]
    assert sorted(bob.states()) == ["delivered"] * 4 + ["refused"] + ["withdrawn"] * 2


def test_nor_over_the_link_of_another_process(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = machines.pair()
    bob.configure(MIXED)
    receiving = bob.receive()
    done = alice.send("--to", "bob", "--file", str(mixed(tmp_path / "mixq")))
    assert done.code == 5, done
    assert done.result["error"].startswith("3 of 6 were not delivered: bob refused mixq/")
    assert "the file is larger than it takes; bob refused" in done.result["error"]
    assert "its quota is used up (and 1 more)" in done.result["error"]
    assert names(bob.received("alice") / "mixq") == ["b1.bin", "d.bin", "e.bin"]
    assert receiving.stop().code == 0


# ---- names that are taken


def test_skip_leaves_what_is_there(machines: Machines, tmp_path: Path) -> None:
    alice, serving, bob = configured(machines, '[files]\nconflict = "skip"\n')
    file = make_file(tmp_path / "a.bin", 5 * MIB, 1)
    assert bob.send("--file", str(file)).code == 0
    serving.event("file")
    before = digest_tree(alice.received("bob"))

    equal = bob.send("--file", str(file))
    assert equal.code == 0, equal
    assert equal.result["status"] == "delivered"
    assert equal.result["resumed"] == 5 * MIB, "nothing of it had to be sent"

    for size in (5 * MIB, 5 * MIB + 1):
        make_file(file, size, 2)
        other = bob.send("--file", str(file))
        assert other.code == 5, other
        assert other.result["status"] == "skipped"
    assert digest_tree(alice.received("bob")) == before
    assert alice.parts() == []


def test_overwrite_replaces(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = configured(machines, '[files]\nconflict = "overwrite"\n')
    file = make_file(tmp_path / "a.bin", 5 * MIB, 1)
    folder = make_tree(tmp_path / "photos", 10)
    assert bob.send("--file", str(file), str(folder)).code == 0
    make_file(file, 1000, 2)
    make_file(folder / "another", 10, 3)
    kept = alice.received("bob") / "photos" / "of alice's own"
    kept.write_text("stays")
    done = bob.send("--file", str(file), str(folder))
    assert done.code == 0, done
    assert same(file, alice.received("bob") / "a.bin")
    assert kept.read_text() == "stays"
    kept.unlink()
    assert digest_tree(alice.received("bob") / "photos") == digest_tree(folder)
    assert sorted(each.name for each in alice.received("bob").iterdir()) == ["a.bin", "photos"]


@pytest.mark.parametrize("conflict", ["skip", "overwrite"])
def test_a_file_never_takes_the_place_of_a_folder(
    machines: Machines, tmp_path: Path, conflict: str
) -> None:
    alice, _, bob = configured(machines, f'[files]\nconflict = "{conflict}"\n')
    make_tree(tmp_path / "one" / "name", 5)
    make_file(tmp_path / "other" / "name", 100)
    assert bob.send("--file", str(tmp_path / "one" / "name")).code == 0
    before = digest_tree(alice.received("bob"))
    done = bob.send("--file", str(tmp_path / "other" / "name"))
    assert done.code == 5, done
    assert digest_tree(alice.received("bob")) == before

    make_file(tmp_path / "other" / "name 2", 100)
    make_tree(tmp_path / "one" / "name 2", 5)
    assert bob.send("--file", str(tmp_path / "other" / "name 2")).code == 0
    before = digest_tree(alice.received("bob"))
    done = bob.send("--file", str(tmp_path / "one" / "name 2"))
    assert done.code == 5, done
    assert digest_tree(alice.received("bob")) == before


def test_the_result_is_one_object_a_line(machines: Machines, tmp_path: Path) -> None:
    _, _, bob = configured(machines, "")
    file = make_file(tmp_path / "a.bin", 10)
    done = bob.send("--file", str(file))
    (line,) = done.out.splitlines()
    assert json.loads(line) == done.result
    keys = {"status", "item", "id", "peer", "files", "bytes", "resumed"}
    assert keys <= done.result.keys()
