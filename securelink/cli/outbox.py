"""`securelink outbox`: what owes a receipt or ended badly; try it now, cancel it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.completion import peer_names, peers_or_ids
from securelink.cli.options import Json, Quiet, Verbose
from securelink.errors import ExitCode, UnknownPeer, UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from securelink.cli.opened import OpenedNode
    from securelink.cli.output import Output
    from securelink.directory import KnownPeer
    from securelink.node import Node
    from securelink.store.outbox_list import Entry

app = command_app()


@app.command(
    epilog=examples(
        "securelink outbox",
        "securelink outbox --to alice --json",
        "securelink outbox --flush alice",
        "securelink outbox --cancel 019a4f2e-1b3c",
    )
)
def outbox(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME|ID]...",
            help="With --flush: for whom; everybody if nobody is named. With --cancel: IDs, or "
            "enough of their beginnings, 4 characters or more; -v shows them.",
            autocompletion=peers_or_ids,
        ),
    ] = None,
    flush: Annotated[bool, typer.Option("--flush", help="Try now to deliver what waits.")] = False,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Give these up; a folder's ID is for all in it.")
    ] = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="NAME", help="Only for this peer.", autocompletion=peer_names),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what was delivered or withdrawn lately.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="With --flush: how long to try since the last progress; 0 for ever. [default: 30]",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> ExitCode | None:
    """List what has no receipt yet, or ended without one, the oldest first; -v shows IDs.

    --flush ends as `send` does: 0 if all is delivered, 75 if something still waits. --cancel ends
    with 6 if some of it has left already, and so may have arrived.
    """
    from securelink.cli.output import Output

    output = Output(json=json, quiet=quiet, verbose=verbose)
    _refuse_contradictions(words or [], flush, cancel, to, everything, timeout)
    if flush:
        return _flush([*(words or []), *([to] if to else [])], output, timeout)
    if cancel:
        return _cancel(words or [], to, output)
    _list(output, to, everything=everything)
    return None


def _refuse_contradictions(
    words: Sequence[str],
    flush: bool,
    cancel: bool,
    to: str | None,
    everything: bool,
    timeout: float | None,
) -> None:
    if flush and cancel:
        raise UsageError("--flush and --cancel exclude each other", hint="give one of them")
    if cancel and not words:
        raise UsageError("--cancel needs an ID", hint="see them with: securelink outbox --verbose")
    if words and not (flush or cancel):
        raise UsageError(
            "a name goes with --flush, an ID with --cancel",
            hint="to see what waits for one peer: --to NAME",
        )
    if flush and words and to is not None:
        raise UsageError("--to says the same as the name behind --flush", hint="leave one out")
    if everything and (flush or cancel):
        raise UsageError("--all is for the list alone")
    if timeout is not None and not flush:
        raise UsageError("--timeout goes with --flush")


def _list(output: Output, to: str | None, *, everything: bool) -> None:
    from securelink.cli import waiting
    from securelink.cli.opened import open_node
    from securelink.clock import now_ms
    from securelink.store import outbox_list

    with open_node() as node:
        node.settle()
        peer = None if to is None else _key(node, to)
        now = now_ms()
        with node.database.snapshot() as conn:
            found = outbox_list.entries(conn, now, peer=peer, everything=everything)
        waiting.write(output, found, node.names(), now)
    if not (found or output.json):
        output.note("nothing waits" if to is None else f"nothing waits for {to}")


def _cancel(typed: Sequence[str], to: str | None, output: Output) -> ExitCode:
    from securelink.cli import waiting
    from securelink.cli.opened import open_node
    from securelink.clock import now_ms
    from securelink.store import outbox as rows
    from securelink.store import outbox_list

    with open_node() as node:
        node.settle()
        peer = None if to is None else _key(node, to)
        now = now_ms()
        with node.database.transaction() as conn:
            # Every ID is found before anything is given up.
            found = {(each.peer, each.id): each for each in _open(conn, now, typed, peer)}
            for entry in found.values():
                rows.cancel(conn, outbox_list.rows_of(conn, entry), now)
            ended = [outbox_list.get(conn, now, each.peer, each.id) for each in found.values()]
        name_of = node.names()
    codes = {
        waiting.write_cancelled(output, before, after, name_of(after.peer))
        for before, after in zip(found.values(), ended, strict=True)
    }
    return ExitCode.UNCONFIRMED if ExitCode.UNCONFIRMED in codes else ExitCode.OK


def _open(
    conn: sqlite3.Connection, now: int, typed: Sequence[str], peer: bytes | None
) -> Iterator[Entry]:
    """What the IDs stand for.

    Raises:
        UsageError: one is too short, or stands for nothing, for several, or for what has ended.
    """
    from securelink.store import outbox_list

    for each in typed:
        entry = outbox_list.find(conn, now, each, peer)
        if not entry.is_open:
            raise UsageError(f"{each} is {entry.state} already", hint="nothing was cancelled")
        yield entry


def _flush(names: Sequence[str], output: Output, timeout: float | None) -> ExitCode:
    from securelink.cli.running import run
    from securelink.cli.sent import flush
    from securelink.config import load
    from securelink.home import Home

    home = Home.find()
    config = load(home.config_file, flags={"client.timeout": timeout}).config

    async def command() -> ExitCode:
        from securelink.node import Node

        async with await Node.open(home, config) as node:
            recipients = await _recipients(node, names, output)
            return await flush(node, recipients, output)

    return run(command)


async def _recipients(node: Node, names: Sequence[str], output: Output) -> list[KnownPeer]:
    """Those who are named; if nobody is, all for whom something is queued."""
    from securelink.directory import ME, KnownPeer
    from securelink.identity import PublicKey
    from securelink.store import outbox_list

    known = await node.directory()
    me = KnownPeer(ME, node.identity.public)
    if names:
        found = [me if name == ME else known.by_name(name) for name in names]
        return list({peer.key.raw: peer for peer in found}.values())
    recipients = []
    for raw in await node.store.read(outbox_list.peers_with_queued):
        key = PublicKey(raw)
        peer = me if key == me.key else known.by_key(key)
        if peer is None:
            output.warn(f"something waits for {key.short}, who is no peer any more")
        else:
            recipients.append(peer)
    return recipients


def _key(node: OpenedNode, name: str) -> bytes:
    """The key of a peer, or of one that was, by its peer ID.

    Raises:
        UnknownPeer: if there is none.
    """
    from securelink.directory import ME
    from securelink.errors import BadPeerId
    from securelink.identity import PublicKey

    if name == ME:
        return node.identity().public.raw
    try:
        return node.directory().by_name(name).key.raw
    except UnknownPeer:
        with contextlib.suppress(BadPeerId):
            return PublicKey.from_peer_id(name).raw
        raise
