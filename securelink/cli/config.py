"""`securelink config`: what is in force and from where, the file's path, a file to begin with."""

from __future__ import annotations

import json as json_text
import os
from typing import TYPE_CHECKING, Any

from securelink.cli.app import command_app, examples
from securelink.cli.options import Json, Quiet
from securelink.errors import FileExists

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securelink.config import LoadedConfig

app = command_app()


@app.callback(
    invoke_without_command=True,
    epilog=examples(
        "securelink config",
        "SECURELINK_SERVER_PORT=4000 securelink config --json",
        "securelink config init",
    ),
)
def show(json: Json = False, quiet: Quiet = False) -> None:
    """Show what is configured, and where each value comes from."""
    from securelink.cli.output import Output, Style, Styled
    from securelink.config import load
    from securelink.home import Home

    output = Output(json=json, quiet=quiet)
    file = Home.find().config_file
    loaded = load(file)
    settings = list(_settings(loaded))
    if json:
        found = {
            f"{table}.{key}": {"value": value, "origin": origin}
            for table, key, value, origin in settings
        }
        output.result({"file": str(file), "exists": file.exists(), "values": found})
        return
    output.note(f"# {file}" if file.exists() else f"# {file} does not exist")
    # What is printed is TOML, and can be pasted into the file.
    lines = [
        (table, f"{key} = {json_text.dumps(value)}", origin)
        for table, key, value, origin in settings
    ]
    room = max(len(text) for _, text, _ in lines)
    shown = ""
    for table, text, origin in lines:
        if table != shown:
            if shown:
                output.line()
            output.line(Styled(f"[{table}]", Style.BOLD))
            shown = table
        output.line(f"{text:<{min(room, 50)}}  ", Styled(f"# {origin}", Style.DIM))


@app.command(epilog=examples('"$EDITOR" "$(securelink config path)"'))
def path(json: Json = False) -> None:
    """Print where the configuration file is looked for."""
    from securelink.cli.output import Output
    from securelink.home import Home

    output = Output(json=json)
    file = Home.find().config_file
    if json:
        output.result({"file": str(file), "exists": file.exists()})
    else:
        output.line(str(file))


@app.command()
def init(json: Json = False, quiet: Quiet = False) -> None:
    """Write a configuration file that holds every key with its default."""
    from importlib import resources

    from securelink.cli.output import Output
    from securelink.home import Home

    output = Output(json=json, quiet=quiet)
    home = Home.find()
    home.create()
    file = home.config_file
    example = resources.files("securelink").joinpath("config.example.toml").read_bytes()
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise FileExists(
            f"{file} exists, and is left as it is", hint="`securelink config` shows what it sets"
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(example)
    except OSError:
        file.unlink()
        raise
    if json:
        output.result({"file": str(file)})
    else:
        output.note(f"wrote {file}")


def _settings(loaded: LoadedConfig) -> Iterator[tuple[str, str, Any, str]]:
    """Yield the table, key, value and origin of everything that is configured."""
    import msgspec

    from securelink.config.model import KEYS
    from securelink.endpoints import Kind

    for table in (field.name for field in msgspec.structs.fields(loaded.config)):
        if table == "peers":
            for name, peer in loaded.config.peers.items():
                origin = loaded.origin[f"peers.{name}"]
                yield f"peers.{_quoted(name)}", "id", peer.key.peer_id, origin
                for kind in Kind:
                    addresses = [str(one) for one in peer.endpoints if one.kind is kind]
                    if addresses:
                        yield f"peers.{_quoted(name)}", str(kind), addresses, origin
            continue
        for key in KEYS[table]:
            value = getattr(getattr(loaded.config, table), key)
            yield table, key, value, loaded.origin[f"{table}.{key}"]
        if table == "files":
            for name, files in loaded.config.files.peers.items():
                for key, value in msgspec.structs.asdict(files).items():
                    if value is not None:
                        origin = loaded.origin[f"files.peers.{name}"]
                        yield f"files.peers.{_quoted(name)}", key, value, origin


def _quoted(name: str) -> str:
    """A peer's name as a part of a table's: a dot would begin a table of its own (TOML 1.0)."""
    return json_text.dumps(name) if "." in name else name
