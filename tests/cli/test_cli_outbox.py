"""`securelink outbox`, and `send --expires`."""

from __future__ import annotations

import re
import uuid

import pytest
from node_files import now

from securelink.home import Home
from securelink.ids import to_text
from securelink.locks import FileLock
from securelink.store import notices, outbox, tries
from securelink.store.outbox import DAY

ODD = "\x1b[2J\u202eevil\r\n\tand   more\n"


def columns(called):
    """The cells of a list in a pipe."""
    return [re.split("  +", line) for line in called.out.splitlines()]


@pytest.fixture
def alice(node):
    return node.peer("alice")


@pytest.fixture
def living(node):
    """A process of the node that lives: the name of its lock."""
    home = Home(node.home, node.home)
    home.create()
    owner = str(uuid.uuid4())
    lock = FileLock.acquire(home.owner_lock(owner))
    yield owner
    lock.release(unlink=True)


# ---- the list


def test_nothing_waits(call, alice):
    done = call("outbox")
    assert (done.status, done.out, done.err) == (0, "", "nothing waits\n")
    assert call("outbox", "--to", "alice").err == "nothing waits for alice\n"
    assert (call("outbox", "--json").out, call("outbox", "-q").err) == ("", "")


def test_rows_in_a_pipe(call, node, alice):
    made = node.queue(alice, "hello\nalice", ago=7200, life=3 * DAY)
    group = node.queue_files(alice, "photos/a", "photos/b", size=2_000_000)
    with node.store() as conn:
        tries.note_failure(conn, alice.raw, "alice could not be reached", 1)
    assert columns(call("outbox")) == [
        [
            to_text(made),
            "waiting",
            "alice",
            "2 h",
            "1",
            "3 d",
            "alice could not be reached",
            "hello alice",
        ],
        [
            to_text(group),
            "waiting",
            "alice",
            "0 s",
            "1",
            "-",
            "alice could not be reached",
            "photos/ (2 files, 4.0 MB)",
        ],
    ]


def test_on_a_terminal_every_line_fits(call_on_terminal, node, alice):
    node.peer("a-peer-with-quite-a-long-name-1")
    node.queue(alice, "a long text " * 20, life=DAY)
    node.queue(node.peer("a-peer-with-quite-a-long-name-2"), "hello")
    lines = call_on_terminal("outbox").out.splitlines()
    assert lines[0].split() == ["STATE", "PEER", "AGE", "TRIES", "LEFT", "WHAT"]
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("waiting  alice             0 s  0      24 h  a long text a long")
    assert lines[1].endswith("…")
    assert lines[2].startswith("waiting  a-peer-with-qui…  ")


def test_what_others_wrote_is_escaped_on_a_terminal(call, call_on_terminal, node, alice):
    node.queue(alice, ODD)
    node.queue_files(alice, "\x1b[2Ja.jpg")
    out = call_on_terminal("outbox").out
    assert "\x1b" not in out
    assert "\\x1b[2J\\u202eevil and more\n" in out
    assert "\\x1b[2Ja.jpg (5 B)\n" in out
    assert call("outbox", "--json").results[0]["excerpt"] == ODD


def test_a_reason_that_several_have_is_said_once(call_on_terminal, node, alice):
    for text in "abc":
        node.queue(alice, text)
    node.queue(node.peer("bob"), "d")
    with node.store() as conn:
        tries.note_failure(conn, alice.raw, "alice could not be reached", 1)
    lines = call_on_terminal("outbox").out.splitlines()
    assert [line[-1] for line in lines[1:4]] == ["a", "b", "c"]
    assert lines[4] == "  alice could not be reached"
    assert lines[5].endswith("  d")
    assert len(lines) == 6


def test_the_ids_on_a_terminal(call_on_terminal, node, alice):
    made = node.queue(alice, "hello")
    lines = call_on_terminal("outbox", "-v").out.splitlines()
    assert lines[2] == f"  {to_text(made)}"


def test_for_scripts(call, node, alice, living):
    made = node.queue(alice, "hello", ago=60, life=DAY, owner=living)
    node.queue_files(alice, "a.jpg")
    text, file = call("outbox", "--json").results
    assert list(text) == [
        "id", "peer", "peer_id", "item", "kind", "excerpt", "files", "bytes", "state", "states",
        "owned", "sent_at", "age", "attempts", "reason", "expires_in",
    ]  # fmt: skip
    assert (text["id"], text["peer"], text["peer_id"]) == (to_text(made), "alice", alice.peer_id)
    assert (text["item"], text["kind"], text["excerpt"]) == ("text", "text", "hello")
    assert (text["state"], text["states"], text["owned"]) == ("waiting", {"waiting": 1}, True)
    assert 60 <= text["age"] < 90
    assert 86_300 < text["expires_in"] <= 86_400
    assert (text["attempts"], text["reason"]) == (0, None)
    assert (file["item"], file["kind"], file["excerpt"]) == ("a.jpg", "file", None)
    assert (file["files"], file["bytes"], file["owned"]) == (1, 5, False)
    assert file["expires_in"] is None


