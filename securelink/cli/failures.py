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


_NUMBERS = {"int": "is not a whole number", "float": "is not a number"}
_PLAIN = re.compile(r"is not a valid (int|float)(?:eger)?(?: range)?\b")


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
        return _from_typer(error)
    if isinstance(error, OSError):
        return _from_system(error)
    return InternalError(f"{_one_line(error)} (this is a bug; run again with --debug)")


def _from_system(error: OSError) -> SystemFailure:
    what = os.strerror(error.errno) if error.errno else str(error)
    message = what[:1].lower() + what[1:]
    if error.filename is not None:
        message += f": {os.fsdecode(error.filename)}"
    return _BY_ERRNO.get(error.errno or 0, SystemFailure)(message)


def _from_typer(error: typer.TyperException) -> UsageError:
    # The classes of typer's own click have no public names; their attributes tell them apart.
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "securelink"
    option = getattr(error, "option_name", None)
    nearest = getattr(error, "possibilities", None)
    message = error.format_message().rstrip(".")
    if option and nearest is not None:
        message = f"no option {option!r}"
        if nearest:
            message += f"; did you mean {nearest[0]!r}?"  # the nearest stands first
    message = _PLAIN.sub(lambda found: _NUMBERS[found[1]], message)
    return UsageError(message[:1].lower() + message[1:], hint=f"try: {path} --help")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    name = type(error).__name__
    return f"{name}: {text}" if text else name
