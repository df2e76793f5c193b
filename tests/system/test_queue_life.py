"""Queues that leave by themselves, through whatever happens to the processes and the network."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from nodes import Machine, Machines, until
from proxy import INTRODUCED, READY, Action, Fault, Proxy
from trees import MIB, make_file

if TYPE_CHECKING:
    from pathlib import Path

QUICK_HEARTBEAT = {
    "SECURELINK_LIMITS_HEARTBEAT_INTERVAL": "0.2",
    "SECURELINK_LIMITS_HEARTBEAT_TIMEOUT": "0.8",
}


def queue(machine: Machine, *texts: str) -> None:
    """Run `send --lines --queue` while the peer is not there."""
    process = machine.start(
        "send", "--json", "--lines", "--queue", "--timeout", "0.3", stdin=subprocess.PIPE
    )
    process.write("".join(f"{text}\n" for text in texts))
    done = process.finish()
    assert done.code == 75, done


def all_delivered(machine: Machine, count: int, timeout: float = 60) -> None:
    until(
        lambda: machine.states().count("delivered") == count,
        f"{count} delivered rows of {machine.name}",
        timeout,
    )


def test_200_texts_leave_by_themselves_when_the_server_is_back(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    texts = [f"text {number}" for number in range(200)]
    queue(bob, *texts)
    bob_serving = bob.serve()
    again = alice.serve(port=serving.port)
    all_delivered(bob, 200)
    assert alice.texts() == texts
    assert [again.event("message")["text"] for _ in texts] == texts
    # The link was made for them, and is not kept.
    bob_serving.event("link-up", peer="alice")
    bob_serving.event("link-down", peer="alice", reason="closed")
    assert {event["event"] for event in bob_serving.events} == {"ready", "link-up", "link-down"}


def test_what_another_process_queues_leaves_at_once(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    bob.serve()
    for number in range(3):
        bob.queue(bob.key_of("alice"), f"text {number}")
        assert serving.event("message", timeout=2)["text"] == f"text {number}"
    all_delivered(bob, 3)
    assert len(alice.texts()) == 3


def test_a_queue_through_a_network_that_breaks_30_times(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    key = bob.key_of("alice")
    breaking: Proxy = proxy(serving.port)
    bob.locate(key, breaking.port)
    bob_serving = bob.serve()
    texts = []
    broken = 0
    for number in range(30):
        more = [f"text {number}.{each}: {'x' * 50_000}" for each in range(20)]
        texts += more
        bob.queue(key, *more)
        bob_serving.event("link-up")
        # One of them is there; most of the others are on their way, or their receipts.
        serving.event("message", text=more[0])
        breaking.cut()
        broken += bob_serving.event("link-down")["reason"] != "closed"
    all_delivered(bob, len(texts))
    assert alice.texts() == texts
    assert broken > 10, "many were broken in the middle"


def test_a_network_that_swallows_everything_is_noticed(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair(**QUICK_HEARTBEAT)
    swallowing: Proxy = proxy(serving.port)
    bob.locate(bob.key_of("alice"), swallowing.port)
    swallowing.up = Fault(Action.SWALLOW, after=INTRODUCED)
    bob_serving = bob.serve()
    bob.queue(bob.key_of("alice"), "through the hole")
    bob_serving.event("link-up")
    swallowing.struck.wait(10)
    bob_serving.event("link-down")
    swallowing.up = None
    all_delivered(bob, 1)
    assert alice.texts() == ["through the hole"]


def test_a_refusal_in_the_middle_of_a_queue(machines: Machines, tmp_path: Path) -> None:
    alice = machines("alice", SECURELINK_LIMITS_MAX_MESSAGE="1000")
    serving = alice.serve("--invite", SECURELINK_FILES_ACCEPT="false")
    bob = machines("bob")
    bob.join(serving.invite)
    serving.stop()
    queue(bob, "before", "x" * 1001, "after")
    file = make_file(tmp_path / "a.bin", 5000)
    assert bob.send("--queue", "--timeout", "0.3", "--file", str(file)).code == 75
    bob_serving = bob.serve()
    alice.serve(port=serving.port, SECURELINK_FILES_ACCEPT="false")
    told = [bob_serving.event("undelivered") for _ in range(2)]
    assert sorted((each["item"], each["status"], each["reason"]) for each in told) == [
        ("a.bin", "refused", "it takes no files from this node"),
        ("text", "refused", "too long"),
    ]
    assert {each["peer"] for each in told} == {"alice"}
    all_delivered(bob, 2)
    assert alice.texts() == ["before", "after"]
    # A start later they are told no more.
    bob_serving.stop()
    again = bob.serve()
    bob.queue(bob.key_of("alice"), "once more")
    all_delivered(bob, 3)
    again.stop()
    assert not [event for event in again.events if event["event"] == "undelivered"]


def test_a_full_disk_in_the_middle_of_a_queue(machines: Machines, small_disk: Path) -> None:
    alice, serving, bob = machines.pair(small_disk / "alice")
    serving.stop()
    filling = small_disk / "filling"
    texts = [f"text {number}" for number in range(20)]
    queue(bob, *texts)
    again = alice.serve(port=serving.port)
    with filling.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    bob_serving = bob.serve()
    bob_serving.event("link-up")
    until(lambda: "its disk is full" in {row.reason for row in bob.outbox()}, "a refusal")
    assert set(bob.states()) <= {"waiting", "handed"}
    filling.unlink()
    all_delivered(bob, 20)
    assert alice.texts() == texts
    assert again.running


def test_the_holder_of_the_drain_lock_is_killed(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    holding: Proxy = proxy(serving.port)
    bob.locate(bob.key_of("alice"), holding.port)
    holding.down = Fault(Action.HOLD, after=READY)
    bob_serving = bob.serve()
    texts = [f"text {number}" for number in range(10)]
    bob.queue(bob.key_of("alice"), *texts)
    holding.struck.wait(10)
    # It has the lock, the link, and will never hear a receipt.
    bob.locate(bob.key_of("alice"), serving.port)
    sending = bob.start("send", "--json", "--queue", "last")
    bob.until_outbox_has(11)
    bob_serving.kill()
    assert sending.finish().code == 0
    assert alice.texts() == [*texts, "last"]
    assert set(bob.states()) == {"delivered"}


def test_a_sender_that_is_killed_while_it_queues_has_queued(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    silent: Proxy = proxy(serving.port)
    silent.down = Fault(Action.SWALLOW)
    bob.locate(bob.key_of("alice"), silent.port)
    process = bob.start("send", "--queue", "it stays")
    silent.struck.wait(10)
    process.kill()
    bob.locate(bob.key_of("alice"), serving.port)
    bob.serve()
    all_delivered(bob, 1)
    assert alice.texts() == ["it stays"]


def test_a_file_waits_for_its_peer_and_leaves_by_itself(machines: Machines, tmp_path: Path) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    file = make_file(tmp_path / "a.bin", 5 * MIB)
    assert bob.send("--queue", "--timeout", "0.3", "--file", str(file)).code == 75
    bob.serve()
    again = alice.serve(port=serving.port)
    assert again.event("file")["size"] == 5 * MIB
    all_delivered(bob, 1)
