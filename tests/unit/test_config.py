"""The configuration: precedence, origins, and every way of being wrong."""

from __future__ import annotations

import itertools
import os
import tomllib
from pathlib import Path

import msgspec
import pytest

from securelink import names
from securelink.config import (
    DEFAULT_PORT,
    ClientConfig,
    Config,
    FilesConfig,
    LogConfig,
    NodeConfig,
    PeerFiles,
    ServerConfig,
    load,
)
from securelink.config.loading import without_table
from securelink.config.model import KEYS
from securelink.endpoints import Endpoint, Kind
from securelink.errors import ConfigError, ExitCode
from securelink.identity import Identity
from securelink.limits import Limits

ROOT = Path(__file__).parents[2]
ALICE = Identity.generate().public
BOB = Identity.generate().public


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes) -> Path:
        file = tmp_path / "config.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def error_of(file: Path, environ=(), flags=None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(file, environ=dict(environ), flags=flags)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "\n" not in caught.value.message
    assert not caught.value.message.endswith(".")
    return caught.value


def test_without_a_file_the_defaults_hold(tmp_path):
    loaded = load(tmp_path / "config.toml", environ={})
    assert loaded.config == Config(node=NodeConfig(name=names.clean(os.uname().nodename)))
    assert set(loaded.origin.values()) == {"default"}
    assert set(loaded.origin) == {f"{table}.{key}" for table in KEYS for key in KEYS[table]}


def test_the_example_holds_every_key_with_its_default(tmp_path):
    example = ROOT / "config.example.toml"
    defaults = load(tmp_path / "none.toml", environ={})
    assert load(example, environ={}).config == defaults.config
    content = tomllib.loads(example.read_text())
    assert {table: [*keys] for table, keys in content.items()} == {
        table: [*keys] for table, keys in KEYS.items()
    }


def test_the_example_in_the_package_is_the_one_at_the_top():
    inside = ROOT / "securelink" / "config.example.toml"
    assert inside.read_bytes() == (ROOT / "config.example.toml").read_bytes()


def test_every_key_in_the_example_is_explained():
    lines = (ROOT / "config.example.toml").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        if "=" in line and not line.startswith("#"):
            assert before.startswith("# "), line


def test_the_limits_of_one_peer_in_the_example_can_be_uncommented(write):
    text = (ROOT / "config.example.toml").read_text()
    start = text.index("# [files.peers.alice]")
    table = text[start : text.index("\n\n", start)].replace("# ", "")
    assert load(write(table), environ={}).config.files.of("alice") == PeerFiles(
        accept=True, largest=10**10, quota=10**11
    )


def test_the_peer_in_the_example_can_be_uncommented(write):
    text = (ROOT / "config.example.toml").read_text()
    start = text.index("# [peers.alice]")
    table = text[start : text.index("\n\n", start)].replace("# ", "")
    sample = next(line for line in table.splitlines() if line.startswith("id"))
    loaded = load(write(table.replace(sample, f'id = "{ALICE.peer_id}"')), environ={})
    assert loaded.config.peers["alice"].endpoints == (
        Endpoint(Kind.LOOPBACK, "127.0.0.1", 24819),
        Endpoint(Kind.LAN, "192.168.1.20", 24819),
        Endpoint(Kind.LAN, "192.168.1.21", 4000),
        Endpoint(Kind.PUBLIC, "alice.example", 24819),
    )


