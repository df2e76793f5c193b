"""`securelink inbox`: the messages and files received; show, delete, follow."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.completion import peer_names
from securelink.cli.options import Json, Quiet, Verbose
from securelink.errors import ExitCode, UnknownPeer, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from securelink.cli.opened import OpenedNode
    from securelink.cli.output import Output
    from securelink.store.inbox import InboxMessage

app = command_app()

NEWEST = 20
"""How many messages a person is shown who does not say."""

LOOK_INTERVAL = 0.1
"""Seconds between two looks at what other processes have stored."""


Sender = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="NAME",
        help="Only from this peer.",
        autocompletion=peer_names,
    ),
]


class _Fits(NamedTuple):
    """Which messages are wanted, as for `store.inbox.after`."""

    peer: bytes | None
    since: int | None
    unread: bool


@app.callback(
    invoke_without_command=True,
    epilog=examples(
        "securelink inbox",
        "securelink inbox --unread --from alice",
        "securelink inbox --since 2h --json",
        "securelink inbox --follow",
        "securelink inbox --partial --verbose",
        "securelink inbox show 019a4f2e --raw > text",
    ),
)
def list_messages(
    unread: Annotated[
        bool, typer.Option("--unread", help="Only what `inbox` has not shown on a terminal yet.")
    ] = False,
    from_: Sender = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="DATE|DURATION", help="Only since then: 2026-11-01, 14:05, 2h, 3d."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", help="The newest N; 0 for all. [default: 20; with --json 0]"),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with what comes in, until Ctrl-C.")
    ] = False,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Instead, the files of which only a part has come."),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Show the newest messages and files, the latest last; * marks those not yet read.

    Read is what `inbox` has shown on a terminal; what `serve` and `receive` print there stays
    unread. -v shows each message's ID.
    """
    from securelink.cli.failures import SigTerm
    from securelink.cli.moments import parse_moment
    from securelink.cli.opened import open_node
    from securelink.cli.output import Output
    from securelink.store import inbox

    output = Output(json=json, quiet=quiet, verbose=verbose)
    if limit is not None and limit < 0:
        raise UsageError(f"--limit is 0 or more, not {limit}", hint="0 stands for all")
    # SQLite knows no larger numbers than these.
    most = (0 if json else NEWEST) if limit is None else min(limit, sys.maxsize)
    moment = None if since is None else parse_moment(since)
    if partial and (unread or follow or since is not None or limit is not None):
        raise UsageError(
            "--partial goes with --from alone", hint="see them all with: securelink inbox --partial"
        )
    with open_node() as node:
        peer = None if from_ is None else _sender(node, from_)
        if partial:
            from securelink.cli import partial as unfinished

            unfinished.show(output, node, peer)
            return
        fits = _Fits(peer, moment, unread)
        with node.database.snapshot() as conn:
            told = inbox.newest_seq(conn)
            older = inbox.before_newest(conn, most, **fits._asdict()) if most else None
        if older is not None and limit is None:
            output.note(f"the newest {most}; all of them: --limit 0")
        count = 0
        try:
            for messages in _batches(node, older or 0, told, fits):
                _show(output, node, messages)
                count += len(messages)
            if follow:
                _follow(output, node, told, peer)
        except (KeyboardInterrupt, SigTerm):
            # A signal is how a follower is meant to end.
            if not follow:
                raise
            return
    if not count and not json:
        filtered = unread or moment is not None or peer is not None
        output.note("no messages like that" if filtered else "no messages")


@app.command(
    epilog=examples("securelink inbox show 019a4f2e", "securelink inbox show 019a4f2e --raw")
)
def show(
    message_id: Annotated[
        str, typer.Argument(metavar="ID", help="A message's ID, or enough of its beginning.")
    ],
    from_: Sender = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the text's bytes, exactly, and nothing else.")
    ] = False,
    json: Json = False,
) -> None:
    """Show one message, or where one file lies."""
    from securelink.cli import received
    from securelink.cli.opened import open_node
    from securelink.cli.output import Output
    from securelink.following import named
    from securelink.store import inbox, lookup

    if raw and json:
        raise UsageError("--raw and --json exclude each other", hint="give one of them")
    output = Output(json=json)
    with open_node() as node:
        peer = None if from_ is None else _sender(node, from_)
        with node.database.snapshot() as conn:
            found = inbox.get(conn, *lookup.message(conn, message_id, peer))
        assert found is not None, "the same snapshot has it"
        (message,) = named(node.directory(), [found])
        if raw and message.file is not None:
            raise UsageError("that is a file, not a text", hint=f"it is {message.file.path}")
        if raw:
            output.raw(message.text.encode())
        else:
            received.write_whole(output, message)
        _mark_read(output, node, [message])


