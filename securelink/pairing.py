"""Making invites, and redeeming them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from securelink import invite as invites_text
from securelink.clock import now_ms
from securelink.connect import dial
from securelink.errors import (
    LinkTruncated,
    NoReceipt,
    OwnInvite,
    PeerRefused,
)
from securelink.invite import Invite
from securelink.store import addresses, invites, peers

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from securelink.config import Config
    from securelink.directory import KnownPeer
    from securelink.endpoints import Endpoint
    from securelink.identity import Identity
    from securelink.node import Node

DAY = 86_400
"""Seconds; how long an invite is good for, if nothing else is asked for."""


def mint(
    conn: sqlite3.Connection,
    identity: Identity,
    config: Config,
    endpoints: Sequence[Endpoint],
    *,
    name: str | None = None,
    uses: int = 1,
    seconds: int = DAY,
    loopback: bool = False,
) -> Invite:
    """Make an invite and keep the hash of its token; runs in a transaction.

    Args:
        name: what whoever redeems it will be called here; None leaves that to them.
        uses: how many may redeem it.
        seconds: for how long.
        loopback: whether this machine's loopback address is to be in it too.
    """
    now = now_ms()
    made = Invite(
        key=identity.public,
        token=os.urandom(invites_text.TOKEN_SIZE),
        expires=now // 1000 + seconds,
        endpoints=invites_text.choose_endpoints(endpoints, loopback=loopback),
        name=config.node.name,
    )
    invites.add(
        conn,
        token_hash=made.token_hash,
        name=name,
        uses=uses,
        created_at=now,
        expires_at=made.expires * 1000,
    )
    return made


class Joined(msgspec.Struct, frozen=True):
    """Whom we are paired with now, where it answered, and whether it was so before."""

    peer: KnownPeer
    endpoint: Endpoint
    known_before: bool


async def redeem(
    node: Node, invite: Invite, *, name: str | None = None, deadline: float | None = None
) -> Joined:
    """Pair with the node that made an invite. It can be repeated after any failure.

    The peer is on our disk, pending, before our key leaves: so no crash can make the other side
    know us while we don't know it.

    Args:
        name: what to call it; by default what it calls itself.
        deadline: when to give up, in the event loop's time; None for never.

    Raises:
        OwnInvite: this node made it.
        PeerRefused: it was used up, has expired or was revoked.
        NotThem, Unreachable: as `dial`.
        NoReceipt: they may have taken us, and we don't know: repeat it.
    """
    if invite.key == node.identity.public:
        raise OwnInvite(
            "this invite was made by this very node",
            hint="to try it here: securelink send --to me hello; to play a second machine: "
            "SECURELINK_HOME=~/second-node securelink join slinv1...",
        )
    before = (await node.directory()).by_key(invite.key)

    async def endpoints() -> Sequence[Endpoint]:
        return invite.endpoints

    pending = await node.store.run(_begin, node.config, invite, name)
    called = before.name if before else pending
    try:
        connected = await dial(
            node, invite.key, called, endpoints, node.hello(token=invite.token), deadline=deadline
        )
    except LinkTruncated:
        raise NoReceipt(
            f"{called} did not answer in time, and may have paired with this node",
            hint="repeat the same `securelink join`",
        ) from None
    except PeerRefused:
        await node.store.run(peers.drop_pending, invite.key.raw)
        raise PeerRefused(
            f"{called} refused: the invite is used up, expired or revoked",
            hint=f"ask {called} for a new one: securelink invite",
        ) from None
    async with connected.link:
        await node.store.run(_finish, invite, connected.ready.name)
    peer = (await node.directory()).by_key(invite.key)
    assert peer is not None, "it has just been confirmed"
    return Joined(peer, connected.endpoint, known_before=before is not None)


def _begin(conn: sqlite3.Connection, config: Config, invite: Invite, name: str | None) -> str:
    wanted = name or invite.name
    peer = peers.add_pending(
        conn, key=invite.key.raw, name_wanted=wanted, taken=config.peers, now=now_ms()
    )
    return peer.name


def _finish(conn: sqlite3.Connection, invite: Invite, calls_itself: str) -> None:
    now = now_ms()
    peers.confirm(conn, invite.key.raw, calls_itself=calls_itself, now=now)
    # Only now: anybody can write an invite with a peer's key and other addresses in it.
    addresses.set_endpoints(conn, invite.key.raw, addresses.Source.INVITE, invite.endpoints, now)
