"""How many it is, which every command counts alike: files, and folders where there is no file."""

from __future__ import annotations

import re

import pytest
from node_files import now

NOT_LINKED = "alice is not linked, and no address of it is known"


@pytest.fixture
def queued(call, node, tmp_path):
    """A text, a folder of two files, a folder of folders and a file, queued; what was said."""
    node.peer("alice")
    for name in ("photos/a", "photos/inner/b", "c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(bytes(5))
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    paths = [str(tmp_path / name) for name in ("photos", "empty", "c")]
    return lambda *words: call("send", "--queue", *words, "-m", "hello", "--file", *paths)


def test_in_words(queued, call, call_on_terminal):
    said = [line.partition(" for alice: ")[2] for line in queued().err.splitlines()]
    of_two = f"2 of 2 were not delivered: {NOT_LINKED}"
    assert said == [NOT_LINKED, of_two, of_two, NOT_LINKED]
    whats = [re.split("  +", line)[-1] for line in call("outbox").out.splitlines()]
    assert whats == ["hello", "photos/ (2 files, 10 B)", "empty/ (2 folders)", "c (5 B)"]
    flushed = [
        line.partition(" for alice: ")[2] for line in call("outbox", "--flush").err.splitlines()
    ]
    assert flushed == said
    assert "  6 out  " in call("peers").out
    assert re.search("waiting for it +6\n", call("peers", "show", "alice").out)
    assert "6 messages for alice cancelled" in call("peers", "remove", "alice").err


def test_in_json(queued, call):
    files = [each.get("files") for each in queued("--json").results]
    assert files == [None, 2, 0, 1]
    found = call("outbox", "--json").results
    assert [each["files"] for each in found] == [0, 2, 0, 1]
    assert [each["states"] for each in found] == [{"waiting": n} for n in (1, 2, 2, 1)]
    (peer,) = call("peers", "--json").results
    assert peer["waiting"] == 6 == sum(each["states"]["waiting"] for each in found)
    done = call("outbox", "--cancel", "--json", *(each["id"] for each in found))
    assert [each["withdrawn"] for each in done.results] == [1, 2, 2, 1]
    assert call("peers", "--json").result["waiting"] == 0


def test_a_folder_of_which_all_files_are_there_waits_itself(queued, call, node):
    queued()
    with node.store() as conn:
        conn.execute(
            "UPDATE outbox SET state = 'delivered', ended_at = ? WHERE kind = 'file'", (now(),)
        )
    states = [each["states"] for each in call("outbox", "--json").results]
    assert states == [{"waiting": 1}, {"waiting": 2, "delivered": 2}, {"waiting": 2}]
    assert call("peers", "--json").result["waiting"] == 5
    assert call("peers", "remove", "alice", "--json").result["cancelled"] == 5
