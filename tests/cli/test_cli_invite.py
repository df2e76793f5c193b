"""`securelink invite`."""

from __future__ import annotations

import hashlib
import time
from datetime import datetime

import pytest
import segno

from securelink import interfaces
from securelink.cli.qr import drawn
from securelink.endpoints import Endpoint, Kind
from securelink.invite import Invite
from securelink.locks import FileLock
from securelink.store import invites, serving

LAN = Endpoint(Kind.LAN, "192.168.1.20", 24819)
NOT_SERVED = "securelink: warning: nobody can join until `securelink serve` runs here\n"
DAY = 86_400


@pytest.fixture(autouse=True)
def _behind_a_router(monkeypatch):
    monkeypatch.setattr(interfaces, "local_addresses", lambda: ["192.168.1.20"])


@pytest.fixture
def serve(node):
    """Be a `serve` on a port; return its lock."""
    held = []

    def serve(port: int, *more: Endpoint) -> FileLock:
        with node.store() as conn:
            endpoints = (*more, Endpoint(Kind.LAN, "192.168.1.20", port))
            serving.record(conn, pid=1, port=port, endpoints=endpoints, started_at=1)
        (node.home / "locks").mkdir(exist_ok=True)
        lock = FileLock.acquire(node.home / "locks" / "serve.lock")
        assert lock is not None
        held.append(lock)
        return lock

    yield serve
    for lock in held:
        lock.release()


def stored(node):
    with node.store() as conn:
        return invites.list_all(conn)


def test_in_a_pipe_the_invite_alone(call, node):
    done = call("invite")
    assert done.status == 0
    made = Invite.parse(done.out)
    assert done.out == f"{made.encode()}\n"
    assert made.key.peer_id == call("id", "-q").out.strip()
    assert made.endpoints == (LAN,)
    assert abs(made.expires - time.time() - DAY) < 60
    (kept,) = stored(node)
    assert kept.token_hash == hashlib.sha256(made.token).digest()
    assert (kept.uses, kept.uses_left, kept.name) == (1, 1, None)
    head, *rest = done.err.splitlines(keepends=True)
    assert head.startswith("good once, until 20")
    assert head.endswith("(24 h), with these addresses:\n")
    assert rest == [
        "  lan:      192.168.1.20:24819\n",
        "securelink: warning: it works inside this network only; for outside: --public\n",
        NOT_SERVED,
    ]
    assert made.encode() not in done.err


def test_on_a_terminal_the_command_to_paste(call_on_terminal, serve):
    serve(24819)
    done = call_on_terminal("invite", "--public", "home.example")
    command, invite = done.out.rstrip("\n").rsplit(" ", 1)
    assert command == "securelink join"
    assert Invite.parse(invite).endpoints == (Endpoint(Kind.PUBLIC, "home.example", 24819), LAN)
    assert "warning" not in done.err
    assert done.err.endswith("run this on the other machine:\n")
    assert max(map(len, done.err.splitlines())) <= 80


def test_quiet(call):
    done = call("invite", "-q")
    assert Invite.parse(done.out)
    assert all("warning:" in line for line in done.err.splitlines())


def test_for_scripts(call, node):
    done = call("invite", "--json", "--expires", "2h", "--loopback")
    told = done.result
    made = Invite.parse(told["invite"])
    assert list(told) == ["invite", "expires", "endpoints", "label"]
    assert datetime.fromisoformat(told["expires"]).timestamp() == made.expires
    assert told["expires"].endswith(".000Z")
    assert [(each["kind"], each["host"]) for each in told["endpoints"]] == [
        ("lan", "192.168.1.20"),
        ("loopback", "127.0.0.1"),
        ("loopback", "::1"),
    ]
    assert told["label"] == stored(node)[0].label
    assert all("warning:" in line for line in done.err.splitlines())


def test_name_uses_and_expiry(call, node):
    done = call("invite", "bob", "--uses", "1000", "--expires", "365d")
    made = Invite.parse(done.out)
    assert abs(made.expires - time.time() - 365 * DAY) < 60
    (kept,) = stored(node)
    assert (kept.name, kept.uses) == ("bob", 1000)
    assert kept.expires_at == made.expires * 1000
    assert done.err.startswith("good 1000 times, until 20")