OTHER = {
    "node.name": ("bob", '"bob"', "bob"),
    "server.host": (("127.0.0.1", "::1"), '["127.0.0.1", "::1"]', "127.0.0.1, ::1"),
    "server.port": (0, "0", "0"),
    "server.public": ("home.example:4000", '"home.example:4000"', "home.example:4000"),
    "server.announce": (False, "false", "no"),
    "server.upnp": (True, "true", "yes"),
    "nat.method": ("nat-pmp", '"nat-pmp"', "nat-pmp"),
    "nat.gateway": ("192.168.1.1", '"192.168.1.1"', "192.168.1.1"),
    "nat.interface": ("eth0", '"eth0"', "eth0"),
    "nat.external_port": (4000, "4000", "4000"),
    "nat.lease": (3, "3", "3"),
    "nat.stun": (
        ("stun.example", "1.2.3.4:5"),
        '["stun.example", "1.2.3.4:5"]',
        "stun.example,1.2.3.4:5",
    ),
    "nat.public_address": (False, "false", "off"),
    "client.peer": ("alice", '"alice"', "alice"),
    "client.endpoint": ("lan", '"lan"', "lan"),
    "client.timeout": (2.5, "2.5", "2.5"),
    "client.queue": (True, "true", "yes"),
    "files.folder": ("/srv/a b", '"/srv/a b"', "/srv/a b"),
    "files.conflict": ("skip", '"skip"', "skip"),
    "files.accept": (False, "false", "no"),
    "files.largest": (500_000_000, '"500 MB"', "500 MB"),
    "files.quota": (7, "7", "7"),
    "files.total": (1 << 40, '"1 TiB"', "1099511627776"),
    "files.keep_free": (0, "0", "0"),
    "files.checksum": (True, "true", "yes"),
    "files.partial_days": (0, "0", "0"),
    "limits.max_message": (100, "100", "100"),
    "limits.handshake_timeout": (3.0, "3", "3"),
    "limits.unproven": (9, "9", "9"),
    "limits.unproven_per_address": (8, "8", "8"),
    "limits.unfinished": (7, "7", "7"),
    "limits.unfinished_per_address": (6, "6", "6"),
    "limits.links_per_peer": (5, "5", "5"),
    "limits.heartbeat_interval": (0.5, "0.5", "0.5"),
    "limits.heartbeat_timeout": (60.0, "60", "60"),
    "limits.close_timeout": (1.0, "1.0", "1.0"),
    "log.level": ("debug", '"debug"', "debug"),
}


def value_of(config: Config, dotted: str) -> object:
    table, _, key = dotted.partition(".")
    return getattr(getattr(config, table), key)


def test_the_cases_below_know_every_key():
    assert list(OTHER) == [f"{table}.{key}" for table in KEYS for key in KEYS[table]]


@pytest.mark.parametrize("dotted", OTHER)
def test_every_key_from_file_environment_and_flag(dotted, write, tmp_path):
    expected, in_file, in_environment = OTHER[dotted]
    table, _, key = dotted.partition(".")
    variable = f"SECURELINK_{table}_{key}".upper()
    flag = "--" + key.replace("_", "-")

    from_file = load(write(f"[{table}]\n{key} = {in_file}\n"), environ={})
    assert (value_of(from_file.config, dotted), from_file.origin[dotted]) == (
        expected,
        "config.toml",
    )
    nothing = tmp_path / "none.toml"
    from_environment = load(nothing, environ={variable: in_environment})
    assert value_of(from_environment.config, dotted) == expected
    assert from_environment.origin[dotted] == variable
    for value in (expected, in_environment):
        from_flag = load(nothing, environ={}, flags={dotted: value})
        assert value_of(from_flag.config, dotted) == expected
        assert from_flag.origin[dotted] == flag
    for loaded in (from_file, from_environment, from_flag):
        changed = {name for name, origin in loaded.origin.items() if origin != "default"}
        assert changed == {dotted}


def test_a_flag_stands_above_the_environment_above_the_file_above_the_default(write):
    file = write("[server]\nport = 1\n")
    environ = {"SECURELINK_SERVER_PORT": "2"}

    def port(environ, flags):
        loaded = load(file, environ=environ, flags=flags)
        return loaded.config.server.port, loaded.origin["server.port"]

    assert port(environ, {"server.port": 3}) == (3, "--port")
    assert port(environ, {"server.port": None}) == (2, "SECURELINK_SERVER_PORT")
    assert port({}, None) == (1, "config.toml")


def test_an_empty_name_is_the_host_name(write):
    loaded = load(write('[node]\nname = ""\n'), environ={})
    assert loaded.config.node.name == names.clean(os.uname().nodename)
    assert loaded.origin["node.name"] == "default"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('""', ()),
        ("[]", ()),
        ('"127.0.0.1"', ("127.0.0.1",)),
        ('"127.0.0.1,::1"', ("127.0.0.1", "::1")),
        ('["[::1]", "0:0::1"]', ("::1",)),
        ('["fe80::1%eth0"]', ("fe80::1%eth0",)),
    ],
)
def test_the_addresses_to_listen_on(written, expected, write):
    assert load(write(f"[server]\nhost = {written}"), environ={}).config.server.host == expected


