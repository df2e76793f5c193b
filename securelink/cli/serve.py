"""`securelink serve`: run the node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.options import Json, Quiet, Verbose

if TYPE_CHECKING:
    from securelink.cli.output import Output
    from securelink.events import Address, Event
    from securelink.node import Node
    from securelink.service import Service

app = command_app()


@app.command(
    epilog=examples(
        "securelink serve",
        "securelink serve --invite",
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
    invite: Annotated[
        bool, typer.Option("--invite", help="Make an invite, even if there are peers already.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Run this node: listen, receive, and deliver what waits, until Ctrl-C."""
    from securelink.cli.failures import Interrupted, Terminated
    from securelink.cli.output import Output
    from securelink.cli.running import run
    from securelink.config import load
    from securelink.home import Home

    output = Output(json=json, quiet=quiet, verbose=verbose)
    home = Home.find()
    loaded = load(
        home.config_file,
        flags={"server.port": port, "server.host": host, "server.public": public},
    )
    _log_to_stderr(loaded.config.log.level, verbose)

    async def command() -> None:
        from securelink.node import Node

        async with await Node.open(home, loaded.config) as node:
            await _serve(node, output, with_invite=invite)

    try:
        run(command)
    except (Interrupted, Terminated):
        # A signal is how a server is meant to end.
        output.note("stopped")


async def _serve(node: Node, output: Output, *, with_invite: bool) -> None:
    import asyncio

    from securelink.cli.telling import TellingThread
    from securelink.service import Service

    task = asyncio.current_task()
    assert task is not None

    failure: OSError | None = None

    def fail(error: OSError) -> None:
        nonlocal failure
        failure = error
        task.cancel()

    tell = TellingThread(lambda event: _print(event, output), fail)
    lonely = not (await node.directory()).peers
    for_a_person = output.is_terminal and not output.json
    with_invite = with_invite or (lonely and for_a_person)
    async with await Service.open(node, tell, with_invite=with_invite) as service:
        if output.json:
            tell.event(service.ready())
        else:
            _first_screen(service, output, lonely=lonely)
        if node.config.server.port == 0:
            output.warn(f"port {service.server.port} is for this run only: peers lose this address")
        try:
            await service.run()
        except asyncio.CancelledError:
            if failure is not None:
                raise failure from None
            raise


def _first_screen(service: Service, output: Output, *, lonely: bool) -> None:
    """Who and where this node is, and how to pair with it."""
    node, server = service.node, service.server
    key = node.identity.public
    output.note(f"{node.config.node.name} ({key.short}) listens on port {server.port}")
    known = {each.kind for each in server.endpoints}
    for endpoint in server.endpoints:
        output.note(f"  {endpoint.kind + ':':<10}{endpoint}")
    if "public" not in known:
        output.note("  public:   not known; forward a port on your router to this machine,")
        output.note("            then: securelink serve --public HOST:PORT")
    if service.invite is not None:
        output.note("pair another machine (once, 24 h):")
        output.line(f"securelink join {service.invite.encode()}")
        kinds = {each.kind for each in service.invite.endpoints}
        if "public" not in kinds:
            where = "inside this network" if "lan" in kinds else "on this machine"
            output.note(f"this invite works {where} only: no public address is in it")
        output.note(f"try it here: securelink send {'' if lonely else '--to me '}hello")


def _print(event: Event, output: Output) -> None:
    from datetime import datetime

    from securelink import events
    from securelink.cli.formats import message_line

    if output.json:
        output.result(event)
        return
    match event:
        case events.Message():
            received = int(datetime.fromisoformat(event.received_at).timestamp() * 1000)
            output.line(message_line(received, event.peer, event.text))
        case events.Paired():
            also = (
                f", which calls itself {event.calls_itself!r}"
                if event.calls_itself != event.peer
                else ""
            )
            output.note(f"paired with {event.peer}{also}")
            output.note(f"{event.peer} is {event.id}")
        case events.LinkUp():
            output.detail(f"{event.peer} is linked from {_shown(event.address)}")
        case events.LinkDown():
            output.detail(f"{event.peer} has left {_shown(event.address)}: {event.reason}")
        case events.Invite():
            output.note("the addresses have changed; the same invite, with the new ones:")
            output.line(f"securelink join {event.invite}")


def _shown(address: Address | None) -> str:
    return f"{address.host} port {address.port}" if address else "an address that is gone"


def _log_to_stderr(level: str, verbose: int) -> None:
    import logging

    wanted = {0: logging.getLevelNamesMapping()[level.upper()], 1: logging.INFO}
    logging.basicConfig(
        level=wanted.get(verbose, logging.DEBUG),
        format="%(asctime)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
    )
    # asyncio's own debug lines are about file descriptors, not about this node.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
