"""Pairing: what may happen to an invite and to those who use it."""

from __future__ import annotations

import asyncio
import re
import subprocess

import pytest
from nodes import Machines
from proxy import INTRODUCED, MESSAGE_2, Action, Fault, Proxy

from securelink.endpoints import Endpoint
from securelink.errors import NoReceipt
from securelink.invite import Invite
from securelink.pairing import redeem
from securelink.store import invites, peers


def redirected(invite: str, proxy: Proxy) -> Invite:
    """The same invite, by way of a proxy."""
    made = Invite.parse(invite)
    (endpoint,) = made.endpoints
    proxy.target = endpoint.port
    endpoint = type(endpoint)(endpoint.kind, endpoint.host, proxy.port)
    return Invite(made.key, made.token, made.expires, (endpoint,), made.name)


@pytest.mark.parametrize("lost", ["READY", "message 3"])
def test_a_join_whose_answer_was_lost_can_be_repeated(machines: Machines, proxy, lost) -> None:
    alice, bob = machines("alice"), machines("bob")
    serving = alice.serve("--invite")
    cutting: Proxy = proxy()
    invite = redirected(serving.invite, cutting)
    if lost == "READY":
        cutting.down = Fault(Action.CUT, after=MESSAGE_2)
    else:
        cutting.up = Fault(Action.CUT, after=INTRODUCED - 1)

    async def join() -> None:
        async with await bob.node() as node:
            deadline = asyncio.get_running_loop().time() + 0.3
            with pytest.raises(NoReceipt, match="may have paired") as caught:
                await redeem(node, invite, deadline=deadline)
            assert "repeat" in (caught.value.hint or "")

    asyncio.run(join())
    if lost == "READY":
        assert serving.event("paired")["peer"] == "bob"
    assert bob.read(peers.list_all) == [], "it is not yet anybody's recipient"
    assert bob.send("--to", "alice", "too early").code == 2

    cutting.up = cutting.down = None
    joined = bob.join(invite.encode())
    assert (joined["status"], joined["peer"]) == ("paired", "alice")
    assert bob.join(serving.invite)["known_before"]
    assert bob.send("hello").code == 0
    assert [peer.name for peer in alice.read(peers.list_all)] == ["bob"]
    assert alice.read(invites.list_all)[0].uses_left == 0


def test_a_join_killed_before_ready_can_be_repeated(machines: Machines, proxy) -> None:
    alice, bob = machines("alice"), machines("bob")
    serving = alice.serve("--invite")
    swallowing: Proxy = proxy()
    invite = redirected(serving.invite, swallowing)
    swallowing.down = Fault(Action.SWALLOW, after=MESSAGE_2)
    process = bob.start("join", invite.encode())
    serving.event("paired")
    swallowing.struck.wait()
    process.kill()
    assert bob.join(serving.invite)["peer"] == "alice"
    assert bob.send("hello").code == 0


def test_an_invite_is_used_once(machines: Machines) -> None:
    _, serving, bob = machines.pair()
    carol = machines("carol")
    done = carol.run("join", "--json", serving.invite)
    assert done.code == 5
    assert "used up" in done.result["error"]
    assert "securelink invite" in done.result["hint"]
    assert carol.read(peers.list_all, pending=True) == []
    assert serving.stderr("was denied: invite used up")
    assert bob.join(serving.invite)["known_before"], "a known key wins over any token"


def test_expired_revoked_and_forgotten_invites_are_refused(machines: Machines) -> None:
    alice = machines("alice")
    serving = alice.serve("--invite")
    expired = alice.invite(seconds=-1)
    revoked = alice.invite()
    alice.write(invites.revoke, Invite.parse(revoked).token_hash)
    unknown = Invite.parse(revoked)
    unknown = Invite(unknown.key, bytes(16), unknown.expires, unknown.endpoints, unknown.name)
    bob = machines("bob")
    for invite, why in (
        (expired, "invite expired"),
        (revoked, "invite revoked"),
        (unknown.encode(), "unknown invite"),
    ):
        done = bob.run("join", "--json", invite)
        assert done.code == 5
        assert serving.stderr(f"was denied: {why}")
    assert bob.join(serving.invite)["peer"] == "alice"


def test_an_invite_that_was_not_copied_well(machines: Machines) -> None:
    alice, bob = machines("alice"), machines("bob")
    serving = alice.serve("--invite")
    at = len(serving.invite) // 2
    swapped = "a" if serving.invite[at] != "a" else "b"
    for invite in (
        serving.invite[:at] + swapped + serving.invite[at + 1 :],
        serving.invite[:-10],
        "hello",
    ):
        done = bob.run("join", "--json", invite)
        assert done.code == 2
        assert done.result["hint"]
        assert invite not in done.out
    wrapped = re.sub("(.{20})", r"\1 \n", serving.invite.upper())
    assert bob.join(f"  {wrapped} ")["peer"] == "alice"


