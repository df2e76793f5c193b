"""The lines of a pipe: whole ones as they come, and each of them a text that arrives."""

from __future__ import annotations

import asyncio
import os
from pipes import LONGEST, a_pipe
from typing import TYPE_CHECKING

import pytest
from parties import HandServer, Stopwatch, at, introduce, running, states, texts, until
from test_parcel import NOWHERE, Sent, bob_at

from securelink import lines
from securelink.client import terms
from securelink.errors import NoReceipt, SourceUnreadable, Unreachable, UsageError
from securelink.items import LinesItem
from securelink.lines import Lines
from securelink.messages import RefusalCode, Text

if TYPE_CHECKING:
    from pathlib import Path

    from parties import Parties


async def all_of(data: bytes, longest: int = LONGEST) -> list[bytes]:
    with a_pipe() as pipe:
        pipe.write(data)
        pipe.end()
        reader = Lines(pipe.reading, longest)
        found: list[bytes] = []
        while some := await reader.next():
            found += some
        assert await reader.next() == []
        return found


# ---- what a line is


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\nb", [b"a", b"b"]),
        (b"\n\na\n\n", [b"", b"", b"a", b""]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"a\rb\n", [b"a\rb"]),
        (b"\r\n", [b""]),
        (b"\xff\x00\n", [b"\xff\x00"]),
    ],
)
async def test_lines(data: bytes, expected: list[bytes]) -> None:
    assert await all_of(data) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\nnext\n", b""])
@pytest.mark.parametrize("before", [b"", b"before\n"])
@pytest.mark.parametrize(
    "line",
    [
        b"x" * LONGEST,
        b"x" * (LONGEST + 1),
        b"x" * LONGEST + b"\r",
        b"x" * LONGEST + b"\ry",
        b"x" * LONGEST + b"\r\ry",
        b"x" * (LONGEST + 1) + b"\ry",
        b"x" * (LONGEST + 1) + b"\r\r\ry",
        b"x" * 10 * LONGEST,
    ],
)
async def test_a_line_that_is_too_long_stays_too_long(
    before: bytes, line: bytes, end: bytes
) -> None:
    found = (await all_of(before + line + end))[bool(before)]
    whole = line if end == b"" else (line + end).partition(b"\n")[0].removesuffix(b"\r")
    if len(whole) <= LONGEST:
        assert found == whole
    else:
        assert LONGEST < len(found) <= LONGEST + 2
        assert whole.startswith(found)


async def test_a_line_may_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK_SIZE", 3)
    assert await all_of(b"first\nsecond\r\n\nthe last of all") == [
        b"first",
        b"second",
        b"",
        b"the last of "[: LONGEST + 2],
    ]


async def test_what_nobody_takes_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def endless(_: int, size: int) -> bytes:
        read.append(size)
        return b"x" * (size - 1) + b"\n"

    monkeypatch.setattr(os, "read", endless)
    reader = Lines(-1, LONGEST)
    await until(lambda: len(read) == lines.MOST_AHEAD)
    # What was read is cut as well: the rest of a line that is too long is not kept.
    (line,) = await reader.next()
    assert len(line) <= LONGEST + 2
    await until(lambda: len(read) == lines.MOST_AHEAD + 1)
    await asyncio.sleep(0.05)
    assert len(read) == lines.MOST_AHEAD + 1


