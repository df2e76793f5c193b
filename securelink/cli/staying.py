"""What `serve` and `receive` share: they tell what happens, until a signal ends them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

from securelink.cli import progress
from securelink.cli.failures import Interrupted, Terminated
from securelink.cli.running import run
from securelink.cli.telling import TellingThread
from securelink.errors import ExitCode
from securelink.node import Node
from securelink.progress import incoming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from securelink.cli.logs import LogThread
    from securelink.cli.output import Output
    from securelink.cli.screen import Screen
    from securelink.config import Config
    from securelink.home import Home
    from securelink.progress import Snapshot
    from securelink.registry import Registry

LAST_WRITES = 1.0
"""Seconds for which the end waits for other processes that write to the store."""

LAST_WORDS = 0.5
"""Seconds that the last events have to be written."""


def stay(
    home: Home,
    config: Config,
    screen: Screen,
    log: LogThread,
    work: Callable[[Node, TellingThread], Coroutine[Any, Any, None]],
    *,
    by_signal: bool = True,
) -> None:
    """Open the node, and work until that is done or a signal comes.

    Args:
        home, config: the node's.
        screen: shows the events that `work` tells.
        log: the log's thread.
        work: is cancelled by a signal, and when nobody reads the events any more.
        by_signal: a signal is how this is meant to end.

    Raises:
        Interrupted, Terminated: it was not.
    """
    tellings: list[TellingThread] = []

    async def command() -> None:
        async with await Node.open(home, config) as node, _telling(screen) as tell:
            tellings.append(tell)
            await _until_cancelled(work(node, tell), node)

    try:
        run(command)
    except (Interrupted, Terminated) as signal:
        if by_signal and not screen.output.quiet:
            log.say("stopped")
        code = ExitCode.OK if by_signal else signal.exit_code
        if any(tell.is_stuck for tell in tellings):
            # The thread sits in a write that may never end, and would keep the interpreter.
            log.flush()
            os._exit(code)
        if not by_signal:
            raise


async def _until_cancelled(work: Coroutine[Any, Any, None], node: Node) -> None:
    """Work; when that is cancelled, have no part of it wait long for the store on its way out."""
    working = asyncio.create_task(work)
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        node.store.hurry(LAST_WRITES)
        working.cancel()
        await working
        raise


@contextlib.asynccontextmanager
async def _telling(screen: Screen) -> AsyncIterator[TellingThread]:
    """The thread that writes events; it ends the task when they can't be written."""
    task = asyncio.current_task()
    assert task is not None
    failure: OSError | None = None

    def fail(error: OSError) -> None:
        nonlocal failure
        failure = error
        task.cancel()

    tell = TellingThread(screen.event, fail)
    try:
        yield tell
    except asyncio.CancelledError:
        if failure is not None:
            raise failure from None
        raise
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await tell.written()


@contextlib.asynccontextmanager
async def progress_shown(output: Output, log: LogThread, registry: Registry) -> AsyncIterator[None]:
    """Show how far the files are that come in, for as long as the context lasts."""

    def look() -> Snapshot | None:
        return incoming(registry.incoming(), registry.taken)

    async with progress.shown(output, look) as line:
        with contextlib.nullcontext() if line is None else log.kept_clear(line.away):
            yield
