"""`securelink receive`: take what a peer's server has for this node."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.completion import peer_names
from securelink.cli.options import (
    Checksum,
    Conflict,
    Endpoint,
    Folder,
    Json,
    Quiet,
    Verbose,
    files_flags,
)

if TYPE_CHECKING:
    from securelink.cli.logs import LogThread
    from securelink.cli.output import Output
    from securelink.cli.screen import ReceivingScreen
    from securelink.cli.telling import TellingThread
    from securelink.directory import KnownPeer
    from securelink.errors import SecurelinkError
    from securelink.node import Node

app = command_app()


@app.command(
    epilog=examples(
        "securelink receive",
        "securelink receive alice --folder ~/from-alice",
        "securelink receive --once",
        "securelink receive --json | while read -r event; do ...; done",
    )
)
def receive(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="Whose server to link to.", autocompletion=peer_names
        ),
    ] = None,
    endpoint: Endpoint = None,
    once: Annotated[
        bool, typer.Option("--once", help="Take what waits there now, and end.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long to try for a first link; 0 for ever. [default: for ever; --once: 30]",
        ),
    ] = None,
    folder: Folder = None,
    conflict: Conflict = None,
    checksum: Checksum = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Stay linked to a peer's server and take what it has for this node, until Ctrl-C.

    Without NAME it is [client] peer, or else the only peer.
    """
    from securelink.cli.logs import log_to_stderr
    from securelink.cli.output import Output
    from securelink.cli.screen import ReceivingScreen
    from securelink.cli.staying import stay
    from securelink.config import load
    from securelink.home import Home

    output = Output(json=json, quiet=quiet, verbose=verbose)
    home = Home.find()
    config = load(
        home.config_file,
        flags={
            "client.endpoint": endpoint,
            "client.timeout": timeout,
            **files_flags(folder, conflict, checksum),
        },
    ).config
    log = log_to_stderr(config.log.level, verbose)
    screen = ReceivingScreen(output)

    async def work(node: Node, tell: TellingThread) -> None:
        peer = await _peer(node, name)
        patience = config.client.timeout if once or timeout is not None else None
        await _receive(node, peer, screen, tell, log, once=once, patience=patience or None)

    stay(home, config, screen, log, work, by_signal=not once)


async def _peer(node: Node, name: str | None) -> KnownPeer:
    from securelink.cli.whom import default_peer
    from securelink.directory import ME
    from securelink.errors import UsageError

    directory = await node.directory()
    name = name or default_peer(node.config, directory, say="NAME")
    if name in {ME, node.identity.public.peer_id}:
        raise UsageError(
            "nothing is received from this machine itself: name another one",
            hint="`securelink serve` takes what is sent to me, `securelink inbox` shows it",
        )
    if name is None:
        raise UsageError(
            "there are no peers yet",
            hint="pair first: `securelink invite` there, `securelink join` here",
        )
    return directory.by_name(name)


async def _receive(
    node: Node,
    peer: KnownPeer,
    screen: ReceivingScreen,
    tell: TellingThread,
    log: LogThread,
    *,
    once: bool,
    patience: float | None,
) -> None:
    from securelink.cli.staying import progress_shown
    from securelink.receiver import Receiver

    def failed(error: SecurelinkError) -> None:
        tell.say(partial(_complain, screen.output, error))

    def not_yet() -> None:
        line = f"{peer.name} is not there yet, trying for {patience:g} s"
        tell.say(partial(screen.output.note, line))

    async with (
        await Receiver.open(
            node,
            peer,
            tell,
            choice=node.config.client.endpoint,
            patience=patience,
            failed=failed,
            not_yet=not_yet,
        ) as receiver,
        progress_shown(screen.output, log, receiver.registry),
    ):
        if once:
            await receiver.take_what_waits()
            tell.say(screen.took_what_waited)
        else:
            await receiver.stay()


def _complain(output: Output, error: SecurelinkError) -> None:
    """Tell why there is no link, so that nobody looks at a silent screen."""
    from securelink.cli.output import Style, Styled

    line = f"{error.message}; trying again"
    if output.json or output.quiet:
        output.warn(line)
    else:
        output.note(line)
    if error.hint is not None:
        output.note(Styled("hint:", Style.BOLD), f" {error.hint}")
