from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from securelink.errors import UsageError
from securelink.store import invites
from securelink.store.invites import StoredInvite

if TYPE_CHECKING:
    import sqlite3


def add(
    conn: sqlite3.Connection, token_hash: bytes, *, created_at: int = 0, uses: int = 1
) -> StoredInvite:
    invites.add(
        conn,
        token_hash=token_hash,
        name="bob",
        uses=uses,
        created_at=created_at,
        expires_at=created_at + 100,
    )
    return StoredInvite(token_hash, "bob", uses, uses, created_at, created_at + 100, revoked=False)


def test_add_and_list(conn: sqlite3.Connection) -> None:
    later = add(conn, b"\x01" * 32, created_at=9, uses=3)
    earlier = add(conn, b"\x02" * 32, created_at=3)
    assert invites.list_all(conn) == [earlier, later]
    assert invites.get(conn, b"\x01" * 32) == later
    assert invites.get(conn, b"\x03" * 32) is None


def test_label_tells_nothing_of_the_token(conn: sqlite3.Connection) -> None:
    token_hash = hashlib.sha256(b"a token of 16 B.").digest()
    assert add(conn, token_hash).label == token_hash.hex()[:8]


def test_consume(conn: sqlite3.Connection) -> None:
    add(conn, b"\x01" * 32, uses=2)
    add(conn, b"\x02" * 32, uses=1)
    assert [invites.consume(conn, b"\x01" * 32) for _ in range(3)] == [True, True, False]
    assert [invite.uses_left for invite in invites.list_all(conn)] == [0, 1]
    assert invites.consume(conn, b"\x03" * 32) is False


@pytest.mark.parametrize(
    "handle", ["ab01cd", "AB01 ".strip(), " ab01\n", b"\xab\x01" + b"\xcd" * 30]
)
def test_revoke(conn: sqlite3.Connection, handle: str | bytes) -> None:
    add(conn, b"\xab\x01" + b"\xcd" * 30)
    add(conn, b"\xab\x02" + b"\xcd" * 30)
    revoked = invites.revoke(conn, handle)
    assert revoked.label == "ab01cdcd"
    assert revoked.revoked
    assert [invite.revoked for invite in invites.list_all(conn)] == [True, False]
    assert invites.revoke(conn, handle) == revoked


def test_revoke_names_none_or_several(conn: sqlite3.Connection) -> None:
    add(conn, b"\xab\x01" + b"\xcd" * 30)
    add(conn, b"\xab\x02" + b"\xcd" * 30)
    with pytest.raises(UsageError, match="2 invites begin like that"):
        invites.revoke(conn, "ab0")
    for handle in ("", " ", "ff", "slinv1", b"\xab" * 32):
        with pytest.raises(UsageError, match="no such invite"):
            invites.revoke(conn, handle)
    assert not any(invite.revoked for invite in invites.list_all(conn))


def test_revoke_hash(conn: sqlite3.Connection) -> None:
    add(conn, b"\x01" * 32)
    assert invites.revoke_hash(conn, b"\x01" * 32) is True
    assert invites.revoke_hash(conn, b"\x01" * 32) is False
    assert invites.revoke_hash(conn, b"\x02" * 32) is False


def test_prune(conn: sqlite3.Connection) -> None:
    add(conn, b"\x01" * 32, created_at=0)
    add(conn, b"\x02" * 32, created_at=1)
    invites.prune(conn, 101 + invites.ENDED_KEPT)
    assert [invite.token_hash[0] for invite in invites.list_all(conn)] == [2]
