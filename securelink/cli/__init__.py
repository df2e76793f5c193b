"""The command line: one module a command, and `main`, which runs them and reports how they end."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROGRAM = "securelink"
_READER_GONE = 128 + 13  # what a shell shows for a program that SIGPIPE ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        arguments: without the program's name; by default the process's own.
    """
    try:
        status = _reported(list(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:  # as in `securelink inbox | head`: the reader has had enough
        status = _READER_GONE
    _forget_unwritable_output()
    return status


def _forget_unwritable_output() -> None:
    """Keep the interpreter from complaining, at its end, of what could not be written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def _reported(words: list[str]) -> int:
    """Run the command in *words*, report how it failed if it did, and return the exit status."""
    from securelink.cli.failures import (
        InternalError,
        Interrupted,
        SigTerm,
        Terminated,
        failure_of,
        raise_sigterm,
    )
    from securelink.cli.output import Output

    # A command that can't even be parsed must still fail in the form that the script expects.
    options = frozenset(words[: words.index("--")] if "--" in words else words)
    before = signal.getsignal(signal.SIGTERM)
    if before == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, raise_sigterm)
    try:
        _warn_of_ignored_variables()
        return _called(words)
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt, SigTerm) as error:  # noqa: BLE001 (the last resort)
        if "--debug" in options:
            import traceback

            traceback.print_exc()
        failure = failure_of(error)
    finally:
        signal.signal(signal.SIGTERM, before)
    output = Output(json="--json" in options)
    # A person who pressed Ctrl-C knows what happened.
    if output.json or not isinstance(failure, Interrupted | Terminated):
        internal = isinstance(failure, InternalError)
        output.failure(failure, label="internal error" if internal else "error")
    return int(failure.exit_code)


def _warn_of_ignored_variables() -> None:
    ours = [name for name in os.environ if name.startswith(f"{_PROGRAM.upper()}_")]
    if set(ours) <= {"SECURELINK_HOME"}:
        return
    from securelink.cli.output import Output
    from securelink.config.loading import without_table

    for variable, meant in without_table(os.environ).items():
        Output().warn(f"{variable} is ignored; did you mean {' or '.join(meant)}?")


def _called(words: list[str]) -> int:
    import typer

    from securelink.cli.app import program
    from securelink.errors import ExitCode

    root = program()
    if f"_{_PROGRAM.upper()}_COMPLETE" in os.environ:
        root.main(words, prog_name=_PROGRAM)  # a shell asks for completions; this exits
    try:
        # Not `root.main`, which would handle Ctrl-C and broken pipes in its own way.
        with root.make_context(_PROGRAM, words) as context:
            return int(root.invoke(context) or ExitCode.OK)
    except typer.Exit as end:
        return end.exit_code
