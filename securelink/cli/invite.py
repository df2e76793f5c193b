"""`securelink invite`: make, list and revoke invites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.completion import invite_labels
from securelink.cli.options import Json, Quiet
from securelink.errors import UsageError

if TYPE_CHECKING:
    from securelink.cli.opened import Reach
    from securelink.cli.output import Output
    from securelink.invite import Invite
    from securelink.store.invites import StoredInvite

app = command_app()

MOST_USES = 1000
LONGEST = 365 * 86_400
"""Seconds for which an invite can be good, at most."""


@app.command(
    epilog=examples(
        "securelink invite",
        "securelink invite bob --expires 7d",
        "securelink invite --public home.example.org:24819",
        "securelink invite --list",
        "securelink invite | ssh bob securelink join",
    )
)
def invite(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="What whoever joins is called here; without it, their own word."
        ),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the invites made so far.")] = False,
    revoke: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="Revoke one, by its label in the list or itself.",
            autocompletion=invite_labels,
        ),
    ] = None,
    uses: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"How many may join with it, {MOST_USES} at most."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long it is good: 2h, 7d. [default: 24h]"),
    ] = None,
    public: Annotated[
        str | None,
        typer.Option(metavar="HOST[:PORT]", help="An address forwarded to this machine by hand."),
    ] = None,
    loopback: Annotated[
        bool, typer.Option("--loopback", help="Put this machine's loopback address in too.")
    ] = False,
    qr: Annotated[bool, typer.Option("--qr", help="Draw it as a QR code too.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an invite: a text that pairs whoever joins with it, once.

    On a terminal it is the command to run on the other machine; in a pipe the invite alone.
    """
    from securelink.cli.output import Output

    output = Output(json=json, quiet=quiet)
    making = [name, uses, expires, public, loopback or None, qr or None]
    if list_ or revoke is not None:
        option = "--list" if list_ else "--revoke"
        if (list_ and revoke is not None) or any(each is not None for each in making):
            raise UsageError(
                f"{option} stands alone: it makes no invite", hint="try: securelink invite --help"
            )
        if revoke is None:
            _list(output)
        else:
            _revoke(output, revoke)
        return
    if qr and (json or not output.is_terminal):
        raise UsageError(
            "a QR code is drawn on a terminal only",
            hint="leave --qr out, and hand the invite to a program that draws it",
        )
    _make(
        output,
        name=name,
        uses=_uses(uses),
        seconds=None if expires is None else _seconds(expires),
        public=public,
        loopback=loopback,
        qr=qr,
    )


def _make(
    output: Output,
    *,
    name: str | None,
    uses: int,
    seconds: int | None,
    public: str | None,
    loopback: bool,
    qr: bool,
) -> None:
    from securelink import pairing
    from securelink.cli.opened import open_node
    from securelink.events import rfc3339
    from securelink.invite import choose_endpoints
    from securelink.store import invites

    if name is not None:
        _check_name(name)
    if seconds is None:
        seconds = pairing.DAY
    with open_node(flags={"server.public": public}) as node:
        reach = node.reach()
        if not choose_endpoints(reach.endpoints, loopback=loopback):
            raise UsageError(
                "no address of this node is known that an invite could hold",
                hint="start `securelink serve` first"
                if not reach.port
                else "name one with --public HOST:PORT",
            )
        taken = name is not None and name in node.directory().names
        identity = node.identity()
        with node.database.transaction() as conn:
            made = pairing.mint(
                conn,
                identity,
                node.config,
                reach.endpoints,
                name=name,
                uses=uses,
                seconds=seconds,
                loopback=loopback,
            )
            stored = invites.get(conn, made.token_hash)
            assert stored is not None, "it has just been added"
    if output.json:
        output.result(
            {
                "invite": made.encode(),
                "expires": rfc3339(made.expires * 1000),
                "endpoints": made.endpoints,
                "label": stored.label,
            }
        )
    else:
        if taken:
            output.note(f"{name} is another peer's name already: this one gets a number after it")
        _write(output, made, uses=uses, seconds=seconds, qr=qr)
    _warn(output, made, reach)