async def test_a_folder_has_no_lines(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            await Lines(descriptor, LONGEST).next()
    finally:
        os.close(descriptor)


# ---- sent


async def test_each_line_goes_as_it_comes(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        with a_pipe() as pipe:
            sent = Sent(node, bob_at(server), pipe.item())
            pipe.write(b"first\nsec")
            by_hand = await server.call()
            assert await by_hand.receipt_all(1) == ["first"]
            pipe.write(b"ond\n\n\nthird\n")
            assert await by_hand.receipt_all(3) == ["second", "third"]
            assert not sent.task.done()
            pipe.write(b"last")
            pipe.end()
            assert await by_hand.receipt_all(4) == ["last"]
            outcome = await sent.outcome()
            assert outcome.error is None
            assert (outcome.tally.rows, outcome.tally.delivered) == (4, 4)
            assert len(server.calls) == 1


async def test_no_lines_at_all_are_delivered_to_whoever_is_not_there(parties: Parties) -> None:
    async with parties.node() as node:
        with a_pipe() as pipe:
            pipe.end()
            outcome = await Sent(node, NOWHERE, pipe.item()).outcome()
            assert (outcome.error, outcome.tally.delivered) == (None, 0)


async def test_what_is_no_text_is_told_with_its_number(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        with a_pipe() as pipe:
            sent = Sent(node, bob_at(server), pipe.item())
            pipe.write(b"1\n\xff\n")
            by_hand = await server.call()
            assert await by_hand.receipt_all(1) == ["1"]
            pipe.write("3\n4 is too long\n5\n\n123456789\N{EURO SIGN}\n8\n".encode())
            pipe.end()
            assert await by_hand.receipt_all(4) == ["3", "5", "8"]
            outcome = await sent.outcome()
            assert isinstance(outcome.error, UsageError)
            assert [each.message for each in outcome.tally.errors] == [
                "line 2 is not UTF-8",
                "line 4 is longer than 10 bytes",
                "line 7 is longer than 10 bytes",
            ]
            assert outcome.tally.delivered == 4


SHORT = 1.0
"""A timeout in seconds, in which a slow machine too sends a line and has its receipt."""


async def test_nothing_but_silence_for_longer_than_the_timeout(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "GRACE", 0.0)
    async with parties.node() as node, HandServer() as server:
        with a_pipe() as pipe:
            # Neither before the first line, nor after it.
            sent = Sent(node, bob_at(server), pipe.item(), timeout=SHORT)
            await asyncio.sleep(SHORT * 1.2)
            pipe.write(b"first\n")
            by_hand = await server.call()
            assert await by_hand.receipt_all(1) == ["first"]
            await asyncio.sleep(SHORT * 1.2)
            assert not sent.task.done()
            pipe.write(b"second\n")
            assert await by_hand.receipt_all(2) == ["second"]
            pipe.end()
            assert (await sent.outcome()).error is None


async def test_a_link_that_is_lost_in_the_silence(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "GRACE", 0.0)
    async with parties.node() as node, HandServer() as server:
        with a_pipe() as pipe:
            sent = Sent(node, bob_at(server), pipe.item(), timeout=SHORT)
            pipe.write(b"first\n")
            by_hand = await server.call(1)
            assert await by_hand.receipt_all(1) == ["first"]
            await asyncio.sleep(SHORT * 1.2)
            by_hand.link.abort()
            await asyncio.sleep(0.2)
            # Without a line there is nothing to dial for.
            assert len(server.calls) == 1
            assert not sent.task.done()
            pipe.write(b"second\n")
            by_hand = await server.call(2)
            assert await by_hand.receipt_all(1) == ["second"]
            pipe.end()
            assert (await sent.outcome()).error is None


async def test_a_peer_that_goes_between_two_lines(parties: Parties) -> None:
    async with parties.node() as node:
        with a_pipe() as pipe:
            async with HandServer() as server:
                sent = Sent(node, bob_at(server), pipe.item(), timeout=1.5)
                pipe.write(b"first\n")
                by_hand = await server.call()
                assert await by_hand.receipt_all(1) == ["first"]
                await until(lambda: states(node) == ["delivered"])
            pipe.write(b"second\n")
            outcome = await sent.outcome()
            # The pipe is still open: nobody reads it to its end.
            assert isinstance(outcome.error, Unreachable)
            assert (outcome.tally.rows, outcome.tally.delivered) == (2, 1)


async def test_lines_without_a_receipt(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "GRACE", 0.0)
    async with parties.node() as node, HandServer() as server:
        with a_pipe() as pipe:
            sent = Sent(node, bob_at(server), pipe.item(), timeout=1.5)
            pipe.write(b"1\n2\n")
            by_hand = await server.call()
            by_hand.receipt((await by_hand.hear(Text, 2))[1])
            outcome = await sent.outcome()
            assert isinstance(outcome.error, NoReceipt)
            assert outcome.tally.delivered == 1
            assert states(node) == ["handed", "delivered"]


async def test_a_line_that_is_refused_does_not_end_the_others(parties: Parties) -> None:
    async with parties.node() as node, HandServer() as server:
        with a_pipe() as pipe:
            sent = Sent(node, bob_at(server), pipe.item())
            pipe.write(b"1\n")
            by_hand = await server.call()
            await by_hand.refuse(1, RefusalCode.TOO_LONG, permanent=True)
            pipe.write(b"2\n")
            assert await by_hand.receipt_all(2) == ["2"]
            pipe.end()
            outcome = await sent.outcome()
            assert outcome.error is not None
            assert outcome.error.message == "bob refused it: too long"
            assert outcome.tally.delivered == 1


async def test_queued_lines_are_read_to_the_end(parties: Parties) -> None:
    async with parties.node() as node:
        with a_pipe() as pipe:
            sent = Sent(node, NOWHERE, pipe.item(), queue=True, timeout=0.2)
            pipe.write(b"1\n")
            await asyncio.sleep(0.5)
            assert not sent.task.done(), "nobody is there, but more may come"
            pipe.write(b"2\n")
            pipe.end()
            outcome = await sent.outcome()
            assert outcome.queued
            assert outcome.tally.rows == 2


async def test_standard_input_that_cannot_be_read(parties: Parties, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        async with parties.node() as node:
            with Stopwatch() as watch:
                item = LinesItem(Lines(descriptor, LONGEST), LONGEST)
                outcome = await Sent(node, NOWHERE, item, timeout=None).outcome()
            assert watch.seconds < 2
            assert isinstance(outcome.error, SourceUnreadable)
            assert outcome.error.message == "standard input cannot be read: is a directory"
    finally:
        os.close(descriptor)


async def test_many_lines_at_once(parties: Parties) -> None:
    async with (
        parties.node("bob") as node,
        parties.node() as other,
        running(other) as (service, _),
    ):
        await introduce(other, node.identity.public, "bob")
        alice = await introduce(node, other.identity.public, "alice", [at(service.server.port)])
        expected = [str(number) for number in range(5000)]
        with a_pipe() as pipe:
            sent = Sent(node, alice, pipe.item())
            for start in range(0, 5000, 1000):
                pipe.write("".join(f"{n}\n" for n in expected[start : start + 1000]).encode())
            pipe.end()
            outcome = await sent.outcome()
        assert (outcome.error, outcome.tally.delivered) == (None, 5000)
        assert texts(other) == expected
