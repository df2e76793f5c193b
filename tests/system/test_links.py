"""What happens to links: silence, cuts, black holes, signals, and other processes' locks."""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import time
from contextlib import closing

import pytest
from holding import held_link
from nodes import PATIENCE, Machine, Machines, Serving
from proxy import INTRODUCED, MESSAGE_2, READY, SMALL, Action, Fault, Proxy

from securelink.errors import LinkTruncated

BEATING = {
    "SECURELINK_LIMITS_HEARTBEAT_INTERVAL": "0.2",
    "SECURELINK_LIMITS_HEARTBEAT_TIMEOUT": "0.8",
}
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def test_heartbeats_keep_an_idle_link(machines: Machines) -> None:
    _, serving, bob = machines.pair(**BEATING)

    async def idle() -> None:
        async with held_link(bob, bob.key_of("alice"), serving.port) as held:
            ended, _ = await asyncio.wait([held.ended], timeout=2.5)
            assert not ended

    asyncio.run(idle())
    assert serving.event("link-down")["reason"] == "closed"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_silent_link_is_dropped_and_the_reason_told(
    machines: Machines, proxy, direction: str
) -> None:
    _, serving, bob = machines.pair(**BEATING)
    swallowing: Proxy = proxy(serving.port)

    async def silence() -> None:
        async with held_link(bob, bob.key_of("alice"), swallowing.port) as held:
            setattr(swallowing, direction, Fault(Action.SWALLOW))
            error = await asyncio.wait_for(held.ended, PATIENCE)
            assert isinstance(error, LinkTruncated)
            if direction == "down":
                assert str(error) == "nothing was received for 0.8 s"

    asyncio.run(silence())
    reason = serving.event("link-down", peer="bob")["reason"]
    if direction == "up":
        assert reason == "nothing was received for 0.8 s"
    else:
        assert reason.startswith("the connection was cut")


def test_the_server_notices_a_cut(machines: Machines, proxy) -> None:
    _, serving, bob = machines.pair()
    cutting: Proxy = proxy(serving.port)

    async def cut() -> None:
        async with held_link(bob, bob.key_of("alice"), cutting.port) as held:
            cutting.cut()
            assert isinstance(await asyncio.wait_for(held.ended, PATIENCE), LinkTruncated)

    asyncio.run(cut())
    assert serving.event("link-down")["reason"].startswith("the connection was cut")
    assert bob.send("still served").code == 0


@BOTH
def test_signals_end_the_server_and_its_links_in_order(machines: Machines, number) -> None:
    _, serving, bob = machines.pair()

    async def linked() -> None:
        async with held_link(bob, bob.key_of("alice"), serving.port) as held:
            await asyncio.to_thread(serving.event, "link-up")
            began = time.monotonic()
            serving.signal(number)
            assert await asyncio.wait_for(held.ended, 3) is None, "closed, not cut"
            done = await asyncio.to_thread(serving.finish)
            assert time.monotonic() - began < 3
            assert done.code == 0

    asyncio.run(linked())
    assert serving.events[-1]["event"] == "link-down"
    assert serving.events[-1]["reason"] == "closed"


def test_a_peer_that_does_not_answer_holds_up_no_end(machines: Machines, proxy) -> None:
    _, serving, bob = machines.pair()
    swallowing: Proxy = proxy(serving.port)

    async def linked() -> None:
        async with held_link(bob, bob.key_of("alice"), swallowing.port) as held:
            await asyncio.to_thread(serving.event, "link-up")
            swallowing.up = swallowing.down = Fault(Action.SWALLOW)
            began = time.monotonic()
            serving.signal(signal.SIGTERM)
            assert (await asyncio.to_thread(serving.finish)).code == 0
            assert time.monotonic() - began < 3
            swallowing.cut()
            await held.ended

    asyncio.run(linked())