def _write(output: Output, made: Invite, *, uses: int, seconds: int, qr: bool) -> None:
    from securelink.cli.formats import clock, duration

    text = made.encode()
    times = "once" if uses == 1 else f"{uses} times"
    output.note(
        f"good {times}, until {clock(made.expires * 1000)} ({duration(seconds)}),"
        " with these addresses:"
    )
    for each in made.endpoints:
        output.note(f"  {each.kind + ':':<10}{each}")
    if qr:
        _draw(output, text)
    if output.is_terminal:
        output.note("run this on the other machine:")
        output.line(f"securelink join {text}")
    else:
        output.line(text)


def _draw(output: Output, text: str) -> None:
    from securelink.cli.qr import drawn

    # In capitals it takes a QR code's shorter alphabet, and every reader folds case.
    lines = drawn(text.upper())
    if len(lines[0]) > output.stdout.columns:
        output.warn(f"the QR code needs a terminal {len(lines[0])} columns wide")
        return
    for line in lines:
        output.line(line)


def _warn(output: Output, made: Invite, reach: Reach) -> None:
    from securelink.endpoints import Kind

    kinds = {each.kind for each in made.endpoints}
    if Kind.PUBLIC not in kinds:
        where = "inside this network" if Kind.LAN in kinds else "on this machine"
        output.warn(f"it works {where} only; for outside: --public")
    if not reach.running:
        output.warn("nobody can join until `securelink serve` runs here")


def _check_name(name: str) -> None:
    from securelink import names
    from securelink.invite import PREFIX

    if name.lower().startswith(PREFIX):
        raise UsageError(
            "that is an invite, not a name", hint="to redeem it: securelink join slinv1..."
        )
    names.check(name)


def _uses(uses: int | None) -> int:
    if uses is None:
        return 1
    if not 1 <= uses <= MOST_USES:
        raise UsageError(f"an invite has 1 to {MOST_USES} uses, not {uses}", hint="--uses 5")
    return uses


def _seconds(expires: str) -> int:
    from securelink.cli.moments import parse_duration

    seconds = parse_duration(expires)
    if not 1 <= seconds <= LONGEST:
        raise UsageError("an invite is good for 1s at least and 365d at most", hint="--expires 7d")
    return seconds


def _list(output: Output) -> None:
    from securelink.cli.formats import clock
    from securelink.cli.opened import open_node
    from securelink.clock import now_ms
    from securelink.events import rfc3339
    from securelink.store import invites

    with open_node() as node, node.database.snapshot() as conn:
        found = invites.list_all(conn)
    now = now_ms()
    if output.json:
        for each in found:
            output.result(
                {
                    "label": each.label,
                    "name": each.name,
                    "uses": each.uses,
                    "uses_left": each.uses_left,
                    "created": rfc3339(each.created_at),
                    "expires": rfc3339(each.expires_at),
                    "state": _state(each, now),
                }
            )
    elif not found:
        output.note("no invites")
    else:
        rows = [
            [
                each.label,
                _state(each, now),
                f"{each.uses_left} of {each.uses}",
                clock(each.expires_at),
                each.name or "-",
            ]
            for each in found
        ]
        header = ("LABEL", "STATE", "LEFT", "EXPIRES", "NAME")
        output.table(rows, header=header if output.is_terminal else None)


def _revoke(output: Output, handle: str) -> None:
    from securelink.cli.opened import open_node
    from securelink.invite import PREFIX, Invite
    from securelink.store import invites

    is_invite = handle.strip().lower().startswith(PREFIX)
    meant = Invite.parse(handle).token_hash if is_invite else handle
    with open_node() as node, node.database.transaction() as conn:
        revoked = invites.revoke(conn, meant)
    if output.json:
        output.result({"status": "revoked", "label": revoked.label})
    else:
        output.note(f"invite {revoked.label} is revoked: nobody can join with it any more")


def _state(invite: StoredInvite, now: int) -> str:
    if invite.revoked:
        return "revoked"
    if not invite.uses_left:
        return "used"
    return "expired" if invite.expires_at <= now else "open"
