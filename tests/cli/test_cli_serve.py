"""The options of `serve` for received files, as far as they go without serving."""

from __future__ import annotations

import json
import tomllib

import pytest

from securelink.cli.options import files_flags


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--conflict", "replace"), "--conflict: expected one of rename, skip, overwrite"),
        (("--folder", "~nobody-here/in"), "--folder: no home folder for '~nobody-here/in'"),
        (("--method", "igd"), "--method: expected one of auto, pcp, nat-pmp, upnp"),
        (("--gateway", "fritz.box"), "--gateway: expected the router's IPv4 address"),
        (("--interface", "eth 0"), "--interface: expected the name of a network interface"),
        (("--external-port", "65536"), "--external-port: expected a port, 1 to 65535"),
        (("--lease", "0"), "--lease: expected 1 to 604800 seconds, not 0"),
    ],
)
def test_what_serve_can_not_mean(words, error, call):
    called = call("serve", "--port", "0", "--host", "127.0.0.1", *words)
    assert called.status == 2
    assert error in called.err


@pytest.mark.parametrize(
    ("given", "folder"),
    [(None, None), ("", ""), ("/srv/in", "/srv/in"), ("~/in", "~/in"), ("in", "HERE/in")],
)
def test_a_folder_counts_from_where_the_person_is(given, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = files_flags(given, None, None)
    assert flags["files.folder"] == (folder and folder.replace("HERE", str(tmp_path)))


def test_config_shows_what_each_peer_may_send(call, node):
    node.home.mkdir()
    (node.home / "config.toml").write_text(
        '[files]\nquota = "1 GB"\n[files.peers.bob]\naccept = false\n'
        '[files.peers."a.b"]\nlargest = "2 MB"\nquota = 0\n'
    )
    shown = tomllib.loads(call("config").out)
    assert shown["files"]["quota"] == 1_000_000_000
    assert shown["files"]["peers"] == {
        "bob": {"accept": False},
        "a.b": {"largest": 2_000_000, "quota": 0},
    }
    values = json.loads(call("config", "--json").out)["values"]
    assert values["files.peers.bob.accept"] == {"value": False, "origin": "config.toml"}