@pytest.mark.parametrize(
    ("public", "expected"),
    [
        ("", None),
        ("home.example", Endpoint(Kind.PUBLIC, "home.example", 4000)),
        ("home.example:5000", Endpoint(Kind.PUBLIC, "home.example", 5000)),
        ("2001:db8::1", Endpoint(Kind.PUBLIC, "2001:db8::1", 4000)),
        ("[2001:db8::1]:5000", Endpoint(Kind.PUBLIC, "2001:db8::1", 5000)),
    ],
)
def test_the_public_address_takes_the_port_that_serve_has(public, expected):
    assert ServerConfig(public=public).public_endpoint(4000) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("auto", "auto"),
        ("loopback", "loopback"),
        ("public", "public"),
        ("Home.Example:4000", "home.example:4000"),
        ("[::1]:4000", "[::1]:4000"),
    ],
)
def test_the_endpoint_to_try(written, expected, tmp_path):
    loaded = load(tmp_path / "none.toml", environ={"SECURELINK_CLIENT_ENDPOINT": written})
    assert loaded.config.client == ClientConfig(endpoint=expected)


@pytest.mark.parametrize("text", ["true", "TRUE", "yes", "on", "1"])
def test_yes_in_the_environment(text, tmp_path):
    environ = {"SECURELINK_SERVER_ANNOUNCE": text}
    assert load(tmp_path / "none.toml", environ=environ).config.server.announce is True


def test_peers(write):
    file = write(
        f"""\
[server]
port = 4000

[peers.alice]
id = "{ALICE.peer_id}"
loopback = "127.0.0.1"
public = ["alice.example:1", "[2001:db8::1]:2"]

[peers."bob"]
id = "{BOB.peer_id.lower().replace("-", "")}"
"""
    )
    loaded = load(file, environ={})
    alice, bob = loaded.config.peers["alice"], loaded.config.peers["bob"]
    assert (alice.key, alice.line) == (ALICE, 4)
    # Ours is not the port of a peer.
    assert alice.endpoints == (
        Endpoint(Kind.LOOPBACK, "127.0.0.1", DEFAULT_PORT),
        Endpoint(Kind.PUBLIC, "alice.example", 1),
        Endpoint(Kind.PUBLIC, "2001:db8::1", 2),
    )
    assert (bob.key, bob.endpoints, bob.line) == (BOB, (), 9)
    assert loaded.origin["peers.alice"] == "config.toml"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ('"1"', 1),
        ('" 12 b "', 12),
        ('"1kB"', 1000),
        ('"1 KiB"', 1024),
        ('"1.5 GB"', 1_500_000_000),
        ('"2 mib"', 2 << 20),
        ('"1 TB"', 10**12),
        ('"1 PiB"', 1 << 50),
        ('"0.1 B"', 1),
        ("9223372036854775807", (1 << 63) - 1),
    ],
)
def test_sizes_as_people_write_them(written, expected, write):
    assert load(write(f"[files]\nlargest = {written}"), environ={}).config.files.largest == expected


@pytest.mark.parametrize(
    "written", ["", "B", "1 G", "1k", "-1 kB", "1,5 GB", "1. GB", "1  kB", "٣"]
)
def test_what_is_no_size(written, write):
    message = error_of(write(f"[files]\nlargest = '{written}'")).message
    assert message.endswith(f'such as "500 MB", "1 GiB" or 0, not \'{written}\'')


