"""Processes that are killed at random moments: nothing is lost, and nothing comes twice."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from nodes import Done, Machine, Machines, Serving, ids_of
from proxy import READY, SMALL, Action, Fault, Proxy


def test_a_server_killed_under_three_senders(machines: Machines, rounds: int) -> None:
    alice = machines("alice")
    serving = alice.serve()
    senders = [machines(name) for name in ("bob", "carol", "dave")]
    for sender in senders:
        sender.join(alice.invite())
    sent: list[tuple[str, str, Done]] = []
    over = threading.Event()

    def keep_sending(sender: Machine) -> None:
        count = 0
        while not over.is_set():
            count += 1
            text = f"{sender.name} {count}"
            sent.append((sender.name, text, sender.send("--timeout", "60", text, timeout=90)))

    threads = [threading.Thread(target=keep_sending, args=[sender]) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        for _ in range(rounds):
            # The one place where a moment that nothing marks is what is wanted.
            time.sleep(random.uniform(0, 1.0))
            serving.kill()
            serving = alice.serve(port=serving.port)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    sent += [(sender.name, "last", sender.send("last")) for sender in senders]
    serving.stop()

    assert {done.code for _, _, done in sent} <= {0, 6}, sent
    assert Counter(name for name, _, _ in sent).keys() == {"bob", "carol", "dave"}
    inbox = Counter((message.peer_name, message.text) for message in alice.inbox())
    for name, text, _ in sent:
        # Those without a receipt were confirmed by a later link of the same sender.
        assert inbox[name, text] == 1, (name, text)
    assert inbox.total() == len(sent)
    for sender in senders:
        assert set(sender.states()) == {"delivered"}
    told = Counter(
        event["id"]
        for process in machines.processes
        if isinstance(process, Serving)
        for event in process.events
        if event["event"] == "message"
    )
    assert told.keys() == set(ids_of(alice.inbox())), "a crash may tell one twice, never not"


def test_senders_killed(machines: Machines, rounds: int) -> None:
    alice, serving, bob = machines.pair()
    receipted = []
    for number in range(rounds * 2):
        process = bob.start("send", "--json", f"text {number}")
        kind = random.choice(("link-up", "message", "moment", "moment"))
        if kind == "moment":
            time.sleep(random.uniform(0.1, 0.6))
        else:
            serving.event(kind)
            time.sleep(random.uniform(0, 0.01))
        done = process.kill()
        receipted += [result["id"] for result in done.results]
    assert bob.send("last").code == 0
    serving.stop()

    rows = bob.outbox()
    assert {row.state for row in rows} <= {"delivered", "withdrawn"}, "each is settled"
    delivered = [row for row in rows if row.state == "delivered"]
    inbox = ids_of(alice.inbox())
    assert sorted(inbox) == sorted(ids_of(delivered)), "once each, and none that was withdrawn"
    assert set(receipted) <= set(inbox)
    assert alice.texts()[-1] == "last"


def test_a_sender_killed_before_the_receipt_is_confirmed_by_the_next_link(
    machines: Machines, proxy
) -> None:
    alice, serving, bob = machines.pair()
    swallowing: Proxy = proxy(serving.port)
    swallowing.down = Fault(Action.SWALLOW, after=READY)
    process = bob.start("send", "--json", "--endpoint", f"127.0.0.1:{swallowing.port}", "only once")
    first = serving.event("message")
    swallowing.struck.wait()
    process.kill()
    assert bob.states() == ["handed"]

    done = bob.run("send", "next")
    assert done.code == 0
    serving.event("message", text="next")
    assert bob.states() == ["delivered", "delivered"]
    assert ids_of(bob.outbox())[0] == first["id"], "the same ID for life"
    assert alice.texts() == ["only once", "next"]


def test_a_sender_killed_before_it_handed_anything_is_withdrawn(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    silent: Proxy = proxy(serving.port)
    silent.down = Fault(Action.SWALLOW)
    process = bob.start("send", "--endpoint", f"127.0.0.1:{silent.port}", "never")
    silent.struck.wait()
    process.kill()
    assert bob.states() == ["waiting"]
    assert bob.send("next").code == 0
    assert bob.states() == ["withdrawn", "delivered"]
    assert alice.texts() == ["next"]


def test_a_queue_survives_a_server_killed_while_it_takes_it(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    texts = [f"text {number}" for number in range(400)]
    bob.queue(bob.key_of("alice"), *texts)
    cutting: Proxy = proxy(serving.port)
    cutting.down = Fault(Action.CUT, after=READY + SMALL)
    process = bob.start("send", "--json", "--endpoint", f"127.0.0.1:{cutting.port}", "last")
    cutting.struck.wait()
    serving.kill()
    cutting.down = None
    serving = alice.serve(port=serving.port)
    assert process.finish().code == 0
    assert alice.texts() == [*texts, "last"]
    assert set(bob.states()) == {"delivered"}
