"""`securelink receive`: a machine behind a router takes what the server has for it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from nodes import PATIENCE, Machine, Machines, Process, Serving, ids_of, until
from proxy import Action, Fault, Proxy
from terminals import Terminal
from trees import make_file, same

from securelink.cli.text import width
from securelink.endpoints import Endpoint, Kind
from securelink.store import addresses, links

if TYPE_CHECKING:
    from pathlib import Path

BEATING = {
    "SECURELINK_LIMITS_HEARTBEAT_INTERVAL": "0.2",
    "SECURELINK_LIMITS_HEARTBEAT_TIMEOUT": "0.8",
}
BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def to_bob(alice: Machine, *words: str) -> None:
    """Alice sends to bob, who takes it at once."""
    done = alice.send("--to", "bob", *words)
    assert done.code == 0, done


def wait_for_bob(alice: Machine, *words: str) -> None:
    """Alice sends to bob, who is not there."""
    done = alice.send("--to", "bob", "--queue", "--timeout", "0.1", *words)
    assert done.code == 75, done


def texts_told(process: Process) -> list[str]:
    return [event["text"] for event in process.events if event["event"] == "message"]


# ---- a link that stays


def test_texts_and_files_come_to_a_machine_behind_a_router(
    machines: Machines, tmp_path: Path
) -> None:
    alice, serving, bob = machines.pair()
    photo = make_file(tmp_path / "photo.jpg", 3_000_000)
    folder = tmp_path / "album"
    for number in range(3):
        make_file(folder / f"{number}.jpg", 1000 + number)
    receiving = bob.receive("--checksum")
    to_bob(alice, "hello")
    to_bob(alice, "--file", str(photo), str(folder))
    message = receiving.event("message")
    assert (message["peer"], message["text"]) == ("alice", "hello")
    names = {receiving.event("file")["name"] for _ in range(5)}
    assert names == {"photo.jpg", "album", "album/0.jpg", "album/1.jpg", "album/2.jpg"}
    assert same(photo, bob.received("alice") / "photo.jpg")
    assert {len(each["sha256"]) for each in receiving.events if each.get("kind") == "file"} == {64}
    # And the other way: what waits at bob's goes over the same link.
    assert bob.send("--queue", "back").code == 0
    assert alice.texts() == ["back"]
    assert receiving.stop().err == "stopped\n"
    serving.event("link-down", reason="closed")
    assert "ready" not in {event["event"] for event in receiving.events}


def test_a_plain_send_takes_texts_and_leaves_files(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = machines.pair()
    wait_for_bob(alice, "a text")
    wait_for_bob(alice, "--file", str(make_file(tmp_path / "file.bin", 5000)))
    assert bob.send("hello").code == 0
    assert bob.texts() == ["a text"]
    assert alice.states() == ["delivered", "waiting"]
    done = bob.run("receive", "--once", "--json")
    assert done.code == 0
    # Its first start tells of nothing that was there before.
    assert sorted(event["event"] for event in done.results) == ["file", "link-down", "link-up"]
    assert alice.states() == ["delivered", "delivered"]


@pytest.mark.parametrize("what", ["text", "file"])
def test_a_send_that_dials_in_vain_leaves_it_to_a_link_that_comes(
    machines: Machines, tmp_path: Path, what: str
) -> None:
    alice, _, bob = machines.pair()
    nowhere = Endpoint(Kind.LOOPBACK, "127.0.0.1", 1)
    key = alice.key_of("bob").raw
    alice.write(addresses.set_endpoints, key, addresses.Source.PERSON, [nowhere], 1)
    words = ["hello"] if what == "text" else ["--file", str(make_file(tmp_path / "file.bin", 5000))]
    sending = alice.start("send", "--to", "bob", *words)
    alice.until_outbox_has(1)
    receiving = bob.receive()
    done = sending.finish()
    assert done.code == 0, done
    receiving.event("message" if what == "text" else "file")
    assert alice.states() == ["delivered"]


def test_the_server_restarts(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    receiving = bob.receive()
    serving.stop()
    assert receiving.event("link-down")["reason"] == "closed"
    receiving.stderr("alice has ended the link; trying again")
    receiving.stderr("alice could not be reached; trying again")
    wait_for_bob(alice, "while nobody served")
    alice.serve(port=serving.port)
    receiving.event("message", text="while nobody served")
    assert sum("could not be reached" in line for line in receiving.stderr_lines) == 1


def test_the_server_is_killed(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    receiving = bob.receive()
    serving.kill()
    assert receiving.event("link-down")["reason"].startswith("the connection was cut")
    receiving.stderr("the link to alice is lost: the connection was cut")
    serving = alice.serve(port=serving.port)
    receiving.event("link-up")
    to_bob(alice, "again")
    receiving.event("message", text="again")


def test_the_receiver_is_killed(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    bob.receive().kill()
    serving.event("link-down", peer="bob")
    wait_for_bob(alice, "later")
    receiving = bob.receive()
    assert receiving.event("message")["text"] == "later"
    # The row of the killed one is struck out.
    assert len(bob.read(links.list_all)) == 1


def test_killed_at_random_moments_under_traffic(machines: Machines, rounds: int) -> None:
    alice, serving, bob = machines.pair()
    receiving = bob.receive()
    over = threading.Event()
    codes: list[int] = []

    def keep_sending() -> None:
        count = 0
        while not over.is_set():
            count += 1
            done = alice.send("--to", "bob", "--queue", "--timeout", "1", f"text {count}")
            codes.append(done.code)

    thread = threading.Thread(target=keep_sending)
    thread.start()
    killed: list[Process] = []
    try:
        for _ in range(rounds):
            # The one place where a moment that nothing marks is what is wanted.
            time.sleep(random.uniform(0, 1.0))
            if random.random() < 0.5:
                serving.kill()
                serving = alice.serve(port=serving.port)
            else:
                receiving.kill()
                killed.append(receiving)
                receiving = bob.start("receive", "--json")
    finally:
        over.set()
        thread.join()
    assert set(codes) <= {0, 75}
    alice.queue(alice.key_of("bob"), "last")
    # What came before it may have been told by one that was killed.
    receiving.event("message", text="last")
    until(lambda: set(alice.states()) == {"delivered"}, "all is confirmed")
    texts = [*(f"text {count}" for count in range(1, len(codes) + 1)), "last"]
    assert bob.texts() == texts, "each once, and in order"
    told = Counter(
        event["id"]
        for process in (*killed, receiving)
        for event in process.events
        if event["event"] == "message"
    )
    assert told.keys() == set(ids_of(bob.inbox())), "a crash may tell one twice, never not"


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_link_that_swallows_everything_is_noticed(
    machines: Machines, proxy, direction: str
) -> None:
    alice, serving, bob = machines.pair(**BEATING)
    swallowing: Proxy = proxy(serving.port)
    receiving = bob.receive("--endpoint", f"127.0.0.1:{swallowing.port}")
    setattr(swallowing, direction, Fault(Action.SWALLOW))
    down = receiving.event("link-down", timeout=5)
    if direction == "down":
        assert down["reason"] == "nothing was received for 0.8 s"
    setattr(swallowing, direction, None)
    receiving.event("link-up")
    to_bob(alice, "through it")
    receiving.event("message", text="through it")


def test_a_link_that_is_dropped_again_and_again(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    dropping: Proxy = proxy(serving.port)
    receiving = bob.receive("--endpoint", f"127.0.0.1:{dropping.port}")
    for number in range(3):
        dropping.cut()
        receiving.event("link-down")
        # Bob may be there again already.
        done = alice.send("--to", "bob", "--queue", f"text {number}")
        assert done.code in {0, 75}, done
        receiving.event("link-up")
        receiving.event("message", text=f"text {number}")
    assert sum("is lost" in line for line in receiving.stderr_lines) == 1, "said once"


def test_an_address_that_changes_while_linked(machines: Machines, proxy) -> None:
    forwarder: Proxy = proxy()
    alice, serving, bob = machines.pair()
    serving.stop()
    forwarder.target = serving.port
    public = f"127.0.0.1:{forwarder.port}"
    serving = alice.serve("--public", public, port=serving.port)
    receiving = bob.receive()

    def knows_it() -> bool:
        query = "SELECT count(*) FROM endpoints WHERE port = ?"
        with bob.database() as database, database.snapshot() as conn:
            return bool(conn.execute(query, (forwarder.port,)).fetchone()[0])

    until(knows_it, "the announced address")
    serving.stop()
    # It moves: where it was nobody listens any more, and the router forwards to the new port.
    moved = alice.serve("--public", public, host="127.0.0.1")
    assert moved.port != serving.port
    forwarder.target = moved.port
    up = receiving.event("link-up")
    assert up["address"]["port"] == forwarder.port


# ---- what does not go


def test_it_is_turned_away_and_paired_again(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    receiving = bob.receive()
    alice.forget("bob")
    assert receiving.event("link-down")
    receiving.stderr("alice refused: it does not know this node; trying again")
    receiving.stderr("ask for a new invite")
    bob.join(alice.invite())
    receiving.event("link-up")
    assert serving.running


def test_somebody_else_where_the_server_was(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    receiving = bob.receive()
    serving.stop()
    other = machines("mallory").serve(port=serving.port)
    receiving.stderr("whoever answered for alice does not hold its key; trying again")
    other.stop()
    alice.serve(port=serving.port)
    # Back to short delays as soon as it is another failure, or at the latest after some more.
    receiving.event("link-up", timeout=60)


def test_the_peer_is_removed(machines: Machines) -> None:
    _, _, bob = machines.pair()
    receiving = bob.receive()
    assert bob.run("peers", "remove", "alice").code == 0
    done = receiving.finish()
    assert done.code == 2
    assert done.results[-1]["error"] == "alice was removed"
    assert done.results[-2]["reason"] == "removed"


# ---- the end


@BOTH
def test_a_signal_is_how_it_ends(machines: Machines, number: signal.Signals) -> None:
    _, serving, bob = machines.pair()
    receiving = bob.receive()
    receiving.signal(number)
    assert receiving.finish(5).code == 0
    serving.event("link-down", reason="closed")


@BOTH
def test_a_signal_is_not_how_once_ends(machines: Machines, number: signal.Signals) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    process = bob.start("receive", "--once", "--json")
    process.stderr("alice is not there yet, trying for 30 s")
    process.signal(number)
    assert process.finish(5).code == 128 + number


def test_a_reader_that_has_had_enough(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "securelink", "receive"],
        env=bob.environ,
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as out:
            to_bob(alice, "one")
            assert out.readline().endswith(" alice one\n")
        to_bob(alice, "two")
        assert process.wait(PATIENCE) == 141
    finally:
        process.kill()
        process.communicate()
    # What was not told is told by the next one.
    bob.start("receive", "--json").event("message", text="two")


# ---- once


def test_once(machines: Machines, tmp_path: Path) -> None:
    alice, serving, bob = machines.pair()
    done = bob.run("receive", "--once", "--json")
    assert done.code == 0
    assert [event["event"] for event in done.results] == ["link-up", "link-down"]

    texts = [f"text {number}" for number in range(300)]
    alice.queue(alice.key_of("bob"), *texts)
    large = make_file(tmp_path / "large.bin", 20_000_000)
    wait_for_bob(alice, "--file", str(large))
    done = bob.run("receive", "--once", "--json")
    assert done.code == 0
    assert [each["text"] for each in done.results if each["event"] == "message"] == texts
    (file,) = [each for each in done.results if each["event"] == "file"]
    assert file["size"] == 20_000_000
    assert same(large, bob.received("alice") / "large.bin")
    assert set(alice.states()) == {"delivered"}
    assert serving.running


def test_once_for_a_person(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    wait_for_bob(alice, "hello")
    done = bob.run("receive", "--once")
    assert done.code == 0
    assert done.out.endswith(" alice hello\n")
    assert done.err == "receiving from alice (loopback 127.0.0.1)\n"
    done = bob.run("receive", "--once")
    assert (done.code, done.out) == (0, "")
    assert done.err == "receiving from alice (loopback 127.0.0.1)\nnothing new\n"
    done = bob.run("receive", "--once", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_once_does_not_wait_for_files_that_it_refuses(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = machines.pair()
    bob.configure("[files]\naccept = false\n")
    wait_for_bob(alice, "--file", str(make_file(tmp_path / "a.bin", 5000)))
    wait_for_bob(alice, "hello")
    began = time.monotonic()
    done = bob.run("receive", "--once", "--json")
    assert done.code == 0
    assert time.monotonic() - began < 2
    assert alice.states() == ["refused", "delivered"]


def test_once_is_not_done_while_the_disk_is_full(
    machines: Machines, small_disk: Path, tmp_path: Path
) -> None:
    alice, serving, _ = machines.pair()
    bob = machines("bobby", small_disk / "bobby")
    bob.join(alice.invite())
    wait = ("send", "--json", "--to", "bobby", "--queue", "--timeout", "0.1")
    assert alice.run(*wait, "--file", str(make_file(tmp_path / "a.bin", 6_000_000))).code == 75
    assert alice.run(*wait, "hello").code == 75
    done = bob.run("receive", "--once", "--json", SECURELINK_FILES_KEEP_FREE="0")
    assert done.code == 1
    failure = done.results[-1]
    assert (failure["code"], failure["exit"]) == ("not-all-taken", 1)
    assert failure["error"] == "1 of what alice has could not be taken for now"
    assert bob.texts() == ["hello"], "the text came all the same"
    assert "waiting" in alice.states()
    assert serving.running


@pytest.mark.parametrize("words", [("--once",), ()])
def test_nobody_there(machines: Machines, words: tuple[str, ...]) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    done = bob.run("receive", "--json", "--timeout", "0.3", *words)
    assert done.code == 3
    assert f"127.0.0.1:{serving.port} (connection refused)" in done.result["hint"]


@pytest.mark.parametrize("words", [("--once",), ()])
def test_somebody_else_there(machines: Machines, words: tuple[str, ...]) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    machines("mallory").serve(port=serving.port)
    assert bob.run("receive", "--json", "--timeout", "0.3", *words).code == 4


@pytest.mark.parametrize("words", [("--once",), ("--timeout", "10")])
def test_not_paired_any_more(machines: Machines, words: tuple[str, ...]) -> None:
    alice, _, bob = machines.pair()
    alice.forget("bob")
    done = bob.run("receive", "--json", *words)
    assert (done.code, done.result["code"]) == (5, "peer-refused")


# ---- several processes of one node


def test_once_beside_another_that_has_not_got_it_yet(
    machines: Machines, proxy, tmp_path: Path
) -> None:
    alice, serving, bob = machines.pair()
    slow: Proxy = proxy(serving.port)
    receiving = bob.receive("--endpoint", f"127.0.0.1:{slow.port}")
    slow.down = Fault(Action.HOLD)
    # It goes over the link that was there first.
    wait_for_bob(alice, "--file", str(make_file(tmp_path / "photo.jpg", 50_000)))
    direct = ("receive", "--once", "--json", "--endpoint", f"127.0.0.1:{serving.port}")
    done = bob.run(*direct, "--timeout", "1")
    assert done.code == 1
    failure = done.results[-1]
    assert (failure["code"], failure["exit"]) == ("not-all-taken", 1)
    assert failure["error"] == "1 of what alice has for this node did not come"
    slow.down = None
    slow.release()
    receiving.event("file", name="photo.jpg")
    until(lambda: alice.states() == ["delivered"], "the receipt")
    done = bob.run(*direct)
    assert done.code == 0


def test_several_receivers_a_serve_and_sends(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    following: list[Process] = [bob.serve(), bob.receive(), bob.receive()]
    texts = [f"text {number}" for number in range(200)]
    alice.queue(alice.key_of("bob"), *texts[:100])
    sends = [bob.start("send", "--json", f"own {number}") for number in range(3)]
    alice.queue(alice.key_of("bob"), *texts[100:])
    assert [send.finish().code for send in sends] == [0, 0, 0]
    for process in following:
        until(lambda process=process: len(texts_told(process)) >= 200, f"told by {process.title}")
        assert texts_told(process) == texts
    assert bob.texts() == texts
    assert sorted(alice.texts()) == ["own 0", "own 1", "own 2"]
    # Each command knows how far it has told.
    for process in following:
        assert isinstance(process, Serving) or process.stop()
    again = bob.receive()
    to_bob(alice, "new")
    assert again.event("message")["text"] == "new"


def test_the_serve_beside_it_is_found(machines: Machines, proxy) -> None:
    forwarder: Proxy = proxy()
    alice, _, bob = machines.pair()
    served = bob.serve("--public", f"127.0.0.1:{forwarder.port}")
    forwarder.target = served.port
    receiving = bob.receive()
    to_bob(alice, "over the link")
    receiving.event("message", text="over the link")
    receiving.stop()
    done = alice.send("--to", "bob", "--endpoint", "public", "to the serve")
    assert done.code == 0, done
    assert done.result["endpoint"]["port"] == forwarder.port


# ---- what a person sees


def test_on_a_terminal_of_80_columns(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    terminal = Terminal()
    process = subprocess.Popen(
        [sys.executable, "-m", "securelink", "receive"],
        env=bob.environ | {"TERM": "xterm", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=terminal.slave,
        stderr=terminal.slave,
    )
    try:
        terminal.shows(r"^receiving from alice \(loopback 127\.0\.0\.1\)$")
        to_bob(alice, "hello")
        terminal.shows(r"^\d\d:\d\d alice hello$")
        serving.stop()
        terminal.shows(r"^alice has ended the link; trying again$")
        terminal.shows(r"^alice could not be reached; trying again$")
        terminal.shows(r"^hint: tried: 127\.0\.0\.1:\d+ \(connection refused\)$")
        alice.serve(port=serving.port)
        terminal.wait(
            lambda lines: [each for each in lines if each.startswith("receiving")][1:] or None,
            "another link",
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        terminal.shows(r"^(\^C)?stopped$")
        assert [each for each in terminal.lines if width(each) > 80] == []
        assert not terminal.overflowed
    finally:
        process.kill()
        process.wait()
        terminal.close()
