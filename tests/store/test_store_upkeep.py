from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.endpoints import Endpoint, Kind
from securelink.store import addresses, inbox, invites, outbox, partials, upkeep
from securelink.store.addresses import Source

if TYPE_CHECKING:
    import sqlite3

BOB = b"b" * 32


def test_prune_reaches_every_table(conn: sqlite3.Connection) -> None:
    def receive() -> int | None:
        return inbox.receive(
            conn,
            peer=BOB,
            peer_name="bob",
            message_id=b"m" * 16,
            sent_at=0,
            text="",
            received_at=0,
        )

    receive()
    seq = outbox.put(conn, message_id=b"m" * 16, peer=BOB, text="x", sent_at=0)
    outbox.withdraw(conn, seq, 0)
    invites.add(conn, token_hash=b"t" * 32, name=None, uses=1, created_at=0, expires_at=0)
    lan = Endpoint(Kind.LAN, "192.168.1.20", 24819)
    addresses.set_endpoints(conn, BOB, Source.ANNOUNCED, [lan], 0)

    partials.land(conn, BOB, b"g" * 16, "photos", 0)

    upkeep.prune(conn, 1)
    assert partials.landing_of(conn, BOB, b"g" * 16) == "photos"
    assert receive() is None
    assert outbox.get(conn, seq) is not None
    assert len(invites.list_all(conn)) == 1
    assert addresses.endpoints(conn, BOB) == [lan]

    upkeep.prune(conn, 91 * 86_400_000)
    assert outbox.get(conn, seq) is None
    assert partials.landing_of(conn, BOB, b"g" * 16) is None
    assert invites.list_all(conn) == []
    assert addresses.endpoints(conn, BOB) == []
    assert receive() == 2
    assert len(inbox.after(conn, 0)) == 2
