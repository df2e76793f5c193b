"""What must stand in no log: private keys, invites and their tokens, and what people write."""

from __future__ import annotations

import base64

from nodes import Machine, Machines

from securelink import base32
from securelink.invite import Invite

TEXT = "meet me at the old mill"


def forms(secret: bytes) -> list[str]:
    """The ways in which a program would write a secret down by mistake."""
    return [
        secret.hex(),
        base32.encode(secret),
        base32.encode(secret).upper(),
        base64.b64encode(secret).decode().rstrip("="),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
        repr(secret),
    ]


def private_key(machine: Machine) -> list[str]:
    return forms(machine.identity.private_bytes())


def test_no_secret_stands_in_any_log(machines: Machines) -> None:
    alice, bob, carol = machines("alice"), machines("bob"), machines("carol")
    serving = alice.serve("--invite", "-vvv")
    invite = serving.invite
    outputs = []
    for machine, expected in ((bob, 0), (carol, 5)):
        joined = machine.run("join", "--debug", invite)
        assert joined.code == expected
        outputs.append(joined.err)
    sent = bob.run("send", "--debug", "--to", "alice", TEXT)
    assert sent.code == 0
    outputs += [sent.out, sent.err]
    serving.event("message", text=TEXT)
    failed = bob.run(
        "send", "--debug", "--to", "alice", "--endpoint", "127.0.0.1:1", "--timeout", "0.1", TEXT
    )
    assert failed.code == 3
    outputs += [failed.out, failed.err]
    done = serving.stop()
    # Its standard output is for the owner: there the invite and the texts belong.
    outputs.append(done.err)
    assert "was denied" in done.err
    token = Invite.parse(invite).token
    secrets = [TEXT, invite, invite.removeprefix("slinv1"), *forms(token)]
    secrets += [form for machine in (alice, bob, carol) for form in private_key(machine)]
    log = "\n".join(outputs)
    assert [secret for secret in secrets if secret in log] == []
    keys = [form for machine in (alice, bob, carol) for form in private_key(machine)]
    assert [key for key in keys if key in done.out] == []
