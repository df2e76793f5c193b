from __future__ import annotations

import subprocess
import sys
import uuid

from nodes import PATIENCE, Machines
from proxy import Proxy
from terminals import Terminal

TEXTS = [
    "Grüße, 世界, नमस्ते, שלום",
    "👩‍👩‍👧‍👦 \U0010ffff",
    "e\u0301 stays apart, and \u00e9 stays one",
    "tabs\tand\nnew\r\nlines\n\n",
    "\x00\x01\x1b[31m\x7f\u202e",
    " spaces around ",
    "\ufeffbyte order mark",
    "long " * 100_000,
]


def test_two_machines_pair_and_send(machines: Machines) -> None:
    alice, bob = machines("alice"), machines("bob")
    serving = alice.serve("--invite")
    assert serving.ready["name"] == "alice"
    endpoint = {"kind": "loopback", "host": "127.0.0.1", "port": serving.port}
    assert serving.ready["endpoints"] == [endpoint]

    joined = bob.join(serving.invite)
    assert joined["status"] == "paired"
    assert joined["peer"] == "alice"
    assert joined["id"] == serving.ready["id"]
    assert joined["me"]["name"] == "bob"
    paired = serving.event("paired")
    assert paired["peer"] == "bob"
    assert paired["id"] == joined["me"]["id"]

    done = bob.send("hello")
    assert done.code == 0
    assert done.err == ""
    sent = done.result
    assert sent["status"] == "delivered"
    assert sent["item"] == "text"
    assert sent["peer"] == "alice"
    assert sent["endpoint"] == endpoint
    assert 0 < sent["seconds"] < 5

    message = serving.event("message")
    assert message["text"] == "hello"
    assert message["peer"] == "bob"
    assert message["peer_id"] == paired["id"]
    assert message["id"] == sent["id"]
    (kept,) = alice.inbox()
    assert (kept.seq, kept.text) == (message["seq"], "hello")
    assert bob.states() == ["delivered"]

    assert serving.stop().err.splitlines() == [
        f"securelink: warning: port {serving.port} is for this run only: peers lose this address",
        "stopped",
    ]
    downs = [event["reason"] for event in serving.events if event["event"] == "link-down"]
    assert downs == ["closed", "closed"]


