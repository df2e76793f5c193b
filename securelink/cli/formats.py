"""How times, durations, sizes, messages and files look to people."""

from __future__ import annotations

import datetime
import os
import time

from securelink.cli.text import escape_line, width

# The clock of a message is its sender's word. What lies beyond the calendar is shown as its end.
_LATEST_MS = 253_402_214_400_000  # 9999-12-31T00:00:00Z
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def clock(ms: int, *, now_ms: int | None = None) -> str:
    """Return the same time for a person, in the local zone: `14:05`, with the date if not today.

    Args:
        ms: milliseconds after 1970.
        now_ms: the time that counts as now; by default the clock's.
    """
    now = _moment(int(time.time() * 1000) if now_ms is None else now_ms).astimezone()
    moment = _moment(ms).astimezone()
    pattern = "%H:%M" if moment.date() == now.date() else "%Y-%m-%d %H:%M"
    return moment.strftime(pattern)


def duration(seconds: float) -> str:
    """Return *seconds* in one or two units: `0.04 s`, `12 s`, `3 min 20 s`, `24 h`, `3 d 4 h`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, smaller_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        # A day is still 24 h, as the options for invites put it.
        if whole >= (2 * size if unit == "d" else size):
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{whole} s"


def size(count: int) -> str:
    """Return a number of bytes in a decimal unit, with one decimal under 10: `2.3 MB`, `17 kB`."""
    if count < 1000:
        return f"{count} B"
    number = float(count)
    for unit in ("kB", "MB", "GB", "TB", "PB", "EB"):
        number /= 1000
        # Rounded up to a thousand, it is one of the next unit.
        if number < 999.5 or unit == "EB":
            break
    return f"{number:.1f} {unit}" if number < 9.95 else f"{number:.0f} {unit}"


def contents(files: int, folders: int, total: int) -> list[str]:
    """Say what is in a folder: `2 files` and `10 B`; where there is no file, `3 folders`."""
    if not files and folders:
        return [f"{folders} folder{'' if folders == 1 else 's'}"]
    return [f"{files} file{'' if files == 1 else 's'}", size(total)]


def message_line(received_at: int, peer: str, text: str) -> str:
    """Return a message as a person reads it: `14:05 bob hello`, further lines indented.

    Args:
        received_at: milliseconds after 1970.
        peer: its sender's name here.
        text: as it was sent; line ends at its end are left out.
    """
    first, *more = text.rstrip("\r\n").split("\n")
    return "\n".join((f"{clock(received_at)} {peer} {first}", *(f"      {line}" for line in more)))


def file_line(
    received_at: int,
    peer: str,
    name: str,
    path: str,
    content: int | None,
    *,
    columns: int | None = None,
) -> str:
    """Return a received file as a person reads it: `14:05 bob a.jpg (2.3 MB) -> ~/files/a.jpg`.

    Args:
        received_at: milliseconds after 1970.
        peer: its sender's name here.
        name: what the sender calls it.
        path: where it lies.
        content: its size in bytes, None for a folder.
        columns: what a line may take; in a longer one the path stands below. None for any.
    """
    what, where = file_texts(name, path, content)
    line = message_line(received_at, peer, f"{what} {where}")
    if columns is None or width(line) <= columns:
        return line
    return message_line(received_at, peer, f"{what}\n{where}")


def file_texts(name: str, path: str, content: int | None) -> tuple[str, str]:
    """Return what came and where it lies, each on one line: `a.jpg (2.3 MB)`, `-> ~/files/a.jpg`.

    Args:
        name, path, content: as for `file_line`.
    """
    what = f"{name}/" if content is None else f"{name} ({size(content)})"
    return escape_line(what), f"-> {escape_line(_from_home(path))}"


def _from_home(path: str) -> str:
    """The same path, begun with a tilde if it lies in the user's home folder."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home raises where there is none
    return f"~{path[len(home) :]}" if path.startswith(f"{home}/") else path


def _moment(ms: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(milliseconds=min(max(ms, 0), _LATEST_MS))
