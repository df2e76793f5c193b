"""Many at once: clients, strangers, and all who were given the same invite."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from nodes import PATIENCE, Machines

from securelink.clock import new_id, now_ms
from securelink.connect import dial
from securelink.identity import Identity
from securelink.invite import Invite
from securelink.locks import FileLock
from securelink.messages import Receipt, Text
from securelink.node import Node

CLIENTS = 200
PROCESSES = 12
STRANGERS = 500
REDEMPTIONS = 20


def test_two_hundred_clients_at_once(machines: Machines) -> None:
    alice, _, bob = machines.pair()
    invite = Invite.parse(alice.invite(uses=CLIENTS))
    # Some are processes of their own, all of one node.
    processes = [bob.start("send", "--json", f"process {n}") for n in range(PROCESSES)]

    async def client(node: Node, number: int, all_linked: asyncio.Barrier) -> None:
        async def endpoints():
            return invite.endpoints

        hello = node.hello(token=invite.token)
        deadline = asyncio.get_running_loop().time() + PATIENCE
        connected = await dial(node, invite.key, "alice", endpoints, hello, deadline=deadline)
        async with connected.link as link:
            await all_linked.wait()
            text = Text(new_id(), now_ms(), f"client {number}")
            link.send(text)
            happenings = []
            while not any(isinstance(each, Receipt) for each in happenings):
                happenings += await link.receive()
            assert Receipt(text.id) in happenings

    async def crowd() -> None:
        crowd = machines("crowd")
        async with await crowd.node() as one, asyncio.TaskGroup() as clients:
            linked = asyncio.Barrier(CLIENTS)
            for number in range(CLIENTS):
                lock = FileLock.acquire(crowd.home.locks / f"{number}.owner")
                assert lock is not None
                node = Node(one.home, one.config, Identity.generate(), one.store, lock)
                clients.create_task(client(node, number, linked))

    asyncio.run(crowd())
    assert [process.finish().code for process in processes] == [0] * PROCESSES
    expected = [f"client {n}" for n in range(CLIENTS)]
    expected += [f"process {n}" for n in range(PROCESSES)]
    inbox = alice.inbox()
    assert sorted(message.text for message in inbox) == sorted(expected)
    assert len({message.peer for message in inbox}) == CLIENTS + 1
    names = {message.peer_name for message in inbox}
    assert len(names) == CLIENTS + 1, "each has a name of its own"


def test_silent_strangers_shut_nobody_out(machines: Machines) -> None:
    # No handshake ends for want of time while this test runs.
    alice, serving, bob = machines.pair(SECURELINK_LIMITS_HANDSHAKE_TIMEOUT="60")
    with contextlib.ExitStack() as strangers:
        sockets = [
            strangers.enter_context(socket.create_connection(("127.0.0.1", serving.port)))
            for _ in range(STRANGERS)
        ]
        done = bob.send("through the crowd")
        assert done.code == 0
        assert done.result["seconds"] < 1
        # More of them than there is room for: the oldest has to go, and not the peer.
        more = [
            strangers.enter_context(socket.create_connection(("127.0.0.1", serving.port)))
            for _ in range(100)
        ]
        sockets[0].settimeout(PATIENCE)
        assert closed(sockets[0])
        assert bob.send("and again").result["seconds"] < 1
        more[-1].settimeout(0)
        with pytest.raises(BlockingIOError):
            more[-1].recv(1)
    assert alice.texts() == ["through the crowd", "and again"]


def closed(sock: socket.socket) -> bool:
    """Whether the other side ends the connection without a word."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_of_many_redemptions_of_one_invite_one_wins(machines: Machines) -> None:
    alice = machines("alice")
    serving = alice.serve("--invite")
    clients = [machines(f"client{number}") for number in range(REDEMPTIONS)]
    processes = [client.start("join", "--json", serving.invite) for client in clients]
    codes = [process.finish(60).code for process in processes]
    assert sorted(codes) == [0] + [5] * (REDEMPTIONS - 1)
    winner = clients[codes.index(0)]
    assert serving.event("paired")["peer"] == winner.name
    assert serving.stop().code == 0
    assert [event["event"] for event in serving.events].count("paired") == 1