def test_a_name_that_is_taken(call, node):
    node.peer("bob")
    assert call("invite", "bob").err.startswith(
        "bob is another peer's name already: this one gets a number after it\n"
    )


def test_without_a_network(call, monkeypatch):
    monkeypatch.setattr(interfaces, "local_addresses", list)
    done = call("invite")
    assert {each.kind for each in Invite.parse(done.out).endpoints} == {Kind.LOOPBACK}
    assert "warning: it works on this machine only; for outside: --public\n" in done.err


def test_the_port_of_a_running_serve(call, serve, node):
    node.configure("[server]\nport = 0\n")
    public = Endpoint(Kind.PUBLIC, "home.example", 4000)
    lock = serve(5000, public)
    done = call("invite")
    assert list(map(str, Invite.parse(done.out).endpoints)) == [
        "home.example:4000",
        "192.168.1.20:5000",
    ]
    assert "warning" not in done.err
    named = Invite.parse(call("invite", "--public", "other.example").out)
    assert list(map(str, named.endpoints)) == [
        "other.example:5000",
        "home.example:4000",
        "192.168.1.20:5000",
    ]
    # A killed one leaves its row, and not its lock.
    lock.release()
    assert call("invite").status == 2
    node.configure("[server]\nport = 6000\n")
    done = call("invite")
    assert list(map(str, Invite.parse(done.out).endpoints)) == ["192.168.1.20:6000"]
    assert NOT_SERVED in done.err


def test_an_address_that_the_configuration_names(call, node):
    node.configure("[server]\nport = 6000\npublic = 'home.example:1'\n")
    first, *_ = Invite.parse(call("invite").out).endpoints
    assert str(first) == "home.example:1"
    first, *_ = Invite.parse(call("invite", "--public", "127.0.0.1:9").out).endpoints
    assert first == Endpoint(Kind.PUBLIC, "127.0.0.1", 9)


def test_a_port_that_is_not_known_yet(call, node):
    node.configure("[server]\nport = 0\n")
    for words in ([], ["--public", "home.example"], ["--loopback"]):
        done = call("invite", *words)
        assert (done.status, done.out) == (2, "")
        assert done.err == (
            "securelink: error: no address of this node is known that an invite could hold\n"
            "hint: start `securelink serve` first\n"
        )
    assert stored(node) == []
    done = call("invite", "--public", "home.example:7")
    assert list(map(str, Invite.parse(done.out).endpoints)) == ["home.example:7"]


def test_no_address_that_has_a_wire_form(call, node):
    node.configure("[server]\nhost = 'fe80::1'\n")
    assert "hint: name one with --public HOST:PORT" in call("invite").err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--uses", "0"], "an invite has 1 to 1000 uses, not 0"),
        (["--uses", "1001"], "an invite has 1 to 1000 uses, not 1001"),
        (["--uses", "x"], "--uses: expected a whole number, not 'x'"),
        (["--expires", "0s"], "an invite is good for 1s at least and 365d at most"),
        (["--expires", "366d"], "an invite is good for 1s at least and 365d at most"),
        (["--expires", "24"], "'24' is not a duration"),
        (["--public", "http://x"], "--public: 'http://x' is a URL, not an address"),
        (["me"], "the name me is reserved: it means this node itself"),
        (["Bob"], "a name can't hold 'B', only a-z, 0-9 and . _ -"),
        (["SLINV1abcdefg"], "that is an invite, not a name"),
        (["--qr"], "a QR code is drawn on a terminal only"),
        (["--list", "--revoke", "a"], "--list stands alone: it makes no invite"),
        (["--list", "bob"], "--list stands alone: it makes no invite"),
        (["--revoke", "a", "--loopback"], "--revoke stands alone: it makes no invite"),
        (["--revoke", "a", "--uses", "1"], "--revoke stands alone: it makes no invite"),
        (["--revoke", "a"], "there is no such invite"),
        (["--revoke", ""], "there is no such invite"),
        (["--revoke", "slinv1abc"], "the end of the invite is missing"),
    ],
)
def test_wrong_usage(words, error, call, node):
    done = call("invite", *words)
    assert (done.status, done.out) == (2, "")
    first, second = done.err.splitlines()
    assert first == f"securelink: error: {error}"
    assert second.startswith("hint: ")
    assert "slinv1abc" not in done.err
    assert call("invite", *words, "--json").result["exit"] == 2
    assert stored(node) == []


