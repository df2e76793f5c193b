"""What `securelink join` shows of the other machine."""

from __future__ import annotations

import time

import pytest

from securelink import pairing
from securelink.directory import KnownPeer
from securelink.endpoints import Endpoint, Kind
from securelink.identity import PublicKey
from securelink.invite import Invite
from securelink.pairing import Joined

KEY = PublicKey(bytes([9]) + bytes(30) + bytes([1]))
HERE = Endpoint(Kind.LOOPBACK, "127.0.0.1", 24819)


def test_a_name_with_line_ends_stays_on_its_line(
    call_on_terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def redeem(node: object, invite: Invite, **options: object) -> Joined:
        peer = KnownPeer("alice", invite.key, calls_itself="a\nsecurelink: error: \x1b[31mno")
        return Joined(peer, HERE, known_before=False)

    monkeypatch.setattr(pairing, "redeem", redeem)
    invite = Invite(KEY, bytes(16), int(time.time()) + 60, (HERE,), "alice")
    done = call_on_terminal("join", invite.encode())
    assert done.status == 0
    assert not [line for line in done.err.splitlines() if line.startswith("securelink:")]
    assert "calls itself" in done.err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e10"])
def test_a_timeout_that_is_none(seconds: str, call) -> None:
    done = call("join", "--timeout", seconds, "slinv1")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        f"securelink: error: --timeout: expected 0.1 to 1000000000, not {float(seconds):g}\n"
    )
