"""Many at once: several senders, several peers, and texts past files that run at full speed."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

from nodes import PATIENCE, Done, Machine, Machines, until
from trees import MIB, digest_tree, make_file, make_tree, names, same

from securelink.clock import new_id, now_ms
from securelink.file_messages import FileMessage, Offer
from securelink.hello import FEATURES, ClientHello
from securelink.identity import PublicKey
from securelink.limits import Limits
from securelink.link import Link
from securelink.messages import Receipt, Text
from securelink.session import Data, Session

ROUND_TRIP = 0.1
"""Seconds in which a text has its receipt, whatever else goes over its link."""


def all_at_once(*sends: tuple[Machine, Path]) -> list[Done]:
    """Start them all, and wait for all."""
    processes = [machine.start("send", "--json", "--file", str(path)) for machine, path in sends]
    return [process.finish(120) for process in processes]


def test_two_sends_of_one_peer_at_once(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = machines.pair()
    one = make_file(tmp_path / "one.bin", 20 * MIB, 1)
    other = make_tree(tmp_path / "other", 200)
    done = all_at_once((bob, one), (bob, other))
    assert [each.code for each in done] == [0, 0], done
    assert same(one, alice.received("bob") / "one.bin")
    assert digest_tree(alice.received("bob") / "other") == digest_tree(other)
    assert alice.parts() == []


def test_one_file_sent_by_two_processes_at_once(machines: Machines, tmp_path: Path) -> None:
    alice, _, bob = machines.pair()
    file = make_file(tmp_path / "a.bin", 20 * MIB)
    done = all_at_once((bob, file), (bob, file))
    assert [each.code for each in done] == [0, 0], done
    landed = names(alice.received("bob"))
    ids = {each.result["id"] for each in done}
    assert len(landed) == len(ids), "each file for one ID"
    for name in landed:
        assert same(file, alice.received("bob") / name)
    assert alice.parts() == []


def test_five_peers_to_one_server_at_once(machines: Machines, tmp_path: Path) -> None:
    alice = machines("alice")
    serving = alice.serve()
    peers = [machines(name) for name in ("bob", "carol", "dave", "erin", "frank")]
    for peer in peers:
        peer.join(alice.invite())
    files = [
        make_file(tmp_path / peer.name / "a.bin", 8 * MIB + number, number + 1)
        for number, peer in enumerate(peers)
    ]
    folders = [
        make_tree(tmp_path / peer.name / "photos", 60, seed=number)
        for number, peer in enumerate(peers)
    ]
    done = all_at_once(*zip(peers, files, strict=True), *zip(peers, folders, strict=True))
    assert [each.code for each in done] == [0] * 10, done
    for peer, file, folder in zip(peers, files, folders, strict=True):
        assert same(file, alice.received(peer.name) / "a.bin")
        assert digest_tree(alice.received(peer.name) / "photos") == digest_tree(folder)
    assert alice.parts() == []
    names_told = [event["name"] for event in serving.events if event["event"] == "file"]
    assert names_told.count("a.bin") == 5


def test_a_text_passes_a_file_that_runs(machines: Machines, tmp_path: Path) -> None:
    alice, serving, bob = machines.pair()
    file = make_file(tmp_path / "a.bin", 1)
    with file.open("r+b") as sparse:
        sparse.truncate(2000 * MIB)
    process = bob.start("send", "--json", "--file", str(file))
    until(lambda: any(part.stat().st_size for part in alice.parts()), "the file has begun")
    done = bob.send("past it")
    assert done.code == 0, done
    assert serving.event("message")["text"] == "past it"
    assert process.running, "the file was still on its way"
    assert names(alice.received("bob")) == []
    process.kill()


class Endless:
    """A stream that comes faster than anybody takes it."""

    def __init__(self) -> None:
        self._offer: Offer | None = Offer(
            id=new_id(), group=new_id(), number=0, name="a.bin", size=None, mtime=0, mode=0o600
        )
        self.gone = 0

    def next(self) -> FileMessage | Data:
        if self._offer is not None:
            offer, self._offer = self._offer, None
            return offer
        return Data(0, self._read)

    def _read(self, room: memoryview) -> int:
        room[:] = bytes(len(room))
        self.gone += len(room)
        return len(room)


def test_texts_do_not_wait_for_a_file_on_their_own_link(machines: Machines) -> None:
    alice, serving, bob = machines.pair()

    async def send() -> tuple[list[float], list[int]]:
        async with await linked(bob, alice.identity.public, serving.port) as link:
            link.send_files(file := Endless())
            link.more_of_files()
            waits, gone = [], []
            for _ in range(30):
                text = Text(new_id(), now_ms(), "past it")
                began = time.monotonic()
                link.send(text)
                assert await link.receive() == [Receipt(text.id)]
                waits.append(time.monotonic() - began)
                gone.append(file.gone)
            link.abort()
            return waits, gone

    waits, gone = asyncio.run(asyncio.wait_for(send(), PATIENCE))
    assert statistics.median(waits) < ROUND_TRIP, waits
    assert gone[-1] - gone[0] > 8 * MIB, "the stream went on"
    assert alice.texts() == ["past it"] * 30


async def linked(machine: Machine, server: PublicKey, port: int) -> Link:
    """A link of a machine's own key, made by hand."""
    loop, limits = asyncio.get_running_loop(), Limits()
    hello = ClientHello(machine.name, FEATURES, limits.max_message)

    def make() -> Link:
        session = Session.client(machine.identity, server, hello, limits=limits, now=loop.time())
        return Link(session, close_timeout=limits.close_timeout)

    _, link = await loop.create_connection(make, "127.0.0.1", port)
    await link.receive()
    link.proceed()
    await link.receive()
    return link