@pytest.fixture
def four(node):
    """Keep an invite in each of its states."""
    with node.store() as conn:
        for name, token, expires in (
            ("open", b"1", 1 << 42),
            ("used", b"2", 1 << 42),
            ("expired", b"3", 1000),
            ("revoked", b"4", 1 << 42),
        ):
            token_hash = hashlib.sha256(token).digest()
            invites.add(
                conn,
                token_hash=token_hash,
                name=name if name != "open" else None,
                uses=1,
                created_at=int(token),
                expires_at=expires,
            )
            if name == "used":
                invites.consume(conn, token_hash)
        invites.revoke_hash(conn, token_hash)


def test_the_list(call, call_on_terminal, node, four):
    header, *rows = call_on_terminal("invite", "--list").out.splitlines()
    assert header.split() == ["LABEL", "STATE", "LEFT", "EXPIRES", "NAME"]
    assert all(len(row) <= 80 for row in rows)
    assert [(row.split()[1], row.split()[-1]) for row in rows] == [
        ("open", "-"),
        ("used", "used"),
        ("expired", "expired"),
        ("revoked", "revoked"),
    ]
    assert "1 of 1" in rows[0]
    assert "0 of 1" in rows[1]
    assert len(call("invite", "--list").out.splitlines()) == 4
    told = call("invite", "--list", "--json").results
    assert [each["state"] for each in told] == ["open", "used", "expired", "revoked"]
    assert told[2] == {
        "label": hashlib.sha256(b"3").hexdigest()[:8],
        "name": "expired",
        "uses": 1,
        "uses_left": 1,
        "created": "1970-01-01T00:00:00.003Z",
        "expires": "1970-01-01T00:00:01.000Z",
        "state": "expired",
    }


def test_an_empty_list(call):
    assert call("invite", "--list").err == "no invites\n"
    assert call("invite", "--list", "--json").out == ""


def test_revoke(call, node):
    invite = call("invite").out.strip()
    (kept,) = stored(node)
    done = call("invite", "--revoke", kept.label[:4])
    assert (done.status, done.out) == (0, "")
    assert done.err == f"invite {kept.label} is revoked: nobody can join with it any more\n"
    assert stored(node)[0].revoked

    told = call("invite", "--json").result
    assert call("invite", "--revoke", invite, "--json").result["label"] == kept.label
    assert not stored(node)[1].revoked
    assert call("invite", "--revoke", told["invite"].upper(), "--json").result == {
        "status": "revoked",
        "label": told["label"],
    }
    assert all(each.revoked for each in stored(node))


def modules(lines):
    """Return the rows of a drawn code, True where it is dark."""
    rows = []
    for line in lines:
        rows.append([char in " ▄" for char in line])
        rows.append([char in " ▀" for char in line])
    return rows


@pytest.mark.parametrize("text", ["A", "SLINV1" + "A" * 234, "x" * 300])
def test_a_drawn_code_is_the_code(text):
    lines = drawn(text)
    size = len(lines[0])
    assert {len(line) for line in lines} == {size}
    code = segno.make(text, error="l", micro=False)
    whole = [[bool(dark) for dark in row] for row in code.matrix_iter(border=4)]
    rows = modules(lines)
    assert rows[: len(whole)] == whole
    assert not any(any(row) for row in rows[len(whole) :])


def test_the_longest_usual_invite_fits_80_columns():
    assert len(drawn("SLINV1" + "A" * 234)[0]) <= 80


def test_a_qr_code_on_a_terminal(call_on_terminal):
    done = call_on_terminal("invite", "--qr")
    *code, command = done.out.splitlines()
    invite = command.split()[-1]
    assert "\n".join(code) == "\n".join(drawn(invite.upper()))
    assert "\x1b" not in done.out
    assert Invite.parse(invite.upper()) == Invite.parse(invite)


def test_a_terminal_too_narrow_for_the_qr_code(call_on_terminal):
    done = call_on_terminal("invite", "--qr", columns=40)
    assert done.out.startswith("securelink join ")
    assert "warning: the QR code needs a terminal " in done.err