def test_what_one_peer_may_send(write):
    file = write(
        """\
[files]
largest = "1 MB"
quota = "1 GB"

[files.peers.bob]
accept = false
quota = 0

[files.peers."a.b"]
largest = "2 MB"
"""
    )
    loaded = load(file, environ={"SECURELINK_FILES_QUOTA": "5"})
    files = loaded.config.files
    assert files.of("bob") == PeerFiles(accept=False, largest=1_000_000, quota=0)
    assert files.of("a.b") == PeerFiles(accept=True, largest=2_000_000, quota=5)
    assert files.of("carol") == PeerFiles(accept=True, largest=1_000_000, quota=5)
    assert FilesConfig().of("carol") == PeerFiles(accept=True, largest=0, quota=0)
    assert loaded.origin["files.peers.bob"] == "config.toml"
    assert loaded.origin["files.peers.a.b"] == "config.toml"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('x = 1\n[peers]\nbob = { id = "ID" }', 3),
        ('[peers]\nbob.id = "ID"', 2),
        ('\npeers.bob.id = "ID"', 2),
        ("[ peers . 'bob' ]\nid = 'ID'", 1),
        ('[node]\nname = """\n[peers.bob]"""\n[peers.bob]\nid = "ID"', 4),
        ('\r\n[peers.bob] # a friend\r\nid = "ID"\r\n', 2),
        ('peers = { bob = { id = "ID" } }', None),
    ],
)
def test_the_line_of_a_peer(text, line, write):
    from securelink.config.document import Document

    document = Document.read(write(text.replace("ID", ALICE.peer_id)))
    assert document.tables["peers"]["bob"]["id"] == ALICE.peer_id
    assert document.lines.get(("peers", "bob")) == line


