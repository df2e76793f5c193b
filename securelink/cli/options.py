"""The options that several commands share, each written once.

A command declares those that it honours, after its own::

    def send(..., json: Json = False, quiet: Quiet = False, verbose: Verbose = 0) -> None:

`--debug` is not among them: the frame gives it to every command.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

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
