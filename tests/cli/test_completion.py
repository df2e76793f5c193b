"""What the shell offers to complete."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys

import pytest
from node_files import now

from securelink.cli.completion import invite_labels, peer_names
from securelink.ids import to_text
from securelink.store import invites, outbox


@pytest.fixture
def bob(node):
    return node.peer("bob")


def offered(words, incomplete=""):
    """What bash offers behind *words*."""
    done = subprocess.run(
        [sys.executable, "-m", "securelink"],
        env=os.environ
        | {
            "_SECURELINK_COMPLETE": "complete_bash",
            "COMP_WORDS": f"securelink {words} {incomplete}",
            "COMP_CWORD": str(len(shlex.split(words)) + 1),
        },
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_names(node, bob):
    assert peer_names("") == ["bob"]
    node.configure("[peers.bea]\nid = '" + bob.peer_id + "'\n")
    assert peer_names("b") == ["bea"]
    assert peer_names("x") == []


def test_completion_makes_nothing_and_says_nothing(node, tmp_path, capsys, monkeypatch):
    assert peer_names("") == []
    assert not node.home.exists()
    node.configure("[[[")
    assert peer_names("") == []
    node.configure("")
    assert peer_names("") == []
    assert not (node.home / "securelink.db").exists()
    (node.home / "securelink.db").write_text("this is no database")
    assert peer_names("") == []
    monkeypatch.setenv("SECURELINK_HOME", "~nobody-has-this-name/x")
    assert peer_names("") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "words",
    [
        "peers show",
        "peers remove alice",
        "peers rename",
        "inbox --from",
        "send --to",
        "receive",
        "outbox --flush",
        "outbox --to",
    ],
)
def test_names_in_a_shell(words, bob):
    assert offered(words, "b") == ["bob"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("send --to", "bob me all"),
        ("outbox --flush", "bob me"),
        ("serve --conflict", "rename skip overwrite"),
        ("receive --conflict", "rename skip overwrite"),
        ("serve --method", "auto pcp nat-pmp upnp"),
        ("forward-port --method", "auto pcp nat-pmp upnp"),
        ("doctor --method", "auto pcp nat-pmp upnp"),
        ("send --endpoint", "auto loopback lan public"),
        ("receive --endpoint", "auto loopback lan public"),
        ("outbox", ""),
        ("outbox --cancel", ""),
        ("invite --revoke", ""),
    ],
)
def test_everything_that_is_known(words, expected, bob):
    assert offered(words) == expected.split()


def test_ids_of_what_waits(call, node, bob):
    text, gone = (to_text(node.queue(bob, "hello")) for _ in range(2))
    refused = node.queue(bob, "hello")
    node.hand(refused)
    with node.store() as conn:
        outbox.refused(
            conn, peer=bob.raw, message_id=refused, permanent=True, reason="too long", now=now()
        )
    group = to_text(node.queue_files(bob, "photos/a", "photos/b"))
    assert call("outbox", "--cancel", gone).status == 0
    assert sorted(offered("outbox --cancel")) == sorted([text, group])
    assert offered("outbox --cancel", group[:-1]) == [group]
    assert offered("outbox --to bob --cancel", text[:-1]) == [text]


def test_labels_of_invites(node):
    assert invite_labels("") == []
    labels = {}
    with node.store() as conn:
        for name, uses, expires in (("bob", 1, 1 << 50), (None, 1, 1 << 50), ("old", 1, 2)):
            token_hash = hashlib.sha256(str(name).encode()).digest()
            invites.add(
                conn,
                token_hash=token_hash,
                name=name,
                uses=uses,
                created_at=1,
                expires_at=expires,
            )
            labels[name] = token_hash.hex()[:8]
        revoked = invites.revoke(conn, labels["bob"])
    assert revoked.revoked
    assert invite_labels("") == [(labels[None], "for anybody")]
    assert invite_labels(labels[None][:3]) == [(labels[None], "for anybody")]
    assert offered("invite --revoke") == [labels[None]]
