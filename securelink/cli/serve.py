"""`securelink serve`: run the node."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.options import (
    ExternalPort,
    Gateway,
    Interface,
    Json,
    Lease,
    NatMethod,
    Quiet,
    Verbose,
    nat_flags,
)
from securelink.errors import ExitCode

if TYPE_CHECKING:
    from securelink.cli.logs import LogThread
    from securelink.cli.output import Output
    from securelink.cli.telling import TellingThread
    from securelink.node import Node
    from securelink.progress import Snapshot

app = command_app()

PATIENCE = 5.0
"""Seconds for which the invite on the first screen waits for the router."""

LAST_WORDS = 0.5
"""Seconds that the last events have to be written."""


@app.command(
    epilog=examples(
        "securelink serve",
        "securelink serve --invite",
        "securelink serve --upnp",
        "securelink serve --public home.example.org:24819",
        "securelink serve --json | while read -r event; do ...; done",
    )
)
def serve(
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="TCP port; 0 takes a free one.")
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDRESS", help="Listen only here; repeatable. [default: everywhere]"),
    ] = None,
    public: Annotated[
        str | None,
        typer.Option(metavar="HOST[:PORT]", help="An address forwarded to this machine by hand."),
    ] = None,
    upnp: Annotated[
        bool | None,
        typer.Option(
            "--upnp/--no-upnp",
            show_default=False,
            help="Have the router forward the port (PCP, NAT-PMP or UPnP), and keep it so.",
        ),
    ] = None,
    method: NatMethod = None,
    gateway: Gateway = None,
    interface: Interface = None,
    external_port: ExternalPort = None,
    lease: Lease = None,
    folder: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where received files go.")
    ] = None,
    conflict: Annotated[
        str | None,
        typer.Option(
            metavar="rename|skip|overwrite", help="What to do when a file's name is taken."
        ),
    ] = None,
    checksum: Annotated[
        bool | None,
        typer.Option(
            "--checksum/--no-checksum",
            show_default=False,
            help="Tell the SHA-256 of each received file.",
        ),
    ] = None,
    invite: Annotated[
        bool, typer.Option("--invite", help="Make an invite, even if there are peers already.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Run this node: listen, receive, and deliver what waits, until Ctrl-C."""
    from securelink import descriptors
    from securelink.cli.failures import Interrupted, Terminated
    from securelink.cli.logs import log_to_stderr
    from securelink.cli.output import Output
    from securelink.cli.running import run
    from securelink.config import load
    from securelink.home import Home

    output = Output(json=json, quiet=quiet, verbose=verbose)
    descriptors.allow_more()
    home = Home.find()
    loaded = load(
        home.config_file,
        flags={
            "server.port": port,
            "server.host": host,
            "server.public": public,
            "server.upnp": upnp,
            "files.folder": _absolute(folder),
            "files.conflict": conflict,
            "files.checksum": checksum,
            **nat_flags(method, gateway, interface, external_port, lease),
        },
    )
    log = log_to_stderr(loaded.config.log.level, verbose)
    tellings: list[TellingThread] = []

    async def command() -> None:
        from securelink.node import Node

        async with await Node.open(home, loaded.config) as node:
            await _serve(node, output, tellings, log, with_invite=invite)

    try:
        run(command)
    except (Interrupted, Terminated):
        # A signal is how a server is meant to end, also while nobody reads what it says.
        if not quiet:
            log.say("stopped")
        if any(tell.is_stuck for tell in tellings):
            # The thread sits in a write that may never end, and would keep the interpreter.
            log.flush()
            os._exit(ExitCode.OK)


def _absolute(folder: str | None) -> str | None:
    """The path as the configuration takes it: what a person types counts from where they are."""
    return folder if not folder or folder.startswith("~") else str(Path(folder).absolute())


async def _serve(
    node: Node,
    output: Output,
    tellings: list[TellingThread],
    log: LogThread,
    *,
    with_invite: bool,
) -> None:
    import asyncio

    from securelink.cli import progress
    from securelink.cli.screen import Screen
    from securelink.cli.telling import TellingThread
    from securelink.progress import incoming
    from securelink.service import Service

    task = asyncio.current_task()
    assert task is not None

    failure: OSError | None = None

    def fail(error: OSError) -> None:
        nonlocal failure
        failure = error
        task.cancel()

    screen = Screen(output)
    tell = TellingThread(screen.event, fail)
    tellings.append(tell)
    lonely = not (await node.directory()).peers
    for_a_person = output.is_terminal and not output.json
    with_invite = with_invite or (lonely and for_a_person)
    try:
        async with await Service.open(node, tell, with_invite=with_invite) as service:
            if output.json:
                tell.event(service.ready())
            else:
                screen.begin(service)
            if node.config.server.port == 0:
                output.warn(
                    f"port {service.server.port} is for this run only: peers lose this address"
                )
            running = asyncio.create_task(service.run())
            try:
                if not output.json:
                    if with_invite and for_a_person:
                        # An invite that works from outside is worth a moment's wait.
                        settled = asyncio.create_task(service.settled.wait())
                        await asyncio.wait(
                            [running, settled],
                            timeout=PATIENCE,
                            return_when=asyncio.FIRST_COMPLETED,
                        )
                        settled.cancel()
                    screen.invite(service, lonely=lonely)

                def look() -> Snapshot | None:
                    return incoming(service.registry.incoming(), service.registry.taken)

                async with progress.shown(output, look) as line:
                    with contextlib.nullcontext() if line is None else log.kept_clear(line.away):
                        await running
            except asyncio.CancelledError:
                if failure is not None:
                    raise failure from None
                raise
            finally:
                # Also when the wait above was what a signal ended.
                running.cancel()
                await asyncio.wait([running])
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await tell.written()
