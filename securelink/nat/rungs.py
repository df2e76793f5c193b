"""What one check of how this machine is reached has found, and where this machine listens."""

from __future__ import annotations

import enum

import msgspec


class Result(enum.StrEnum):
    """What a check found."""

    OK = "ok"
    ABSENT = "absent"
    """It is not there, and may not be needed."""
    FAILED = "failed"
    SKIPPED = "skipped"
    """What it needs is not there, or was not asked for."""


Found = tuple[Result, str]
"""What a check found, and what was seen, in a few words."""


class Rung(msgspec.Struct, frozen=True):
    """One check."""

    name: str
    result: Result
    seconds: float
    """How long it took."""
    evidence: str
    """What was seen, in a few words."""


class Place(msgspec.Struct, frozen=True):
    """Where this node listens, or would."""

    port: int
    hosts: tuple[str, ...] = ()
    """IP addresses; none: all."""
    pid: int | None = None
    """The process that listens there, if one does."""