def test_an_invite_from_a_pipe_under_a_name_of_ones_own(machines: Machines) -> None:
    alice, bob = machines("alice"), machines("bob")
    serving = alice.serve("--invite")
    for name, why in (("me", "reserved"), ("Ally!", "can't hold 'A'")):
        refused = bob.run("join", "--as", name, serving.invite)
        assert refused.code == 2
        assert why in refused.err
    assert not bob.home.store_file.exists(), "a wrong name is found before anything is done"

    process = bob.start("join", "--as", "ally", stdin=subprocess.PIPE)
    process.write(f"{serving.invite}\n")
    done = process.finish()
    assert done.code == 0
    who = f"{bob.identity.public.short}"
    assert done.out == f"paired: you are bob ({who}), `securelink send` now goes to ally\n"
    assert f"ally is {serving.ready['id']}\n" in done.err
    assert "ally calls itself 'alice'\n" in done.err
    assert bob.send("--to", "ally", "hello").code == 0

    # Of a second machine it is said how to reach it; of the first one, that it is known.
    carol = machines("carol")
    done = bob.run("join", carol.serve("--invite").invite)
    assert done.out == (
        f"paired: you are bob ({who}), `securelink send --to carol` now goes to carol\n"
    )
    done = bob.run("join", "--as", "other", alice.invite())
    assert done.out == (
        f"paired already: you are bob ({who}), `securelink send --to ally` now goes to ally\n"
    )


def test_an_invite_that_leads_nowhere_changes_no_address(machines: Machines) -> None:
    # Anybody can write one: a peer's key is no secret, and the checksum is no signature.
    alice, serving, bob = machines.pair()
    made = Invite.parse(serving.invite)
    (endpoint,) = made.endpoints
    nowhere = Endpoint(endpoint.kind, "127.0.0.1", 1)
    forged = Invite(made.key, bytes(16), made.expires, (nowhere,), made.name)
    assert bob.run("join", "--json", "--timeout", "0.3", forged.encode()).code == 3
    assert bob.send("--to", "alice", "hello").code == 0
    assert alice.texts() == ["hello"]


def test_an_own_invite_is_for_others(machines: Machines) -> None:
    alice = machines("alice")
    serving = alice.serve("--invite")
    done = alice.run("join", "--json", serving.invite)
    assert done.code == 2
    assert "send --to me" in done.result["hint"]


def test_a_stranger_with_the_address_alone_is_refused(machines: Machines) -> None:
    alice, bob = machines("alice"), machines("bob")
    serving = alice.serve()
    bob.configure(
        f'[peers.alice]\nid = "{serving.ready["id"]}"\nloopback = "127.0.0.1:{serving.port}"\n'
    )
    done = bob.send("let me in")
    assert done.code == 5
    assert serving.stderr("was denied: not paired")
    assert bob.states() == ["withdrawn"]
    assert alice.inbox() == []


def test_another_key_behind_the_pinned_address(machines: Machines) -> None:
    _, serving, bob = machines.pair()
    serving.stop()
    mallory = machines("mallory").serve(port=serving.port)
    done = bob.send("--timeout", "0.5", "secret")
    assert done.code == 4
    assert done.result["code"] == "not-them"
    assert f"127.0.0.1:{serving.port}" in done.result["hint"]
    assert bob.states() == ["withdrawn"]
    assert not [event for event in mallory.events if event["event"] != "ready"]


def test_one_endpoint_that_is_somebody_else_does_not_end_the_attempt(machines: Machines) -> None:
    _, serving, bob = machines.pair()
    mallory = machines("mallory").serve()
    bob.locate(bob.key_of("alice"), mallory.port, serving.port)
    done = bob.send("to alice alone")
    assert done.code == 0
    assert done.result["endpoint"]["port"] == serving.port


def test_two_nodes_paired_by_configuration_files_alone(machines: Machines, proxy) -> None:
    forwarder: Proxy = proxy()
    alice, bob = machines("alice"), machines("bob")
    alice.configure(f'[peers.bob]\nid = "{bob.identity.public.peer_id}"\n')
    serving = alice.serve()
    forwarder.target = serving.port
    known = f"""\
[peers.alice]
id = "{alice.identity.public.peer_id}"
loopback = "127.0.0.1:{serving.port}"
public = "localhost:{forwarder.port}"
"""
    for kind, port in (("loopback", serving.port), ("public", forwarder.port)):
        bob.configure(f'[client]\nendpoint = "{kind}"\n{known}')
        done = bob.send(f"by {kind}")
        assert done.code == 0, done
        assert done.result["endpoint"]["kind"] == kind
        assert done.result["endpoint"]["port"] == port
        assert serving.event("message")["peer"] == "bob"
    assert alice.texts() == ["by loopback", "by public"]
    assert len(forwarder.connections) == 1
    # The server can answer a peer of its configuration like any other.
    assert alice.send("--to", "bob", "--timeout", "0.1", "hi").code == 3


def test_a_removed_peer_is_let_in_no_more(machines: Machines) -> None:
    alice, serving, bob = machines.pair()
    removed = alice.run("peers", "remove", "--json", "bob")
    assert (removed.code, removed.result["invite_revoked"]) == (0, True)
    done = bob.send("still there?")
    assert done.code == 5
    assert "securelink join" in done.result["hint"]
    assert bob.run("join", "--json", serving.invite).code == 5, "nor with the invite it came with"
