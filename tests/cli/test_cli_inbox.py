"""`securelink inbox`."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from securelink.identity import Identity
from securelink.ids import to_text
from securelink.store import inbox

ODD = "\x1b[2J\u202eevil\r\nand more\n\n"
NOT_SHOWN = [["-q"], ["--json"], ["--unread", "--from", "carol"], ["--since", "1h", "--limit", "1"]]


def texts(called):
    """The texts of lines like `* 14:05 bob hello` and `  2026-11-01 14:05 bob hello`."""
    return [re.sub(r"^[* ] (\S+ )?\d\d:\d\d \S+ ", "", line) for line in called.out.splitlines()]


def remaining(node):
    with node.store() as conn:
        return [message.text for message in inbox.after(conn, 0)]


@pytest.fixture
def three(node):
    """Return the IDs of three messages: two from bob, a paired peer, and one from carol."""
    bob = node.peer("bob")
    carol = node.peer("carol")
    return [
        node.receive("one", peer=bob, ago=3 * 86_400),
        node.receive("two", peer=carol, name="carol", ago=3600),
        node.receive("three", peer=bob),
    ]


def test_nothing_received(call):
    done = call("inbox")
    assert (done.status, done.out, done.err) == (0, "", "no messages\n")
    assert call("inbox", "--unread").err == "no messages like that\n"
    assert (call("inbox", "--json").out, call("inbox", "-q").err) == ("", "")


def test_the_newest_come_last_and_unread_ones_are_marked(call, call_on_terminal, node, three):
    for command in (call, call, call_on_terminal):
        first, second, third = command("inbox").out.splitlines()
        assert first.startswith("* 20")
        assert first.endswith(" bob one")
        assert second.endswith(" carol two")
        assert third.startswith("* ")
        assert third.endswith(":" + third[5:7] + " bob three")
    assert all(line.startswith("  ") for line in call("inbox").out.splitlines())
    assert node.unread() == []
    node.receive("four", name="dave")
    assert call("inbox").out.splitlines()[-1].startswith("* ")


@pytest.mark.parametrize("words", NOT_SHOWN)
def test_what_no_person_was_shown_stays_unread(words, call, node, three):
    assert call("inbox", *words).status == 0
    assert call("inbox", "show", to_text(three[0])).status == 0
    assert node.unread() == ["one", "two", "three"]


def test_json_on_a_terminal_is_not_shown_to_a_person(call_on_terminal, node, three):
    assert call_on_terminal("inbox", "--json").status == 0
    assert call_on_terminal("inbox", "show", "--json", to_text(three[0])).status == 0
    assert node.unread() == ["one", "two", "three"]


def test_only_what_was_shown_is_read(call_on_terminal, node, three):
    assert texts(call_on_terminal("inbox", "--from", "carol")) == ["two"]
    assert node.unread() == ["one", "three"]
    assert texts(call_on_terminal("inbox", "--limit", "1")) == ["three"]
    assert node.unread() == ["one"]
    assert texts(call_on_terminal("inbox", "--unread")) == ["one"]
    assert node.unread() == []


def test_filters(call, node, three):
    assert texts(call("inbox", "--from", "bob")) == ["one", "three"]
    assert texts(call("inbox", "--since", "2h")) == ["two", "three"]
    assert texts(call("inbox", "--since", "2020-01-01")) == ["one", "two", "three"]
    assert texts(call("inbox", "--since", "30min", "--from", "carol")) == []
    assert texts(call("inbox", "--limit", "2")) == ["two", "three"]
    assert texts(call("inbox", "--limit", "2", "--from", "bob")) == ["one", "three"]


def test_twenty_unless_a_number_is_given(call, node):
    for number in range(21):
        node.receive(f"text {number}", ago=100 - number)
    done = call("inbox")
    assert texts(done) == [f"text {number}" for number in range(1, 21)]
    assert done.err == "the newest 20; all of them: --limit 0\n"
    assert len(texts(call("inbox", "--limit", "0"))) == 21
    assert len(texts(call("inbox", "--limit", "9" * 20))) == 21
    assert (len(texts(call("inbox", "--limit", "21"))), call("inbox", "--limit", "2").err) == (
        21,
        "",
    )
    assert len(call("inbox", "--json").results) == 21
    assert [each["text"] for each in call("inbox", "--json", "--limit", "1").results] == ["text 20"]


@pytest.mark.parametrize("words", [[], ["--json"], ["--limit", "3"], ["--unread"]])
def test_a_large_inbox_is_read_in_batches(words, call, call_on_terminal, node, monkeypatch):
    sizes = []
    after = inbox.after

    def watched(*args, **kwargs):
        found = after(*args, **kwargs)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(inbox, "BATCH_SIZE", 10)
    monkeypatch.setattr(inbox, "after", watched)
    for number in range(5):
        node.receive(f"text {number}", ago=100 - number)
    shown = (
        texts(call_on_terminal("inbox", *words))
        if "--json" not in words
        else [each["text"] for each in call("inbox", *words).results]
    )
    assert shown == [f"text {number}" for number in range(2 if "--limit" in words else 0, 5)]
    assert max(sizes) == 2


def test_what_comes_while_the_list_is_shown_is_left_to_the_next(call, node, three, monkeypatch):
    newest = inbox.newest_seq

    def newest_and_then_one_more(conn):
        seq = newest(conn)
        monkeypatch.setattr(inbox, "newest_seq", newest)
        conn.execute("ROLLBACK")
        node.receive("four")
        conn.execute("BEGIN")
        return seq

    monkeypatch.setattr(inbox, "newest_seq", newest_and_then_one_more)
    assert texts(call("inbox", "--limit", "0")) == ["one", "two", "three"]
    assert texts(call("inbox", "--limit", "0")) == ["one", "two", "three", "four"]


def test_for_scripts(call, node, three):
    one, two, three_ = call("inbox", "--json").results
    assert (one["text"], two["text"], three_["text"]) == ("one", "two", "three")
    assert list(one) == [
        "id", "seq", "peer", "peer_id", "sent_at", "received_at", "text", "read"
    ]  # fmt: skip
    assert one["id"] == to_text(three[0])
    assert (one["peer"], one["seq"], one["read"]) == ("bob", 1, False)
    assert one["received_at"].endswith("Z")
    assert len(one["peer_id"]) == 63


def test_a_text_of_a_peer_on_a_terminal_and_in_a_pipe(call, call_on_terminal, node):
    made = to_text(node.receive(ODD))
    _, _, text = call("inbox").out.partition(" bob ")
    assert text == "\x1b[2J\u202eevil\r\n        and more\n"
    _, _, text = call_on_terminal("inbox").out.partition(" bob ")
    assert text == "\\x1b[2J\\u202eevil\\x0d\n        and more\n"
    assert "\\x1b[2J\\u202eevil\\x0d\nand more" in call_on_terminal("inbox", "show", made).out
    assert call("inbox", "show", made, "--json").result["text"] == ODD
    assert call("inbox", "show", made).out.endswith(f"\n\n{ODD}\n")


def test_the_ids_of_messages(call, call_on_terminal, node, three):
    first, text, *_ = call("inbox", "-v").out.splitlines()
    assert first.startswith("* ")
    assert first.endswith(f" bob {to_text(three[0])}")
    assert text == "        one"
    node.receive("a\nb\n")
    assert call("inbox", "-v").out.endswith("\n        a\n        b\n")
    assert max(map(len, call_on_terminal("inbox", "-v").out.splitlines())) <= 80


def test_one_message(call, call_on_terminal, node, three):
    made = to_text(three[2])
    done = call("inbox", "show", made[:-1].upper())
    head, _, text = done.out.partition("\n\n")
    fields = dict(line.split(maxsplit=1) for line in head.splitlines())
    assert list(fields) == ["from", "sent", "received", "id"]
    assert fields["from"].startswith("bob (")
    assert (fields["id"], text, done.status) == (made, "three\n", 0)
    assert node.unread() == ["one", "two", "three"]
    call_on_terminal("inbox", "show", made)
    assert node.unread() == ["one", "two"]


def test_the_exact_bytes(node):
    made = to_text(node.receive(ODD + "é"))
    done = subprocess.run(
        [sys.executable, "-m", "securelink", "inbox", "show", made, "--raw"], capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, (ODD + "é").encode(), b"")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["show", "xyz"], "that is not the ID of a message"),
        (["show", "0"], "several messages' IDs begin with 0"),
        (["show", "ff"], "no message has the ID ff"),
        (["show"], "missing argument 'ID'"),
        (["delete"], "give either messages' IDs or --before"),
        (["delete", "ff", "--before", "1d"], "give either messages' IDs or --before"),
        (["delete", "--before", "then"], "'then' is neither a date nor a duration"),
        (["--since", "then"], "'then' is neither a date nor a duration"),
        (["--limit", "-1"], "--limit is 0 or more, not -1"),
        (["--limit", "x"], "--limit: expected a whole number, not 'x'"),
        (["--from", "dave"], "no peer is called dave"),
        (["shwo"], "no command 'inbox shwo'; did you mean 'inbox show'?"),
    ],
)
def test_wrong_usage(words, error, call, node, three):
    done = call("inbox", *words)
    assert (done.status, done.out) == (2, "")
    first, second = done.err.splitlines()
    assert first == f"securelink: error: {error}"
    assert second.startswith("hint: ")
    told = call("inbox", *words, "--json").result
    assert (told["status"], told["exit"]) == ("failed", 2)
    assert remaining(node) == ["one", "two", "three"]


def test_two_forms_at_once(call, three):
    done = call("inbox", "show", to_text(three[0]), "--raw", "--json")
    assert (done.status, done.result["error"]) == (2, "--raw and --json exclude each other")


def test_delete(call, node, three):
    done = call("inbox", "delete", to_text(three[0]), to_text(three[2]))
    assert (done.status, done.out, done.err) == (0, "", "deleted 2 messages\n")
    assert remaining(node) == ["two"]
    assert call("inbox", "delete", to_text(three[1])[:-1], "--json").result == {
        "status": "deleted",
        "count": 1,
    }


def test_delete_what_is_old(call, node, three):
    assert call("inbox", "delete", "--before", "2020-01-01").err == "deleted 0 messages\n"
    assert call("inbox", "delete", "--before", "1d").err == "deleted 1 message\n"
    assert remaining(node) == ["two", "three"]
    assert call("inbox", "delete", "--before", "1h", "-q").err == ""
    assert remaining(node) == ["three"]


def test_delete_what_is_old_of_one_peer(call, node):
    bob, eve = node.peer("bob"), node.peer("eve")
    node.receive("old", peer=bob, ago=7200)
    node.receive("new", peer=bob)
    node.receive("other", peer=eve, name="eve", ago=7200)
    for words in (["--from", "bob"], ["--from", "dave", "--before", "1h"]):
        assert call("inbox", "delete", *words).status == 2
    assert remaining(node) == ["old", "new", "other"]
    done = call("inbox", "delete", "--before", "1h", "--from", "bob")
    assert (done.status, done.err) == (0, "deleted 1 message\n")
    assert remaining(node) == ["new", "other"]


def test_one_wrong_id_and_nothing_is_deleted(call, node, three):
    assert call("inbox", "delete", to_text(three[0]), "ff").status == 2
    assert remaining(node) == ["one", "two", "three"]


def test_messages_of_a_peer_that_was_removed(call, node):
    former, present, unknown = (Identity.generate().public for _ in range(3))
    node.receive("former", peer=former, name="bob")
    assert texts(call("inbox", "--from", "bob")) == ["former"]
    assert texts(call("inbox", "--from", former.peer_id)) == ["former"]
    assert call("inbox", "--from", unknown.peer_id).err == "no messages like that\n"
    node.receive("another", peer=present, name="bob")
    done = call("inbox", "--from", "bob")
    assert done.status == 2
    assert "several former peers were called bob" in done.err
    with_name = node.peer("bob")
    node.receive("present", peer=with_name)
    assert texts(call("inbox", "--from", "bob")) == ["present"]


def test_names_are_those_of_now(call, node):
    bob = node.peer("bob")
    node.receive("hello", peer=bob)
    assert call("peers", "rename", "bob", "robert").status == 0
    assert call("inbox").out.endswith(" robert hello\n")
    assert texts(call("inbox", "--from", "robert")) == ["hello"]
    assert "no peer is called bob" in call("inbox", "--from", "bob").err
    assert call("peers", "remove", "robert").status == 0
    assert call("inbox").out.endswith(" bob hello\n")
    assert texts(call("inbox", "--from", "bob")) == ["hello"]


def test_a_name_that_the_configuration_gave_to_another(call, node):
    mallory, alice = node.peer("alice"), Identity.generate().public
    made = to_text(node.receive("it is me", peer=mallory, name="alice"))
    node.configure(f'[peers.alice]\nid = "{alice.peer_id}"\n')
    node.receive("no, me", peer=alice, name="alice")
    first, second = call("inbox").out.splitlines()
    assert first.endswith(" alice-2 it is me")
    assert second.endswith(" alice no, me")
    assert [each["peer"] for each in call("inbox", "--json").results] == ["alice-2", "alice"]
    assert "alice-2 (" in call("inbox", "show", made).out
    assert texts(call("inbox", "--from", "alice")) == ["no, me"]
    assert texts(call("inbox", "--from", "alice-2")) == ["it is me"]


def test_an_id_that_two_peers_chose(call, node):
    bob, eve = node.peer("bob"), node.peer("eve")
    made = to_text(node.receive("true", peer=bob))
    node.receive("false", peer=eve, name="eve", message_id=bytes.fromhex(made.replace("-", "")))
    for command in ("show", "delete"):
        done = call("inbox", command, made)
        assert (done.status, done.out) == (2, "")
        assert f"messages of several peers have the ID {made}" in done.err
        assert "--from NAME" in done.err
    assert call("inbox", "show", made, "--from", "eve", "--raw").out == "false"
    assert call("inbox", "show", made, "--from", "bob", "--raw").out == "true"
    assert call("inbox", "delete", made, "--from", "eve").err == "deleted 1 message\n"
    assert remaining(node) == ["true"]


def test_messages_to_oneself(call, node):
    node.receive("note", name="me")
    assert texts(call("inbox", "--from", "me")) == ["note"]


# ---- files


@pytest.fixture
def photo(node):
    """Return the ID of a file from bob, a paired peer, that lies beside a text of his."""
    bob = node.peer("bob")
    node.receive("hello", peer=bob, ago=60)
    return to_text(
        node.receive_file(
            "photos/a.jpg",
            path="/srv/bob/photos/a (2).jpg",
            size=2_345_678,
            sha256=b"\xab" * 32,
            peer=bob,
        )
    )


def test_files_stand_among_messages(call, call_on_terminal, node, photo):
    node.receive_file("photos", path="/srv/bob/photos", kind="folder", size=0)
    one, two, three = texts(call("inbox"))
    assert one == "hello"
    assert two == "photos/a.jpg (2.3 MB) -> /srv/bob/photos/a (2).jpg"
    assert three == "photos/ -> /srv/bob/photos"
    narrow = call_on_terminal("inbox", "--limit", "2", columns=40).out.splitlines()
    assert narrow[0].endswith(" bob photos/a.jpg (2.3 MB)")
    assert narrow[1] == "        -> /srv/bob/photos/a (2).jpg"
    assert len(call("inbox", "--unread").out.splitlines()) == 1
    heading, what, where, *_ = call("inbox", "-v", "--limit", "2").out.splitlines()
    assert heading.endswith(f" bob {photo}")
    assert (what, where) == (
        "        photos/a.jpg (2.3 MB)",
        "        -> /srv/bob/photos/a (2).jpg",
    )


def test_a_line_that_is_as_long_as_the_terminal(call, call_on_terminal, photo):
    line = call("inbox").out.splitlines()[1]
    assert call_on_terminal("inbox", columns=len(line)).out.splitlines()[1] == line
    assert len(call_on_terminal("inbox", columns=len(line) - 1).out.splitlines()) == 3


def test_one_file(call, call_on_terminal, node, photo):
    done = call("inbox", "show", photo)
    fields = [line.split(maxsplit=1) for line in done.out.splitlines()]
    assert [label for label, _ in fields] == [
        "from", "file", "size", "path", "sha256", "received", "id"
    ]  # fmt: skip
    found = dict(fields)
    assert found["from"].startswith("bob (")
    assert found["file"] == "photos/a.jpg"
    assert found["size"] == "2.3 MB (2,345,678 bytes)"
    assert found["path"] == "/srv/bob/photos/a (2).jpg"
    assert (found["sha256"], found["id"]) == ("ab" * 32, photo)
    small = to_text(node.receive_file("s", size=999))
    assert "\nsize      999 B\n" in call("inbox", "show", small).out
    assert "sha256" not in call("inbox", "show", small).out
    folder = to_text(node.receive_file("f", kind="folder", size=0))
    assert "\nfolder    f\n" in call("inbox", "show", folder).out
    assert "size" not in call("inbox", "show", folder).out
    assert len(call("inbox", "--unread", "--json").results) == 4
    call_on_terminal("inbox", "show", photo)
    assert len(call("inbox", "--unread", "--json").results) == 3


def test_a_file_is_not_a_text(call, photo):
    done = call("inbox", "show", photo, "--raw")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "securelink: error: that is a file, not a text\nhint: it is /srv/bob/photos/a (2).jpg\n"
    )


def test_files_for_scripts(call, node, photo):
    text, file = call("inbox", "--json").results
    assert "kind" not in text
    assert list(file) == [
        "id", "seq", "peer", "peer_id", "received_at", "name", "path", "size", "kind", "sha256",
        "read",
    ]  # fmt: skip
    assert (file["id"], file["kind"], file["size"]) == (photo, "file", 2_345_678)
    assert (file["sha256"], file["path"]) == ("ab" * 32, "/srv/bob/photos/a (2).jpg")
    assert call("inbox", "show", photo, "--json").result == file
    odd = to_text(node.receive_file("f", path="/srv/\udcff/f"))
    told = call("inbox", "show", odd, "--json").result
    assert told["path"] == "/srv/\\xff/f"
    assert "sha256" not in told


def test_a_hostile_name(call, call_on_terminal, node):
    node.receive_file("a\x1b[2J\u202e\nb", path="/srv/a\n\x1b[2J")
    for command in (call, call_on_terminal):
        assert texts(command("inbox")) == ["a\\x1b[2J\\u202e\\x0ab (5 B) -> /srv/a\\x0a\\x1b[2J"]


def test_deleting_a_message_leaves_the_file(call, node, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"photo")
    made = to_text(node.receive_file("a.jpg", path=str(path)))
    assert call("inbox", "delete", made).err == "deleted 1 message\n"
    assert call("inbox").err == "no messages\n"
    assert path.read_bytes() == b"photo"
    node.receive_file("b.jpg", path=str(path), ago=10)
    assert call("inbox", "delete", "--before", "5s").err == "deleted 1 message\n"
    assert path.exists()
    assert "files that came stay" in " ".join(call("inbox", "delete", "--help").out.split())


@pytest.fixture
def follow(node):
    """Start `inbox --follow` with what more is given, its output in a pipe."""
    started = []

    def follow(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "securelink", "inbox", "--follow", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield follow
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_follow(number, follow, node, three):
    process = follow()
    assert [process.stdout.readline().split()[-1] for _ in range(3)] == ["one", "two", "three"]
    for text in ("four", "five"):
        node.receive(text)
        assert process.stdout.readline().endswith(f" bob {text}\n")
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert node.unread() == ["one", "two", "three", "four", "five"]


def test_follow_one_peer_for_scripts(follow, node):
    bob, carol = node.peer("bob"), node.peer("carol")
    process = follow("--json", "--from", "carol")
    node.receive("ready", peer=carol)
    assert '"text":"ready"' in process.stdout.readline()
    with node.store() as conn:  # several in one commit, as a busy server writes them
        for number, peer in enumerate((carol, bob, carol)):
            inbox.receive(
                conn,
                peer=peer.raw,
                peer_name="?",
                message_id=number.to_bytes(16, "big"),
                sent_at=1,
                text=f"text {number}",
                received_at=2,
            )

    def next_text():
        return json.loads(process.stdout.readline())["text"]

    assert [next_text(), next_text()] == ["text 0", "text 2"]
    node.receive("last", peer=carol)
    assert next_text() == "last"


def test_what_a_follower_shows_on_a_terminal_is_read(node):
    ours, theirs = pty.openpty()
    node.receive("zero")
    process = subprocess.Popen(
        [sys.executable, "-m", "securelink", "inbox", "--follow"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        with os.fdopen(ours, closefd=True) as screen:
            assert screen.readline().endswith(" bob zero\n")
            for text in ("one", "two"):
                node.receive(text)
                assert screen.readline().endswith(f" bob {text}\n")
            # What was shown before the last is marked before the last is shown.
            assert node.unread() in ([], ["two"])
            process.terminate()
            assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def test_a_signal_ends_a_plain_list_as_every_command(call, node, three, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("securelink.cli.inbox._show", interrupted)
    assert call("inbox").status == 130
    assert call("inbox", "--follow").status == 0
