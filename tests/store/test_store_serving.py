from __future__ import annotations

from typing import TYPE_CHECKING

from securelink.endpoints import Endpoint, Kind
from securelink.store import serving
from securelink.store.serving import Serving

if TYPE_CHECKING:
    import sqlite3

LAN = Endpoint(Kind.LAN, "192.168.1.20", 24819)


def test_serving(conn: sqlite3.Connection) -> None:
    assert serving.get(conn) is None
    serving.record(conn, pid=7, port=24819, endpoints=[LAN], started_at=5)
    assert serving.get(conn) == Serving(7, 24819, (LAN,), 5)


def test_only_the_last_one_stands(conn: sqlite3.Connection) -> None:
    serving.record(conn, pid=7, port=24819, endpoints=[LAN], started_at=5)
    serving.record(conn, pid=8, port=1, endpoints=[], started_at=6)
    serving.clear(conn, 7)
    assert serving.get(conn) == Serving(8, 1, (), 6)
    serving.clear(conn, 8)
    assert serving.get(conn) is None
