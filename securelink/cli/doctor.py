"""`securelink doctor`: what stands between this machine and those outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.cli.app import command_app, examples
from securelink.cli.options import (
    ExternalPort,
    Gateway,
    Interface,
    Json,
    Lease,
    NatMethod,
    Quiet,
    nat_flags,
)
from securelink.errors import ExitCode

if TYPE_CHECKING:
    from securelink.cli.output import Output
    from securelink.nat.rungs import Rung
    from securelink.node import Node

app = command_app()

_LABELS = {
    "lan-address": "LAN address",
    "pcp": "PCP",
    "nat-pmp": "NAT-PMP",
    "upnp": "UPnP",
    "external-address": "external address",
    "stun": "STUN",
    "ipv6": "IPv6",
}
"""Rungs whose names are written otherwise for people."""


@app.command(
    epilog=examples(
        "securelink doctor",
        "securelink doctor --method upnp",
        "securelink doctor --json | jq -r .verdict",
    )
)
def doctor(
    method: NatMethod = None,
    gateway: Gateway = None,
    interface: Interface = None,
    external_port: ExternalPort = None,
    lease: Lease = None,
    json: Json = False,
    quiet: Quiet = False,
) -> ExitCode:
    """Find out how far this machine can be reached through its router.

    Exit 0 means that the router forwards the port, or would; nobody outside has tried it.
    """
    from securelink.cli.output import Output
    from securelink.cli.running import run
    from securelink.config import load
    from securelink.home import Home

    output = Output(json=json, quiet=quiet)
    home = Home.find()
    flags = nat_flags(method, gateway, interface, external_port, lease)
    config = load(home.config_file, flags=flags).config

    async def command() -> ExitCode:
        import time

        from securelink.node import Node

        began = time.monotonic()
        async with await Node.open(home, config) as node:
            return await _examine(node, output, time.monotonic() - began)

    return run(command)


async def _examine(node: Node, output: Output, opening: float) -> ExitCode:
    from securelink.cli.listening import listening_port
    from securelink.cli.text import wrap
    from securelink.nat.diagnosis import Verdict
    from securelink.nat.ladder import Ladder
    from securelink.nat.rungs import Place, Result, Rung

    running = await node.serving()
    place = Place(
        port=await listening_port(node),
        hosts=node.config.server.host,
        pid=running.pid if running else None,
    )
    rungs: list[Rung] = []

    def tell(rung: Rung) -> None:
        rungs.append(rung)
        if not (output.json or output.quiet):
            _print(rung, output)

    file = node.home.config_file
    configured = f"configured in {file}" if file.exists() else "nothing configured"
    who = f"{node.config.node.name} ({node.identity.public.short}), {configured}"
    tell(Rung("identity", Result.OK, round(opening, 3), who))
    found = await Ladder(node.ledger(), node.config.nat, place, tell).climb()
    if output.json:
        output.result(
            {
                "verdict": found.verdict,
                "reason": found.reason,
                "sentence": found.sentence,
                "hint": found.hint,
                "rungs": rungs,
            }
        )
    else:
        output.line(wrap(f"{found.verdict}: {found.sentence}", output.columns))
        if found.hint is not None:
            output.line(wrap(f"next: {found.hint}", output.columns))
    return ExitCode.OK if found.verdict is Verdict.MAPPED else ExitCode.ROUTER


def _print(rung: Rung, output: Output) -> None:
    from securelink.cli.formats import duration
    from securelink.cli.output import Style, Styled
    from securelink.cli.text import wrap
    from securelink.nat.rungs import Result

    mark = {
        Result.OK: Styled("ok  ", Style.GREEN),
        Result.ABSENT: Styled("no  ", Style.YELLOW),
        Result.FAILED: Styled("FAIL", Style.RED),
        Result.SKIPPED: Styled("-   ", Style.DIM),
    }[rung.result]
    label = f"  {_LABELS.get(rung.name, rung.name):<16}  "
    took = f"{duration(rung.seconds):>7}"
    evidence = wrap(rung.evidence, output.columns, before=len(mark.text + label + took) + 2)
    output.line(mark, label, Styled(took, Style.DIM), f"  {evidence}")
