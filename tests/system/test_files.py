"""Files and folders between real processes: what lands is what was sent, byte by byte."""

from __future__ import annotations

import os
import random

from nodes import Machines
from trees import MIB, digest_file, digest_tree, make_file, make_tree, names, same

THOROUGH = 50
"""With so many rounds the large sizes are tried too."""

EDGES = (0, 1, 65511, 65512, 65513, 131072, MIB - 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1)
"""Sizes at which something else begins: a chunk, a record, what is kept for resuming."""


def test_files_of_all_sizes_land_byte_by_byte(machines: Machines, tmp_path, rounds: int) -> None:
    alice, serving, bob = machines.pair()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    source = random.Random(seed)
    sizes = [*EDGES, *(source.randrange(8_000_000) for _ in range(rounds))]
    if rounds >= THOROUGH:
        sizes += [50 * MIB + 1, 300_000_000]
    files = [
        make_file(tmp_path / "out" / f"{number}.bin", size, seed)
        for number, size in enumerate(sizes)
    ]
    done = bob.send("--file", *map(str, files), timeout=120)
    assert done.code == 0, done
    results = {result["item"]: result for result in done.results}
    assert results.keys() == set(map(str, files))
    for path, size in zip(files, sizes, strict=True):
        result = results[str(path)]
        assert result["status"] == "delivered"
        assert result["peer"] == "alice"
        assert (result["files"], result["bytes"], result["resumed"]) == (1, size, 0)
        event = serving.event("file")
        assert (event["name"], event["size"], event["peer"]) == (path.name, size, "bob")
        assert event["id"] == result["id"]
        landed = alice.received("bob") / path.name
        assert event["path"] == str(landed)
        assert same(path, landed), path.name
    assert len(names(alice.received("bob"))) == len(files)
    assert alice.parts() == []
    assert set(bob.states()) == {"delivered"}


def test_a_folder_lands_whole(machines: Machines, tmp_path, rounds: int) -> None:
    alice, _, bob = machines.pair()
    count = 5000 if rounds >= THOROUGH else 600
    folder = make_tree(tmp_path / "photos", count)
    done = bob.send("--file", str(folder), timeout=120)
    assert done.code == 0, done
    assert done.result["item"] == str(folder)
    assert done.result["files"] == count
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert done.result["bytes"] == sum(sizes)
    landed = alice.received("bob") / "photos"
    assert digest_tree(landed) == digest_tree(folder)
    assert (landed / "nothing in it" / "nor here").is_dir()
    assert alice.parts() == []


def test_links_are_not_followed_and_special_files_refused(machines: Machines, tmp_path) -> None:
    alice, _, bob = machines.pair()
    secret = make_file(tmp_path / "secret" / "key", 100)
    folder = tmp_path / "folder"
    make_file(folder / "plain", 10)
    (folder / "link to a file").symlink_to(secret)
    (folder / "link to a folder").symlink_to(secret.parent)
    (folder / "link to nothing").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    done = bob.run("send", "--file", str(folder))
    assert done.code == 0, done
    for link in ("link to a file", "link to a folder", "link to nothing"):
        assert link in done.err
    assert names(alice.received("bob")) == ["folder/plain"]

    pipe = bob.run("send", "--file", str(folder / "pipe"))
    assert pipe.code == 2, pipe
    gone = bob.run("send", "--file", str(tmp_path / "not there"))
    assert gone.code == 2, gone
    assert "not there" in gone.err
    assert names(alice.received("bob")) == ["folder/plain"]


def test_several_paths_to_several_peers_with_a_text(machines: Machines, tmp_path) -> None:
    alice, serving, bob = machines.pair()
    carol = machines("carol")
    other = carol.serve("--invite")
    bob.join(other.invite)
    file, folder = make_file(tmp_path / "a.bin", 100_000), make_tree(tmp_path / "folder", 20)
    words = ("--to", "alice", "--to", "carol", "-m", "see inside")
    done = bob.send("--file", str(file), str(folder), *words)
    assert done.code == 0, done
    told = {(result["peer"], result["item"]) for result in done.results}
    items = (str(file), str(folder), "text")
    assert told == {(peer, item) for peer in ("alice", "carol") for item in items}
    assert len(done.results) == 6
    for machine in (alice, carol):
        assert same(file, machine.received("bob") / "a.bin")
        assert digest_tree(machine.received("bob") / "folder") == digest_tree(folder)
        assert [text for text in machine.texts() if text] == ["see inside"]
    assert serving.event("message")["text"] == "see inside"


def test_a_file_sent_twice_on_purpose_lands_twice(machines: Machines, tmp_path) -> None:
    alice, _, bob = machines.pair()
    file = make_file(tmp_path / "a.txt", 5 * MIB)
    folder = make_tree(tmp_path / "photos", 5)
    first = bob.send("--file", str(file), str(folder))
    again = bob.send("--file", str(file), str(folder))
    assert (first.code, again.code) == (0, 0), (first, again)
    assert all(result["resumed"] == 0 for result in again.results)
    inbox = alice.received("bob")
    for name in ("a.txt", "a (2).txt"):
        assert same(file, inbox / name)
    for name in ("photos", "photos (2)"):
        assert digest_tree(inbox / name) == digest_tree(folder)
    assert sorted(each.name for each in inbox.iterdir()) == sorted(
        ("a.txt", "a (2).txt", "photos", "photos (2)")
    )


def test_the_event_and_the_sender_know_the_digest_with_checksum(
    machines: Machines, tmp_path
) -> None:
    alice, serving, bob = machines.pair()
    file = make_file(tmp_path / "a.bin", 5 * MIB)
    done = bob.send("--file", str(file), "--checksum")
    assert done.code == 0, done
    assert serving.event("file")["sha256"] == digest_file(file)
    assert same(file, alice.received("bob") / "a.bin")


def test_a_name_is_for_a_stream_alone(machines: Machines, tmp_path) -> None:
    _, _, bob = machines.pair()
    file = make_file(tmp_path / "a.bin", 50)
    assert bob.send("--file", str(file), "--name", "report.bin").code == 2


def test_a_person_is_told_of_each_item_what_became_of_it(machines: Machines, tmp_path) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    file, folder = make_file(tmp_path / "a.bin", 10), make_tree(tmp_path / "photos", 2)
    words = ("send", "--timeout", "0.5", "--file", str(file), str(folder), "-m", "see inside")
    done = bob.run(*words)
    assert done.code == 3, done
    told = [line for line in done.err.splitlines() if not line.startswith("hint: ")]
    unreachable = "alice could not be reached"
    assert sorted(told) == sorted(
        (
            f"securelink: error: {unreachable}",
            f"securelink: error: {file}: {unreachable}",
            f"securelink: error: {folder}: 2 of 2 were not delivered: {unreachable}",
        )
    )
    done = bob.run(*words, "--queue")
    assert done.code == 75, done
    assert sorted(done.err.splitlines()) == sorted(
        (
            f"queued for alice: {unreachable}",
            f"queued {file} for alice: {unreachable}",
            f"queued {folder} for alice: 2 of 2 were not delivered: {unreachable}",
        )
    )