def test_a_folder_of_which_a_part_has_gone(call, call_on_terminal, node, alice):
    node.queue_files(alice, *(f"photos/{number}" for number in range(1200)))
    with node.store() as conn:
        conn.execute("UPDATE outbox SET state = 'delivered', ended_at = 1 WHERE seq <= 1000")
        outbox.hand(conn, [1001], 1)
        conn.execute("UPDATE outbox SET handed_at = 9000000000000, ended_at = NULL")
    ((*_, what),) = columns(call("outbox"))
    assert what == ("photos/ (1200 files, 6.0 kB); 199 waiting, 1 no receipt, 1000 delivered")
    (entry,) = call("outbox", "--json").results
    assert entry["states"] == {"waiting": 199, "handed": 1, "delivered": 1000}
    _, folder, parts = call_on_terminal("outbox").out.splitlines()
    assert folder.endswith("  photos/ (1200 files, 6.0 kB)")
    assert parts == "  199 waiting, 1 no receipt, 1000 delivered"


def test_states_in_words(call, node, alice, living):
    waiting, left, _ = (node.queue(alice, text) for text in ("waits", "left", "refused"))
    node.queue(alice, "owned", owner=living)
    node.hand(left)
    with node.store() as conn:
        conn.execute(
            "UPDATE outbox SET state = 'refused', reason = 'too long', ended_at = ?"
            " WHERE text = 'refused'",
            (9_000_000_000_000,),
        )
    words = [(row[1].strip(), row[-1].strip()) for row in columns(call("outbox"))]
    assert words == [
        ("waiting", "waits"),
        ("no receipt", "left"),
        ("refused", "refused"),
        ("sending", "owned"),
    ]
    call("outbox", "--cancel", to_text(waiting))
    assert "withdrawn" not in call("outbox").out
    assert "withdrawn" in call("outbox", "--all").out


def test_what_a_dead_process_left_is_settled_first(call, node, alice):
    node.queue(alice, "its sender died", owner=str(uuid.uuid4()))
    assert call("outbox").err == "nothing waits\n"
    assert node.states() == ["withdrawn"]


def test_what_has_waited_for_too_long_has_expired(call, node, alice):
    with node.store() as conn:
        outbox.prune(conn, 1)
    node.queue(alice, "hello", life=1)
    (entry,) = call("outbox", "--json").results
    assert (entry["state"], entry["reason"]) == ("expired", "it has waited for too long")
    with node.store() as conn:
        assert [each.state for each in notices.after(conn, 0)] == ["expired"]


def test_a_store_that_cannot_be_written_is_shown_as_it_is(call, node, alice, monkeypatch):
    from securelink.errors import StoreFull

    def full(*_):
        raise StoreFull("the disk is full")

    node.queue(alice, "hello")
    monkeypatch.setattr(outbox, "prune", full)
    assert call("outbox", "--json").result["excerpt"] == "hello"


def test_only_for_one_peer(call, node, alice):
    bob = node.peer("bob")
    node.queue(alice, "to alice")
    node.queue(bob, "to bob")
    assert [each["excerpt"] for each in call("outbox", "--json", "--to", "bob").results] == [
        "to bob"
    ]
    assert call("outbox", "--json", "--to", bob.peer_id).result["peer"] == "bob"
    assert call("outbox", "--to", "me").err == "nothing waits for me\n"
    done = call("outbox", "--to", "eve")
    assert (done.status, done.err.splitlines()[0]) == (
        2,
        "securelink: error: no peer is called eve",
    )


def test_of_a_former_peer(call, node, alice):
    left = node.queue(alice, "hello")
    node.hand(left)
    call("peers", "remove", "alice")
    (entry,) = call("outbox", "--json", "--to", alice.peer_id).results
    assert (entry["peer"], entry["state"]) == (alice.short, "unconfirmed")


