"""`securelink id`."""

from __future__ import annotations

import stat
import tomllib

from node_files import NodeFiles

from securelink.config import load
from securelink.identity import PublicKey


def test_who_this_node_is(call, call_on_terminal, node):
    shown = call("id")
    lines = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert (shown.status, shown.err) == (0, "")
    key = PublicKey.from_peer_id(lines["id"])
    assert lines["short"] == key.short == lines["id"][:7]
    assert lines["home"] == str(node.home)
    # The key is made on first use, and stays.
    assert stat.S_IMODE((node.home / "identity.key").stat().st_mode) == 0o600
    assert call("id").out == shown.out
    assert max(map(len, shown.out.partition("home")[0].splitlines())) <= 80
    assert call_on_terminal("id").out == shown.out

    assert call("id", "-q").out == f"{lines['id']}\n"
    assert call("id", "--json").result == lines


def test_a_narrow_terminal_cuts_no_id(call, call_on_terminal):
    assert call("id", "-q").out.strip() in call_on_terminal("id", columns=40).out


def test_the_name_that_is_configured(call, node):
    node.configure("[node]\nname = 'alice'\n")
    assert call("id", "--json").result["name"] == "alice"


def test_the_table_for_others(call, node, tmp_path):
    node.configure(
        "[node]\nname = 'my.host'\n[server]\nhost = '192.168.1.20'\npublic = 'home.example:5000'\n"
    )
    shown = call("id", "--toml")
    table = tomllib.loads(shown.out)["peers"]["my.host"]
    assert table == {
        "id": call("id", "-q").out.strip(),
        "public": ["home.example:5000"],
        "lan": ["192.168.1.20:24819"],
    }
    other = NodeFiles(tmp_path / "other").configure(shown.out)
    assert load(other, environ={}).config.peers["my.host"].key.peer_id == table["id"]


def test_a_port_that_is_not_known_yet_is_not_told(call, node):
    node.configure("[server]\nport = 0\n")
    assert set(tomllib.loads(call("id", "--toml").out).popitem()[1].popitem()[1]) == {"id"}


def test_two_forms_at_once(call):
    done = call("id", "--toml", "--json")
    assert (done.status, done.result["error"]) == (2, "--toml and --json exclude each other")


def test_a_key_file_that_others_can_read(call, node):
    call("id")
    (node.home / "identity.key").chmod(0o644)
    done = call("id")
    assert (done.status, done.out) == (1, "")
    assert "is open to other users" in done.err
    assert "hint: chmod 600" in done.err
