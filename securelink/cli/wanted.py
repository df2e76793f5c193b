"""What `send` was asked to send, checked before anything is stored or dialled."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import msgspec

from securelink.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from securelink.items import Item
    from securelink.sources import Argument

STREAM = "-"
STREAM_NAME = "stream"


class Wanted(msgspec.Struct, frozen=True):
    """Everything that goes to each recipient. Made by `of`.

    Attributes:
        text: a text, or None.
        message_id: the text's 16 bytes, if they were given.
        files: what the person wrote, and what it names.
        stream: the name under which standard input goes as one file, or None.
        lines: each line of standard input goes as a text.
        longest: the most bytes of a text.
    """

    text: str | None = None
    message_id: bytes | None = None
    files: tuple[tuple[str, Argument], ...] = ()
    stream: str | None = None
    lines: bool = False
    longest: int = 0

    @classmethod
    def of(
        cls,
        words: Sequence[str],
        *,
        file: bool,
        message: str | None,
        name: str | None,
        lines: bool,
        message_id: str | None,
        longest: int,
        key_file: Path,
    ) -> Wanted:
        """Make sense of the arguments of the command; standard input is read where it is a text.

        The node's private key, which *key_file* leads to, is no file to send.

        Raises:
            UsageError: they make none, or name what is not there.
            SourceUnreadable: a file may not be read.
        """
        _refuse_contradictions(words, file=file, message=message, name=name, lines=lines)
        if lines:
            if message_id is not None:
                raise UsageError("--id is for one text, and --lines sends many")
            return cls(lines=True, longest=longest)
        identity = _message_id(message_id)
        if not file:
            return cls(text=_text(words, longest), message_id=identity, longest=longest)
        text = None if message is None else _checked(os.fsencode(message), longest)
        if identity is not None and text is None:
            raise UsageError("--id is for a text", hint="files find their earlier attempts alone")
        from securelink.filenames import components
        from securelink.sources import file_id, top_level

        if STREAM in words:
            if len(words) > 1:
                raise UsageError("--file - stands alone", hint="send the files by themselves")
            called = STREAM_NAME if name is None else name
            try:
                plain = components(called)
            except ValueError as error:
                raise UsageError(f"--name: {error}") from None
            if len(plain) > 1:
                raise UsageError("--name is one name, without a folder")
            return cls(text=text, message_id=identity, stream=called, longest=longest)
        key = file_id(key_file)
        found = {each.path: (word, each) for word in words for each in (top_level(word, key),)}
        return cls(text=text, message_id=identity, files=tuple(found.values()), longest=longest)

    def check(self, recipients: int, *, queue: bool) -> None:
        """Refuse what can't be done for so many recipients, or later.

        Raises:
            UsageError: standard input would be needed twice.
        """
        once = "--file -" if self.stream is not None else "--lines" if self.lines else None
        if once and recipients > 1:
            raise UsageError(f"{once} reads standard input once: name one recipient with --to")
        if self.stream is not None and queue:
            raise UsageError(
                "a stream cannot wait in the queue",
                hint="save it as a file first, or add --no-queue",
            )

    def items(self) -> list[Item]:
        """The same for one recipient, in the order in which it goes; in the event loop."""
        from securelink.clock import new_id
        from securelink.items import FilesItem, LinesItem, StreamItem, TextItem
        from securelink.lines import Lines

        items: list[Item] = []
        if self.text is not None:
            items.append(TextItem(self.message_id or new_id(), self.text))
        items += [FilesItem(given, argument) for given, argument in self.files]
        if self.stream is not None:
            items.append(StreamItem(self.stream, sys.stdin.fileno()))
        if self.lines:
            items.append(LinesItem(Lines(sys.stdin.fileno(), self.longest), self.longest))
        return items


def _refuse_contradictions(
    words: Sequence[str], *, file: bool, message: str | None, name: str | None, lines: bool
) -> None:
    if lines and (words or file or message is not None):
        raise UsageError("--lines sends standard input alone", hint="leave the rest out")
    if file and not words:
        raise UsageError("--file needs a path", hint="try: securelink send --file photo.jpg")
    if message is not None and not file:
        raise UsageError("-m is for a text beside files", hint="give the text as it is")
    if name is not None and not (file and STREAM in words):
        raise UsageError("--name is for --file -", hint="rename the file itself")
    if (lines or (file and STREAM in words)) and sys.stdin is None:
        raise UsageError("there is no standard input to read")


def _text(words: Sequence[str], longest: int) -> str:
    """The text that was given, checked before anything is stored or dialled."""
    # Python has no standard input at all where a process was started with the descriptor closed.
    if sys.stdin is not None and (list(words) == ["-"] or (not words and not sys.stdin.isatty())):
        raw = sys.stdin.buffer.read(longest + 1)
    elif words and list(words) != ["-"]:
        raw = os.fsencode(" ".join(words))
    else:
        raise UsageError("there is nothing to send", hint="try: securelink send hello")
    return _checked(raw, longest)


def _checked(raw: bytes, longest: int) -> str:
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
