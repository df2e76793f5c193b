"""`securelink peers`."""

from __future__ import annotations

import hashlib
import tomllib

import pytest

from securelink.announced import AnnouncedEndpoint
from securelink.config import load
from securelink.directory import KnownPeer, note_seen, read
from securelink.endpoints import Endpoint, Kind, kind_of
from securelink.identity import Identity
from securelink.locks import FileLock
from securelink.store import addresses, inbox, invites, links, outbox
from securelink.store.links import LinkRow

TOKEN_HASH = hashlib.sha256(b"token").digest()
LAST_SEEN = 1_700_000_000_000
NOBODY = {"online": False, "online_since": None, "endpoint": None, "waiting": 0, "unread": 0}


@pytest.fixture
def invited(node):
    """Return a peer, bob, that came with an invite for two."""
    with node.store() as conn:
        invites.add(
            conn, token_hash=TOKEN_HASH, name="bob", uses=2, created_at=1, expires_at=1 << 50
        )
    return node.peer("bob", "192.168.1.20", invite=TOKEN_HASH, calls_itself="bobs-mac")


def configured(node, name="carol", key=None):
    key = key or Identity.generate().public
    file = node.configure(
        f"[server]\nport = 24819\n\n[peers.{name}]\nid = '{key}'\npublic = 'carol.example'\n"
    )
    return key, file


def names_of(node):
    with node.store() as conn:
        return sorted(read(conn, load(node.home / "config.toml", environ={}).config.peers).names)


def test_no_peers_yet(call):
    done = call("peers")
    assert (done.status, done.out) == (0, "")
    assert "`securelink invite`" in done.err
    assert call("peers", "-q").err == ""
    assert (call("peers", "--json").out, call("peers", "--toml").out) == ("", "")


def test_the_list(call, call_on_terminal, node, invited):
    carol, _ = configured(node)
    alice = node.peer("alice", "2001:db8::7", "10.0.0.7", last_seen=LAST_SEEN)
    seen = call_on_terminal("peers")
    assert (seen.status, seen.err) == (0, "")
    header, *rows = seen.out.splitlines()
    assert header.split() == ["NAME", "ID", "ONLINE", "LAST", "SEEN", "WAITING", "ENDPOINTS"]
    assert all(len(row) <= 80 for row in rows)
    assert [row.split()[:2] for row in (rows[0], rows[2])] == [
        ["alice", alice.short],
        ["carol", carol.short],
    ]
    assert rows[1].split()[:3] == ["bob", "(bobs-mac)", invited.short]
    assert "2023-11-1" in rows[0]
    assert rows[0].endswith("…")
    assert rows[1].endswith("  -        192.168.1.20:24819")
    assert rows[2].split()[2:] == ["-", "never", "-", "carol.example:24819"]

    piped = call("peers")
    assert len(piped.out.splitlines()) == 3
    assert piped.out.splitlines()[0].endswith("[2001:db8::7]:24819, 10.0.0.7:24819")


def test_the_list_for_scripts(call, node, invited):
    carol, _ = configured(node)
    bob, other = call("peers", "--json").results
    assert bob.pop("last_seen").endswith("Z")
    assert bob.pop("paired_at").endswith("Z")
    assert bob == {
        "name": "bob",
        "id": invited.peer_id,
        "short": invited.short,
        "calls_itself": "bobs-mac",
        "endpoints": [{"kind": "lan", "host": "192.168.1.20", "port": 24819}],
        "from": "invite",
        **NOBODY,
    }
    assert other == {
        "name": "carol",
        "id": carol.peer_id,
        "short": carol.short,
        "calls_itself": "",
        "endpoints": [{"kind": "public", "host": "carol.example", "port": 24819}],
        "last_seen": None,
        "paired_at": None,
        "from": "configuration",
        **NOBODY,
    }


def linked(node, owner, peer, *, number=1, since=LAST_SEEN, host="192.168.1.77"):
    """Write a link down as a process of the node does; return that process's lock."""
    endpoint = Endpoint(kind_of(host), host, 50123)
    with node.store() as conn:
        row = LinkRow(
            owner,
            number,
            peer.raw,
            dialled=False,
            takes_files=False,
            endpoint=endpoint,
            since=since,
        )
        links.up(conn, row)
    folder = node.home / "locks"
    folder.mkdir(exist_ok=True)
    return FileLock.acquire(folder / f"{owner}.owner")


def test_who_is_linked_and_what_waits(call, call_on_terminal, node, invited):
    lock = linked(node, "11111111", invited)
    linked(node, "22222222", invited, since=1, host="203.0.113.7").release()
    node.queue(invited, "one")
    node.queue(invited, "two")
    node.receive("unread", peer=invited)
    _, row = call_on_terminal("peers").out.splitlines()
    assert "since 2023-11-1" in row
    assert ", lan  now  " in " ".join(row.split(" "))
    assert "2 out, 1 in" in row
    (bob,) = call("peers", "--json").results
    assert (bob["online"], bob["waiting"], bob["unread"]) == (True, 2, 1)
    assert bob["online_since"].startswith("2023-11-1")
    assert bob["endpoint"] == {"kind": "lan", "host": "192.168.1.77", "port": 50123}
    shown = call("peers", "show", "bob").out
    assert "now" in shown
    assert ", lan" in shown
    # That process is killed, and strikes nothing out.
    lock.release()
    (bob,) = call("peers", "--json").results
    assert (bob["online"], bob["online_since"], bob["endpoint"]) == (False, None, None)


