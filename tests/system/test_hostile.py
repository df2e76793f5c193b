"""What strangers and broken programs send to a server, which answers none of it and serves on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct

from holding import held_link
from nodes import PATIENCE, Machines, Serving
from proxy import INTRODUCED, MESSAGE_1, MESSAGE_2, Proxy

from securelink.hello import FEATURES, ClientHello
from securelink.identity import Identity, PublicKey
from securelink.limits import Limits
from securelink.session import Session

FIRST_LENGTH = struct.pack(">I", MESSAGE_1 - 4)

JUNK = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512),
    "a frame of 4 GiB": struct.pack(">I", 2**32 - 1) + b"SL\x01\x01",
    "a frame one byte too long": struct.pack(">I", MESSAGE_1 - 3),
    "an empty frame": bytes(4),
    "a first message of zeros": FIRST_LENGTH + b"SL\x01\x01" + bytes(MESSAGE_1 - 8),
    "another version": FIRST_LENGTH + b"SL\x02\x01" + bytes(MESSAGE_1 - 8),
    "random bytes": random.Random(1).randbytes(100_000),
}


def connect(serving: Serving) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", serving.port))
    sock.settimeout(PATIENCE)
    return sock


def answer(sock: socket.socket) -> bytes:
    """Everything that the server says until it ends the connection."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(65536):
            said += data
    return said


def first_message(server: PublicKey) -> bytes:
    """A valid message 1 from a key that nobody knows."""
    hello = ClientHello("stranger", FEATURES, 1 << 20)
    session = Session.client(Identity.generate(), server, hello, limits=Limits(), now=0)
    return bytes(session.data_to_send(0))


def test_junk_gets_no_answer_and_costs_a_link_nothing(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    before = len(serving.stderr_lines)

    def throw() -> None:
        for what, junk in JUNK.items():
            with connect(serving) as sock:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(junk)
                assert answer(sock) == b"", what
        for _ in range(20):
            connect(serving).close()

    async def beside_a_link() -> None:
        async with held_link(bob, bob.key_of("alice"), serving.port) as held:
            await asyncio.to_thread(serving.event, "link-up")
            await asyncio.to_thread(throw)
            bob.queue(bob.key_of("alice"), "still linked")
            held.outgoing.wake()
            await asyncio.to_thread(serving.event, "message", text="still linked")
            assert not held.ended.done()

    asyncio.run(beside_a_link())
    assert bob.send("still here").code == 0
    assert alice.texts() == ["still linked", "still here"]
    logged = serving.stop().err.splitlines()[before:]
    assert len(logged) <= len(JUNK) + 20 + 1, "a line each at most"
    assert not [line for line in logged if "Traceback" in line]
    assert not [event for event in serving.events if event.get("peer") not in {None, "bob"}]


def test_who_stops_half_way_is_dropped_in_time(machines: Machines) -> None:
    alice, serving, bob = machines.pair(SECURELINK_LIMITS_HANDSHAKE_TIMEOUT="0.5")
    message_1 = first_message(alice.identity.public)
    with connect(serving) as nothing, connect(serving) as half, connect(serving) as proven:
        half.sendall(message_1[: MESSAGE_1 // 2])
        proven.sendall(message_1)
        assert bob.send("past them").code == 0
        assert answer(nothing) == b""
        assert answer(half) == b""
        assert len(answer(proven)) == MESSAGE_2


def test_a_wrong_third_message_gets_no_answer(machines: Machines) -> None:
    alice, serving, _ = machines.pair()
    with connect(serving) as sock:
        sock.sendall(first_message(alice.identity.public))
        assert len(sock.recv(MESSAGE_2, socket.MSG_WAITALL)) == MESSAGE_2
        sock.sendall(struct.pack(">I", 320) + bytes(320))
        assert answer(sock) == b""


def test_a_recorded_session_delivers_nothing_again(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    recording: Proxy = proxy(serving.port)
    assert bob.send("--endpoint", f"127.0.0.1:{recording.port}", "once").code == 0
    (recorded,) = recording.connections
    assert len(recorded.up) > INTRODUCED
    up = bytes(recorded.up)
    links = [event["event"] for event in serving.events].count("link-up")

    for cuts in ([MESSAGE_1, INTRODUCED], range(0, len(up), 97), []):
        with connect(serving) as sock, contextlib.suppress(ConnectionError):
            at = 0
            for cut in [*cuts, len(up)]:
                sock.sendall(up[at:cut])
                at = cut
            # What the server says to message 1 helps nobody who lacks the ephemeral key.
            assert len(answer(sock)) <= MESSAGE_2
    assert bob.send("new").code == 0
    assert alice.texts() == ["once", "new"]
    serving.stop()
    assert [event["event"] for event in serving.events].count("link-up") == links + 1


def test_the_server_played_back_to_the_client_is_not_believed(machines: Machines, proxy) -> None:
    alice, serving, bob = machines.pair()
    recording: Proxy = proxy(serving.port)
    assert bob.send("--endpoint", f"127.0.0.1:{recording.port}", "once").code == 0
    (recorded,) = recording.connections
    with socket.create_server(("127.0.0.1", 0)) as player:
        port = player.getsockname()[1]
        process = bob.start(
            "send", "--json", "--endpoint", f"127.0.0.1:{port}", "--timeout", "0.5", "secret"
        )
        player.settimeout(PATIENCE)
        while process.running:
            player.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                connection, _ = player.accept()
                with connection, contextlib.suppress(ConnectionError):
                    connection.sendall(recorded.down)
                    connection.settimeout(PATIENCE)
                    assert len(answer(connection)) == MESSAGE_1, "and no message 3"
        assert process.finish().code == 4
    assert alice.texts() == ["once"]
