"""The thread that waits for disks: order, gathering, and both of its ends."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from securelink.diskthread import DiskThread

if TYPE_CHECKING:
    from collections.abc import Sequence


async def test_jobs_are_done_in_order_and_results_come_in_order() -> None:
    got: list[int] = []
    done: list[str] = []

    def work(jobs: Sequence[int]) -> None:
        assert threading.current_thread() is thread
        thread.post(*(job * 10 for job in jobs))

    thread = DiskThread("t", work=work, deliver=got.extend, finish=lambda: done.append("last"))
    thread.put([1, 2])
    thread.put([3])
    thread.stop()
    await thread.ended
    assert got == [10, 20, 30]
    assert done == ["last"]
    thread.join(1)
    assert not thread.is_alive()


async def test_jobs_gather_while_it_works_and_results_while_the_loop_does() -> None:
    may_go = threading.Event()
    working = asyncio.Event()
    loop = asyncio.get_running_loop()
    batches: list[list[int]] = []
    deliveries: list[list[int]] = []

    def work(jobs: Sequence[int]) -> None:
        batches.append(list(jobs))
        loop.call_soon_threadsafe(working.set)
        may_go.wait()
        for job in jobs:
            thread.post(job)

    def deliver(results: Sequence[int]) -> None:
        deliveries.append(list(results))

    thread = DiskThread("t", work=work, deliver=deliver)
    thread.put([1])
    await working.wait()
    thread.put([2, 3])
    thread.put([4])
    thread.stop()
    may_go.set()
    # The loop is busy until the thread has ended.
    thread.join()
    await thread.ended
    assert batches == [[1], [2, 3, 4]]
    assert deliveries == [[1, 2, 3, 4]]


async def test_it_tells_that_it_has_ended_also_when_its_work_was_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    got: list[int] = []
    done: list[str] = []

    def work(jobs: Sequence[int]) -> None:
        thread.post(jobs[0])
        raise AssertionError("a bug")

    thread = DiskThread("t", work=work, deliver=got.extend, finish=lambda: done.append("last"))
    thread.put([1])
    await thread.ended
    thread.join()
    assert (got, done) == ([1], ["last"])
    assert [each.exc_type for each in told] == [AssertionError]


def test_it_ends_when_the_loop_is_gone() -> None:
    may_go = threading.Event()

    def work(jobs: Sequence[int]) -> None:
        may_go.wait()
        for job in jobs:
            thread.post(job)

    async def begin() -> DiskThread[int, int]:
        return DiskThread("t", work=work, deliver=lambda _: None)

    thread = asyncio.run(begin())
    thread.put([1])
    may_go.set()
    thread.join(5)
    assert not thread.is_alive()
