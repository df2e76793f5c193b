"""The options that several commands share, each written once.

A command declares those that it honours, after its own::

    def send(..., json: Json = False, quiet: Quiet = False, verbose: Verbose = 0) -> None:

`--debug` is not among them: the frame gives it to every command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from securelink.cli.completion import conflicts, endpoints, nat_methods

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print results and failures as JSON, one object a line.")
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results and failures, nothing else.")
]
Verbose: TypeAlias = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, show_default=False, help="Say more; -vv says even more."
    ),
]

Endpoint: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        metavar="KIND|HOST:PORT",
        help="Use only this: auto, loopback, lan, public, an address.",
        autocompletion=endpoints,
    ),
]

Folder: TypeAlias = Annotated[
    str | None, typer.Option("--folder", metavar="PATH", help="Where received files go.")
]
Conflict: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--conflict",
        metavar="rename|skip|overwrite",
        help="What to do when a file's name is taken.",
        autocompletion=conflicts,
    ),
]
Checksum: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--checksum/--no-checksum",
        show_default=False,
        help="Tell the SHA-256 of each received file.",
    ),
]

NatMethod: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="auto|pcp|nat-pmp|upnp",
        help="How to ask the router.",
        autocompletion=nat_methods,
    ),
]
Gateway: TypeAlias = Annotated[
    str | None, typer.Option("--gateway", metavar="ADDRESS", help="The router's IPv4 address.")
]
Interface: TypeAlias = Annotated[
    str | None,
    typer.Option("--interface", metavar="NAME", help="Use this network interface's router."),
]
ExternalPort: TypeAlias = Annotated[
    int | None,
    typer.Option("--external-port", metavar="PORT", help="The port on the router's outer side."),
]
Lease: TypeAlias = Annotated[
    int | None,
    typer.Option("--lease", metavar="SECONDS", help="How long a mapping is asked for at a time."),
]


def nat_flags(
    method: str | None,
    gateway: str | None,
    interface: str | None,
    external_port: int | None,
    lease: int | None,
) -> dict[str, str | int | None]:
    """Return what those five options set in the configuration; None where one was not given."""
    return {
        "nat.method": method,
        "nat.gateway": gateway,
        "nat.interface": interface,
        "nat.external_port": external_port,
        "nat.lease": lease,
    }


def files_flags(
    folder: str | None, conflict: str | None, checksum: bool | None
) -> dict[str, str | bool | None]:
    """Return what those three options set in the configuration; None where one was not given."""
    if folder and not folder.startswith("~"):
        # What a person types counts from where they are.
        folder = str(Path(folder).absolute())
    return {"files.folder": folder, "files.conflict": conflict, "files.checksum": checksum}
