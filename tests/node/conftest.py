"""Tests of this folder may be coroutines; each has an event loop, a deadline, and tidies up."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING

import pytest
from parties import Parties

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

DEADLINE = 30.0


@pytest.fixture
def parties(tmp_path: Path) -> Parties:
    """Makes nodes; use it in a coroutine."""
    return Parties(tmp_path)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    asyncio.run(_limited(lambda: pyfuncitem.obj(**arguments)))
    left = [each.name for each in threading.enumerate() if each.name.startswith("store ")]
    assert not left, "a store was not closed"
    return True


async def _limited(test: Callable[[], Coroutine[object, object, None]]) -> None:
    broken: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: broken.append(context))
    async with asyncio.timeout(DEADLINE):
        await test()
    # Tasks that were cancelled, and connections that were aborted, end in the loop's next turns.
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=1)
    assert not left, "a task was left behind"
    assert not broken, "an exception reached nobody"
