"""`securelink send`: texts and files to one or several peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.completion import recipients
from securelink.cli.options import Endpoint, Json, Quiet
from securelink.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from securelink.directory import Directory, KnownPeer
    from securelink.node import Node

app = command_app()


@app.command(
    epilog=examples(
        "securelink send hello",
        "securelink send --to alice see you at eight",
        "uptime | securelink send --to alice -",
        "securelink send --file photos report.pdf -m 'as promised'",
        "pg_dump shop | securelink send --file - --name shop.sql",
        "tail -f /var/log/syslog | securelink send --lines --queue",
    )
)
def send(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT|PATH]...",
            help="The words of the text; - reads it from standard input, as a pipe alone does. "
            "With --file: files and folders.",
        ),
    ] = None,
    file: Annotated[
        bool,
        typer.Option(
            "--file",
            "-f",
            help="Every argument is a file or folder; - streams standard input as one file.",
        ),
    ] = False,
    message: Annotated[
        str | None,
        typer.Option("--message", "-m", metavar="TEXT", help="A text beside the files."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What the file of `--file -` is called."),
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Send each line of standard input as it comes.")
    ] = False,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="NAME",
            help="Recipient; repeatable; me, all.",
            autocompletion=recipients,
        ),
    ] = None,
    endpoint: Endpoint = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="How long to try since the last progress; 0 for ever. [default: 30]",
        ),
    ] = None,
    queue: Annotated[
        bool | None,
        typer.Option(
            "--queue/--no-queue",
            show_default=False,
            help="What is not delivered in time waits for the next link (exit 75).",
        ),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How long what is queued may wait: 12h, 3d; at most 60d. [default: 30d]",
        ),
    ] = None,
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Compare the SHA-256 of each whole file as well.")
    ] = False,
    id_: Annotated[
        str | None,
        typer.Option("--id", metavar="UUID", help="The text's ID, to repeat a send safely."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> ExitCode:
    """Deliver a text or files; exit 0 means that the recipient has them on disk.

    Without --to it goes to [client] peer, or else to the only peer, or else to this node itself.
    """
    from securelink.cli.output import Output
    from securelink.cli.running import run
    from securelink.cli.sent import deliver
    from securelink.cli.wanted import Wanted
    from securelink.config import load
    from securelink.home import Home

    output = Output(json=json, quiet=quiet)
    home = Home.find()
    config = load(
        home.config_file,
        flags={
            "client.endpoint": endpoint,
            "client.timeout": timeout,
            "client.queue": queue,
        },
    ).config
    life = _life(expires, queue=config.client.queue)
    wanted = Wanted.of(
        text or [],
        file=file,
        message=message,
        name=name,
        lines=lines,
        message_id=id_,
        longest=config.limits.max_message,
        key_file=home.key_file,
    )

    async def command() -> ExitCode:
        from securelink.node import Node

        async with await Node.open(home, config) as node:
            recipients = _recipients(to or [], node, await node.directory())
            wanted.check(len(recipients), queue=config.client.queue)
            return await deliver(node, recipients, wanted, output, life=life, checksum=checksum)

    return run(command)


def _life(expires: str | None, *, queue: bool) -> int | None:
    """For how long what is sent may wait in the queue, in ms; None if nothing is queued."""
    from securelink.cli.moments import parse_duration
    from securelink.store.outbox import DAY, LIFE, LONGEST_LIFE

    if not queue:
        if expires is not None:
            raise UsageError("--expires is for what is queued", hint="add --queue")
        return None
    if expires is None:
        return LIFE
    life = 1000 * parse_duration(expires)
    if not 0 < life <= LONGEST_LIFE:
        raise UsageError(f"--expires is more than 0 s and at most {LONGEST_LIFE // DAY} d")
    return life


def _recipients(wanted: list[str], node: Node, directory: Directory) -> list[KnownPeer]:
    """Who is meant, each once, all of them found before anything is stored."""
    from securelink.cli.whom import default_peer
    from securelink.directory import ME, KnownPeer

    me = KnownPeer(ME, node.identity.public)
    if not wanted:
        wanted = [default_peer(node.config, directory, say="--to") or ME]
    found: dict[bytes, KnownPeer] = {}
    for name in wanted:
        if name == "all":
            if not directory.peers:
                raise UsageError(
                    "there are no peers yet", hint="pair first: `securelink invite` makes an invite"
                )
            named = list(directory.peers)
        else:
            named = [me if name == ME else directory.by_name(name)]
        found |= {peer.key.raw: peer for peer in named}
    return list(found.values())
