"""Another program keeps the store's write lock: what stays ends in time all the same."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from typing import TYPE_CHECKING

from nodes import Machine, Machines, Process, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def write_lock(machine: Machine) -> Iterator[None]:
    """Hold it, as somebody may who has opened the store by hand."""
    store = sqlite3.connect(machine.home.store_file, isolation_level=None)
    with contextlib.closing(store):
        store.execute("BEGIN IMMEDIATE")
        yield
        store.execute("ROLLBACK")


def ends_in_time(process: Process) -> None:
    began = time.monotonic()
    process.signal(signal.SIGTERM)
    assert process.finish().code == 0
    assert time.monotonic() - began < 3


def test_a_receive_without_traffic(machines: Machines) -> None:
    _, _, bob = machines.pair()
    receiving = bob.receive()
    with write_lock(bob):
        ends_in_time(receiving)


def test_a_receive_that_takes_a_text(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    receiving = bob.receive()
    with write_lock(bob):
        assert alice.send("--to", "bob", "--queue", "--timeout", "0.1", "hello").code == 75
        until(lambda: alice.states() == ["handed"], "the text has left")
        ends_in_time(receiving)
    # The text was refused for now, not lost.
    assert bob.run("receive", "--once", "--json").code == 0
    assert bob.texts() == ["hello"]
    assert alice.states() == ["delivered"]


def test_a_serve_that_takes_a_text(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    bob.receive()
    serving.event("link-up")
    with write_lock(alice):
        assert bob.send("--queue", "--timeout", "0.1", "hello").code == 75
        until(lambda: bob.states() == ["handed"], "the text has left")
        ends_in_time(serving)
    alice.serve(port=serving.port)
    until(lambda: bob.states() == ["delivered"], "the text has arrived")
    assert alice.texts() == ["hello"]
