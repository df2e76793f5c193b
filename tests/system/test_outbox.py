"""`securelink outbox`: what waits is listed, tried, cancelled and expires, whoever is killed."""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING

from nodes import until
from proxy import INTRODUCED, Action, Fault
from trees import make_file, same

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nodes import Machines
    from proxy import Proxy

TEXTS = [f"text {number}" for number in range(4000)]

LARGEST_FRAME = 4 + 65_535
"""In bytes; the texts take more than twice as many."""


def test_what_waits_is_listed_and_goes_when_it_is_tried(machines: Machines, tmp_path: Path) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    folder = tmp_path / "photos"
    files = [make_file(folder / f"{number}.jpg", 5000) for number in range(3)]
    assert bob.send("--queue", "--timeout", "0.3", "hello").code == 75
    done = bob.send("--queue", "--expires", "3d", "--timeout", "0.3", "--file", str(folder))
    assert done.code == 75
    text, photos = bob.run("outbox", "--json").results
    assert [(each["state"], each["attempts"], each["owned"]) for each in (text, photos)] == [
        ("waiting", 2, False),
        ("waiting", 1, False),
    ]
    assert (photos["item"], photos["files"], photos["bytes"]) == ("photos", 3, 15_000)
    assert text["reason"] == "alice could not be reached"
    assert 86_400 * 29 < text["expires_in"] <= 86_400 * 30
    assert 86_400 * 2 < photos["expires_in"] <= 86_400 * 3
    tried = bob.run("outbox", "--flush", "--timeout", "0.3", "--json")
    assert tried.code == 75
    assert [(each["status"], each["exit"]) for each in tried.results] == [("queued", 75)] * 2
    again = alice.serve(port=serving.port)
    tried = bob.run("outbox", "--flush", "alice", "--json")
    assert tried.code == 0, tried
    assert [(each["status"], each["id"]) for each in tried.results] == [
        ("delivered", text["id"]),
        ("delivered", photos["id"]),
    ]
    assert all(each["endpoint"]["port"] == again.port for each in tried.results)
    assert again.event("message")["id"] == text["id"]
    assert all(same(file, alice.received("bob") / "photos" / file.name) for file in files)
    assert bob.run("outbox", "--json").results == []
    assert bob.run("outbox", "--flush").err == "nothing is queued\n"


def test_a_flush_that_is_killed_loses_nothing(
    machines: Machines, proxy: Callable[[int], Proxy], rounds: int
) -> None:
    alice = machines("alice")
    serving = alice.serve("--invite")
    between = proxy(serving.port)
    bob = machines("bob", SECURELINK_CLIENT_ENDPOINT=f"127.0.0.1:{between.port}")
    bob.join(serving.invite)
    bob.queue(alice.identity.public, *TEXTS)
    dice = random.Random(rounds)
    killed_under_way = 0
    for number in range(rounds):
        before = bob.states().count("delivered")
        if before == len(TEXTS):
            break
        # At least one frame of texts arrives, and never all of them.
        between.up = Fault(Action.HOLD, after=INTRODUCED + LARGEST_FRAME + dice.randrange(9000))
        flush = bob.start("outbox", "--flush", "--json")
        if number:
            until(
                lambda before=before: bob.states().count("delivered") > before, "a receipt has come"
            )
        flush.kill()
        states = bob.states()
        killed_under_way += before < states.count("delivered") < len(TEXTS)
        assert set(states) <= {"waiting", "handed", "delivered"}, f"round {number}"
    assert killed_under_way, "past the proxy, perhaps"
    between.up = None
    done = bob.run("outbox", "--flush", "--json")
    assert done.code == 0, done
    assert set(bob.states()) == {"delivered"}
    assert alice.texts() == TEXTS
    assert serving.running


def test_a_flush_keeps_to_the_endpoint_that_is_configured(machines: Machines) -> None:
    alice, _, bob = machines.pair(SECURELINK_CLIENT_ENDPOINT="public")
    bob.queue(alice.identity.public, "hello")
    done = bob.run("outbox", "--flush")
    assert done.code == 2
    assert done.err.startswith("securelink: error: no public endpoint of alice is known\n")
    assert bob.states() == ["waiting"]


def test_what_is_cancelled_is_never_sent_by_a_running_serve(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    bob.serve()
    for text in ("one", "two", "three"):
        assert bob.send("--queue", "--timeout", "0.2", text).code == 75
    two = bob.run("outbox", "--json").results[1]
    done = bob.run("outbox", "--json", "--cancel", two["id"])
    assert (done.code, done.result["status"]) == (0, "withdrawn")
    again = alice.serve(port=serving.port)
    assert [again.event("message")["text"] for _ in range(2)] == ["one", "three"]
    until(lambda: bob.states() == ["delivered", "withdrawn", "delivered"], "both are delivered")
    assert alice.texts() == ["one", "three"]


def test_a_send_hears_that_its_message_was_cancelled(machines: Machines) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    sending = bob.start("send", "--json", "--timeout", "0", "hello")
    bob.until_outbox_has(1)
    (entry,) = bob.run("outbox", "--json").results
    assert entry["owned"]
    assert bob.run("outbox", "--cancel", entry["id"]).code == 0
    done = sending.finish()
    assert (done.code, done.result["status"], done.result["code"]) == (1, "failed", "cancelled")
    assert bob.states() == ["withdrawn"]


def test_what_has_expired_is_told_and_never_sent(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    bob.serve().stop()
    expiring = bob.send("--queue", "--expires", "1h", "--timeout", "0.2", "too late").result
    assert bob.send("--queue", "--timeout", "0.2", "in time").code == 75
    bob.write(_make_an_hour_pass)
    told = bob.serve().event("undelivered")
    assert (told["id"], told["status"], told["peer"]) == (expiring["id"], "expired", "alice")
    assert told["item"] == "text"
    again = alice.serve(port=serving.port)
    assert again.event("message")["text"] == "in time"
    until(lambda: bob.states() == ["expired", "delivered"], "the other one is delivered")
    assert alice.texts() == ["in time"]
    (entry,) = bob.run("outbox", "--json").results
    assert (entry["state"], entry["reason"]) == ("expired", "it has waited for too long")


def _make_an_hour_pass(conn: sqlite3.Connection) -> None:
    conn.execute("UPDATE aging SET observed_at = observed_at - 3600000")


def test_a_queued_file_that_went_is_told_by_serve(machines: Machines, tmp_path: Path) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    bob_serves = bob.serve()
    going = make_file(tmp_path / "going.bin", 5000)
    done = bob.send("--queue", "--timeout", "0.2", "--file", str(going))
    assert done.code == 75
    going.unlink()
    alice.serve(port=serving.port)
    told = bob_serves.event("undelivered")
    assert (told["item"], told["status"]) == ("going.bin", "withdrawn")
    assert "going.bin is gone" in told["reason"]
    assert not any("no longer queued" in line for line in bob_serves.stderr_lines)
