"""`securelink serve`: run the node."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.options import (
    Checksum,
    Conflict,
    ExternalPort,
    Folder,
    Gateway,
    Interface,
    Json,
    Lease,
    NatMethod,
    Quiet,
    Verbose,
    files_flags,
    nat_flags,
)

if TYPE_CHECKING:
    from securelink.cli.logs import LogThread
    from securelink.cli.screen import Screen
    from securelink.cli.telling import TellingThread
    from securelink.node import Node

app = command_app()

PATIENCE = 5.0
"""Seconds for which the invite on the first screen waits for the router."""


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
    folder: Folder = None,
    conflict: Conflict = None,
    checksum: Checksum = None,
    invite: Annotated[
        bool, typer.Option("--invite", help="Make an invite, even if there are peers already.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Run this node: listen, receive, and deliver what waits, until Ctrl-C."""
    from securelink import descriptors
    from securelink.cli.logs import log_to_stderr
    from securelink.cli.output import Output
    from securelink.cli.screen import Screen
    from securelink.cli.staying import stay
    from securelink.config import load
    from securelink.home import Home

    output = Output(json=json, quiet=quiet, verbose=verbose)
    descriptors.allow_more()
    home = Home.find()
    config = load(
        home.config_file,
        flags={
            "server.port": port,
            "server.host": host,
            "server.public": public,
            "server.upnp": upnp,
            **files_flags(folder, conflict, checksum),
            **nat_flags(method, gateway, interface, external_port, lease),
        },
    ).config
    log = log_to_stderr(config.log.level, verbose)
    screen = Screen(output)

    async def work(node: Node, tell: TellingThread) -> None:
        await _serve(node, screen, tell, log, with_invite=invite)

    stay(home, config, screen, log, work)


async def _serve(
    node: Node, screen: Screen, tell: TellingThread, log: LogThread, *, with_invite: bool
) -> None:
    import asyncio

    from securelink.cli.staying import LAST_WORDS, progress_shown
    from securelink.service import Service

    output = screen.output
    lonely = not (await node.directory()).peers
    for_a_person = output.is_terminal and not output.json
    with_invite = with_invite or (lonely and for_a_person)
    async with await Service.open(node, tell, with_invite=with_invite) as service:
        if output.json:
            tell.event(service.ready())
        else:
            screen.begin(service)
        if node.config.server.port == 0:
            output.warn(f"port {service.server.port} is for this run only: peers lose this address")
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
                    with contextlib.suppress(TimeoutError):
                        # What the router said explains the addresses in it, so it stands above.
                        async with asyncio.timeout(LAST_WORDS):
                            await tell.written()
                screen.invite(service, lonely=lonely)
            async with progress_shown(output, log, service.registry):
                await running
        finally:
            # Also when the wait above was what a signal ended.
            running.cancel()
            await asyncio.wait([running])
