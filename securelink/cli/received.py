"""How a received message or file is written: in a list, whole, for scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from securelink.cli.fields import write_fields
from securelink.cli.formats import clock, file_line, file_texts, message_line, size
from securelink.cli.output import Style, Styled
from securelink.following import event_of
from securelink.identity import PublicKey
from securelink.ids import to_text

if TYPE_CHECKING:
    from securelink.cli.output import Output
    from securelink.store.inbox import InboxFile, InboxMessage


def write(output: Output, message: InboxMessage) -> None:
    """Write a message as one of a list."""
    if output.json:
        _write_json(output, message)
    else:
        _write_lines(output, message)


def write_whole(output: Output, message: InboxMessage) -> None:
    """Write all that there is to a message."""
    if output.json:
        _write_json(output, message)
    elif message.file is not None:
        _write_file(output, message, message.file)
    else:
        _write_text(output, message)


def _write_lines(output: Output, message: InboxMessage) -> None:
    mark = Styled("  " if message.read else "* ", Style.BOLD)
    when, sender, file = message.received_at, message.peer_name, message.file
    content = None if file is None or message.kind == "folder" else file.size
    if output.verbose:
        output.line(mark, f"{clock(when)} {sender} ", Styled(to_text(message.id), Style.DIM))
        texts = (message.text,) if file is None else file_texts(file.name, file.path, content)
        body = "\n".join(texts).rstrip("\r\n").replace("\n", "\n        ")
        output.line(f"        {body}")
        return
    if file is None:
        line = message_line(when, sender, message.text)
    else:
        room = None if output.columns is None else output.columns - len(mark.text)
        line = file_line(when, sender, file.name, file.path, content, columns=room)
    output.line(mark, line.replace("\n", "\n  "))


def _write_json(output: Output, message: InboxMessage) -> None:
    event = msgspec.to_builtins(event_of(message))
    del event["event"]
    output.result(event | {"read": message.read})


def _write_text(output: Output, message: InboxMessage) -> None:
    fields = [
        ("from", _sender_of(message)),
        ("sent", clock(message.sent_at)),
        ("received", clock(message.received_at)),
        ("id", to_text(message.id)),
    ]
    write_fields(output, fields)
    output.line()
    output.line(message.text)


def _write_file(output: Output, message: InboxMessage, file: InboxFile) -> None:
    fields = [("from", _sender_of(message)), (message.kind, file.name)]
    if message.kind == "file":
        exactly = f" ({file.size:,} bytes)" if file.size >= 1000 else ""
        fields.append(("size", size(file.size) + exactly))
    fields.append(("path", file.path))
    if file.sha256 is not None:
        fields.append(("sha256", file.sha256.hex()))
    fields += [("received", clock(message.received_at)), ("id", to_text(message.id))]
    write_fields(output, fields)


def _sender_of(message: InboxMessage) -> str:
    return f"{message.peer_name} ({PublicKey(message.peer).short})"
