"""The command line with one more command, `probe`, which does what can go wrong.

Run by the tests as a process of its own: `python probe.py probe WHAT`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import types

import typer

from securelink.cli import app as frame
from securelink.cli import main
from securelink.cli.options import Json, Quiet, Verbose
from securelink.cli.output import Output, Style, Styled
from securelink.errors import ExitCode, UnsafeKeyFile

app = frame.command_app()

PEER_TEXT = "\x1b[2J\u202eevil\u200b"


@app.command()
def probe(
    what: str,
    to: str = "",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> ExitCode | None:
    """Go wrong."""
    output = Output(json=json, quiet=quiet, verbose=verbose)
    match what:
        case "print":
            output.line("from ", Styled("bob", Style.BOLD), " ", PEER_TEXT)
            output.note("a note")
            output.detail("a detail")
            output.warn("a warning")
        case "table":
            output.table([["bob", "x" * 100], [Styled("alice", Style.DIM), PEER_TEXT + "\n"]])
        case "many":
            for number in range(100_000):
                output.result({"number": number})
        case "ask":
            output.line(output.ask("the invite", instead="INVITE"))
        case "ask-unseen":
            output.line(output.ask("the invite", instead="INVITE", echo=False))
        case "code":
            return ExitCode.UNCONFIRMED
        case "exit":
            raise typer.Exit(5)
        case "known":
            raise UnsafeKeyFile("the key file is open to others", hint="chmod 600 it")
        case "bug":
            raise RuntimeError("two\nlines")
        case "silent-bug":
            raise AssertionError
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/file")
        case "denied":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/a/file")
        case "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        case "odd-name":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), b"/odd\xff")
        case "no-number":
            raise OSError("Something odd")
        case "wait":
            try:
                output.line("ready")
                signal.pause()
            finally:
                output.note("cleaned up")
    return None


module = types.ModuleType("securelink.cli.probe")
module.app = app
sys.modules[module.__name__] = module
frame.COMMANDS = (*frame.COMMANDS, "probe")

if __name__ == "__main__":
    sys.exit(main())
