"""What is left out of a folder that is sent: named, and no success if it should have gone.

The node's own private key never goes, whatever it is called.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import Machine, Machines
from trees import make_file, names

from securelink import sources
from securelink.items import MOST_LEFT_OUT

DENIED = "permission denied"

# CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH leave the bounding set: root, too, reads no more than
# the mode of a file allows.
_AS_OTHERS = """
import ctypes, os, sys
for capability in (1, 2):
    assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def ordinary() -> Callable[[Machine], Machine]:
    """Has a machine's commands read what their user may read, also where that is root."""

    def make(machine: Machine) -> Machine:
        if os.geteuid() == 0:
            if not hasattr(ctypes.CDLL(None), "prctl"):
                pytest.skip("root reads everything here")
            machine.enter = (sys.executable, "-c", _AS_OTHERS)
        return machine

    return make


@pytest.fixture
def mix(tmp_path: Path) -> Iterator[Path]:
    """A folder of which one file and one folder can't be read."""
    folder = tmp_path / "mix"
    make_file(folder / "good", 10)
    make_file(folder / "inner" / "good", 20)
    make_file(folder / "a", 30).chmod(0)
    make_file(folder / "closed" / "b", 40)
    (folder / "closed").chmod(0)
    yield folder
    (folder / "closed").chmod(0o700)


def left_out(*found: tuple[Path, str]) -> list[dict[str, str]]:
    return [{"path": str(path), "reason": reason} for path, reason in found]


def test_what_can_not_be_read_is_an_error_once_the_rest_is_delivered(
    machines: Machines, mix: Path, ordinary
) -> None:
    alice, _, bob = machines.pair()
    (mix / "link").symlink_to("good")
    os.mkfifo(mix / "pipe")
    done = ordinary(bob).send("--file", str(mix))
    assert done.code == 1, done
    result = done.result
    assert (result["status"], result["code"], result["exit"]) == ("failed", "not-all-sent", 1)
    assert (result["error"], result["hint"]) == ("2 could not be sent", None)
    assert (result["files"], result["bytes"]) == (2, 30)
    assert result["left_out"] == left_out(
        (mix / "a", DENIED),
        (mix / "link", sources.IS_LINK),
        (mix / "pipe", sources.IS_SPECIAL),
        (mix / "closed", DENIED),
    )
    assert result["left_out_count"] == 4
    assert names(alice.received("bob")) == ["mix/good", "mix/inner/good"]
    assert set(bob.states()) == {"delivered"}


def test_a_person_reads_it_behind_what_was_delivered(
    machines: Machines, mix: Path, ordinary
) -> None:
    _, _, bob = machines.pair()
    for words in ((), ("--quiet",)):
        done = ordinary(bob).run("send", "--file", str(mix), *words)
        assert done.code == 1, done
        first, second, last = done.err.splitlines()
        assert first == f"securelink: warning: {mix}/a is not sent: {DENIED}"
        assert second == f"securelink: warning: {mix}/closed is not sent: {DENIED}"
        assert re.fullmatch(
            rf"securelink: error: delivered {mix} \(2 files, 30 B\) to alice \(loopback .+\)"
            r" in .+, but 2 could not be sent",
            last,
        )


def test_a_folder_of_which_nothing_can_be_read(
    machines: Machines, tmp_path: Path, ordinary
) -> None:
    _, _, bob = machines.pair()
    folder = tmp_path / "mix"
    make_file(folder / "a", 30).chmod(0)
    done = ordinary(bob).send("--file", str(folder))
    assert done.code == 1, done
    assert done.result["left_out"] == left_out((folder / "a", DENIED))


