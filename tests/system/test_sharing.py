"""Several processes of one node, which meet only in the store."""

from __future__ import annotations

import asyncio
import os
import time

from holding import held_link
from nodes import Machines, Process, until

from securelink.store.outbox import State


def test_two_sends_and_a_server_share_one_queue(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    bob_serving = bob.serve("--invite")
    alice.join(bob_serving.invite)
    texts = [f"text {number}" for number in range(1500)]
    bob.queue(bob.key_of("alice"), *texts[:500])

    async def share() -> None:
        # Alice is linked to bob's server as well, so three processes of bob's may drain.
        async with held_link(alice, alice.key_of("bob"), bob_serving.port) as held:
            bob.queue(bob.key_of("alice"), *texts[500:1000])
            sends = [bob.start("send", "--json", "--to", "alice", f"own {n}") for n in range(2)]
            bob.queue(bob.key_of("alice"), *texts[1000:])
            for send in sends:
                assert (await asyncio.to_thread(send.finish)).code == 0
            while any(row.state is not State.DELIVERED for row in bob.outbox()):
                await asyncio.wait_for(held.delivery.progress(), 10)

    asyncio.run(share())
    received = alice.texts()
    assert [text for text in received if text.startswith("text")] == texts
    assert sorted(text for text in received if text.startswith("own")) == ["own 0", "own 1"]


def test_many_sends_of_one_node_at_once(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    sends = [bob.start("send", "--json", f"text {number}") for number in range(8)]
    assert [send.finish().code for send in sends] == [0] * 8
    assert sorted(alice.texts()) == [f"text {number}" for number in range(8)]
    assert bob.states() == ["delivered"] * 8


def test_the_server_of_a_dead_sender_settles_its_rows(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    bob_serving = bob.serve("--invite")
    alice.join(bob_serving.invite)
    serving.stop()
    sender = bob.start("send", "--to", "alice", "--timeout", "0", "never mind")
    bob.until_outbox_has(1)
    sender.kill()
    # Whatever another process commits has the server look around.
    bob.queue(bob.key_of("alice"), "later")

    async def link() -> None:
        async with held_link(alice, alice.key_of("bob"), bob_serving.port) as held:
            while held.delivery.received < 1:
                await asyncio.wait_for(held.delivery.progress(), 10)

    asyncio.run(link())
    # It looks around beside the link, so whichever is done first is not known.
    until(lambda: bob.states() == ["withdrawn", "delivered"], "both rows are settled")
    bob_serving.stop()
    assert alice.texts() == ["later"]


def test_a_restarted_server_tells_what_was_not_told(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()

    async def receive_elsewhere() -> None:
        # A process of alice's other than `serve` takes a text in.
        bob_serving = bob.serve("--invite")
        alice.join(bob_serving.invite)
        bob.queue(bob.key_of("alice"), "while nobody served")
        async with held_link(alice, alice.key_of("bob"), bob_serving.port) as held:
            while held.delivery.received < 1:
                await asyncio.wait_for(held.delivery.progress(), 10)

    asyncio.run(receive_elsewhere())
    again = alice.serve()
    assert again.event("message")["text"] == "while nobody served"
    again.stop()
    third = alice.serve()
    assert third.stop().code == 0
    assert [event["event"] for event in third.events] == ["ready"], "told once is enough"


def test_who_is_there_as_others_see_it(machines: Machines) -> None:
    """`peers` is right within a second, also after kill -9 of either side."""
    alice, serving, bob = machines.pair()

    def online() -> bool:
        (known,) = alice.run("peers", "--json").results
        assert known["online"] == (known["online_since"] is not None)
        return bool(known["online"])

    def talk() -> tuple[Process, int]:
        """Bob begins to send lines, and goes on."""
        before = len(alice.inbox())
        reads, writes = os.pipe()
        process = bob.start("send", "--json", "--lines", stdin=reads)
        os.close(reads)
        os.write(writes, b"hello\n")
        until(lambda: len(alice.inbox()) > before, "the line")
        return process, writes

    assert not online()
    process, writes = talk()
    assert online()
    process.kill()
    os.close(writes)
    began = time.monotonic()
    until(lambda: not online(), "bob to be gone")
    assert time.monotonic() - began < 2

    process, writes = talk()
    assert online()
    serving.kill()
    assert not online()
    process.kill()
    os.close(writes)
