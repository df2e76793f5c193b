"""`securelink send`: one text to one or several peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from securelink.cli.app import command_app, examples
from securelink.cli.options import Json, Quiet
from securelink.errors import ExitCode, SecurelinkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from securelink.cli.output import Output
    from securelink.client import Outcome
    from securelink.config import Config
    from securelink.directory import Directory, KnownPeer
    from securelink.node import Node

app = command_app()

PRECEDENCE = (
    ExitCode.INTERRUPTED,
    ExitCode.TERMINATED,
    ExitCode.NOT_THEM,
    ExitCode.REFUSED,
    ExitCode.USAGE,
    ExitCode.ERROR,
    ExitCode.UNCONFIRMED,
    ExitCode.UNREACHABLE,
)
"""Of several recipients' exit codes, the first that occurs is the command's."""


@app.command(
    epilog=examples(
        "securelink send hello",
        "securelink send --to alice see you at eight",
        "uptime | securelink send --to alice -",
        "securelink send --to alice --endpoint lan hello",
    )
)
def send(
    text: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TEXT]...",
            help="The words of the text; - reads it from standard input, as a pipe alone does.",
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="NAME", help="Recipient; repeatable; me, all."),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="KIND|HOST:PORT", help="Use only this: auto, loopback, lan, public, an address."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long to try; 0 for ever. [default: 30]"),
    ] = None,
    id_: Annotated[
        str | None,
        typer.Option("--id", metavar="UUID", help="The message's ID, to repeat a send safely."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> ExitCode:
    """Deliver a text; exit 0 means that the recipient has it on disk.

    Without --to it goes to [client] peer, or else to the only peer, or else to this node itself.
    """
    from securelink.cli.output import Output
    from securelink.cli.running import run
    from securelink.config import load
    from securelink.home import Home

    output = Output(json=json, quiet=quiet)
    home = Home.find()
    config = load(
        home.config_file, flags={"client.endpoint": endpoint, "client.timeout": timeout}
    ).config
    body = _text(text or [], config.limits.max_message)
    message_id = _message_id(id_)

    async def command() -> ExitCode:
        from securelink.node import Node

        async with await Node.open(home, config) as node:
            recipients = _recipients(to or [], node, await node.directory())
            return await _send_all(node, recipients, body, message_id, output)

    return run(command)


async def _send_all(
    node: Node, recipients: list[KnownPeer], text: str, message_id: bytes | None, output: Output
) -> ExitCode:
    import asyncio

    from securelink.client import Sending, choose
    from securelink.clock import new_id

    client = node.config.client
    for peer in recipients:
        if peer.key != node.identity.public and client.endpoint != "auto":
            choose(peer, client.endpoint)
    timeout = client.timeout or None
    sendings = [
        Sending(
            node,
            peer,
            choice=client.endpoint,
            timeout=timeout,
            failed=_complaint(peer.name, timeout, output),
        )
        for peer in recipients
    ]
    tasks = [
        asyncio.create_task(sending.send(message_id or new_id(), text)) for sending in sendings
    ]
    try:
        codes = {_report(await outcome, output) for outcome in asyncio.as_completed(tasks)}
    finally:
        # After a signal each withdraws what has not left, which needs the store to be open.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for sending, peer in zip(sendings, recipients, strict=True):
        if sending.received:
            plural = "s" if sending.received > 1 else ""
            output.note(f"{sending.received} message{plural} from {peer.name}: securelink inbox")
    return next((code for code in PRECEDENCE if code in codes), ExitCode.OK)


def _complaint(
    peer: str, timeout: float | None, output: Output
) -> Callable[[SecurelinkError], None]:
    """Tell a person, once, why it takes longer, so that nobody looks at a silent screen."""
    told = False

    def complain(error: SecurelinkError) -> None:
        nonlocal told
        if not told and output.stderr.is_terminal and not output.json:
            until = f" for {timeout:g} s" if timeout else ", until Ctrl-C"
            output.note(f"{peer} is not there yet, trying{until} ({error.hint or error.message})")
        told = True

    return complain


def _report(outcome: Outcome, output: Output) -> ExitCode:
    from securelink.cli.formats import duration
    from securelink.cli.output import code_of
    from securelink.ids import to_text

    error = outcome.error
    if output.json:
        result: dict[str, Any] = {
            "status": _status(error),
            "item": "text",
            "id": to_text(outcome.id),
            "peer": outcome.peer,
            "endpoint": outcome.endpoint,
            "seconds": round(outcome.seconds, 3),
        }
        if error is not None:
            result |= {
                "code": code_of(error),
                "error": error.message,
                "hint": error.hint,
                "exit": int(error.exit_code),
            }
        output.result(result)
    elif error is not None:
        output.failure(error)
    else:
        where = f" ({outcome.endpoint.kind} {outcome.endpoint.host})" if outcome.endpoint else ""
        output.note(f"delivered to {outcome.peer}{where} in {duration(outcome.seconds)}")
    return error.exit_code if error is not None else ExitCode.OK


def _status(error: SecurelinkError | None) -> str:
    if error is None:
        return "delivered"
    return "unconfirmed" if error.exit_code is ExitCode.UNCONFIRMED else "failed"


def _text(words: list[str], longest: int) -> str:
    """The text that was given, checked before anything is stored or dialled."""
    import os
    import sys

    # Python has no standard input at all where a process was started with the descriptor closed.
    if sys.stdin is not None and (words == ["-"] or (not words and not sys.stdin.isatty())):
        raw = sys.stdin.buffer.read(longest + 1)
    elif words and words != ["-"]:
        raw = os.fsencode(" ".join(words))
    else:
        raise UsageError("there is nothing to send", hint="try: securelink send hello")
    if len(raw) > longest:
        raise UsageError(
            f"a text has at most {longest} bytes of UTF-8", hint="send it as a file: --file"
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the text is not UTF-8, at byte {error.start}", hint="send it as a file: --file"
        ) from None
    if not text:
        raise UsageError("the text is empty", hint="try: securelink send hello")
    return text


def _message_id(text: str | None) -> bytes | None:
    from securelink.ids import from_text

    if text is None:
        return None
    try:
        return from_text(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a UUID", hint="`uuidgen` makes one; leave --id out to get a new one"
        ) from None


def _recipients(wanted: list[str], node: Node, directory: Directory) -> list[KnownPeer]:
    """Who is meant, each once, all of them found before anything is stored."""
    from securelink.directory import ME, KnownPeer

    me = KnownPeer(ME, node.identity.public)
    if not wanted:
        wanted = [_default(node.config, directory)]
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


def _default(config: Config, directory: Directory) -> str:
    from securelink.directory import ME

    if config.client.peer:
        return config.client.peer
    if len(directory.peers) > 1:
        names = ", ".join(peer.name for peer in directory.peers)
        raise UsageError("several peers are known: say which with --to", hint=f"one of: {names}")
    return directory.peers[0].name if directory.peers else ME