def test_a_configured_peer_was_seen(call, node):
    carol, _ = configured(node)
    with node.store() as conn:
        note_seen(conn, KnownPeer("carol", carol, configured=True), LAST_SEEN, "carols-mac")
    (found,) = call("peers", "--json").results
    assert found["last_seen"].startswith("2023-11-1")
    assert found["calls_itself"] == "carols-mac"


def test_the_tables_can_be_pasted(call, node, invited):
    node.peer("dot.ted", "2001:db8::7", "127.0.0.1")
    shown = call("peers", "--toml")
    file = node.configure(shown.out)
    pasted = load(file, environ={}).config.peers
    assert {name: sorted(map(str, peer.endpoints)) for name, peer in pasted.items()} == {
        "bob": ["192.168.1.20:24819"],
        "dot.ted": ["127.0.0.1:24819", "[2001:db8::7]:24819"],
    }
    assert pasted["bob"].key == invited
    assert list(tomllib.loads(shown.out)["peers"]) == ["bob", "dot.ted"]


def test_a_join_that_was_never_finished(call, node):
    node.peer("alice", pending=True)
    done = call("peers")
    assert done.out == ""
    assert "joining alice was never finished" in done.err
    assert call("peers", "--json").out == ""
    assert call("peers", "show", "alice").status == 2
    assert call("peers", "remove", "alice").err == "alice is removed\n"
    assert "alice" not in call("peers").err


def test_two_forms_at_once(call):
    done = call("peers", "--toml", "--json")
    assert (done.status, done.result["error"]) == (2, "--toml and --json exclude each other")


def test_one_peer(call, call_on_terminal, node, invited):
    _, file = configured(node)
    done = call("peers", "show", "bob")
    fields = dict(line.split("  ", 1) for line in done.out.splitlines())
    fields = {label: value.strip() for label, value in fields.items()}
    assert fields.pop("last seen")
    assert fields.pop("paired")
    assert fields == {
        "name": "bob",
        "id": invited.peer_id,
        "calls itself": "bobs-mac",
        "from": "an invite",
        "online": "-",
        "waiting for it": "0",
        "unread from it": "0",
        "endpoints": "lan 192.168.1.20:24819",
    }
    on_terminal = call_on_terminal("peers", "show", "bob").out
    assert max(map(len, on_terminal.splitlines())) <= 80
    assert call("peers", "show", "bob", "--json").result == call("peers", "--json").results[0]
    assert f"{file}, line 4" in call("peers", "show", "carol").out
    assert "paired" not in call("peers", "show", "carol").out


def test_what_a_peer_announced_looks_like_any_other_endpoint(call, node):
    key = node.peer("alice")
    told = AnnouncedEndpoint(Kind.PUBLIC, "home.example", 24819, Kind.LAN)
    with node.store() as conn:
        addresses.set_endpoints(conn, key.raw, addresses.Source.ANNOUNCED, [told], 1)
    assert call("peers", "show", "alice", "--json").result["endpoints"] == [
        {"kind": "public", "host": "home.example", "port": 24819}
    ]


def test_all_endpoints_of_one_peer(call, node):
    node.peer("bob", "10.0.0.1", "10.0.0.2")
    node.peer("carol")
    lines = call("peers", "show", "bob").out.splitlines()
    assert lines[-2].split() == ["endpoints", "lan", "10.0.0.1:24819"]
    assert lines[-1].split() == ["lan", "10.0.0.2:24819"]
    assert call("peers", "show", "carol").out.splitlines()[-1].split(maxsplit=1) == [
        "endpoints",
        "none known",
    ]


def test_what_a_peer_calls_itself_stays_on_its_line(call, call_on_terminal, node):
    node.peer("bob", calls_itself="x\nid  \x1b[2JFAKE")
    for words in (["peers"], ["peers", "show", "bob"]):
        assert r"x\x0aid  \x1b[2JFAKE" in call_on_terminal(*words).out
        assert not any(
            line.startswith("id  ") and "FAKE" in line for line in call(*words).out.splitlines()
        )


def test_rename(call, node, invited):
    done = call("peers", "rename", "bob", "robert")
    assert (done.status, done.out, done.err) == (0, "", "bob is called robert from now on\n")
    assert names_of(node) == ["robert"]
    assert call("peers", "rename", "robert", "robert").status == 0
    assert call("peers", "rename", "robert", "bob", "--json").result == {
        "status": "renamed",
        "peer": "bob",
        "id": invited.peer_id,
    }
    assert call("peers", "rename", invited.peer_id, "bobby", "-q").err == ""
    assert names_of(node) == ["bobby"]


