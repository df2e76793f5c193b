"""A clock set a year ahead, and back: what is queued stays, and what has left is not doubled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from parties import BOB, put, running, states, until
from parties import call as call_server

from securelink import clock
from securelink.clock import new_id, now_ms
from securelink.messages import Ready
from securelink.store import outbox

if TYPE_CHECKING:
    from parties import Parties

    from securelink.node import Node

DAY = 86_400
YEAR = 365 * DAY


class Clock:
    """The machine's clock, as somebody sets it."""

    def __init__(self) -> None:
        self.ahead = 0

    def time_ns(self) -> int:
        return time.time_ns() + self.ahead * 1_000_000_000


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(clock, "time", made)
    return made


async def put_with_life(node: Node, text: str, days: int) -> int:
    return await node.store.run(
        outbox.put,
        message_id=new_id(),
        peer=BOB.public.raw,
        text=text,
        sent_at=now_ms(),
        life=days * DAY * 1000,
    )


async def test_what_waits_stays_and_what_was_handed_may_end(
    parties: Parties, set_clock: Clock
) -> None:
    async with parties.node() as node:
        await put_with_life(node, "waits", 30)
        await put_with_life(node, "waits for a day", 1)
        handed = await put(node, BOB.public, "may have left")
        await node.store.run(outbox.hand, [handed], now_ms())
    set_clock.ahead = YEAR
    async with parties.node() as node:
        # A year may be a clock that is wrong: for what waits it is a day.
        assert states(node) == ["waiting", "expired", "unconfirmed"]
    set_clock.ahead = 0
    for _ in range(3):
        async with parties.node() as node:
            assert states(node) == ["waiting", "expired", "unconfirmed"]
    async with (
        parties.node(knows={"bob": BOB.public}) as node,
        running(node) as (service, _),
        call_server(service.server) as bob,
    ):
        await bob.hear(Ready)
        assert await bob.receipt_all(1) == ["waits"]
        await until(lambda: states(node)[0] == "delivered")


async def test_days_add_up_while_the_clock_is_right(parties: Parties, set_clock: Clock) -> None:
    async with parties.node() as node:
        await put_with_life(node, "waits", 3)
    for day in range(1, 4):
        set_clock.ahead = day * DAY + 60
        async with parties.node() as node:
            assert states(node) == ["waiting" if day < 3 else "expired"]
