"""Everything that a command prints goes through here: results, prose, tables, failures, questions.

The rules:

- Results go to standard output, prose and questions to standard error.
- With `--json` a result is one JSON object a line, and so is a failure.
- On a terminal, every text is escaped on its way out (`escape`), whoever wrote it. Colours are
  therefore never part of a text: a `Styled` part carries its style beside it.
- In a pipe, texts go out as they are, without colours, and no line is cut.
- Prose that nobody can read any more is no reason to fail; a result that can't be written is.
"""

from __future__ import annotations

import enum
import functools
import io
import itertools
import os
import re
import shutil
import sys
import unicodedata
from typing import TYPE_CHECKING, NamedTuple, TextIO

import msgspec

from securelink.errors import SecurelinkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What can move the cursor, reorder a line or hide: Unicode's Cc, Cs, Zl, Zp, Bidi_Control,
# Default_Ignorable_Code_Point, and interlinear annotation. Not newline and tab; and not the
# joiners (U+200C, U+200D) and the two selectors (U+FE0E, U+FE0F), without which Persian, the
# scripts of India and most emoji come apart.
_UNSAFE = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b"
    r"\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0d\ufeff\uffa0"
    r"\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_UNSAFE_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_UNSAFE_IN_LINE = re.compile(rf"[{_UNSAFE}\t\n]")

_ODD_CHARACTERS = "backslashreplace"

_NARROWEST_CELL = 8


class Style(enum.StrEnum):
    """How a part of a line looks where colours are wanted; each value is its SGR parameter."""

    BOLD = "1"
    DIM = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"


