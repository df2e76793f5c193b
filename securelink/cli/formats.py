"""How times, durations and messages look to people."""

from __future__ import annotations

import datetime
import time

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


def message_line(received_at: int, peer: str, text: str) -> str:
    """Return a message as a person reads it: `14:05 bob hello`, further lines indented.

    Args:
        received_at: milliseconds after 1970.
        peer: its sender's name here.
        text: as it was sent; line ends at its end are left out.
    """
    first, *more = text.rstrip("\r\n").split("\n")
    return "\n".join((f"{clock(received_at)} {peer} {first}", *(f"      {line}" for line in more)))


def _moment(ms: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(milliseconds=min(max(ms, 0), _LATEST_MS))
