"""Everything that a command prints goes through here: results, prose, tables, failures, questions.

The rules:

- Results go to standard output, prose and questions to standard error.
- With `--json` a result is one JSON object a line, and so is a failure.
- On a terminal, every text is escaped on its way out (`escape`), whoever wrote it. Colours are
  therefore never part of a text: a `Styled` part carries its style beside it.
- In a pipe, texts go out as they are, without colours, and no line is cut.
- Prose that nobody can read any more is no reason to fail; a result that can't be written is.
- What a line of progress shows makes room for everything else: `keep_clear`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import sys
from typing import TYPE_CHECKING, TextIO

import msgspec

from securelink.cli.streams import Stream, Style, Styled, text_of
from securelink.cli.text import escape_line, shorten, width
from securelink.errors import SecurelinkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

__all__ = ["Failure", "Output", "Style", "Styled", "code_of"]

_NARROWEST_CELL = 8


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
        self.stdout = Stream(sys.stdout if stdout is None else stdout, environ)
        self.stderr = Stream(sys.stderr if stderr is None else stderr, environ)

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

    def failure(
        self, error: SecurelinkError, *, label: str = "error", about: str | None = None
    ) -> None:
        """Report that the command failed with *error*, for a person with what it was about."""
        if self.json:
            told = Failure(
                code=code_of(error),
                error=encodable(error.message),
                hint=None if error.hint is None else encodable(error.hint),
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
        # It may quote what somebody typed or what a file is called: it stays one line all the same.
        message = escape_line(error.message if about is None else f"{about}: {error.message}")
        self._prose("securelink: ", Styled(f"{label}:", Style.RED), f" {message}")
        if error.hint is not None:
            self._prose(Styled("hint:", Style.BOLD), f" {error.hint}")

    def table(
        self,
        rows: Sequence[Sequence[str | Styled]],
        *,
        header: Sequence[str] | None = None,
        below: Sequence[Sequence[str]] = (),
    ) -> None:
        """Write *rows* in aligned columns, two spaces apart.

        A cell is always one line. On a terminal that is too narrow the last column is cut, and
        shows it with an ellipsis.

        Args:
            rows: the cells.
            header: what stands above the columns.
            below: for each row the lines that stand indented below it, never cut.
        """
        titles = [[Styled(title, Style.BOLD) for title in header]] if header else []
        lines = [[_mapped(escape_line, cell) for cell in row] for row in (*titles, *rows)]
        widths = [
            max(width(text_of(cell)) for cell in column)
            for column in itertools.zip_longest(*lines, fillvalue="")
        ]
        before = sum(size + 2 for size in widths[:-1])
        beneath = [*[()] * len(titles), *(below or [()] * len(rows))]
        for cells, more in zip(lines, beneath, strict=True):
            parts: list[str | Styled] = []
            for cell, size in zip(cells[:-1], widths, strict=False):
                parts += [cell, " " * (size - width(text_of(cell)) + 2)]
            last = cells[-1]
            if self.is_terminal and len(cells) == len(widths):
                room = max(self.stdout.columns - before, _NARROWEST_CELL)
                last = _mapped(functools.partial(shorten, columns=room), last)
            self.line(*parts, last)
            for line in more:
                self.line("  ", Styled(escape_line(line), Style.DIM))

    def keep_clear(self, guard: Callable[[], AbstractContextManager[object]] | None) -> None:
        """Have everything that goes to a terminal from now on written inside of *guard*.

        Args:
            guard: makes a context, from any thread; None ends this.
        """
        for stream in (self.stdout, self.stderr):
            if stream.is_terminal:
                stream.guard = contextlib.nullcontext if guard is None else guard

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


def code_of(error: SecurelinkError) -> str:
    """Return the word by which a script knows *error*: `UnsafeKeyFile` is `unsafe-key-file`."""
    name = type(error).__name__.removesuffix("Error")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def _mapped(change: Callable[[str], str], part: str | Styled) -> str | Styled:
    if isinstance(part, Styled):
        return Styled(change(part.text), part.style)
    return change(part)


def encodable(text: str) -> str:
    """Return *text* without the lone surrogates that stand for odd bytes in file names."""
    return text.encode("utf-8", "backslashreplace").decode()