# File, what the error says after the file's name, and the hint if there is one to look at.
WRONG = {
    "syntax": ("[server]\nport 1\n", ", line 2: expected '=' after a key"),
    "syntax at the end": ("[server", ": expected ']' at the end of a table declaration"),
    "a number without end": ("x = " + "9" * 5000, ": exceeds the limit"),
    "not UTF-8": (b"# a\n# \xff", ", line 2: not UTF-8"),
    "unknown table": (
        "\n[sever]\nport = 1",
        ", line 2: sever: unknown table; did you mean server?",
    ),
    "unknown table, nothing near": ("[zzz]", ", line 1: zzz: unknown table"),
    "a key above all tables": ("foo = 1", ", line 1: foo: unknown key"),
    "a key above all tables, nearly known": (
        "prot = 1",
        ", line 1: prot: unknown key; did you mean port, below [server]?",
    ),
    "table of a later version": ("[hooks]\nrun = 'x'", ", line 1: hooks: unknown table"),
    "method that is none": (
        "[nat]\nmethod = 'natpmp'",
        ", line 2: nat.method: expected one of auto, pcp, nat-pmp, upnp, not",
    ),
    "gateway by name": (
        "[nat]\ngateway = 'router'",
        ", line 2: nat.gateway: expected the router's IPv4",
    ),
    "gateway by IPv6": (
        "[nat]\ngateway = 'fe80::1'",
        ", line 2: nat.gateway: expected the router's IPv4",
    ),
    "gateway that is no machine": (
        "[nat]\ngateway = '0.0.0.0'",
        ", line 2: nat.gateway: expected the router's IPv4 address, and 0.0.0.0 is",
    ),
    "interface like an option": (
        "[nat]\ninterface = '-x'",
        ", line 2: nat.interface: expected the name",
    ),
    "interface that is too long": (
        "[nat]\ninterface = 'abcdefghijklmnop'",
        ", line 2: nat.interface: expected the name",
    ),
    "external port": (
        "[nat]\nexternal_port = 65536",
        ", line 2: nat.external_port: expected a port",
    ),
    "no lease": ("[nat]\nlease = 0", ", line 2: nat.lease: expected 1 to 604800 seconds, not 0"),
    "long lease": ("[nat]\nlease = 604801", ", line 2: nat.lease: expected 1 to 604800 seconds"),
    "stun server": ("[nat]\nstun = ['a b']", ", line 2: nat.stun: "),
    "unknown key": (
        "[server]\n\nprot = 1",
        ", line 3: server.prot: unknown key; did you mean port?",
    ),
    "key outside its table": ("port = 1", ", line 1: port: this key belongs below [server]"),
    "table where a value stands": ("server = 1", ", line 1: server: expected a table, written as"),
    "peers is no table": ("peers = 1", ", line 1: peers: expected a table"),
    "a peer is no table": ("[peers]\nbob = 1", ", line 2: peers.bob: expected a table"),
    "peer without id": ("[peers.bob]", ", line 1: peers.bob: the peer's id is missing"),
    "peer with a mistyped id": (
        f"[peers.bob]\nid = '{ALICE.peer_id[:-1]}'",
        ", line 2: peers.bob.id: ",
    ),
    "peer with a number as id": (
        "[peers.bob]\nid = 1",
        ", line 2: peers.bob.id: expected a text in quotes, not 1",
    ),
    "peer's unknown key": (
        f"[peers.bob]\nid = '{ALICE.peer_id}'\nlam = 'a:1'",
        ", line 3: peers.bob.lam: unknown key; did you mean lan?",
    ),
    "peer's bad address": (
        f"[peers.bob]\nid = '{ALICE.peer_id}'\nlan = ['10.0.0.1', 'a:b']",
        ", line 3: peers.bob.lan: 'b' is not a port",
    ),
    "peer's address of a wrong type": (
        f"[peers.bob]\nid = '{ALICE.peer_id}'\nlan = 7",
        ", line 3: peers.bob.lan: expected a text in quotes or a list of them, not 7",
    ),
    "reserved name": ("[peers.me]", ", line 1: peers.me: the name me is reserved"),
    "invalid name": ("[peers.Bob]", ", line 1: peers.Bob: a name can't hold 'B'"),
    "one id twice": (
        f"[peers.a]\nid = '{ALICE.peer_id}'\n[peers.b]\nid = '{ALICE.peer_id}'",
        ", line 4: peers.b.id: peers.a has the same id",
    ),
    "text for a number": (
        "[server]\nport = 'x'",
        ", line 2: server.port: expected a whole number, not 'x'",
    ),
    "fraction for a whole number": ("[server]\nport = 1.5", "expected a whole number, not 1.5"),
    "truth for a whole number": ("[server]\nport = true", "expected a whole number, not true"),
    "list for a number": ("[client]\ntimeout = [1]", "expected a number, not a list"),
    "infinite": ("[client]\ntimeout = inf", "expected a number, not inf"),
    "not a number": ("[client]\ntimeout = nan", "expected a number, not nan"),
    "text for truth": ("[server]\nannounce = 'maybe'", "expected true or false, not 'maybe'"),
    "number for truth": ("[server]\nannounce = 1", "expected true or false, not 1"),
    "number for a text": ("[node]\nname = 1", "expected a text in quotes, not 1"),
    "table for a text": ("[node.name]\nx = 1", "node.name: expected a text in quotes, not a table"),
    "a long value": ("[node]\nname = " + "7" * 70, "not a value of 70 characters"),
    "number among texts": ("[server]\nhost = [1]", "server.host: expected a text in quotes, not 1"),
    "number for texts": (
        "[server]\nhost = 1",
        "expected a text in quotes or a list of them, not 1",
    ),
    "host name to listen on": ("[server]\nhost = 'localhost'", "not 'localhost'"),
    "port too high": ("[server]\nport = 65536", "expected a port, 1 to 65535, or 0"),
    "port below zero": ("[server]\nport = -1", "expected a port, 1 to 65535, or 0"),
    "public without host": ("[server]\npublic = ':1'", "server.public: ':1' names no host"),
    "name of the node": ("[node]\nname = 'My Box'", "node.name: a name can't hold 'M'"),
    "reserved peer": ("[client]\npeer = 'all'", "client.peer: the name all is reserved"),
    "endpoint": (
        "[client]\nendpoint = 'lam'",
        "expected auto, loopback, lan, public or HOST:PORT: 'lam' names no port",
    ),
    "timeout": (
        "[client]\ntimeout = -0.5",
        "client.timeout: expected 0 or more, and 1000000000 at most, not -0.5",
    ),
    "endless timeout": (
        "[client]\ntimeout = 1e308",
        "client.timeout: expected 0 or more, and 1000000000 at most, not 1e+308",
    ),
    "folder from somewhere": (
        "[files]\nfolder = 'in'",
        ", line 2: files.folder: expected a path that begins with / or ~, not 'in'",
    ),
    "folder of nobody": (
        "[files]\nfolder = '~nobody-here/in'",
        ", line 2: files.folder: no home folder for '~nobody-here/in'",
    ),
    "folder with a zero": (
        '[files]\nfolder = "/a\\u0000b"',
        "files.folder: expected a path that begins with / or ~, not '/a\\x00b'",
    ),
    "conflict": (
        "[files]\nconflict = 'replace'",
        "files.conflict: expected one of rename, skip, overwrite, not 'replace'",
    ),
    "size without a unit that is known": (
        "[files]\nlargest = '1G'",
        'files.largest: expected a size such as "500 MB", "1 GiB" or 0, not \'1G\'',
    ),
    "size below zero": (
        "[files]\nquota = -1",
        "files.quota: expected 0 or more bytes, and 9223372036854775807 at most, not -1",
    ),
    "size beyond all": (
        "[files]\nquota = '9999 PB'",
        "files.quota: expected 0 or more bytes, and 9223372036854775807 at most, not",
    ),
    "truth for a size": ("[files]\ntotal = true", "files.total: expected a size such as"),
    "fraction for a size": ("[files]\ntotal = 1.5", "files.total: expected a size such as"),
    "days below zero": (
        "[files]\npartial_days = -1",
        "files.partial_days: expected 0 or more, and 1000000000 at most, not -1",
    ),
    "files' peers are no table": (
        "[files]\npeers = 1",
        ", line 2: files.peers: expected a table, written as [files.peers.NAME]",
    ),
    "a file's peer is no table": (
        "[files.peers]\nbob = 1",
        ", line 2: files.peers.bob: expected a table, written as [files.peers.bob]",
    ),
    "a file's peer that can't be": ("[files.peers.Bob]", "files.peers.Bob: a name can't hold 'B'"),
    "key that no peer has": (
        "[files.peers.bob]\nquotas = 1",
        ", line 2: files.peers.bob.quotas: unknown key; did you mean quota?",
    ),
    "key that is for all": (
        "[files.peers.bob]\nconflict = 'skip'",
        ", line 2: files.peers.bob.conflict: unknown key",
    ),
    "a peer's size": (
        "[files.peers.bob]\nlargest = 'much'",
        ", line 2: files.peers.bob.largest: expected a size such as",
    ),
    "message of nothing": ("[limits]\nmax_message = 0", "expected 1 to 2147483648 bytes, not 0"),
    "message too long": ("[limits]\nmax_message = 2147483649", "expected 1 to 2147483648 bytes"),
    "limit of nothing": (
        "[limits]\nunproven = 0",
        "limits.unproven: expected more than 0, and 1000000000 at most, not 0",
    ),
    "interval of nothing": (
        "[limits]\nheartbeat_interval = 0",
        "expected more than 0, and 1000000000 at most, not 0",
    ),
    "heartbeat in the file": (
        "[limits]\nheartbeat_timeout = 10",
        (
            ", line 2: limits.heartbeat_timeout: heartbeat_timeout, 10 s, must be longer than "
            "heartbeat_interval, 10 s"
        ),
    ),
    "heartbeat's interval alone": (
        "[limits]\nheartbeat_interval = 25",
        ", line 2: limits.heartbeat_interval: heartbeat_timeout, 25 s, must be longer",
    ),
    "log level": ("[log]\nlevel = 'loud'", "expected one of debug, info, warning, error"),
}


