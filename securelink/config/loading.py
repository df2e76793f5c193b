"""The file, the environment and the flags, laid over each other and over the defaults."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Any

import msgspec

from securelink import names
from securelink.config import values
from securelink.config.document import Document, Place
from securelink.config.model import (
    KEYS,
    PEER_FILES_KEYS,
    ClientConfig,
    Config,
    ConfiguredPeer,
    ConfiguredPeerFiles,
    FilesConfig,
    LogConfig,
    NatConfig,
    NodeConfig,
    ServerConfig,
)
from securelink.endpoints import Endpoint, Kind
from securelink.errors import ConfigError
from securelink.identity import PublicKey
from securelink.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_PREFIX = "SECURELINK_"
_PEER_KEYS = ("id", *map(str, Kind))


class LoadedConfig(msgspec.Struct, frozen=True):
    """A configuration, and where each of its values comes from.

    `origin` has an entry for every dotted key, such as `server.port`, for every `peers.NAME` and
    every `files.peers.NAME`: `default`, or the name of the file, the variable or the flag.
    """

    config: Config
    origin: Mapping[str, str]


def load(
    file: Path, *, environ: Mapping[str, str] = os.environ, flags: Mapping[str, Any] | None = None
) -> LoadedConfig:
    """Return what is in force.

    Args:
        file: the configuration file; without it the defaults hold.
        environ: the environment.
        flags: a command's flags by dotted key, `{"server.port": 0}` for `--port 0`; None stands
            for a flag that was not given.

    Raises:
        ConfigError: naming the place of the first mistake, and what would be right.
    """
    document = Document.read(file)
    found: dict[str, dict[str, Any]] = {table: {} for table in KEYS}
    places: dict[str, Place] = {}
    for table, key, value, place in (
        *_from_file(document),
        *_from_environment(environ),
        *_from_flags(flags or {}),
    ):
        found[table][key] = values.read(table, key, value, place)
        places[f"{table}.{key}"] = place
    if not found["node"].get("name"):
        found["node"]["name"] = names.clean(os.uname().nodename)
        places.pop("node.name", None)

    limits = Limits(**found["limits"])
    if limits.heartbeat_timeout <= limits.heartbeat_interval:
        place = places.get("limits.heartbeat_timeout") or places["limits.heartbeat_interval"]
        raise place.error(
            f"heartbeat_timeout, {limits.heartbeat_timeout:g} s, must be longer than "
            f"heartbeat_interval, {limits.heartbeat_interval:g} s"
        )
    config = Config(
        node=NodeConfig(**found["node"]),
        server=ServerConfig(**found["server"]),
        nat=NatConfig(**found["nat"]),
        client=ClientConfig(**found["client"]),
        files=FilesConfig(**found["files"], peers=_peer_files(document)),
        peers=_peers(document),
        limits=limits,
        log=LogConfig(**found["log"]),
    )
    origin = {f"{table}.{key}": "default" for table, keys in KEYS.items() for key in keys}
    origin |= {key: place.origin for key, place in places.items()}
    origin |= {f"peers.{name}": file.name for name in config.peers}
    origin |= {f"files.peers.{name}": file.name for name in config.files.peers}
    return LoadedConfig(config, origin)


_Setting = tuple[str, str, object, Place]


def _from_file(document: Document) -> list[_Setting]:
    found: list[_Setting] = []
    known = [*KEYS, "peers"]
    for table, content in document.tables.items():
        place = document.place(table)
        if table not in known:
            home = next((name for name, keys in KEYS.items() if table in keys), None)
            if isinstance(content, dict):
                raise place.unknown("table", table, known)
            if home is not None:
                raise place.error(f"this key belongs below [{home}]")
            raise _unknown_above_all_tables(place, table)
        if not isinstance(content, dict):
            raise place.error(f"expected a table, written as [{table}]")
        if table == "peers":
            continue
        for key, value in content.items():
            if (table, key) == ("files", "peers"):
                continue
            here = document.place(table, key)
            if key not in KEYS[table]:
                raise here.unknown("key", key, KEYS[table])
            found.append((table, key, value, here))
    return found


def _unknown_above_all_tables(place: Place, key: str) -> ConfigError:
    homes = {name: table for table, keys in KEYS.items() for name in keys}
    nearest = difflib.get_close_matches(key, homes, n=1)
    if nearest:
        return place.error(f"unknown key; did you mean {nearest[0]}, below [{homes[nearest[0]]}]?")
    return place.error("unknown key", f"every key belongs below a table: {', '.join(KEYS)}")


def without_table(environ: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the variables that are ignored and probably not meant to be, in order.

    Each is called as a key would be that lacks its table, such as SECURELINK_PORT, and comes with
    the names of those that it may stand for.
    """
    found = {}
    for variable in sorted(environ):
        key = variable.removeprefix(_PREFIX).lower()
        tables = [table for table, keys in KEYS.items() if key in keys]
        if tables and variable == f"{_PREFIX}{key.upper()}":
            found[variable] = [f"{_PREFIX}{table}_{key}".upper() for table in tables]
    return found


