"""`securelink peers`: whom this node knows; show, rename, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.completion import peer_names
from securelink.cli.options import Json, Quiet
from securelink.errors import UnknownPeer, UsageError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from securelink.cli.opened import OpenedNode
    from securelink.cli.output import Output, Styled
    from securelink.directory import KnownPeer
    from securelink.presence import Presence
    from securelink.store.peers import Peer, Removed

app = command_app()

Name: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="A peer's name here, or its ID as `securelink peers` shows it.",
        autocompletion=peer_names,
    ),
]


@app.callback(
    invoke_without_command=True,
    epilog=examples(
        "securelink peers",
        "securelink peers show alice",
        "securelink peers rename alices-laptop alice",
        "securelink peers remove bob",
        "securelink peers --toml >> other.toml",
    ),
)
def list_peers(
    toml: Annotated[
        bool, typer.Option("--toml", help="Print tables to paste into a configuration.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the machines that this one is paired with, and which of them are linked now.

    A peer is online while a `serve` or `receive` here has a link to it. Under WAITING: what is
    queued for it (out), and what of its messages nobody has read (in).
    """
    from securelink.cli.opened import open_node
    from securelink.cli.output import Output
    from securelink.store import peers

    if toml and json:
        raise UsageError("--toml and --json exclude each other", hint="give one of them")
    output = Output(json=json, quiet=quiet)
    with open_node() as node:
        known = node.directory().peers
        there = _presence(node, known)
        with node.database.snapshot() as conn:
            pending = [peer for peer in peers.list_all(conn, pending=True) if peer.pending]
        if toml:
            _write_tables(output, known)
        elif json:
            for peer in known:
                output.result(_as_json(peer, there[peer.key.raw]))
        else:
            _write_list(output, known, there)
            for begun in pending:
                output.note(
                    f"joining {begun.name} was never finished: repeat `securelink join`, "
                    f"or: securelink peers remove {begun.name}"
                )


@app.command(epilog=examples("securelink peers show alice"))
def show(name: Name, json: Json = False) -> None:
    """Show what is known of a peer."""
    from securelink.cli.fields import write_fields
    from securelink.cli.formats import clock
    from securelink.cli.opened import open_node
    from securelink.cli.output import Output

    output = Output(json=json)
    with open_node() as node:
        _refuse_reserved(name)
        peer = node.directory().by_name(name)
        at_present = _presence(node, [peer])[peer.key.raw]
        if json:
            output.result(_as_json(peer, at_present))
            return
        fields = [
            ("name", peer.name),
            ("id", peer.key.peer_id),
            ("calls itself", peer.calls_itself or "-"),
            ("online", _online(at_present)),
            ("last seen", _seen(peer, at_present)),
            ("waiting for it", str(at_present.outgoing)),
            ("unread from it", str(at_present.unread)),
        ]
        if peer.paired_at is not None:
            fields.append(("paired", clock(peer.paired_at)))
        fields.append(("from", _place(node, peer) if peer.configured else "an invite"))
        addresses = [f"{each.kind} {each}" for each in peer.endpoints]
        labels = ("endpoints", *[""] * len(addresses))
        fields += zip(labels, addresses or ["none known"], strict=False)
        write_fields(output, fields)


