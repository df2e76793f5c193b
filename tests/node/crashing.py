"""A receiver that kills itself at one step of taking in a file: run as a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from bringing import KeepingLink, content, receiver
from parties import until

from securelink.incoming import Incoming
from securelink.incoming.talk import Landed
from securelink.landing import Landing, Part, landing
from securelink.messages import Receipt

ID = bytes(range(16))
GROUP = bytes(range(16, 32))


def die(*_: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(owner: Any, name: str, *, before: bool) -> None:
    """Have a method kill the process, before or after it has done its work."""
    method = getattr(owner, name)

    def patched(*args: Any) -> Any:
        if before:
            die()
        method(*args)
        die()

    setattr(owner, name, patched)


def arrange(step: str) -> None:
    match step:
        case "while it is written":
            write = Part.write

            def half(part: Part, views: Any) -> None:
                write(part, views)
                if part.size > 1 << 21:
                    die()

            Part.write = half  # type: ignore[method-assign]
        case "before the fsync":
            dying(landing, "_put_parts_on_disk", before=True)
        case "after the fsync":
            dying(landing, "_put_parts_on_disk", before=False)
        case "after the link":
            dying(Landing, "finish", before=False)
        case "after the commit":
            kept = Incoming._kept

            def keeping(incoming: Incoming, notes: Any, outcomes: Any) -> None:
                if any(isinstance(note, Landed) for note in notes):
                    die()
                kept(incoming, notes, outcomes)

            Incoming._kept = keeping  # type: ignore[method-assign]
        case "before the part is removed":
            dying(Part, "discard", before=True)
        case "after the receipt":
            send = KeepingLink.send

            def sending(link: KeepingLink, message: Any) -> None:
                send(link, message)
                if isinstance(message, Receipt):
                    die()

            KeepingLink.send = sending  # type: ignore[method-assign]


async def main(folder: Path, step: str, size: int, name: str) -> None:
    async with receiver(folder) as it:
        arrange(step)
        sender = it.link()
        data = content(size)
        offer = sender.offer(name, size, id=ID, group=GROUP)
        sender.chunks(offer.number, data[:100_000])
        if size > 4 << 20:
            await until(lambda: bool(it.rows()))
        sender.chunks(offer.number, data[100_000:])
        sender.end(offer.number, data)
        await sender.receipt(offer)
        await sender.cut()
    sys.exit("it has lived on")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