def _from_environment(environ: Mapping[str, str]) -> list[_Setting]:
    found: list[_Setting] = []
    for variable in sorted(environ):
        table, separator, key = variable.removeprefix(_PREFIX).lower().partition("_")
        # What is in no known table belongs to another version, or to something else.
        if not variable.startswith(_PREFIX) or not separator or table not in (*KEYS, "peers"):
            continue
        place = Place(variable, variable)
        if table == "peers" or (table == "files" and key.startswith("peers")):
            raise place.error("peers can't be set in the environment", "set them in the file")
        if key not in KEYS[table]:
            known = [f"{_PREFIX}{table}_{name}".upper() for name in KEYS[table]]
            raise place.unknown("variable", variable, known)
        found.append((table, key, environ[variable], place))
    return found


def _from_flags(flags: Mapping[str, Any]) -> list[_Setting]:
    found: list[_Setting] = []
    for dotted, value in flags.items():
        if value is not None:
            table, _, key = dotted.partition(".")
            flag = f"--{key.replace('_', '-')}"
            found.append((table, key, value, Place(flag, flag)))
    return found


def _peers(document: Document) -> dict[str, ConfiguredPeer]:
    peers: dict[str, ConfiguredPeer] = {}
    for name, content in document.tables.get("peers", {}).items():
        place = document.place("peers", name)
        values.at(place, names.check, name)
        if not isinstance(content, dict):
            raise place.error(f"expected a table, written as [peers.{name}]")
        found: list[Endpoint] = []
        for key, value in content.items():
            here = document.place("peers", name, key)
            if key not in _PEER_KEYS:
                raise here.unknown("key", key, _PEER_KEYS)
            if key != "id":
                found.extend(
                    Endpoint(Kind(key), *values.at(here, values.address, text))
                    for text in values.at(here, values.texts, value)
                )
        if "id" not in content:
            raise place.error("the peer's id is missing", "`securelink id`, run there, shows it")
        here = document.place("peers", name, "id")
        public_key = values.at(
            here, PublicKey.from_peer_id, values.at(here, values.text, content["id"])
        )
        for other, peer in peers.items():
            if peer.key == public_key:
                raise here.error(f"peers.{other} has the same id", "keep one of the two")
        line = document.lines.get(("peers", name))
        peers[name] = ConfiguredPeer(key=public_key, endpoints=tuple(found), line=line)
    return peers


def _peer_files(document: Document) -> dict[str, ConfiguredPeerFiles]:
    tables = document.tables.get("files", {}).get("peers", {})
    if not isinstance(tables, dict):
        raise document.place("files", "peers").error(
            "expected a table, written as [files.peers.NAME]"
        )
    peers: dict[str, ConfiguredPeerFiles] = {}
    for name, content in tables.items():
        place = document.place("files", "peers", name)
        values.at(place, names.check, name)
        if not isinstance(content, dict):
            raise place.error(f"expected a table, written as [files.peers.{name}]")
        found: dict[str, Any] = {}
        for key, value in content.items():
            here = document.place("files", "peers", name, key)
            if key not in PEER_FILES_KEYS:
                raise here.unknown("key", key, PEER_FILES_KEYS)
            found[key] = values.read("files", key, value, here)
        peers[name] = ConfiguredPeerFiles(**found)
    return peers