@pytest.mark.parametrize(
    "words",
    [
        ["alice"],
        ["--flush", "--cancel", "01"],
        ["--cancel"],
        ["--all", "--flush"],
        ["--all", "--cancel", "01"],
        ["--timeout", "3"],
        ["--timeout", "3", "--cancel", "01"],
        ["--flush", "alice", "--to", "alice"],
        ["--flush", "eve"],
    ],
)
def test_wrong_usage(words, call, node, alice):
    node.queue(alice, "hello")
    done = call("outbox", *words)
    assert done.status == 2
    assert done.err.startswith("securelink: error: ")
    assert len(done.err.splitlines()) <= 2
    assert node.states() == ["waiting"]


# ---- cancel


def test_cancel(call, node, alice):
    first, second, third = (node.queue(alice, text) for text in ("one", "two", "three"))
    done = call("outbox", "--cancel", to_text(first), "--cancel", to_text(second)[:8])
    assert (done.status, done.out) == (2, "")
    assert "several IDs begin with" in done.err
    assert node.states() == ["waiting"] * 3
    done = call("outbox", "--cancel", to_text(first), "--cancel", to_text(third))
    assert (done.status, done.out) == (0, "")
    assert done.err == 'cancelled: "one" for alice\ncancelled: "three" for alice\n'
    assert node.states() == ["withdrawn", "waiting", "withdrawn"]
    with node.store() as conn:
        assert notices.after(conn, 0) == []


def test_cancel_in_a_script(call, node, alice):
    made = node.queue(alice, "one")
    assert call("outbox", "--json", "--cancel", to_text(made), to_text(made)).result == {
        "status": "withdrawn",
        "item": "text",
        "id": to_text(made),
        "peer": "alice",
        "withdrawn": 1,
        "unconfirmed": 0,
        "exit": 0,
    }


def test_what_has_left_may_have_arrived(call, node, alice):
    made = node.queue(alice, "one")
    node.hand(made)
    done = call("outbox", "--cancel", to_text(made))
    assert done.status == 6
    assert done.err == (
        'securelink: warning: "one" had left for alice and may have arrived; it does not go again\n'
    )
    assert node.states() == ["unconfirmed"]


def test_a_folder_is_cancelled_as_a_whole(call, node, alice):
    group = node.queue_files(alice, "photos/a", "photos/b", "photos/c")
    with node.store() as conn:
        outbox.hand(conn, [1], now())
    done = call("outbox", "--json", "--cancel", to_text(group))
    assert (done.status, done.result["status"]) == (6, "unconfirmed")
    assert (done.result["withdrawn"], done.result["unconfirmed"]) == (2, 1)
    assert node.states() == ["unconfirmed", "withdrawn", "withdrawn"]


def test_of_a_folder_that_is_said(call, node, alice):
    group = node.queue_files(alice, "photos/a", "photos/b")
    with node.store() as conn:
        outbox.hand(conn, [1], now())
    done = call("outbox", "--cancel", to_text(group))
    assert done.err == "securelink: warning: photos: 1 of 2 may have arrived at alice\n"


def test_what_a_living_send_has_is_cancelled_too(call, node, alice, living):
    made = node.queue(alice, "one", owner=living)
    assert call("outbox", "--cancel", to_text(made)).status == 0
    assert node.states() == ["withdrawn"]


@pytest.mark.parametrize("short", ["", "0", "019"])
def test_a_beginning_that_anybody_could_type_by_mistake_cancels_nothing(short, call, node, alice):
    node.queue(alice, "one")
    done = call("outbox", "--cancel", short)
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        f"securelink: error: {short!r} is too short: give at least 4 characters of the ID\n"
        "hint: see them with: securelink outbox --verbose\n"
    )
    assert node.states() == ["waiting"]


@pytest.mark.parametrize("other", ["deadbeef", "hello"])
def test_an_unknown_id_cancels_nothing(other, call, node, alice):
    made = node.queue(alice, "one")
    done = call("outbox", "--cancel", to_text(made), other)
    assert (done.status, done.out) == (2, "")
    assert "nothing in the outbox has the ID" in done.err
    assert node.states() == ["waiting"]


def test_what_has_ended_cannot_be_cancelled(call, node, alice):
    made, other = node.queue(alice, "one"), node.queue(alice, "two")
    call("outbox", "--cancel", to_text(made))
    done = call("outbox", "--cancel", to_text(other), to_text(made))
    assert (done.status, "is withdrawn already" in done.err) == (2, True)
    assert node.states() == ["withdrawn", "waiting"]


