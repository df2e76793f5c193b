"""Traffic both ways between two nodes of several processes each, all of which are killed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count

from nodes import Done, Machine, Machines, Process, Serving, ids_of, until

PATIENCE = 90.0
"""Seconds until all that is queued has arrived, when nobody is killed any more."""


@dataclass
class Talker:
    """Sends from one machine, one after the other: some now or never, some with `--queue`."""

    machine: Machine
    to: str
    over: threading.Event
    sent: list[tuple[str, bool, Done]] = field(default_factory=list)
    """Each text, whether it may wait, and what became of the `send`."""

    def run(self) -> None:
        for number in count():
            if self.over.is_set():
                return
            queue = number % 3 > 0
            text = f"{self.machine.name} {number}"
            words = ["--to", self.to, "--timeout", random.choice(("0.2", "1", "3"))]
            process = self.machine.start("send", "--json", *words, *["--queue"] * queue, text)
            if random.random() < 0.1:
                time.sleep(random.uniform(0, 0.4))
                process.kill()
            self.sent.append((text, queue, process.finish(60)))


def check(sender: Talker, receiver: Machine) -> None:
    """All that was promised has come, and nothing twice."""
    arrived = receiver.texts()
    times = Counter(arrived)
    assert not [text for text, number in times.items() if number > 1], "nothing comes twice"
    for text, queue, done in sender.sent:
        if done.code == 0:
            assert times[text] == 1, (text, done, "it was receipted")
        elif done.code in {75, 6}:
            assert times[text] == 1, (text, done, "it was to come later")
        elif done.code in {3, 4, 5}:
            assert times[text] == 0, (text, done, "it was never to come")
        else:
            # Killed: if it was stored, then to stay.
            assert done.code == -9, (text, queue, done)
    # What may wait keeps its order, whoever sends it.
    queued = {text for text, queue, _ in sender.sent if queue}
    in_order = [text for text, _, _ in sender.sent if text in queued and times[text]]
    assert [text for text in arrived if text in queued] == in_order


def test_all_are_killed_under_traffic_in_both_directions(machines: Machines, rounds: int) -> None:
    alice = machines("alice")
    alice_serving = alice.serve("--invite")
    bob = machines("bob")
    bob.join(alice_serving.invite)
    bob_serving = bob.serve("--invite")
    # Bob can be dialled too, so each side has every kind of link there is.
    alice.join(bob_serving.invite)
    ports = {alice.name: alice_serving.port, bob.name: bob_serving.port}
    running: dict[str, Process] = {
        "alice's serve": alice_serving,
        "bob's serve": bob_serving,
        "bob's receive": bob.receive("--timeout", "0"),
    }

    def start(name: str) -> Process:
        if name == "bob's receive":
            return bob.start("receive", "--json")
        machine = alice if name.startswith("alice") else bob
        return machine.serve(port=ports[machine.name])

    over = threading.Event()
    talkers = [Talker(bob, "alice", over), Talker(alice, "bob", over)]
    threads = [threading.Thread(target=talker.run) for talker in talkers]
    for thread in threads:
        thread.start()
    try:
        for _ in range(rounds):
            time.sleep(random.uniform(0, 0.6))
            name = random.choice([*running])
            running[name].kill()
            running[name] = start(name)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    for machine in (alice, bob):
        until(
            lambda machine=machine: not {"waiting", "handed"} & set(machine.states()),
            f"the end of all rows of {machine.name}",
            PATIENCE,
        )
    check(talkers[0], alice)
    check(talkers[1], bob)
    for machine in (alice, bob):
        told = {
            event["id"]
            for process in machine.processes
            if isinstance(process, Serving)
            for event in process.events
            if event["event"] == "message"
        }
        last = running[f"{machine.name}'s serve"]
        newest = ids_of(machine.inbox())[-1:]
        until(lambda last=last, newest=newest: newest[0] in _told(last), "the last event")
        told |= _told(last)
        assert told == set(ids_of(machine.inbox())), "each event is told, whatever was killed"


def _told(process: Process) -> set[str]:
    return {event["id"] for event in process.events if event["event"] == "message"}
