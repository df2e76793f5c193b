"""A clock that stands still until the test moves it, and what else the tests share."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from securelink.nat.clock import Clock

T = TypeVar("T")


class HeldClock:
    """Time for the code under test. `clock` is what it gets."""

    def __init__(self) -> None:
        self.time = 10_000.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self.clock = Clock(
            now=lambda: self.time,
            wall=lambda: int(self.time * 1000),
            sleep=self._sleep,
            random=lambda: 0.5,
        )

    async def _sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        sleeper = (self.time + seconds, future)
        self.sleepers.append(sleeper)
        try:
            await future
        finally:
            self.sleepers.remove(sleeper)

    async def asleep(self) -> float:
        """Wait until somebody sleeps; return for how long still."""
        await until(lambda: bool(self.sleepers))
        return min(self.sleepers)[0] - self.time

    async def advance(self, seconds: float) -> None:
        """Let time pass, waking who sleeps when their time has come."""
        target = self.time + seconds
        while self.time < target:
            await until(lambda: bool(self.sleepers))
            waking = min(each[0] for each in self.sleepers)
            self.time = min(waking, target)
            for each, future in list(self.sleepers):
                if each <= self.time and not future.done():
                    future.set_result(None)
            # Whoever woke may talk to the router now: let it have its answers.
            for _ in range(5):
                await asyncio.sleep(0.001)

    async def through(self, awaitable: Awaitable[T]) -> T:
        """Let time pass as long as *awaitable* needs, and return its result."""
        task = asyncio.ensure_future(awaitable)
        while not task.done():
            if self.sleepers:
                await self.advance(0.25)
            await asyncio.sleep(0.002)
        return task.result()


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until something has come about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of the test
            await asyncio.sleep(0.002)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run
