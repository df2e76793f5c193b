"""Lands one file and dies at one step of it, or waits there: run as a process of its own."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from receiving_disk import KEY, failing

from securelink.landing import Conflict, Landing, Ready, naming

ID = bytes(range(16))
DATA = b"the content of the file"

STEPS = {
    "before the bytes are on the disk": ("fsync", 1, False),
    "when the bytes are on the disk": ("fsync", 1, True),
    "before it has its name": ("link", 1, False),
    "when it has its name": ("link", 1, True),
    "when its folder is on the disk": ("fsync", 2, True),
    "when it has a name between": ("link", 2, True),
    "when it has replaced the other": ("replace", 1, True),
    "before the part goes": ("unlink", 1, False),
}
WITH_LINKS = tuple(STEPS)[:5]
OVERWRITING = tuple(STEPS)[5:7]
WITHOUT_LINKS = ("when it is noted", "when the name is held", "when it has replaced the other")


def arrange(step: str, then: str) -> None:
    """Have the process do *then*, die or wait, at a step."""

    def stop() -> None:
        if then == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        print("there", flush=True)
        sys.stdin.read()

    def at(owner: Any, name: str, number: int, *, after: bool) -> None:
        call, calls = getattr(owner, name), iter(range(1, 99))

        def patched(*args: Any, **kwargs: Any) -> Any:
            here = next(calls) == number
            if here and not after:
                stop()
            try:
                return call(*args, **kwargs)
            finally:
                if here and after:
                    stop()

        setattr(owner, name, patched)

    if step == "when it is noted":
        at(naming, "_note", 1, after=True)
    elif step == "when the name is held":
        at(os, "replace", 1, after=False)
    else:
        name, number, after = STEPS[step]
        at(os, name, number, after=after)


def main(root: Path, step: str, conflict: str, then: str) -> None:
    landing = Landing(root, "bob", KEY)
    part = landing.open_part(ID)
    part.write([DATA])
    if step in WITHOUT_LINKS and conflict == Conflict.RENAME:
        os.link = failing(1)
    arrange(step, then)
    landing.finish([Ready(part, ("x", "a"), 0, 0o600)], Conflict(conflict))
    part.discard()
    sys.exit("it has lived on")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