def test_links_alone_are_named_and_no_error(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = machines.pair()
    folder = tmp_path / "folder"
    make_file(folder / "plain", 10)
    (folder / "link").symlink_to("plain")
    os.mkfifo(folder / "pipe")
    done = bob.send("--file", str(folder), str(folder / "plain"))
    assert done.code == 0, done
    results = {result["item"]: result for result in done.results}
    assert {result["status"] for result in done.results} == {"delivered"}
    of_folder, of_file = results[str(folder)], results[str(folder / "plain")]
    assert of_folder["left_out"] == left_out(
        (folder / "link", sources.IS_LINK), (folder / "pipe", sources.IS_SPECIAL)
    )
    assert (of_file["left_out"], of_file["left_out_count"]) == ([], 0)
    assert names(alice.received("bob")) == ["folder/plain", "plain"]


def test_a_name_that_no_offer_can_hold_is_an_error_too(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = machines.pair()
    make_file(tmp_path / "folder" / "plain", 10)
    (tmp_path / "folder" / os.fsdecode(b"\xff")).touch()
    done = bob.send("--file", str(tmp_path / "folder"))
    assert done.code == 1, done
    # No JSON can hold that byte.
    path = f"{tmp_path}/folder/\\udcff"
    assert done.result["left_out"] == [{"path": path, "reason": sources.IS_UNNAMED}]
    assert names(alice.received("bob")) == ["folder/plain"]


def test_a_way_that_no_json_can_hold(machines: Machines, tmp_path: Path) -> None:
    _, _, bob = machines.pair()
    folder = tmp_path / os.fsdecode(b"\xff")
    make_file(folder / "plain", 10)
    (folder / "link").symlink_to("plain")
    done = bob.send("--file", str(folder / "plain"), str(folder / "link"))
    assert done.code == 1, done
    written = f"{tmp_path}/\\udcff"
    results = {result["item"]: result for result in done.results}
    assert results.keys() == {f"{written}/plain", f"{written}/link"}
    assert results[f"{written}/plain"]["status"] == "delivered"
    reason = f"{written}/link is not sent: {sources.IS_LINK}"
    assert results[f"{written}/link"]["error"] == reason


def test_each_of_several_peers(machines: Machines, mix: Path, ordinary) -> None:
    alice, _, bob = machines.pair()
    carol = machines("carol")
    bob.join(carol.serve("--invite").invite)
    done = ordinary(bob).send("--file", str(mix), "--to", "alice", "--to", "carol", "-m", "hello")
    assert done.code == 1, done
    told = {(each["peer"], each["item"]): each["status"] for each in done.results}
    assert told == {
        (peer, item): status
        for peer in ("alice", "carol")
        for item, status in ((str(mix), "failed"), ("text", "delivered"))
    }
    for machine in (alice, carol):
        assert names(machine.received("bob")) == ["mix/good", "mix/inner/good"]


def test_what_waits_in_the_queue_is_not_all_of_it(machines: Machines, mix: Path, ordinary) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    words = ("--file", str(mix), "--queue", "--timeout", "0.5")
    done = ordinary(bob).send(*words)
    assert done.code == 1, done
    assert (done.result["status"], done.result["exit"]) == ("failed", 1)
    assert done.result["error"].startswith("2 could not be sent, the rest is queued: ")
    assert [each["reason"] for each in done.result["left_out"]] == [DENIED, DENIED]
    assert set(bob.states()) == {"waiting"}

    # Nobody there is for the script that tries again; then it learns of the rest.
    assert ordinary(bob).send(*words, "--no-queue").code == 3


def test_the_list_is_bounded_and_the_number_is_true(machines: Machines, tmp_path: Path) -> None:
    _, _, bob = machines.pair()
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(MOST_LEFT_OUT + 5):
        (folder / f"{number:04}").symlink_to("nowhere")
    done = bob.send("--file", str(folder))
    assert done.code == 0, done
    assert len(done.result["left_out"]) == MOST_LEFT_OUT
    assert done.result["left_out"][-1]["path"] == str(folder / f"{MOST_LEFT_OUT - 1:04}")
    assert done.result["left_out_count"] == MOST_LEFT_OUT + 5


# ---- the private key of the node that sends


def test_the_private_key_stays_when_the_home_goes(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    key, other = bob.home.key_file, bob.folder / "inner" / "notes.txt"
    make_file(bob.folder / "inner" / "identity.key", 10)
    os.link(key, other)
    # The store changes while it is sent, so it may not arrive.
    done = bob.send("--file", str(bob.folder))
    assert done.result["left_out"] == left_out((key, sources.IS_KEY), (other, sources.IS_KEY))
    for path in (key, other):
        why = f"securelink: warning: {path} is not sent: it is this node's private key"
        assert why in done.err.splitlines()
    landed = names(alice.received("bob"))
    # Another file of that name is not the key.
    assert "bob/inner/identity.key" in landed
    assert not {"bob/identity.key", "bob/inner/notes.txt"} & set(landed)
    secret = key.read_bytes()
    assert all((alice.received("bob") / each).read_bytes() != secret for each in landed)


@pytest.mark.parametrize("words", [(), ("--queue",)])
def test_the_private_key_is_left_out_on_purpose(
    machines: Machines, tmp_path: Path, words: tuple[str, ...]
) -> None:
    alice, _, bob = machines.pair()
    make_file(tmp_path / "folder" / "plain", 10)
    os.link(bob.home.key_file, tmp_path / "folder" / "key")
    done = bob.send("--file", str(tmp_path / "folder"), *words)
    assert done.code == 0, done
    assert done.result["status"] == "delivered"
    assert names(alice.received("bob")) == ["folder/plain"]


def test_the_private_key_alone_is_refused(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = machines.pair()
    file = make_file(tmp_path / "plain", 10)
    key, other = bob.home.key_file, tmp_path / "notes.txt"
    os.link(key, other)
    (tmp_path / "way").symlink_to(bob.folder)
    for path in (key, other, tmp_path / "way" / key.name):
        done = bob.run("send", "--file", str(file), str(path))
        assert done.code == 2, done
        assert done.err == f"securelink: error: {path} is this node's private key: it is not sent\n"
    assert (bob.outbox(), alice.inbox()) == ([], [])