@pytest.mark.parametrize("case", WRONG)
def test_every_mistake_in_the_file_is_told_with_its_place(case, write):
    text, expected = WRONG[case]
    file = write(text)
    message = error_of(file).message
    assert message.startswith(f"{file}")
    assert expected in message


def test_the_longest_message_and_the_shortest_are_allowed(write):
    for value in (1, 2147483648):
        file = write(f"[limits]\nmax_message = {value}")
        assert load(file, environ={}).config.limits == Limits(max_message=value)


def test_a_word_that_is_near_none_gets_them_all(write):
    assert (
        error_of(write("[zzz]")).hint
        == "known here: node, server, nat, client, files, limits, log, peers"
    )
    assert error_of(write("[log]\nx = 1")).hint == "known here: level"


def test_a_hint_of_the_module_that_knows_better_is_kept(write):
    assert error_of(write("[node]\nname = 'My Box'")).hint == "my-box would do"


def test_a_byte_order_mark_is_no_mistake(write):
    assert load(write(b"\xef\xbb\xbf[server]\nport = 1"), environ={}).config.server.port == 1


def test_a_file_that_is_a_folder(tmp_path):
    assert error_of(tmp_path).message == f"{tmp_path} can't be read: is a directory"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (
            "SECURELINK_SERVER_PRT",
            "1",
            "SECURELINK_SERVER_PRT: unknown variable; did you mean SECURELINK_SERVER_PORT?",
        ),
        ("SECURELINK_SERVER_PORT", "x", "SECURELINK_SERVER_PORT: expected a whole number, not 'x'"),
        ("SECURELINK_SERVER_PORT", "", "SECURELINK_SERVER_PORT: expected a whole number, not ''"),
        ("SECURELINK_CLIENT_TIMEOUT", "x", "SECURELINK_CLIENT_TIMEOUT: expected a number, not 'x'"),
        ("SECURELINK_CLIENT_TIMEOUT", "nan", "SECURELINK_CLIENT_TIMEOUT: expected a number"),
        ("SECURELINK_LOG_LEVEL", "loud", "SECURELINK_LOG_LEVEL: expected one of debug,"),
        ("SECURELINK_PEERS_BOB_ID", "x", "SECURELINK_PEERS_BOB_ID: peers can't be set"),
        (
            "SECURELINK_FILES_PEERS_BOB_QUOTA",
            "1",
            "SECURELINK_FILES_PEERS_BOB_QUOTA: peers can't be set",
        ),
        ("SECURELINK_FILES_LARGEST", "x", "SECURELINK_FILES_LARGEST: expected a size such as"),
    ],
)
def test_every_mistake_in_the_environment_is_told_with_its_variable(
    variable, value, expected, tmp_path
):
    assert error_of(tmp_path / "none.toml", {variable: value}).message.startswith(expected)


