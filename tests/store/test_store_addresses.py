from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from securelink.announced import AnnouncedEndpoint
from securelink.endpoints import Endpoint, Kind
from securelink.store import addresses, schema
from securelink.store.addresses import Source
from securelink.store.database import Database

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

BOB = b"b" * 32
LAN = Endpoint(Kind.LAN, "192.168.1.20", 24819)
PUBLIC = Endpoint(Kind.PUBLIC, "home.example", 24819)
SIX = Endpoint(Kind.PUBLIC, "2001:db8::1", 24819)
OTHER = Endpoint(Kind.LAN, "10.0.0.9", 1)


def test_order_and_no_duplicates(conn: sqlite3.Connection) -> None:
    addresses.set_endpoints(conn, BOB, Source.ANNOUNCED, [OTHER, PUBLIC, SIX], 1)
    addresses.set_endpoints(conn, BOB, Source.INVITE, [LAN, PUBLIC], 1)
    addresses.set_endpoints(conn, BOB, Source.PERSON, [PUBLIC], 1)
    addresses.set_endpoints(conn, b"x" * 32, Source.PERSON, [OTHER], 1)
    assert addresses.endpoints(conn, BOB) == [PUBLIC, LAN, OTHER, SIX]
    assert isinstance(addresses.endpoints(conn, BOB)[0].kind, Kind)


def test_what_was_announced_is_known_as_such(conn: sqlite3.Connection) -> None:
    told = [AnnouncedEndpoint(e.kind, e.host, e.port, met) for e in (PUBLIC, SIX) for met in Kind]
    for endpoint in told:
        addresses.set_endpoints(conn, BOB, Source.ANNOUNCED, [endpoint], 1)
        (found,) = addresses.endpoints(conn, BOB)
        assert isinstance(found, AnnouncedEndpoint)
        assert (found, found.met) == (endpoint, endpoint.met)
        # A person's word goes beyond the peer's own, wherever it stands.
        for source in (Source.PERSON, Source.INVITE):
            addresses.set_endpoints(conn, BOB, source, [endpoint.plain], 1)
            assert list(map(type, addresses.endpoints(conn, BOB))) == [Endpoint]
            addresses.set_endpoints(conn, BOB, source, [], 1)


def test_of_what_older_versions_took_it_is_not_known_where_the_peer_was(path: Path) -> None:
    with closing(Database.open(path, migrations=schema.MIGRATIONS[:4])) as database:
        for port, source in enumerate(Source, 1):
            database.connection.execute(
                "INSERT INTO endpoints VALUES (?, ?, 0, 'public', 'home.example', ?, 1, NULL)",
                (BOB, source, port),
            )
    with closing(Database.open(path)) as database:
        *others, told = addresses.endpoints(database.connection, BOB)
    assert list(map(type, others)) == [Endpoint, Endpoint]
    assert isinstance(told, AnnouncedEndpoint)
    assert told.met is Kind.PUBLIC


def test_list_replaces_those_of_its_source_alone(conn: sqlite3.Connection) -> None:
    addresses.set_endpoints(conn, BOB, Source.INVITE, [LAN], 1)
    addresses.set_endpoints(conn, BOB, Source.ANNOUNCED, [PUBLIC, SIX], 1)
    addresses.set_endpoints(conn, BOB, Source.ANNOUNCED, [OTHER], 2)
    assert addresses.endpoints(conn, BOB) == [LAN, OTHER]
    addresses.set_endpoints(conn, BOB, Source.ANNOUNCED, [], 3)
    assert addresses.endpoints(conn, BOB) == [LAN]


def test_forget(conn: sqlite3.Connection) -> None:
    addresses.set_endpoints(conn, BOB, Source.PERSON, [LAN], 1)
    addresses.forget(conn, BOB)
    assert addresses.endpoints(conn, BOB) == []


def test_unused_announced_ones_are_dropped(conn: sqlite3.Connection) -> None:
    for source in Source:
        addresses.set_endpoints(conn, BOB, source, [LAN, OTHER], 1000)
    addresses.set_endpoints(conn, BOB, Source.PERSON, [], 1000)
    addresses.set_endpoints(conn, BOB, Source.INVITE, [SIX], 1000)
    addresses.used_endpoint(conn, BOB, OTHER, 5000)
    addresses.prune(conn, 1000 + addresses.UNUSED_KEPT)
    assert addresses.endpoints(conn, BOB) == [SIX, LAN, OTHER]
    addresses.prune(conn, 1001 + addresses.UNUSED_KEPT)
    assert addresses.endpoints(conn, BOB) == [SIX, OTHER]
    # Announced again with a clock set back, it keeps the day of its last use.
    addresses.set_endpoints(conn, BOB, Source.ANNOUNCED, [OTHER], 2000)
    addresses.prune(conn, 2001 + addresses.UNUSED_KEPT)
    assert addresses.endpoints(conn, BOB) == [SIX, OTHER]
    addresses.set_endpoints(conn, BOB, Source.ANNOUNCED, [OTHER], 6000)
    addresses.prune(conn, 5001 + addresses.UNUSED_KEPT)
    assert addresses.endpoints(conn, BOB) == [SIX, OTHER]
    addresses.prune(conn, 6001 + addresses.UNUSED_KEPT)
    assert addresses.endpoints(conn, BOB) == [SIX]


def test_used_endpoint_of_another_peer_or_port(conn: sqlite3.Connection) -> None:
    addresses.set_endpoints(conn, BOB, Source.ANNOUNCED, [LAN], 1000)
    addresses.used_endpoint(conn, b"x" * 32, LAN, 5000)
    addresses.used_endpoint(conn, BOB, Endpoint(Kind.LAN, LAN.host, 1), 5000)
    addresses.prune(conn, 1001 + addresses.UNUSED_KEPT)
    assert addresses.endpoints(conn, BOB) == []