def test_a_short_id_in_place_of_a_name(call, node, invited):
    for typed in (invited.short, invited.short.lower()):
        assert call("peers", "show", typed).out == call("peers", "show", "bob").out
    assert call("peers", "rename", invited.short, "bob").err == "bob is called bob from now on\n"
    done = call("peers", "rename", invited.short.lower(), "robert")
    assert (done.status, done.err) == (0, "bob is called robert from now on\n")
    assert call("inbox", "--from", invited.short).status == 0
    assert call("outbox", "--to", invited.short).status == 0
    done = call("peers", "remove", invited.short, "robert", "--json")
    assert done.result["peer"] == "robert"


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("bob", "alice", "another peer is called alice already"),
        ("bob", "carol", "another peer is called carol already"),
        ("bob", "dave", "another peer is called dave already"),
        ("bob", "me", "the name me is reserved"),
        ("bob", "all", "the name all is reserved"),
        ("bob", "Bob", "a name can't hold 'B'"),
        ("bob", "", "a name can't be empty"),
        ("bbo", "robert", "no peer is called bbo"),
        ("me", "robert", "me means this node itself, and is no peer's name"),
        ("carol", "caroline", "carol stands in "),
    ],
)
def test_what_can_not_be_renamed(old, new, error, call, node, invited):
    node.peer("alice")
    node.peer("dave", pending=True)
    _, file = configured(node)
    done = call("peers", "rename", old, new)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"securelink: error: {error}")
    assert len(done.err.splitlines()) == 2
    assert names_of(node) == ["alice", "bob", "carol"]
    if old == "carol":
        assert f"{file}, line 4\nhint: rename [peers.carol] there\n" in done.err


def test_a_name_that_the_configuration_took(call, node, invited):
    """The list calls bob bob-2 then, and so must whoever renames or removes it."""
    configured(node, name="bob")
    assert names_of(node) == ["bob", "bob-2"]
    assert call("peers", "remove", "bob").status == 2
    assert call("peers", "rename", "bob-2", "robert").status == 0
    assert names_of(node) == ["bob", "robert"]
    assert call("peers", "rename", "robert", "bob").status == 2


def test_a_name_that_made_way_can_be_kept(call, node, invited):
    file = node.configure("")
    configured(node, name="bob")
    assert call("peers", "rename", "bob-2", "bob-2").status == 0
    file.unlink()
    assert names_of(node) == ["bob-2"]


def test_a_name_that_made_way_can_be_removed(call, node, invited):
    configured(node, name="bob")
    assert call("peers", "remove", "bob-2").err.startswith("bob-2 is removed\n")
    assert names_of(node) == ["bob"]


def test_remove(call, node, invited):
    alice = node.peer("alice")
    node.queue(invited, "one")
    node.queue(invited, "two")
    node.queue(alice, "three")
    node.receive("hello", peer=invited)
    done = call("peers", "remove", "bob")
    assert (done.status, done.out) == (0, "")
    assert done.err.splitlines() == [
        "bob is removed",
        "2 messages for bob cancelled",
        "the invite that bob came with is revoked",
    ]
    with node.store() as conn:
        assert outbox.peers_with_queued(conn) == [alice.raw]
        assert [message.text for message in inbox.after(conn, 0)] == ["hello"]
        stored = invites.get(conn, TOKEN_HASH)
        assert stored is not None
        assert stored.revoked
    assert call("peers", "remove", "alice").err.splitlines() == [
        "alice is removed",
        "1 message for alice cancelled",
    ]
    assert names_of(node) == []


def test_remove_for_scripts(call, node, invited):
    alice = node.peer("alice")
    done = call("peers", "remove", "bob", "alice", "bob", "--json")
    assert done.results == [
        {
            "status": "removed",
            "peer": "bob",
            "id": invited.peer_id,
            "cancelled": 0,
            "invite_revoked": True,
        },
        {
            "status": "removed",
            "peer": "alice",
            "id": alice.peer_id,
            "cancelled": 0,
            "invite_revoked": False,
        },
    ]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("bbo", "no peer is called bbo\nhint: did you mean bob?"),
        ("me", "me means this node itself, and is no peer's name\nhint: see: securelink id"),
        ("all", "all means every peer, and is no peer's name\nhint: give their names, one by one"),
        ("carol", "carol stands in {file}, line 4\nhint: remove [peers.carol] there"),
    ],
)
def test_one_wrong_name_and_nobody_is_removed(name, error, call, node, invited):
    _, file = configured(node)
    done = call("peers", "remove", "bob", name)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"securelink: error: {error.format(file=file)}\n"
    assert names_of(node) == ["bob", "carol"]


def test_a_paired_peer_that_the_configuration_names_too(call, node, invited):
    configured(node, name="bobby", key=invited)
    assert call("peers", "remove", "bobby").status == 2
    assert call("peers", "--json").result["paired_at"]


def test_a_home_that_can_not_be_used(call, monkeypatch):
    monkeypatch.setenv("SECURELINK_HOME", "/proc/nothing")
    done = call("peers")
    assert (done.status, done.out) == (2, "")
    assert len(done.err.splitlines()) == 2
    assert "hint: " in done.err
