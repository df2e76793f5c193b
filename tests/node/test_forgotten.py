"""What a `send` says of a row whose end nobody here knows any more: never that it was delivered."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from parties import BOB, carried, introduce, put, rows, until

from securelink.client import Sending
from securelink.clock import new_id
from securelink.errors import NoReceipt
from securelink.items import TextItem
from securelink.store.outbox import State

if TYPE_CHECKING:
    from parties import Parties

    from securelink.node import Node


def behind_its_back(node: Node, statement: str) -> None:
    with closing(sqlite3.connect(node.home.store_file, isolation_level=None)) as conn:
        conn.execute(statement)


@pytest.mark.parametrize(
    ("happens", "reason"),
    [
        ("DELETE FROM outbox", "no record of it is left"),
        (
            "UPDATE outbox SET state = 'unconfirmed', reason = 'no receipt ever came'",
            "no receipt ever came",
        ),
    ],
)
async def test_waiting_for_others_ends_without_a_claim(
    parties: Parties, happens: str, reason: str
) -> None:
    async with parties.node() as node:
        bob = await introduce(node, BOB.public, "bob")
        sending = Sending(node, bob, choice="auto", timeout=None)
        waiting = asyncio.create_task(sending.send([TextItem(new_id(), "hello")]))
        await until(lambda: len(rows(node)) == 1)
        behind_its_back(node, happens)
        (outcome,) = await waiting
        assert isinstance(outcome.error, NoReceipt)
        assert reason in outcome.error.message
        assert "--id" in (outcome.error.hint or "")


async def test_an_own_row_that_is_gone_is_not_told_as_delivered(parties: Parties) -> None:
    async with parties.node() as node:
        gone = await put(node, BOB.public, "gone", owner=node.owner)
        behind_its_back(node, "DELETE FROM outbox")
        async with carried(node, own=[gone]) as (mail, _):
            await until(lambda: bool(mail.settled))
            (settled,) = mail.settled
            assert (settled.seq, settled.state) == (gone, State.UNCONFIRMED)
