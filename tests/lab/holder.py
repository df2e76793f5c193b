"""Keeps the lab's network namespaces while it runs, and ends every process in them when it ends.

Run as root of a fresh user namespace: `unshare --user --map-root-user python holder.py lan router`.
It prints one line of JSON, which file descriptor of its own holds which network namespace. When its
standard input ends, because the lab closed it or because the tests were killed, it kills whatever
runs in its user namespace and ends; nothing holds the namespaces then, and the kernel removes them
with all that is in them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path

CLONE_NEWNET = 0x40000000
"""From <linux/sched.h>."""


def inhabitants(namespace: str) -> list[int]:
    """The processes in a user namespace, named as in `/proc/PID/ns/user`, but for this one."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        pid = int(proc.name)
        # A zombie has no network any more; what is none of ours can't be read.
        with contextlib.suppress(OSError):
            (proc / "ns/net").readlink()
            if pid != os.getpid() and str((proc / "ns/user").readlink()) == namespace:
                found.append(pid)
    return found


def sweep(namespace: str) -> None:
    """Kill the processes in a user namespace, and those that they start meanwhile."""
    while pids := inhabitants(namespace):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def _new_network() -> int:
    """Move into a network namespace of its own, and return what holds it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def main() -> None:
    """Make the namespaces, tell of them, and wait."""
    networks = {name: _new_network() for name in sys.argv[1:]}
    print(json.dumps(networks), flush=True)
    sys.stdin.read()
    sweep(str(Path("/proc/self/ns/user").readlink()))


if __name__ == "__main__":
    main()
