"""Commands with an event loop, and how signals end them."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, TypeVar

from securelink.cli.failures import Interrupted, Terminated

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


def run(command: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command to its end; a first SIGINT or SIGTERM cancels it, a second one kills.

    Raises:
        Interrupted, Terminated: a signal came, and the command has cleaned up after itself.
    """
    caught: list[signal.Signals] = []

    async def cancelled_by_signals() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def catch(signum: signal.Signals) -> None:
            caught.append(signum)
            for each in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(each)
                signal.signal(each, signal.SIG_DFL)
            task.cancel()

        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, catch, each)
        return await command()

    try:
        with asyncio.Runner() as runner:
            return runner.run(cancelled_by_signals())
    except asyncio.CancelledError:
        if not caught:
            raise
    if caught[0] is signal.SIGINT:
        raise Interrupted("interrupted")
    raise Terminated("terminated")