def test_the_same_id_for_two_peers(call, node, alice):
    bob = node.peer("bob")
    made = node.queue(alice, "one")
    node.queue(bob, "one", message_id=made)
    done = call("outbox", "--cancel", to_text(made))
    assert (done.status, "hint: say whose with --to NAME" in done.err) == (2, True)
    assert call("outbox", "--cancel", to_text(made), "--to", "bob").status == 0
    assert node.states() == ["waiting", "withdrawn"]


# ---- flush


def test_nothing_to_flush(call, node, alice):
    done = call("outbox", "--flush")
    assert (done.status, done.out, done.err) == (0, "", "nothing is queued\n")
    assert (call("outbox", "--flush", "--json").out, call("outbox", "--flush", "me").status) == (
        "",
        0,
    )


def test_flush_without_an_address_or_a_link_ends_at_once(call, node, alice):
    made = node.queue(alice, "hello   there")
    group = node.queue_files(alice, "photos/a", "photos/b")
    done = call("outbox", "--flush")
    assert (done.status, done.out) == (75, "")
    assert done.err.splitlines() == [
        'queued "hello there" for alice: alice is not linked, and no address of it is known',
        (
            "queued photos for alice: 2 of 2 were not delivered: "
            "alice is not linked, and no address of it is known"
        ),
    ]
    text, folder = call("outbox", "--flush", "--json").results
    assert (text["status"], text["item"], text["id"], text["exit"]) == (
        "queued",
        "text",
        to_text(made),
        75,
    )
    assert (folder["item"], folder["id"], folder["files"], folder["bytes"]) == (
        "photos",
        to_text(group),
        2,
        10,
    )
    assert node.states() == ["waiting"] * 3
    attempts = [(each["attempts"], each["reason"]) for each in call("outbox", "--json").results]
    assert attempts == [(2, "alice is not linked, and no address of it is known")] * 2


def test_flush_leaves_what_has_ended_or_somebody_sends(call, node, alice, living):
    node.queue(alice, "owned", owner=living)
    cancelled = node.queue(alice, "cancelled")
    call("outbox", "--cancel", to_text(cancelled))
    assert call("outbox", "--flush").err == "nothing is queued\n"
    assert node.states() == ["waiting", "withdrawn"]


def test_flush_for_one_and_for_who_is_no_peer_any_more(call, node, alice):
    stranger = node.peer("stranger")
    for peer in (alice, stranger):
        node.queue(peer, "hello")
    with node.store() as conn:
        conn.execute("DELETE FROM peers WHERE key = ?", (stranger.raw,))
    assert [each["peer"] for each in call("outbox", "--flush", "alice", "--json").results] == [
        "alice"
    ]
    assert [each["peer"] for each in call("outbox", "--flush", "--to", "alice", "--json").results]
    done = call("outbox", "--flush")
    assert done.err.splitlines()[0] == (
        f"securelink: warning: something waits for {stranger.short}, who is no peer any more"
    )


# ---- send --expires


def lives(node):
    with node.store() as conn:
        return [left for (left,) in conn.execute("SELECT lives_until FROM outbox ORDER BY seq")]


@pytest.mark.parametrize(
    ("words", "life"),
    [
        (["--queue"], 30 * DAY),
        (["--queue", "--expires", "1d 12h"], 36 * 3_600_000),
        (["--queue", "--expires", "60d"], 60 * DAY),
        (["--queue", "--expires", "1s"], 1000),
    ],
)
def test_how_long_what_is_queued_may_wait(words, life, call, node, alice, tmp_path):
    (tmp_path / "a").write_text("content")
    done = call("send", *words, "--file", str(tmp_path / "a"), "-m", "hello")
    assert done.status == 75
    assert lives(node) == [life, life]


def test_the_configuration_may_ask_for_the_queue(call, node, alice, monkeypatch):
    monkeypatch.setenv("SECURELINK_CLIENT_QUEUE", "true")
    assert call("send", "--expires", "1h", "hello").status == 75
    assert lives(node) == [3_600_000]


@pytest.mark.parametrize("expires", ["61d", "0s", "soon", "-1d", "1e3", "999999999w"])
def test_lives_that_cannot_be(expires, call, node, alice):
    done = call("send", "--queue", f"--expires={expires}", "hello")
    assert (done.status, done.out) == (2, "")
    assert node.states() == []


def test_what_is_not_queued_does_not_expire(call, node, alice):
    done = call("send", "--expires", "1h", "hello")
    assert done.status == 2
    assert done.err == "securelink: error: --expires is for what is queued\nhint: add --queue\n"
    assert node.states() == []
    assert call("send", "--timeout", "0.1", "hello").status == 3
    assert lives(node) == [None]