@app.command(epilog=examples("securelink peers rename alices-laptop alice"))
def rename(
    old: Annotated[
        str,
        typer.Argument(metavar="OLD", help="Its name until now.", autocompletion=peer_names),
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its name from now on.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give a peer another name on this machine."""
    from securelink import directory
    from securelink.cli.opened import open_node
    from securelink.cli.output import Output
    from securelink.store import peers

    output = Output(json=json, quiet=quiet)
    with open_node() as node, node.database.transaction() as conn:
        listed, stored = _stored(node, conn, old, doing="rename")
        taken = directory.read(conn, node.config.peers).names - {listed}
        peer = peers.rename(conn, stored.name, new, taken)
    if json:
        output.result({"status": "renamed", "peer": peer.name, "id": _peer_id(peer)})
    else:
        output.note(f"{listed} is called {peer.name} from now on")


@app.command(epilog=examples("securelink peers remove bob", "securelink peers remove bob carol"))
def remove(
    name: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Peers' names here.", autocompletion=peer_names),
    ],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove peers: they are let in no more, and what waits for them is given up.

    What they sent stays in the inbox.
    """
    from securelink.cli.opened import open_node
    from securelink.cli.output import Output
    from securelink.clock import now_ms
    from securelink.store import peers

    output = Output(json=json, quiet=quiet)
    removed: dict[str, Removed] = {}
    with open_node() as node, node.database.transaction() as conn:
        # Every name is looked up before any peer goes, and each goes once.
        stored = dict(_stored(node, conn, each, doing="remove") for each in name)
        for listed, peer in stored.items():
            removed[listed] = peers.remove(conn, peer.name, now_ms())
    for each, gone in removed.items():
        if json:
            output.result(
                {
                    "status": "removed",
                    "peer": each,
                    "id": _peer_id(gone.peer),
                    "cancelled": gone.cancelled,
                    "invite_revoked": gone.invite_revoked,
                }
            )
        else:
            _tell_removed(output, each, gone)


def _tell_removed(output: Output, name: str, gone: Removed) -> None:
    output.note(f"{name} is removed")
    count = gone.cancelled
    if count:
        output.note(f"{count} {'message' if count == 1 else 'messages'} for {name} cancelled")
    if gone.invite_revoked:
        output.note(f"the invite that {name} came with is revoked")


def _stored(
    node: OpenedNode, conn: sqlite3.Connection, name: str, *, doing: str
) -> tuple[str, Peer]:
    """Return the name under which the peer *name* is listed, and its row, pending or not.

    Raises:
        UnknownPeer: if there is none.
        UsageError: if it stands in the configuration, which is not ours to change.
    """
    from securelink import directory
    from securelink.store import peers

    _refuse_reserved(name)
    # A name in the list may differ from the row's, where the configuration has taken that.
    try:
        known = directory.read(conn, node.config.peers).by_name(name)
    except UnknownPeer:
        pending = peers.by_name(conn, name, pending=True)
        if pending is None or not pending.pending:
            raise
        return pending.name, pending
    if known.configured:
        raise UsageError(
            f"{known.name} stands in {_place(node, known)}",
            hint=f"{doing} [peers.{known.name}] there",
        )
    stored = peers.by_key(conn, known.key.raw)
    assert stored is not None, "the same transaction has just read it"
    return known.name, stored


def _refuse_reserved(name: str) -> None:
    from securelink import names

    if name in names.RESERVED:
        meaning = "this node itself" if name == "me" else "every peer"
        hint = "see: securelink id" if name == "me" else "give their names, one by one"
        raise UsageError(f"{name} means {meaning}, and is no peer's name", hint=hint)


def _place(node: OpenedNode, peer: KnownPeer) -> str:
    line = node.config.peers[peer.name].line
    return f"{node.home.config_file}" + (f", line {line}" if line else "")


def _write_tables(output: Output, known: tuple[KnownPeer, ...]) -> None:
    from securelink.cli.peer_table import peer_table

    if known:
        output.line("\n\n".join(peer_table(each.name, each.key, each.endpoints) for each in known))


def _presence(node: OpenedNode, known: Sequence[KnownPeer]) -> dict[bytes, Presence]:
    from securelink import presence

    with node.database.snapshot() as conn:
        return presence.read(conn, node.home, [peer.key.raw for peer in known])


def _write_list(output: Output, known: tuple[KnownPeer, ...], there: dict[bytes, Presence]) -> None:
    if not known:
        output.note("no peers yet; to pair: `securelink invite` on one machine,")
        output.note("`securelink join` on the other")
        return
    rows: list[list[str | Styled]] = [
        [
            _names(peer),
            peer.key.short,
            _online(there[peer.key.raw]),
            _seen(peer, there[peer.key.raw]),
            _waiting(there[peer.key.raw]),
            ", ".join(map(str, peer.endpoints)) or "-",
        ]
        for peer in known
    ]
    header = ("NAME", "ID", "ONLINE", "LAST SEEN", "WAITING", "ENDPOINTS")
    # A program that reads the rows would take the header for one of them.
    output.table(rows, header=header if output.is_terminal else None)


def _when(ms: int | None) -> str:
    from securelink.cli.formats import clock

    return "never" if ms is None else clock(ms)


def _names(peer: KnownPeer) -> str:
    """What we call it and, if that is something else, what it calls itself."""
    other = peer.calls_itself not in {"", peer.name}
    return f"{peer.name} ({peer.calls_itself})" if other else peer.name


def _online(at_present: Presence) -> str:
    """Since when and by which way: `since 14:05, lan`."""
    if at_present.since is None or at_present.endpoint is None:
        return "-"
    return f"since {_when(at_present.since)}, {at_present.endpoint.kind}"


def _seen(peer: KnownPeer, at_present: Presence) -> str:
    return _when(peer.last_seen) if at_present.since is None else "now"


def _waiting(at_present: Presence) -> str:
    """What waits in each direction: `2 out, 1 in`."""
    ways = ((at_present.outgoing, "out"), (at_present.unread, "in"))
    return ", ".join(f"{count} {way}" for count, way in ways if count) or "-"


def _as_json(peer: KnownPeer, at_present: Presence) -> dict[str, Any]:
    from securelink.events import rfc3339

    return {
        "name": peer.name,
        "id": peer.key.peer_id,
        "short": peer.key.short,
        "calls_itself": peer.calls_itself,
        "endpoints": [each.plain for each in peer.endpoints],
        "online": at_present.since is not None,
        "online_since": None if at_present.since is None else rfc3339(at_present.since),
        "endpoint": at_present.endpoint,
        "waiting": at_present.outgoing,
        "unread": at_present.unread,
        "last_seen": None if peer.last_seen is None else rfc3339(peer.last_seen),
        "paired_at": None if peer.paired_at is None else rfc3339(peer.paired_at),
        "from": "configuration" if peer.configured else "invite",
    }


def _peer_id(peer: Peer) -> str:
    from securelink.identity import PublicKey

    return PublicKey(peer.key).peer_id