class Styled(NamedTuple):
    """A part of a line, with its style beside it."""

    text: str
    style: Style


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints on standard output when a command fails."""

    status: str = "failed"
    code: str
    error: str
    hint: str | None
    exit: int


class Output:
    """The one way out of a command.

    Args:
        json: results and failures as JSON, one object a line.
        quiet: no prose.
        verbose: how many times `-v` was given; `detail` prints from 1 on.
        stdout, stderr: other streams than the process's own.
    """

    def __init__(
        self,
        *,
        json: bool = False,
        quiet: bool = False,
        verbose: int = 0,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.json = json
        self.quiet = quiet
        self.verbose = verbose
        self.stdout = _Stream(sys.stdout if stdout is None else stdout, environ)
        self.stderr = _Stream(sys.stderr if stderr is None else stderr, environ)

    @property
    def is_terminal(self) -> bool:
        """Whether standard output is a terminal: whether a person reads the results."""
        return self.stdout.is_terminal

    @property
    def columns(self) -> int | None:
        """How wide a line of a result may be; None where nobody minds."""
        return self.stdout.columns if self.is_terminal else None

    def result(self, value: object) -> None:
        """Write *value* (anything that msgspec knows) as one line of JSON, at once."""
        self.stdout.write_bytes(msgspec.json.encode(value) + b"\n")

    def raw(self, data: bytes) -> None:
        """Write *data* to standard output, exactly."""
        self.stdout.write_bytes(data)

    def line(self, *parts: str | Styled) -> None:
        """Write one line of a result, or several if a part has newlines."""
        self.stdout.write("".join(self.stdout.render(part) for part in parts) + "\n")

    def note(self, *parts: str | Styled) -> None:
        """Write one line of prose to standard error, unless it was asked to be quiet."""
        if not self.quiet:
            self._prose(*parts)

    def detail(self, *parts: str | Styled) -> None:
        """Write one line of prose that only `-v` wants."""
        if self.verbose:
            self.note(*parts)

    def warn(self, message: str) -> None:
        """Write a warning to standard error, quiet or not."""
        self._prose("securelink: ", Styled("warning:", Style.YELLOW), f" {message}")

    def failure(self, error: SecurelinkError, *, label: str = "error") -> None:
        """Report that the command failed with *error*."""
        if self.json:
            told = Failure(
                code=code_of(error),
                error=_encodable(error.message),
                hint=None if error.hint is None else _encodable(error.hint),
                exit=int(error.exit_code),
            )
            try:
                self.result(told)
            except BrokenPipeError:
                raise
            except OSError:
                pass  # standard output itself is what failed: say so to a person
            else:
                return
        self._prose("securelink: ", Styled(f"{label}:", Style.RED), f" {error.message}")
        if error.hint is not None:
            self._prose(Styled("hint:", Style.BOLD), f" {error.hint}")

    def table(
        self, rows: Sequence[Sequence[str | Styled]], *, header: Sequence[str] | None = None
    ) -> None:
        """Write *rows* in aligned columns, two spaces apart.

        A cell is always one line. On a terminal that is too narrow the last column is cut, and
        shows it with an ellipsis.
        """
        titles = [[Styled(title, Style.BOLD) for title in header]] if header else []
        lines = [[_mapped(escape_line, cell) for cell in row] for row in (*titles, *rows)]
        widths = [
            max(width(_text(cell)) for cell in column)
            for column in itertools.zip_longest(*lines, fillvalue="")
        ]
        before = sum(size + 2 for size in widths[:-1])
        for cells in lines:
            parts: list[str | Styled] = []
            for cell, size in zip(cells[:-1], widths, strict=False):
                parts += [cell, " " * (size - width(_text(cell)) + 2)]
            last = cells[-1]
            if self.is_terminal and len(cells) == len(widths):
                room = max(self.stdout.columns - before, _NARROWEST_CELL)
                last = _mapped(functools.partial(shorten, columns=room), last)
            self.line(*parts, last)

    def ask(self, question: str, *, instead: str, echo: bool = True) -> str:
        """Return the user's answer to *question*, without the spaces around it.

        Args:
            question: without the colon.
            instead: how to give the answer without a terminal, such as `--to NAME`.
            echo: False for what should not stay on the screen.

        Raises:
            UsageError: if there is no terminal to ask on, or the answer is empty.
        """
        if sys.stdin is None or not sys.stdin.isatty() or not self.stderr.is_terminal:
            raise UsageError(f"no terminal to ask on: {question}", hint=f"give {instead}")
        prompt = f"{question}: "
        if echo:
            self.stderr.write(prompt)
            answer = sys.stdin.readline()
        else:
            import getpass

            try:
                answer = getpass.getpass(prompt)
            except EOFError:
                answer = ""
        if not answer.strip():
            raise UsageError(f"no answer: {question}", hint=f"give {instead}")
        return answer.strip()

    def _prose(self, *parts: str | Styled) -> None:
        try:
            self.stderr.write("".join(self.stderr.render(part) for part in parts) + "\n")
        except BrokenPipeError:
            self.stderr.abandon()


class _Nowhere(io.StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


class _Stream:
    """Standard output or standard error, and what is on its other end."""

    def __init__(self, stream: TextIO | None, environ: Mapping[str, str]) -> None:
        # Python has no stream at all where a process was started with the descriptor closed.
        self._stream: TextIO = stream if stream is not None else _Nowhere()
        if isinstance(self._stream, io.TextIOWrapper) and self._stream.errors != _ODD_CHARACTERS:
            # A character that the terminal's encoding lacks must not cost the line.
            self._stream.reconfigure(errors=_ODD_CHARACTERS)
        self.is_terminal = self._stream.isatty()
        self._coloured = (
            self.is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
        )

    @property
    def columns(self) -> int:
        return shutil.get_terminal_size().columns

    def render(self, part: str | Styled) -> str:
        text = escape(_text(part)) if self.is_terminal else _text(part)
        if isinstance(part, Styled) and self._coloured:
            return f"\x1b[{part.style}m{text}\x1b[0m"
        return text

    def write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def write_bytes(self, data: bytes) -> None:
        buffer = getattr(self._stream, "buffer", None)
        if buffer is None:
            self.write(data.decode())
            return
        self._stream.flush()
        buffer.write(data)
        buffer.flush()

    def abandon(self) -> None:
        """Go on without this stream: nobody reads it any more."""
        self._stream = _Nowhere()


def escape(text: str) -> str:
    r"""Return *text* fit for a terminal: what could move, reorder or hide is shown as `\x1b`.

    Newlines, tabs, joiners and emoji selectors are kept.
    """
    return _UNSAFE_IN_TEXT.sub(_escaped, text)


def escape_line(text: str) -> str:
    r"""Return *text* as `escape` does, on one line: newlines and tabs are escaped too."""
    return _UNSAFE_IN_LINE.sub(_escaped, text)


def width(text: str) -> int:
    """Return how many columns the one line *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(
        0
        if unicodedata.category(char) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(char) in ("W", "F")
        else 1
        for char in text
    )


def shorten(text: str, columns: int) -> str:
    """Return *text*, cut and ended with an ellipsis if it takes more than *columns*."""
    if width(text) <= columns:
        return text
    kept = text
    while kept and width(kept) > columns - 1:
        kept = kept[:-1]
    return f"{kept}…"


def code_of(error: SecurelinkError) -> str:
    """Return the word by which a script knows *error*: `UnsafeKeyFile` is `unsafe-key-file`."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _text(part: str | Styled) -> str:
    return part.text if isinstance(part, Styled) else part


def _mapped(change: Callable[[str], str], part: str | Styled) -> str | Styled:
    if isinstance(part, Styled):
        return Styled(change(part.text), part.style)
    return change(part)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _encodable(text: str) -> str:
    """Return *text* without the lone surrogates that stand for odd bytes in file names."""
    return text.encode("utf-8", "backslashreplace").decode()
