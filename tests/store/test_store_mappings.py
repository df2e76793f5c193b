from __future__ import annotations

import sqlite3

import msgspec
import pytest

from securelink.events import Address
from securelink.nat.terms import Method, Protocol
from securelink.store import mappings, schema, upkeep
from securelink.store.database import Database
from securelink.store.mappings import ENDED_KEPT, StoredMapping

ONE = StoredMapping(
    owner="a",
    method=Method.PCP,
    gateway="192.168.1.1",
    protocol=Protocol.TCP,
    external=Address("1.2.3.4", 24819),
    local=Address("192.168.1.20", 24819),
    lease=3600,
    nonce=b"n" * 12,
    description="securelink 0123abcd",
    made_at=1_000_000,
)


def test_one_row_for_each_port_of_an_owner(conn: sqlite3.Connection) -> None:
    others = [
        msgspec.structs.replace(ONE, **change)
        for change in (
            {"owner": "b"},
            {"method": Method.UPNP},
            {"gateway": "192.168.2.1"},
            {"protocol": Protocol.UDP},
            {"external": Address("1.2.3.4", 1)},
        )
    ]
    for each in (ONE, *others):
        mappings.record(conn, each)
    assert mappings.list_all(conn) == [ONE, *others]
    renewed = msgspec.structs.replace(ONE, made_at=2_000_000, external=Address("1.2.3.5", 24819))
    mappings.record(conn, renewed)
    assert mappings.list_all(conn) == [*others, renewed]
    mappings.forget(conn, ONE)
    mappings.forget(conn, ONE)
    assert mappings.list_all(conn) == others


def test_another_port_was_granted(conn: sqlite3.Connection) -> None:
    mappings.record(conn, ONE)
    granted = msgspec.structs.replace(ONE, external=Address("1.2.3.4", 4000))
    mappings.replace(conn, ONE, granted)
    assert mappings.list_all(conn) == [granted]


def test_what_ended_long_ago_is_forgotten(conn: sqlite3.Connection) -> None:
    permanent = msgspec.structs.replace(ONE, owner="p", lease=0)
    mappings.record(conn, ONE)
    mappings.record(conn, permanent)
    end = ONE.good_until()
    assert end == 1_000_000 + 3_600_000
    assert permanent.good_until() is None
    mappings.prune(conn, end + ENDED_KEPT)
    assert mappings.list_all(conn) == [ONE, permanent]
    upkeep.prune(conn, end + ENDED_KEPT + 1)
    assert mappings.list_all(conn) == [permanent]


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": b"short"},
        {"lease": -1},
        {"external": Address("", 0)},
        {"local": Address("", 65536)},
    ],
)
def test_what_can_be_no_mapping(conn: sqlite3.Connection, change: dict) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        mappings.record(conn, msgspec.structs.replace(ONE, **change))


def test_a_store_of_version_1_gets_the_table(path) -> None:
    Database.open(path, migrations=schema.MIGRATIONS[:1]).close()
    database = Database.open(path)
    mappings.record(database.connection, ONE)
    assert mappings.list_all(database.connection) == [ONE]
    database.close()
    assert path.with_name("securelink.db.v1.bak").exists()
