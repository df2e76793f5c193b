"""`securelink join`: redeem an invite."""

from __future__ import annotations

from typing import Annotated

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.options import Json, Quiet
from securelink.errors import UsageError

app = command_app()

TIMEOUT = 20.0
"""Seconds for which the inviting node is tried by default: somebody sits and waits."""

SHORTEST, LONGEST = 0.1, 1e9
"""Between how many seconds it may be."""


@app.command(
    epilog=examples(
        "securelink join slinv1...",
        "securelink join --as alice < invite.txt",
    )
)
def join(
    invite: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INVITE]", help="The invite; without it, standard input or a prompt."
        ),
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="What to call the other machine here."),
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to try.")] = TIMEOUT,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pair with the machine that made an invite, once and for good.

    It can be repeated after any failure: a machine that knows this one already just says so.
    """
    import sys

    from securelink import names
    from securelink.cli.output import Output
    from securelink.cli.running import run
    from securelink.config import load
    from securelink.home import Home
    from securelink.invite import Invite

    output = Output(json=json, quiet=quiet)
    home = Home.find()
    config = load(home.config_file).config
    if not SHORTEST <= timeout <= LONGEST:
        raise UsageError(f"--timeout: expected {SHORTEST:g} to {LONGEST:.0f}, not {timeout:g}")
    if as_ is not None:
        names.check(as_)
    if invite and invite != ["-"]:
        text = " ".join(invite)
    elif not invite and (sys.stdin is None or sys.stdin.isatty()):
        text = output.ask("invite", instead="the invite as an argument", echo=False)
    else:
        text = sys.stdin.read(65536)
    parsed = Invite.parse(text)

    async def command() -> None:
        import asyncio

        from securelink.node import Node
        from securelink.pairing import redeem

        deadline = asyncio.get_running_loop().time() + timeout
        async with await Node.open(home, config) as node:
            joined = await redeem(node, parsed, name=as_, deadline=deadline)
            directory = await node.directory()
        peer = joined.peer
        if output.json:
            output.result(
                {
                    "status": "paired",
                    "peer": peer.name,
                    "id": peer.key.peer_id,
                    "calls_itself": peer.calls_itself,
                    "known_before": joined.known_before,
                    "endpoint": joined.endpoint,
                    "me": {"name": config.node.name, "id": node.identity.public.peer_id},
                }
            )
            return
        only = len(directory.peers) == 1 or config.client.peer == peer.name
        command = "securelink send" if only else f"securelink send --to {peer.name}"
        output.note(f"{peer.name} is {peer.key.peer_id}")
        if peer.calls_itself != peer.name:
            output.note(f"{peer.name} calls itself {peer.calls_itself!r}")
        was = "paired already" if joined.known_before else "paired"
        output.line(
            f"{was}: you are {config.node.name} ({node.identity.public.short}), "
            f"`{command}` now goes to {peer.name}"
        )

    run(command)
