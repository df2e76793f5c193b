"""Making invites and redeeming them, with everything that may go wrong on the way."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from parties import at, call, introduce, running, serving

from securelink import events
from securelink.endpoints import Endpoint, Kind
from securelink.errors import (
    NoReceipt,
    NotThem,
    OwnInvite,
    PeerRefused,
    StoreFull,
    Unreachable,
)
from securelink.identity import Identity
from securelink.invite import Invite
from securelink.link import Link
from securelink.messages import Ready
from securelink.pairing import DAY, Joined, mint, redeem
from securelink.server import Server
from securelink.store import addresses, invites, outbox, peers

if TYPE_CHECKING:
    from parties import Parties

    from securelink.node import Node


async def invite_to(server: Server, **options: object) -> Invite:
    node = server.node
    return await node.store.run(
        mint, node.identity, node.config, server.registry.endpoints, **options
    )


async def join(
    node: Node, invite: Invite, *, name: str | None = None, seconds: float = 5
) -> Joined:
    loop = asyncio.get_running_loop()
    return await redeem(node, invite, name=name, deadline=loop.time() + seconds)


async def pending(node: Node) -> list[str]:
    everybody = await node.store.read(peers.list_all, pending=True)
    return [peer.name for peer in everybody if peer.pending]


async def uses_left(node: Node, invite: Invite) -> int:
    stored = await node.store.read(invites.get, invite.token_hash)
    assert stored is not None
    return stored.uses_left


# ---- making one


async def test_an_invite_and_what_is_kept_of_it(parties: Parties) -> None:
    public = Endpoint(Kind.PUBLIC, "home.example", 1)
    async with parties.node() as node:
        before = int(time.time())
        invite = await node.store.run(
            mint, node.identity, node.config, [public, at(2)], name="bob", uses=3, seconds=60
        )
        assert (invite.key, invite.name) == (node.identity.public, "alice")
        assert invite.endpoints == (public,)
        assert before + 60 <= invite.expires <= time.time() + 60
        assert Invite.parse(invite.encode()) == invite
        (stored,) = await node.store.read(invites.list_all)
        assert stored.token_hash == hashlib.sha256(invite.token).digest()
        assert (stored.name, stored.uses, stored.uses_left) == ("bob", 3, 3)
        assert stored.expires_at == invite.expires * 1000
        # The token itself is nowhere on this disk.
        for file in node.home.data_folder.rglob("*"):
            if file.is_file():
                assert invite.token not in file.read_bytes()


async def test_no_two_invites_are_alike(parties: Parties) -> None:
    async with parties.node() as node:
        first = await node.store.run(mint, node.identity, node.config, [])
        second = await node.store.run(mint, node.identity, node.config, [], loopback=True)
        assert first.token != second.token
        assert first.expires - int(time.time()) in range(DAY - 2, DAY + 1)


# ---- redeeming one


async def test_both_know_each_other_afterwards(parties: Parties) -> None:
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        serving(alice) as (server, told),
    ):
        invite = await invite_to(server)
        joined = await join(bob, invite)
        assert joined.endpoint == at(server.port)
        assert not joined.known_before
        assert (joined.peer.name, joined.peer.key) == ("alice", alice.identity.public)
        assert joined.peer.calls_itself == "alice"
        assert joined.peer.endpoints == invite.endpoints
        theirs = (await alice.directory()).by_key(bob.identity.public)
        assert theirs is not None
        assert (theirs.name, theirs.calls_itself) == ("bob", "bob")
        assert await pending(bob) == await pending(alice) == []
        assert await uses_left(alice, invite) == 0
        (paired,) = await told.of(events.Paired)
        assert (paired.peer, paired.id) == ("bob", bob.identity.public.peer_id)


async def test_names_that_either_side_chooses(parties: Parties) -> None:
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        serving(alice) as (server, _),
    ):
        await introduce(bob, Identity.generate().public, "al")
        joined = await join(bob, await invite_to(server, name="robert"), name="al")
        assert joined.peer.name == "al-2"
        theirs = (await alice.directory()).by_key(bob.identity.public)
        assert theirs is not None
        assert (theirs.name, theirs.calls_itself) == ("robert", "bob")


async def test_an_own_invite(parties: Parties) -> None:
    async with parties.node() as node, serving(node) as (server, told):
        with pytest.raises(OwnInvite, match="this very node") as raised:
            await join(node, await invite_to(server))
        assert "send --to me" in str(raised.value.hint)
        assert "SECURELINK_HOME=" in str(raised.value.hint)
        assert await node.store.read(peers.list_all, pending=True) == []
        assert told == []


async def test_the_peer_is_pending_on_disk_before_our_key_leaves(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    proceed = Link.proceed

    def watched(link: Link) -> None:
        with closing(sqlite3.connect(bob.home.store_file)) as conn:
            seen.append(conn.execute("SELECT name, pending FROM peers").fetchall())
        proceed(link)

    monkeypatch.setattr(Link, "proceed", watched)
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        serving(alice) as (server, _),
    ):
        await join(bob, await invite_to(server))
    assert seen == [[("alice", 1)]]


async def test_a_lost_ready_and_the_join_repeated(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit = Link.admit
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        serving(alice) as (server, told),
    ):
        invite = await invite_to(server)
        # The server has enrolled the key, and the answer never arrives.
        monkeypatch.setattr(Link, "admit", lambda link, *_: link.abort())
        with pytest.raises(NoReceipt, match="may have paired") as raised:
            await join(bob, invite, seconds=0.5)
        assert raised.value.hint == "repeat the same `securelink join`"
        assert await uses_left(alice, invite) == 0
        assert await pending(bob) == ["alice"]
        assert (await bob.directory()).peers == ()

        monkeypatch.setattr(Link, "admit", admit)
        joined = await join(bob, invite)
        assert not joined.known_before
        assert await pending(bob) == []
        assert len(await told.of(events.Paired)) == 1
        assert len((await alice.directory()).peers) == 1


async def test_a_pending_peer_may_get_another_name_when_repeated(parties: Parties) -> None:
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
    ):
        async with serving(alice) as (server, _):
            invite = await invite_to(server)
        with pytest.raises(Unreachable):
            await join(bob, invite, seconds=0.3)
        assert await pending(bob) == ["alice"]
        # What was made for the old port is no use; the token is as good at the new one.
        async with serving(alice) as (server, _):
            moved = Invite(
                key=invite.key,
                token=invite.token,
                expires=invite.expires,
                endpoints=(at(server.port),),
                name=invite.name,
            )
            joined = await join(bob, moved, name="al")
        assert (joined.peer.name, joined.known_before) == ("al", False)


@pytest.mark.parametrize("spoil", ["used", "expired", "revoked"])
async def test_a_refusal_leaves_nobody_pending(parties: Parties, spoil: str) -> None:
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        serving(alice) as (server, told),
    ):
        invite = await invite_to(server, seconds=0 if spoil == "expired" else 60)
        if spoil == "used":
            await alice.store.run(invites.consume, invite.token_hash)
        elif spoil == "revoked":
            await alice.store.run(invites.revoke_hash, invite.token_hash)
        with pytest.raises(PeerRefused, match="used up, expired or revoked") as raised:
            await join(bob, invite)
        assert "securelink invite" in str(raised.value.hint)
        assert await bob.store.read(peers.list_all, pending=True) == []
        assert await bob.store.read(addresses.endpoints, alice.identity.public.raw) == []
        assert told == []


async def test_a_refusal_does_not_lose_a_peer_that_was_paired(parties: Parties) -> None:
    known = at(9)
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        serving(alice) as (server, _),
    ):
        await introduce(bob, alice.identity.public, "al", [known])
        invite = await invite_to(server, seconds=0)
        with pytest.raises(PeerRefused, match=r"^al refused"):
            await join(bob, invite)
        peer = (await bob.directory()).by_name("al")
        assert peer.endpoints == (known,)


async def test_a_rejoin_keeps_the_name_and_refreshes_the_endpoints(parties: Parties) -> None:
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        serving(alice) as (server, told),
    ):
        first = await join(bob, await invite_to(server), name="al")
        await bob.store.run(
            addresses.set_endpoints,
            alice.identity.public.raw,
            addresses.Source.INVITE,
            [at(9)],
            1,
        )
        again = await invite_to(server)
        joined = await join(bob, again, name="another")
        assert joined.known_before
        assert (joined.peer.name, joined.peer.endpoints) == (first.peer.name, (at(server.port),))
        # A known key wins over any token, which is not used up then.
        assert await uses_left(alice, again) == 1
        assert len(await told.of(events.Paired)) == 1


async def test_joining_who_is_configured(parties: Parties) -> None:
    async with (
        parties.node() as alice,
        parties.node("bob", knows={"al": alice.identity.public}) as bob,
        serving(alice) as (server, _),
    ):
        joined = await join(bob, await invite_to(server))
        assert joined.known_before
        assert (joined.peer.name, joined.peer.configured) == ("al", True)


async def test_both_join_each_other_at_once(parties: Parties) -> None:
    for attempt in range(5):
        async with (
            parties.node(f"alice{attempt}") as alice,
            parties.node(f"bob{attempt}") as bob,
            serving(alice) as (at_alice, _),
            serving(bob) as (at_bob, _),
        ):
            for_bob, for_alice = await invite_to(at_alice), await invite_to(at_bob)
            one, other = await asyncio.gather(join(bob, for_bob), join(alice, for_alice))
            assert (one.peer.key, other.peer.key) == (alice.identity.public, bob.identity.public)
            for node in (alice, bob):
                assert await pending(node) == []
                (peer,) = (await node.directory()).peers
                assert peer.endpoints


async def test_nobody_there(parties: Parties) -> None:
    async with parties.node() as alice, parties.node("bob") as bob:
        async with serving(alice) as (server, _):
            invite = await invite_to(server)
        with pytest.raises(Unreachable, match="alice could not be reached"):
            await join(bob, invite, seconds=0.3)
        assert (await bob.directory()).peers == ()


async def test_somebody_else_there(parties: Parties) -> None:
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        parties.node("carol") as carol,
        serving(carol) as (server, told),
    ):
        invite = Invite(
            key=alice.identity.public,
            token=bytes(16),
            expires=2**32 - 1,
            endpoints=(at(server.port),),
            name="alice",
        )
        with pytest.raises(NotThem):
            await join(bob, invite, seconds=0.3)
        assert told == []


async def test_a_store_that_fails_there_can_be_tried_again(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol = peers.enrol
    failures = 2

    def fails_at_first(*arguments: object, **options: object) -> object:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreFull("the disk is full")
        return enrol(*arguments, **options)

    monkeypatch.setattr(peers, "enrol", fails_at_first)
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        serving(alice) as (server, _),
    ):
        invite = await invite_to(server)
        joined = await join(bob, invite)
        assert joined.peer.name == "alice"
        assert await uses_left(alice, invite) == 0


async def test_what_waits_for_us_there_is_not_lost(parties: Parties) -> None:
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        serving(alice) as (server, told),
    ):
        await join(bob, await invite_to(server))
        message_id = bytes(15) + b"1"
        await alice.store.run(
            outbox.put,
            message_id=message_id,
            peer=bob.identity.public.raw,
            text="hello",
            sent_at=1,
        )
        # A join takes no mail: whatever was sent on its link goes again on the next.
        await join(bob, await invite_to(server))
        await told.of(events.LinkDown, 2)
        async with call(server, bob.identity, name="bob") as by_hand:
            await by_hand.hear(Ready)
            assert await by_hand.receipt_all(1) == ["hello"]
            assert by_hand.heard_texts()[0].id == message_id


async def test_cancelled_it_can_be_repeated(parties: Parties) -> None:
    async with parties.node() as alice, parties.node("bob") as bob:
        server = await Server.open(alice, lambda _: None)
        try:
            invite = await invite_to(server)
            joining = asyncio.create_task(join(bob, invite))
            while await pending(bob) != ["alice"]:
                await bob.store.read(lambda _: None)
            joining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await joining
            await server.start()
            assert (await join(bob, invite)).peer.name == "alice"
        finally:
            await server.aclose()


async def test_a_service_tells_of_it(parties: Parties) -> None:
    async with (
        parties.node() as alice,
        parties.node("bob") as bob,
        running(alice, with_invite=True) as (service, tell),
    ):
        assert service.invite is not None
        await join(bob, service.invite)
        await tell.of(events.LinkDown)
        assert [type(each) for each in tell] == [events.Paired, events.LinkUp, events.LinkDown]