def test_variables_of_other_versions_and_programs_are_let_be(tmp_path):
    environ = {
        "SECURELINK_HOOKS_RUN": "x",
        "SECURELINK_HOME": "/tmp/x",
        "SECURELINK_SERVER": "x",
        "SECURELINK_": "x",
        "SERVER_PORT": "1",
        "PORT": "1",
    }
    assert set(load(tmp_path / "none.toml", environ=environ).origin.values()) == {"default"}


def test_variables_that_lack_their_table_are_found():
    environ = {
        "SECURELINK_PORT": "4000",
        "SECURELINK_CLIENT_TIMEOUT": "5",
        "SECURELINK_TIMEOUT": "5",
        "SECURELINK_KEEP_FREE": "1",
        "SECURELINK_HOME": "/tmp/x",
        "SECURELINK_INVITE": "slinv1",
        "SECURELINK_port": "1",
        "PORT": "1",
    }
    assert without_table(environ) == {
        "SECURELINK_KEEP_FREE": ["SECURELINK_FILES_KEEP_FREE"],
        "SECURELINK_PORT": ["SECURELINK_SERVER_PORT"],
        "SECURELINK_TIMEOUT": ["SECURELINK_CLIENT_TIMEOUT"],
    }


def test_a_mistake_in_a_flag_is_told_with_the_flag(tmp_path):
    error = error_of(tmp_path / "none.toml", flags={"server.port": 70000})
    assert error.message == "--port: expected a port, 1 to 65535, or 0 for a free one, not 70000"


def test_heartbeats_are_judged_together_wherever_they_come_from(tmp_path):
    environ = {"SECURELINK_LIMITS_HEARTBEAT_INTERVAL": "30"}
    message = error_of(tmp_path / "none.toml", environ).message
    assert message.startswith("SECURELINK_LIMITS_HEARTBEAT_INTERVAL: heartbeat_timeout, 25 s,")
    environ["SECURELINK_LIMITS_HEARTBEAT_TIMEOUT"] = "31"
    loaded = load(tmp_path / "none.toml", environ=environ)
    assert loaded.config.limits == Limits(heartbeat_interval=30.0, heartbeat_timeout=31.0)


def test_what_is_loaded_can_not_be_changed(tmp_path):
    config = load(tmp_path / "none.toml", environ={}).config
    for value in (config, config.node, config.server, config.client, config.limits, config.log):
        with pytest.raises(AttributeError):
            setattr(value, msgspec.structs.fields(value)[0].name, None)
    assert config.log == LogConfig()
