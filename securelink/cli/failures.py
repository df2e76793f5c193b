"""Whatever a command can raise, turned into the one failure that is reported."""

from __future__ import annotations

import errno
import os
import re
import signal
from typing import TYPE_CHECKING

import typer

from securelink.errors import ExitCode, SecurelinkError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


class Interrupted(SecurelinkError):
    """The user pressed Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED


class Terminated(SecurelinkError):
    """SIGTERM arrived."""

    exit_code = ExitCode.TERMINATED


class SystemFailure(SecurelinkError):
    """The operating system refused something, and no layer below knew better."""


class DiskFull(SystemFailure):
    """No space, or no quota, is left."""


class PermissionDenied(SystemFailure):
    """A file or folder is not ours to use like this."""


class ReadOnly(SystemFailure):
    """The file system can't be written."""


class InternalError(SecurelinkError):
    """A bug."""


class SigTerm(SystemExit):
    """What SIGTERM raises in a one-shot command; nothing but `main` should catch it."""


_BY_ERRNO = {
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.EACCES: PermissionDenied,
    errno.EPERM: PermissionDenied,
    errno.EROFS: ReadOnly,
}


_VALUE = r"Invalid value for '\[?(.+?)\]?': (.+) is not"
_SAID_PLAINLY = tuple(
    (re.compile(theirs, re.DOTALL), ours)
    for theirs, ours in (
        (r"No such option: (.+)", r"no option '\1'"),
        (r"Option '(.+)' requires an argument", r"\1 needs a value"),
        (r"Option '(.+)' does not take a value", r"\1 takes no value"),
        (r"Got unexpected extra argument\(s\) \((.+)\)", r"too many arguments: '\1'"),
        (_VALUE + r" a valid int(?:eger)?(?: range)?", r"\1: expected a whole number, not \2"),
        (_VALUE + r" a valid float(?: range)?", r"\1: expected a number, not \2"),
        (_VALUE + r" in the range (.+)<=x<=(.+)", r"\1: expected \3 to \4, not \2"),
        (_VALUE + r" one of (.+)", r"\1: expected one of \3, not \2"),
    )
)
"""What typer's own click says of wrong usage, and how we say it."""


def raise_sigterm(signum: int, frame: FrameType | None) -> None:
    """Handle SIGTERM by unwinding, so that what is open is closed."""
    raise SigTerm(128 + signal.SIGTERM)


def failure_of(error: BaseException) -> SecurelinkError:
    """Return the failure to report for *error*."""
    if isinstance(error, SecurelinkError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("interrupted")
    if isinstance(error, SigTerm):
        return Terminated("terminated")
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        return wrong_usage(error, "securelink" if context is None else context.command_path)
    if isinstance(error, OSError):
        return _from_system(error)
    return InternalError(f"{_one_line(error)} (this is a bug; run again with --debug)")


def _from_system(error: OSError) -> SystemFailure:
    what = os.strerror(error.errno) if error.errno else str(error)
    message = what[:1].lower() + what[1:]
    if error.filename is not None:
        message += f": {os.fsdecode(error.filename)}"
    return _BY_ERRNO.get(error.errno or 0, SystemFailure)(message)


def wrong_usage(error: typer.TyperException, path: str) -> UsageError:
    """Return what typer found wrong with how a command was called, in our words.

    Args:
        error: what it raised.
        path: the command, with the program's name first.
    """
    # The classes of typer's own click have no public names; their attributes tell them apart.
    nearest: Sequence[str] = getattr(error, "possibilities", None) or ()
    # With those, it would list them all.
    message = (error.message if nearest else error.format_message()).rstrip(".")
    for theirs, ours in _SAID_PLAINLY:
        if found := theirs.fullmatch(message):
            message = found.expand(ours)
            break
    else:
        message = message[:1].lower() + message[1:]
    if nearest:
        message += f"; did you mean {nearest[0]!r}?"  # the nearest stands first
    return UsageError(message, hint=f"try: {path} --help")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text}" if text else name
