"""Times and durations as people type them; the other way round is `formats`."""

from __future__ import annotations

import datetime
import re
import time

from securelink.errors import UsageError

_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = r"\s*([0-9]{1,9})\s*(s|min|m|h|d|w)"
_DURATION = re.compile(f"(?:{_PART})+")
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")


def parse_duration(text: str) -> int:
    """Return the seconds in *text*: `90s`, `15 min`, `24h`, `3d`, `2w`, `1d 12h`.

    Raises:
        UsageError: if it is no duration.
    """
    seconds = _duration(text)
    if seconds is None:
        raise UsageError(
            f"{_shown(text)} is not a duration", hint="write a number and a unit: 30min, 24h or 3d"
        )
    return seconds


def parse_moment(text: str, *, now_ms: int | None = None) -> int:
    """Return the time that *text* names, in milliseconds since 1970.

    It is a duration back from now (`2h`, `3d`), a time of day (`14:05`, the last one that has
    been), a date (its first moment), or a date and time in ISO 8601, local without a zone.

    Args:
        text: as typed.
        now_ms: the time that counts as now; by default the clock's.

    Raises:
        UsageError: if it is none of these.
    """
    now = int(time.time() * 1000) if now_ms is None else now_ms
    seconds = _duration(text)
    if seconds is not None:
        return max(now - 1000 * seconds, 0)
    try:
        if match := _CLOCK.fullmatch(text.strip()):
            return _last_time_of_day(int(match[1]), int(match[2]), now)
        moment = datetime.datetime.fromisoformat(text.strip())
        return max(_ms(moment), 0)
    except (ValueError, OverflowError, OSError):
        raise UsageError(
            f"{_shown(text)} is neither a date nor a duration",
            hint="write it like 2026-11-01, '2026-11-01 14:05', 14:05, 2h or 3d",
        ) from None


def _duration(text: str) -> int | None:
    folded = text.strip().lower()
    if not _DURATION.fullmatch(folded):
        return None
    return sum(int(number) * _SECONDS[unit] for number, unit in re.findall(_PART, folded))


def _last_time_of_day(hour: int, minute: int, now_ms: int) -> int:
    now = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC).astimezone()
    time_of_day = datetime.time(hour, minute)
    today = _ms(datetime.datetime.combine(now.date(), time_of_day))
    if today <= now_ms:
        return today
    return _ms(datetime.datetime.combine(now.date() - datetime.timedelta(days=1), time_of_day))


def _ms(moment: datetime.datetime) -> int:
    """Return *moment*, in the local zone if it names none, in milliseconds since 1970."""
    return int(moment.astimezone().timestamp() * 1000)


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 40 else f"a text of {len(text)} characters"