def test_texts_are_kept_exactly(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    for text in TEXTS:
        assert bob.pipe(text).code == 0
        assert serving.event("message")["text"] == text
    assert alice.texts() == TEXTS


def test_to_me_reaches_the_own_server_whatever_its_port(machines: Machines) -> None:
    alice = machines("alice")
    missing = alice.send("--to", "me", "--timeout", "0.1", "hello")
    assert missing.code == 3
    assert "serve" in missing.result["hint"]
    assert alice.states() == ["withdrawn"]

    serving = alice.serve()
    assert alice.send("--to", "me", "hello").code == 0
    assert alice.send("to the only one there is").code == 0
    assert serving.event("message")["peer"] == "me"
    assert alice.texts() == ["hello", "to the only one there is"]


def test_several_recipients_have_one_result_each(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    carol = machines("carol")
    carol_serving = carol.serve("--invite")
    bob.join(carol_serving.invite)
    assert bob.send("to whom").code == 2, "two peers, and none was named"

    done = bob.send("--to", "alice", "--to", "carol", "--to", "alice", "hi")
    assert done.code == 0
    assert sorted(each["peer"] for each in done.results) == ["alice", "carol"]
    assert {each["status"] for each in done.results} == {"delivered"}

    done = bob.send("--to", "all", "again")
    assert sorted(each["peer"] for each in done.results) == ["alice", "carol"]
    assert alice.texts() == carol.texts() == ["hi", "again"]

    unknown = bob.send("--to", "alice", "--to", "dave", "nobody gets this")
    assert unknown.code == 2
    assert len(bob.outbox()) == 4
    assert alice.texts() == ["hi", "again"]

    carol_serving.stop()
    done = bob.send("--to", "alice", "--to", "carol", "--timeout", "0.3", "half")
    by_peer = {each["peer"]: each for each in done.results}
    assert by_peer["alice"]["status"] == "delivered"
    assert by_peer["carol"]["status"] == "failed"
    assert done.code == by_peer["carol"]["exit"] == 3


def test_of_several_failures_the_gravest_is_the_exit(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    carol = machines("carol")
    carol_serving = carol.serve("--invite")
    bob.join(carol_serving.invite)
    dave = machines("dave")
    dave_serving = dave.serve("--invite")
    bob.join(dave_serving.invite)
    # alice refuses, carol is somebody else, dave is gone
    dave_serving.stop()
    bob.locate(bob.key_of("carol"), serving.port)
    alice.forget("bob")

    to = ["--to", "alice", "--to", "dave"]
    assert bob.send(*to, "--timeout", "0.5", "hi").code == 5
    done = bob.send(*to, "--to", "carol", "--timeout", "0.5", "hi")
    codes = {each["peer"]: each["exit"] for each in done.results}
    assert codes == {"alice": 5, "carol": 4, "dave": 3}
    assert done.code == 4


def test_an_id_can_be_repeated(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    message_id = str(uuid.uuid4())
    first = bob.send("--id", message_id, "once")
    assert (first.code, first.result["id"]) == (0, message_id)
    again = bob.send("--id", message_id.upper(), "once")
    assert (again.code, again.result["status"]) == (0, "delivered")
    other = bob.send("--id", message_id, "twice")
    assert other.code == 2
    assert "ID" in other.result["error"]
    assert bob.send("--id", "nonsense", "once").code == 2
    assert alice.texts() == ["once"]

    done = bob.send("--id", message_id, "--to", "alice", "--to", "me", "--timeout", "0.1", "twice")
    assert {each["peer"]: each["exit"] for each in done.results} == {"alice": 2, "me": 3}
    assert done.code == 2


def test_what_waits_for_a_client_comes_with_its_next_send(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    alice.queue(alice.key_of("bob"), *(f"waiting {n}" for n in range(50)))
    process = bob.start("send", "hello")
    done = process.finish()
    assert done.code == 0
    assert "50 messages from alice: securelink inbox" in done.err
    assert bob.texts() == [f"waiting {n}" for n in range(50)]
    assert alice.states() == ["delivered"] * 50

    alice.queue(alice.key_of("bob"), "one more")
    assert "1 message from alice" in bob.run("send", "hello").err
    assert "from alice" not in bob.run("send", "hello").err


def test_a_send_without_an_address_is_delivered_by_the_server(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    waiting = alice.start("send", "--json", "--to", "bob", "when you come")
    alice.until_outbox_has(1)
    assert bob.send("here I am").code == 0
    assert waiting.finish().code == 0
    assert waiting.events[0]["endpoint"] is None
    assert bob.texts() == ["when you come"]

    late = alice.send("--to", "bob", "--timeout", "0.3", "too late")
    assert late.code == 3
    assert alice.states() == ["delivered", "withdrawn"]


def test_too_long_is_refused_before_anything_is_dialled(machines: Machines, proxy) -> None:
    bob = machines("bob", SECURELINK_LIMITS_MAX_MESSAGE="1000")
    done = bob.send("x" * 1001)
    assert done.code == 2
    assert "--file" in done.result["hint"]
    assert bob.send("--", "\udcff").code == 2
    assert not bob.home.store_file.exists()


def test_too_long_for_the_peer_is_refused_for_good(machines: Machines) -> None:
    alice = machines("alice", SECURELINK_LIMITS_MAX_MESSAGE="1000")
    serving = alice.serve("--invite")
    bob = machines("bob")
    bob.join(serving.invite)
    assert bob.send("x" * 1000).code == 0
    done = bob.send("x" * 1001)
    assert done.code == 5
    assert "too long" in done.result["error"]
    assert bob.states() == ["delivered", "refused"]


def test_a_forwarded_address_stands_first(machines: Machines, proxy) -> None:
    forwarder: Proxy = proxy()
    alice, bob = machines("alice"), machines("bob")
    serving = alice.serve("--invite", "--public", f"127.0.0.1:{forwarder.port}")
    forwarder.target = serving.port
    public = {"kind": "public", "host": "127.0.0.1", "port": forwarder.port}
    assert serving.ready["endpoints"][0] == public

    assert bob.join(serving.invite)["endpoint"] == public
    assert bob.send("--endpoint", "public", "hello").result["endpoint"] == public
    assert len(forwarder.connections) == 2
    assert bob.send("--endpoint", "lan", "hello").code == 2, "no such address is known"


def test_a_person_sees_what_is_waited_for(machines: Machines) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    terminal = Terminal()
    process = subprocess.Popen(
        [sys.executable, "-m", "securelink", "send", "--timeout", "1", "hello"],
        env=bob.environ | {"TERM": "xterm", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=terminal.slave,
        stderr=terminal.slave,
    )
    try:
        terminal.shows(r"^alice is not there yet, trying for 1 s$")
        terminal.shows(r"^hint: tried: 127\.0\.0\.1:\d+ \(connection refused\)$")
        assert process.wait(PATIENCE) == 3
        terminal.shows(r"^securelink: error: alice could not be reached$")
    finally:
        process.kill()
        process.wait()
        terminal.close()
