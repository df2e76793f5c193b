"""`securelink id`: who this node is."""

from __future__ import annotations

from typing import Annotated

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.options import Json
from securelink.errors import UsageError

app = command_app()


@app.command(
    epilog=examples(
        "securelink id",
        "securelink id -q                   the peer ID alone",
        "securelink id --toml               for another node's configuration",
    )
)
def show(
    toml: Annotated[
        bool,
        typer.Option(
            "--toml", help="Print the table by which others' configuration pairs with it."
        ),
    ] = False,
    json: Json = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print the peer ID, nothing else.")
    ] = False,
) -> None:
    """Show this node's peer ID, its name and where its files are."""
    from securelink.cli.fields import write_fields
    from securelink.cli.opened import open_node
    from securelink.cli.output import Output

    if toml and json:
        raise UsageError("--toml and --json exclude each other", hint="give one of them")
    output = Output(json=json, quiet=quiet)
    with open_node() as node:
        key = node.identity().public
        name = node.config.node.name
        home = str(node.home.data_folder)
        if toml:
            from securelink.cli.peer_table import peer_table
            from securelink.invite import choose_endpoints

            output.line(peer_table(name, key, choose_endpoints(node.reach().endpoints)))
        elif json:
            output.result({"id": key.peer_id, "name": name, "short": key.short, "home": home})
        elif quiet:
            output.line(key.peer_id)
        else:
            write_fields(
                output, [("id", key.peer_id), ("name", name), ("short", key.short), ("home", home)]
            )
