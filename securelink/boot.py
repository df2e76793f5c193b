"""Which run of the machine this is: what was written before a restart may not be on its disk."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

UNKNOWN = ""

_LINUX = Path("/proc/sys/kernel/random/boot_id")
_MACOS = ("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid")
_PATIENCE = 5.0


@functools.cache
def boot_id() -> str:
    """A name that every start of the machine makes anew, or `UNKNOWN`.

    It may start a process and wait for it, the first time.
    """
    try:
        if sys.platform == "darwin":
            told = subprocess.run(  # noqa: S603 - a command of the system, and nobody's words in it
                _MACOS, capture_output=True, check=True, timeout=_PATIENCE, text=True
            )
            return told.stdout.strip()
        return _LINUX.read_text(encoding="ascii").strip()
    except (OSError, subprocess.SubprocessError, UnicodeError):
        return UNKNOWN
