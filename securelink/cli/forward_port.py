"""`securelink forward-port`: a port on the router, opened, listed, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

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
from securelink.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from securelink.cli.output import Output
    from securelink.events import Address, Event, Mapped
    from securelink.nat.diagnosis import Diagnosis
    from securelink.nat.keeper import Keeper
    from securelink.nat.ledger import Ledger
    from securelink.node import Node

app = command_app()

_HELP = "try: securelink forward-port --help"


@app.command(
    epilog=examples(
        "securelink forward-port",
        "securelink forward-port 8080 --any-port",
        "securelink forward-port 8080 --once --lease 600",
        "securelink forward-port --list",
        "securelink forward-port --remove 8080",
    )
)
def forward_port(
    port: Annotated[
        int | None,
        typer.Argument(
            metavar="[PORT]",
            min=1,
            max=65535,
            help="This machine's port; with --remove, the router's. [default: that of serve]",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[
        Literal["tcp", "udp"] | None,
        typer.Option(metavar="tcp|udp", help="What is forwarded. [default: tcp]"),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End at once, and leave the port open for its lease.")
    ] = False,
    any_port: Annotated[
        bool, typer.Option("--any-port", help="Take another port on the router if need be.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="List what the router forwards, to whomever.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove what this node left open at PORT.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="With --remove: at every port.")] = False,
    method: NatMethod = None,
    gateway: Gateway = None,
    interface: Interface = None,
    external_port: ExternalPort = None,
    lease: Lease = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> ExitCode | None:
    """Have the router forward a port to this machine, until Ctrl-C.

    It is asked by PCP, NAT-PMP or UPnP, whatever it answers. Only what this node had opened is
    ever removed.
    """
    from securelink.cli import forwarded
    from securelink.cli.failures import Interrupted, Terminated
    from securelink.cli.output import Output

    output = Output(json=json, quiet=quiet, verbose=verbose)
    flags = nat_flags(method, gateway, interface, external_port, lease)
    if list_ or remove or all_:
        opening = once or any_port or external_port is not None or lease is not None
        if list_:
            opening = opening or remove or all_ or port is not None or protocol is not None
        elif method is not None:
            opening = True  # what is written down tells how it is removed
        if opening:
            option = "--list" if list_ else "--remove"
            raise UsageError(f"{option} stands alone: it opens no port", hint=_HELP)
        if not list_ and (not remove or all_ == (port is not None)):
            raise UsageError(
                "--remove takes a PORT or --all", hint="try: securelink forward-port --remove --all"
            )
    if list_:
        return _run(flags, lambda node: forwarded.show(node, output))
    if remove:
        return _run(flags, lambda node: forwarded.remove(node, output, port, protocol))
    try:
        return _run(
            flags,
            lambda node: _forward(
                node, output, port, protocol or "tcp", once=once, any_port=any_port
            ),
        )
    except (Interrupted, Terminated):
        if once:
            raise
        return None  # a signal is how it is meant to end


def _run(
    flags: Mapping[str, Any], command: Callable[[Node], Coroutine[Any, Any, ExitCode | None]]
) -> ExitCode | None:
    from securelink.cli.running import run
    from securelink.config import load
    from securelink.home import Home

    home = Home.find()
    config = load(home.config_file, flags=flags).config

    async def opened() -> ExitCode | None:
        from securelink.node import Node

        async with await Node.open(home, config) as node:
            return await command(node)

    return run(opened)


async def _forward(
    node: Node, output: Output, port: int | None, protocol: str, *, once: bool, any_port: bool
) -> None:
    from securelink.cli.listening import listening_port
    from securelink.nat.keeper import Keeper, request_of
    from securelink.nat.terms import Protocol

    port = port or await listening_port(node)
    book, config = node.ledger(), node.config.nat
    request = request_of(config, port, Protocol(protocol), any_port=any_port)
    output.detail(f"asking the router for {protocol.upper()} {request.wanted_port}")
    teller = _Teller(output)
    try:
        async with Keeper.configured(book, config, request, teller.tell) as keeper:
            if once:
                _check(await keeper.attempt())
                await keeper.leave()
                _conclude(keeper, output, once=True)
            else:
                await _keep(keeper, output)
    finally:
        if teller.opened and not once:
            await _tell_end(output, book)


async def _keep(keeper: Keeper, output: Output) -> None:
    """Open the port and keep it open; return only if nothing needs to be kept."""
    import asyncio

    keeping = asyncio.ensure_future(keeper.run())
    judged = asyncio.ensure_future(keeper.first())
    try:
        await asyncio.wait({keeping, judged}, return_when=asyncio.FIRST_COMPLETED)
        if judged.done():
            _check(judged.result())
            _conclude(keeper, output, once=False)
            if keeper.mapping is None:
                return
        await keeping
    finally:
        keeping.cancel()
        judged.cancel()
        await asyncio.gather(keeping, judged, return_exceptions=True)


def _check(diagnosis: Diagnosis) -> None:
    from securelink.nat.diagnosis import Verdict

    if diagnosis.verdict is not Verdict.MAPPED:
        raise diagnosis.error()


class _Teller:
    """Prints the keeper's events.

    Attributes:
        opened: whether a port was open at any time.
    """

    def __init__(self, output: Output) -> None:
        self.opened = False
        self._output = output
        self._said = ""

    def tell(self, event: Event) -> None:
        from securelink import events

        output = self._output
        if output.json:
            output.result(event)
        elif isinstance(event, events.Mapped):
            output.line(_mapped_line(event))
        elif isinstance(event, events.MappingLost):
            self._said = event.reason
            output.warn(event.reason)
        elif isinstance(event, events.MappingFailed) and self.opened:
            # The first one ends the command, and is its error.
            if event.sentence.removesuffix(".") != self._said:
                output.warn(event.sentence.removesuffix("."))
            output.note(f"{event.hint} It is tried again." if event.hint else "It is tried again.")
        elif isinstance(event, events.PublicAddress):
            output.detail(f"public address: {event.host} ({event.kind}, told by {event.source})")
        self.opened = self.opened or isinstance(event, events.Mapped)


def _mapped_line(event: Mapped) -> str:
    import datetime

    from securelink.cli.formats import duration
    from securelink.nat.terms import Method

    lease = "without an end"
    if event.good_until is not None:
        left = datetime.datetime.fromisoformat(event.good_until) - datetime.datetime.now(
            datetime.UTC
        )
        lease = f"lease {duration(round(left.total_seconds()))}"
    return (
        f"{event.protocol.upper()} {_shown(event.external)} -> {_shown(event.local)}"
        f" ({Method(event.method).label}, {lease})"
    )


def _conclude(keeper: Keeper, output: Output, *, once: bool) -> None:
    """Say what becomes of a port that is open, and what is not known of it."""
    from securelink.cli.formats import duration
    from securelink.nat.diagnosis import Reason

    mapping, diagnosis = keeper.mapping, keeper.diagnosis
    assert diagnosis is not None
    if output.json:
        return
    if mapping is None:
        output.line(diagnosis.sentence)
    else:
        port, lease = mapping.external.port, mapping.row.lease
        if diagnosis.reason is Reason.OTHER_PORT:
            output.warn(diagnosis.sentence.removesuffix("."))
        if mapping.borrowed:
            output.note("the router had it already: it stays as it is")
        elif not lease:
            output.warn(
                "this router knows no leases: only "
                f"`securelink forward-port --remove {port}` closes the port"
                if once
                else diagnosis.sentence.removesuffix(".")
            )
        elif once:
            output.note(
                f"open for {duration(lease)}; securelink forward-port --remove {port} closes it"
            )
        if not once:
            left = f"; --once leaves it for {duration(lease)}" if lease else ""
            output.note(f"open until Ctrl-C{left}")
        output.note("nobody outside has tried it yet")
    if diagnosis.hint is not None:
        output.note(diagnosis.hint)


async def _tell_end(output: Output, book: Ledger) -> None:
    left = await book.own()
    for row in left:
        output.warn(
            f"the router did not close {row.protocol.upper()} {row.external.port}:"
            " the next start tries again"
        )
    if not left:
        output.note("closed")


def _shown(address: Address) -> str:
    return f"{address.host}:{address.port}"
