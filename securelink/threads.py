"""Work that waits for a disk, in a thread that never keeps the interpreter from ending."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run *function* in a daemon thread of its own and return its result, or raise its error.

    A caller that is cancelled does not stop the function; what it returns then is lost.
    """
    return await in_thread_or(_forget, function, *args, **kwargs)


async def in_thread_or(
    lost: Callable[[T], object], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Do the same as `in_thread`, for a result that holds something open.

    If the caller is cancelled meanwhile, *lost* gets the result, in whichever thread that shows.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            if error is None:
                lost(result)  # type: ignore[arg-type]  # without an error it is a T
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # without an error it is a T

    def run() -> None:
        result, error = None, None
        try:
            result = function(*args, **kwargs)
        except Exception as raised:  # noqa: BLE001 - whatever it is, the caller gets it
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            # The loop is closed: nobody waits.
            if error is None:
                lost(result)  # type: ignore[arg-type]  # as above

    threading.Thread(target=run, name=getattr(function, "__name__", "work"), daemon=True).start()
    return await future


def _forget(_: object) -> None:
    """Nothing depends on it."""
