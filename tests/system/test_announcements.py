"""What a server tells its peers of its addresses, and what they make of it."""

from __future__ import annotations

import asyncio

from holding import held_link
from nodes import Machines, until
from proxy import Proxy

from securelink.endpoints import Endpoint, Kind
from securelink.server import Server
from securelink.store import addresses

PUBLIC = Endpoint(Kind.PUBLIC, "home.example.org", 24819)
LAN = Endpoint(Kind.LAN, "192.168.1.20", 24819)
LOOPBACK = Endpoint(Kind.LOOPBACK, "127.0.0.1", 24819)


def announced(machine, peer) -> list[Endpoint]:
    """What a machine holds of a peer's announcements."""

    def read(conn):
        rows = conn.execute(
            "SELECT kind, host, port FROM endpoints WHERE peer = ? AND source = 'announced'"
            " ORDER BY position",
            (peer.raw,),
        )
        return [Endpoint(Kind(kind), host, port) for kind, host, port in rows]

    return machine.read(read)


def test_a_forwarded_address_reaches_who_joined_without_it(machines: Machines, proxy) -> None:
    forwarder: Proxy = proxy()
    alice, serving, bob = machines.pair()
    serving.stop()
    assert announced(bob, bob.key_of("alice")) == []
    forwarder.target = serving.port
    public = f"127.0.0.1:{forwarder.port}"
    alice.serve("--public", public, port=serving.port)
    assert bob.send("hello").code == 0

    known = announced(bob, bob.key_of("alice"))
    assert known == [Endpoint(Kind.PUBLIC, "127.0.0.1", forwarder.port)]
    done = bob.send("--endpoint", "public", "by the way that was announced")
    assert done.code == 0
    assert done.result["endpoint"]["port"] == forwarder.port
    assert len(forwarder.connections) == 1


def test_a_server_that_moves_tells_who_is_linked(machines: Machines) -> None:
    alice, bob = machines("alice"), machines("bob")
    alice.configure(f'[peers.bob]\nid = "{bob.identity.public.peer_id}"\n')
    key = alice.identity.public

    async def move() -> None:
        environ = {"SECURELINK_SERVER_PORT": "0", "SECURELINK_SERVER_HOST": "127.0.0.1"}
        alice.environ |= environ
        async with await alice.node() as node:
            server = await Server.open(node, lambda _: None)
            await server.start()
            try:
                async with held_link(bob, key, server.port):
                    for present in ((PUBLIC, LAN, LOOPBACK), (LAN,), (PUBLIC,)):
                        # A link from loopback may know the LAN's addresses, never loopback's.
                        told = [each for each in present if each is not LOOPBACK]
                        server.registry.moved(present)
                        await asyncio.to_thread(
                            until, lambda told=told: announced(bob, key) == told, f"{told}"
                        )
            finally:
                await server.aclose()

    asyncio.run(move())
    assert bob.read(addresses.endpoints, key.raw) == [PUBLIC]


def test_a_server_that_keeps_its_addresses_to_itself(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    serving.stop()
    alice.serve(
        "--public", "home.example.org", port=serving.port, SECURELINK_SERVER_ANNOUNCE="false"
    )
    assert bob.send("hello").code == 0
    assert announced(bob, bob.key_of("alice")) == []


def test_a_server_that_moved_is_found_again_after_any_link_of_its_machine(
    machines: Machines, proxy
) -> None:
    forwarder: Proxy = proxy()
    alice, serving, bob = machines.pair()
    bob_serving = bob.serve("--invite")
    alice.join(bob_serving.invite)
    serving.stop()
    # Alice's addresses are others now, and bob has not heard of it.
    moved = alice.serve("--public", f"127.0.0.1:{forwarder.port}")
    forwarder.target = moved.port
    assert bob.send("--timeout", "0.5", "lost").code == 3
    assert alice.send("--to", "bob", "I have moved").code == 0
    until(lambda: len(announced(bob, bob.key_of("alice"))) == 1, "the announcement")
    done = bob.send("found")
    assert done.code == 0, done
    assert done.result["endpoint"]["port"] == forwarder.port
    assert alice.texts() == ["found"]
