"""What the router forwards: shown and, where it is this node's, removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from securelink.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from securelink.cli.output import Output
    from securelink.config import NatConfig
    from securelink.errors import NatError
    from securelink.nat.ledger import Ledger
    from securelink.nat.upnp import Entry
    from securelink.node import Node
    from securelink.store.mappings import StoredMapping


async def show(node: Node, output: Output) -> None:
    """List what the router forwards, to whomever.

    Raises:
        NatError: no router answers.
    """
    from securelink.clock import now_ms
    from securelink.nat.clock import Clock
    from securelink.nat.keeper import locate
    from securelink.nat.listing import listing
    from securelink.nat.probe import Prober, methods_of

    config, written = node.config.nat, await node.ledger().all()
    prober = Prober(Clock(), methods_of(config.method))
    async with prober.start(locate(config)) as probe:
        found = await listing(probe, written, port=node.config.server.port, now=now_ms())
    if not found.told:
        output.note("the router can't list what it forwards: this is what this node asked for")
    if output.json:
        for entry, ours in found.rows:
            output.result(
                {
                    "protocol": entry.protocol,
                    "external_port": entry.external_port,
                    "local": entry.local,
                    "description": entry.description,
                    "enabled": entry.enabled,
                    "lease": entry.lease or None,
                    "ours": ours,
                }
            )
    elif not found.rows:
        output.note("the router forwards nothing" if found.told else "nothing is written down")
    else:
        header = ("PORT", "TO", "LEASE", "WHOSE", "DESCRIPTION")
        rows = [_row(entry, ours=ours) for entry, ours in found.rows]
        output.table(rows, header=header if output.is_terminal else None)


def _row(entry: Entry, *, ours: bool) -> list[str]:
    from securelink.cli.formats import duration

    return [
        f"{entry.protocol} {entry.external_port}",
        f"{entry.local.host}:{entry.local.port}",
        ("-" if not entry.lease else duration(entry.lease)) if entry.enabled else "off",
        "ours" if ours else "-",
        entry.description or "-",
    ]


async def remove(
    node: Node, output: Output, port: int | None, protocol: str | None
) -> ExitCode | None:
    """Remove what this node has opened on the router and no process keeps open.

    Args:
        port: the router's; None: all.
        protocol: None: whatever it is.

    Raises:
        NatError: there is no router.
        AlreadyRunning: a process of this node keeps the port open.
        UsageError: it is not this node's.
    """
    from securelink.errors import AlreadyRunning

    book = node.ledger()

    def is_meant(row: StoredMapping) -> bool:
        return port in (None, row.external.port) and protocol in (None, row.protocol)

    removable = [row for row in await book.removable(port) if is_meant(row)]
    rows = [row for row in removable if not await book.is_shared(row)]
    kept = [row for row in await book.all() if is_meant(row) and row not in rows]
    if port is not None and not rows:
        if kept:
            raise AlreadyRunning(
                f"port {port} is kept open by a running securelink", hint="end that one"
            )
        raise UsageError(
            f"this node has opened no port {port}", hint="securelink forward-port --list"
        )
    for row in kept:
        output.note(f"{_what(row)} stays: a running securelink keeps it open")
    if not rows:
        output.note("nothing to remove")
        return None
    failed = False
    async for row, error in _removed(book, node.config.nat, rows):
        failed = failed or error is not None
        _tell_removed(output, row, error)
    return ExitCode.ROUTER if failed else None


async def _removed(
    book: Ledger, config: NatConfig, rows: list[StoredMapping]
) -> AsyncIterator[tuple[StoredMapping, NatError | None]]:
    """Remove each; yield it with what went wrong."""
    from securelink.errors import NatError
    from securelink.nat import ledger
    from securelink.nat.clock import Clock
    from securelink.nat.keeper import locate
    from securelink.nat.probe import Prober
    from securelink.nat.terms import Method

    gateway = locate(config)
    methods = [method for method in Method if any(row.method is method for row in rows)]
    async with Prober(Clock(), methods).start(gateway) as probe:
        for row in rows:
            try:
                if row.gateway != gateway.host:
                    raise NatError(  # noqa: TRY301 - told like all other reasons
                        f"{_what(row)} is on another router: {row.gateway}",
                        hint="name it with --gateway if it can be reached from here",
                    )
                await ledger.remove(book, await probe.client(row.method), row)
            except NatError as error:
                yield row, error
            else:
                yield row, None


def _tell_removed(output: Output, row: StoredMapping, error: NatError | None) -> None:
    from securelink.cli.output import code_of

    if output.json:
        told: dict[str, Any] = {
            "status": "removed" if error is None else "failed",
            "protocol": row.protocol,
            "external_port": row.external.port,
            "local": row.local,
            "method": row.method,
        }
        if error is not None:
            told |= {
                "code": code_of(error),
                "error": error.message,
                "hint": error.hint,
                "exit": int(error.exit_code),
            }
        output.result(told)
    elif error is None:
        output.line(f"removed {_what(row)}")
    else:
        output.failure(error)


def _what(row: StoredMapping) -> str:
    return f"{row.protocol.upper()} {row.external.port} ({row.method.label})"
