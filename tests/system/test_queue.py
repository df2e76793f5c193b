"""`send --queue`: what can't be delivered now waits, and goes with a later link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trees import make_file, same

if TYPE_CHECKING:
    from pathlib import Path

    from nodes import Machines


def test_a_text_waits_and_goes_with_the_next_send(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    waiting = bob.send("--queue", "--timeout", "0.5", "first")
    assert waiting.code == 75, waiting
    assert waiting.result["status"] == "queued"
    assert waiting.result["exit"] == 75
    assert [(row.state, row.owner) for row in bob.outbox()] == [("waiting", None)]
    alice.serve(port=serving.port)
    assert bob.send("second").code == 0
    assert alice.texts() == ["first", "second"]
    assert bob.states() == ["delivered", "delivered"]


def test_a_queued_text_that_can_go_at_once_does(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    assert bob.send("--queue", "hello").code == 0
    assert alice.texts() == ["hello"]


def test_files_wait_and_go_with_the_next_queued_files(machines: Machines, tmp_path: Path) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    first = make_file(tmp_path / "first.bin", 5000)
    second = make_file(tmp_path / "second.bin", 6000)
    done = bob.send("--queue", "--timeout", "0.5", "--file", str(first))
    assert (done.code, done.result["status"]) == (75, "queued")
    again = alice.serve(port=serving.port)
    assert bob.send("a text takes no file along").code == 0
    assert bob.states() == ["waiting", "delivered"]
    assert bob.send("--queue", "--file", str(second)).code == 0
    assert [again.event("file", name=path.name)["size"] for path in (first, second)] == [5000, 6000]
    assert same(first, alice.received("bob") / "first.bin")
    assert set(bob.states()) == {"delivered"}


def test_a_queued_file_that_changed_or_went_is_told_and_dropped(
    machines: Machines, tmp_path: Path
) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    changing = make_file(tmp_path / "changing.bin", 5000)
    going = make_file(tmp_path / "going.bin", 5000)
    done = bob.send("--queue", "--timeout", "0.5", "--file", str(changing), str(going))
    assert done.code == 75, done
    make_file(changing, 7000)
    going.unlink()
    alice.serve(port=serving.port)
    other = make_file(tmp_path / "other.bin", 10)
    done = bob.send("--queue", "--file", str(other))
    assert done.code == 0, done
    assert "changing.bin has changed" in done.err
    assert "going.bin is gone" in done.err
    assert [path.name for path in sorted(alice.received("bob").iterdir())] == ["other.bin"]
    assert bob.states() == ["withdrawn", "withdrawn", "delivered"]


def test_nothing_waits_for_oneself_and_no_stream_waits(machines: Machines) -> None:
    _, _, bob = machines.pair()
    assert bob.send("--queue", "--to", "me", "hello").code == 2
    assert bob.pipe("hello", "send", "--json", "--queue", "--file", "-").code == 2
    assert bob.outbox() == []