@BOTH
def test_a_signal_withdraws_what_has_not_left(machines: Machines, number) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    with socket.create_server(("127.0.0.1", serving.port)) as silent:
        process = bob.start("send", "--json", "never mind")
        silent.settimeout(PATIENCE)
        connection, _ = silent.accept()
        with connection:
            process.signal(number)
            done = process.finish(3)
    assert done.code == 128 + number
    assert done.err == "interrupted: nothing delivered to alice\n"
    assert done.results[-1]["exit"] == 128 + number
    assert bob.states() == ["withdrawn"]


def test_a_signal_leaves_what_has_left_to_the_next_link(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    swallowing: Proxy = proxy(serving.port)
    swallowing.down = Fault(Action.SWALLOW, after=READY)
    process = bob.start("send", "--json", "--endpoint", f"127.0.0.1:{swallowing.port}", "once")
    serving.event("message")
    process.signal(signal.SIGINT)
    assert process.finish(5).code == 130
    assert bob.states() == ["handed"]
    assert bob.send("next").code == 0
    assert bob.states() == ["delivered", "delivered"]
    assert alice.texts() == ["once", "next"]


def test_without_a_receipt_it_is_unconfirmed_and_confirmed_later(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    swallowing: Proxy = proxy(serving.port)
    swallowing.down = Fault(Action.SWALLOW, after=READY)
    there = ["--endpoint", f"127.0.0.1:{swallowing.port}", "--timeout", "0.5"]
    done = bob.send(*there, "perhaps", **BEATING)
    assert done.code == 6
    assert done.result["status"] == "unconfirmed"
    assert "next link" in done.result["hint"]
    assert bob.states() == ["handed"]
    assert bob.send("certainly").code == 0
    assert alice.texts() == ["perhaps", "certainly"]


def test_a_server_that_breaks_off_before_the_link_is_ready(machines: Machines, proxy) -> None:
    _, serving, bob = machines.pair()
    cutting: Proxy = proxy(serving.port)
    cutting.down = Fault(Action.CUT, after=MESSAGE_2)
    there = ["--endpoint", f"127.0.0.1:{cutting.port}"]
    done = bob.send(*there, "--timeout", "1", "nothing has left")
    assert done.code == 3
    assert bob.states() == ["withdrawn"]
    assert len(cutting.connections) > 1, "it tries again"

    cutting.struck.clear()
    process = bob.start("send", "--json", *there, "in the end")
    cutting.struck.wait()
    cutting.down = None
    assert process.finish().code == 0


@pytest.mark.parametrize("at", [100, READY - 1, READY + SMALL - 1])
def test_a_flipped_bit_from_the_server_delivers_in_the_end(
    machines: Machines, proxy, at: int
) -> None:
    alice, serving, bob = machines.pair()
    flipping: Proxy = proxy(serving.port)
    flipping.down = Fault(Action.CORRUPT, after=at)
    assert bob.send("--endpoint", f"127.0.0.1:{flipping.port}", "once").code == 0
    assert flipping.struck.is_set()
    assert len(flipping.connections) == 2
    assert alice.texts() == ["once"]


@pytest.mark.parametrize("at", [100, INTRODUCED - 1, INTRODUCED + SMALL - 1])
def test_a_flipped_bit_from_the_client_delivers_in_the_end(
    machines: Machines, proxy, at: int
) -> None:
    alice, serving, bob = machines.pair()
    flipping: Proxy = proxy(serving.port)
    flipping.up = Fault(Action.CORRUPT, after=at)
    assert bob.send("--endpoint", f"127.0.0.1:{flipping.port}", "once").code == 0
    assert flipping.struck.is_set()
    assert len(flipping.connections) == 2
    assert alice.texts() == ["once"]


def test_a_send_that_starts_before_the_server(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    process = bob.start("send", "--json", "early")
    with pytest.raises(AssertionError, match="has not ended"):
        process.finish(3)
    alice.serve(port=serving.port)
    assert process.finish().code == 0
    assert alice.texts() == ["early"]


def full_backlog(listening: socket.socket) -> list[socket.socket]:
    """Connect until the kernel answers no more, and return the connections."""
    connections = []
    while True:
        sock = socket.socket()
        sock.settimeout(0.2)
        connections.append(sock)
        try:
            sock.connect(listening.getsockname())
        except TimeoutError:
            return connections


@pytest.mark.parametrize("answers", [True, False])
def test_a_black_hole_beside_a_good_endpoint(machines: Machines, *, answers: bool) -> None:
    _, serving, bob = machines.pair()
    with socket.create_server(("127.0.0.1", 0), backlog=1) as hole:
        taken = [] if answers else full_backlog(hole)
        bob.locate(bob.key_of("alice"), hole.getsockname()[1], serving.port)
        done = bob.send("around it")
        assert done.code == 0
        assert done.result["endpoint"]["port"] == serving.port
        assert done.result["seconds"] < 1.5
        for sock in taken:
            sock.close()


def test_nobody_there(machines: Machines) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    done = bob.send("--timeout", "0.5", "hello?")
    assert done.code == 3
    assert f"127.0.0.1:{serving.port} (connection refused)" in done.result["hint"]
    assert bob.states() == ["withdrawn"]


def test_links_live_while_another_process_holds_the_store(machines: Machines) -> None:
    alice, serving, bob = machines.pair(**BEATING)

    async def wait_with_a_text(lock: sqlite3.Connection) -> None:
        async with held_link(bob, bob.key_of("alice"), serving.port) as held:
            await asyncio.to_thread(serving.event, "link-up")
            lock.execute("BEGIN IMMEDIATE")
            bob.queue(bob.key_of("alice"), "patience")
            held.outgoing.wake()
            ended, _ = await asyncio.wait([held.ended], timeout=3)
            assert not ended
            assert bob.states() == ["handed"]
            lock.execute("ROLLBACK")
            await asyncio.to_thread(serving.event, "message", text="patience")

    store = sqlite3.connect(alice.home.store_file, isolation_level=None)
    with closing(store):
        asyncio.run(wait_with_a_text(store))
    assert bob.states() == ["delivered"]
    assert [each["reason"] for each in serving.events if each["event"] == "link-down"] == [
        "closed",
        "closed",
    ]


def test_a_removed_peer_that_does_not_answer_holds_up_nobody(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    carol = machines("carol")
    carol.join(alice.invite())
    serving.event("link-down", peer="carol")
    there = bob.key_of("alice")
    swallowing: Proxy = proxy(serving.port)

    async def removed() -> None:
        async with (
            held_link(carol, there, swallowing.port) as silent,
            held_link(bob, there, serving.port) as held,
        ):
            await asyncio.to_thread(serving.event, "link-up", peer="carol")
            swallowing.up = swallowing.down = Fault(Action.SWALLOW)
            await asyncio.to_thread(alice.forget, "carol")
            # The server closes the link, whatever becomes of it.
            await asyncio.to_thread(swallowing.struck.wait)
            await asyncio.to_thread(alice.forget, "bob")
            down = await asyncio.to_thread(serving.event, "link-down")
            assert down["peer"] == "bob"
            assert await held.ended is None
            swallowing.cut()
            await silent.ended

    asyncio.run(removed())


def removal_seconds(alice: Machine, serving: Serving, bob: Machine) -> float:
    """How long it takes from a removal's commit to the end of the removed peer's link."""

    async def removed() -> float:
        async with held_link(bob, bob.key_of("alice"), serving.port) as held:
            await asyncio.to_thread(serving.event, "link-up")
            await asyncio.to_thread(alice.forget, "bob")
            began = time.monotonic()
            down = await asyncio.to_thread(serving.event, "link-down")
            seconds = time.monotonic() - began
            assert down["reason"] == "removed"
            assert await held.ended is None
            return seconds

    return asyncio.run(removed())


def test_a_removed_peer_loses_its_link_at_once(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    seconds = [removal_seconds(alice, serving, bob)]
    assert bob.send("--timeout", "1", "let me in").code == 5
    for _ in range(2):
        bob.join(alice.invite())
        serving.event("link-down")
        seconds.append(removal_seconds(alice, serving, bob))
    # One of them alone may have met a machine that was busy with something else.
    assert sorted(seconds)[1] < 0.2, seconds