@app.command(
    epilog=examples(
        "securelink inbox delete 019a4f2e",
        "securelink inbox delete --before 30d",
        "securelink inbox delete --before 30d --from alice",
        "securelink inbox delete --partial --before 7d",
    )
)
def delete(
    message_id: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Messages' IDs, or enough of their beginnings."),
    ] = None,
    from_: Sender = None,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="DATE|DURATION",
            help="All that came before: 2026-11-01, 30d; with --from only that peer's.",
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option("--partial", help="Instead, files of which only a part has come."),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> ExitCode | None:
    """Delete messages for good; files that came stay where they are."""
    from securelink.cli.moments import parse_moment
    from securelink.cli.opened import open_node
    from securelink.cli.output import Output
    from securelink.store import inbox, lookup

    output = Output(json=json, quiet=quiet)
    if (before is None) == (not message_id):
        raise UsageError(
            "give either messages' IDs or --before", hint="try: securelink inbox delete --help"
        )
    moment = None if before is None else parse_moment(before)
    with open_node() as node:
        peer = None if from_ is None else _sender(node, from_)
        if partial:
            from securelink.cli import partial as unfinished

            return unfinished.delete(output, node, message_id or (), peer, moment)
        with node.database.transaction() as conn:
            if moment is not None:
                count = inbox.delete_before(conn, moment, peer)
            else:
                # Every ID is found before any message goes.
                found = {lookup.message(conn, typed, peer) for typed in message_id or ()}
                count = inbox.delete(conn, found)
    if json:
        output.result({"status": "deleted", "count": count})
    else:
        output.note(f"deleted {count} {'message' if count == 1 else 'messages'}")
    return None


def _sender(node: OpenedNode, name: str) -> bytes:
    """Return the key of the peer called *name*, or of one that was when it wrote to us.

    Raises:
        UnknownPeer: if there is none.
        UsageError: if there were several.
    """
    from securelink.errors import BadPeerId
    from securelink.identity import PublicKey
    from securelink.store import lookup

    known = node.directory()
    try:
        return known.by_name(name).key.raw
    except UnknownPeer:
        with node.database.snapshot() as conn:
            senders = lookup.senders_called(conn, name)
        former = [key for key in senders if PublicKey(key) not in known]
        if len(former) > 1:
            raise UsageError(
                f"several former peers were called {name}",
                hint="give the peer ID; `securelink inbox --json` shows it",
            ) from None
        if former:
            return former[0]
        try:
            return PublicKey.from_peer_id(name).raw
        except BadPeerId:
            pass
        raise


def _batches(
    node: OpenedNode, seq: int, last: int, fits: _Fits
) -> Iterator[Sequence[InboxMessage]]:
    """The messages that fit, after `seq` up to `last`: never more at once than memory holds.

    Nothing of the store is held between two of them, however slowly they are read.
    """
    from securelink.store import inbox

    while seq < last:
        with node.database.snapshot() as conn:
            found = inbox.after(conn, seq, **fits._asdict())
        if not found:
            return
        seq = found[-1].seq
        yield [message for message in found if message.seq <= last]


def _show(output: Output, node: OpenedNode, messages: Sequence[InboxMessage]) -> None:
    from securelink.cli import received
    from securelink.following import named

    for message in named(node.directory(), messages):
        received.write(output, message)
    _mark_read(output, node, messages)


def _follow(output: Output, node: OpenedNode, told: int, peer: bytes | None) -> None:
    """Show what any process of this node stores after the message *told*, for ever."""
    import time

    from securelink.store import inbox

    while True:
        with node.database.snapshot() as conn:
            found = inbox.after(conn, told)
        if found:
            told = found[-1].seq
            _show(output, node, [each for each in found if peer is None or each.peer == peer])
        else:
            time.sleep(LOOK_INTERVAL)


def _mark_read(output: Output, node: OpenedNode, messages: Sequence[InboxMessage]) -> None:
    """Note that a person was shown these messages, if that is so."""
    from securelink.store import inbox

    unread = [message.seq for message in messages if not message.read]
    if unread and output.is_terminal and not output.json:
        with node.database.transaction() as conn:
            inbox.mark_read(conn, unread)
