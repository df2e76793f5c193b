"""How many files, sockets among them, this process may have open."""

from __future__ import annotations

import contextlib
import resource

MOST = 65_536
"""Enough for any number of peers, and little enough to be copied for a child process."""


def allowed() -> int:
    """The soft limit, as far as it is of use."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else min(soft, MOST)


def allow_more() -> None:
    """Raise the soft limit to the hard one, or to `MOST`."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if allowed() < wanted:
        # macOS has a bound of its own, below a hard limit that says "infinite".
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
