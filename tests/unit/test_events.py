"""Events as JSON: scripts rely on every key here, so keys are only ever added."""

from __future__ import annotations

import json
from typing import get_args

import msgspec
import pytest

from securelink import events
from securelink.endpoints import Endpoint, Kind

LAN = Endpoint(Kind.LAN, "192.168.1.20", 24819)
PUBLIC = Endpoint(Kind.PUBLIC, "home.example", 24819)
LAN_JSON = {"kind": "lan", "host": "192.168.1.20", "port": 24819}
PUBLIC_JSON = {"kind": "public", "host": "home.example", "port": 24819}
FROM = events.Address("192.168.1.9", 50123)
FROM_JSON = {"host": "192.168.1.9", "port": 50123}

GOLDEN = [
    (
        events.Ready(id="PEER-ID", name="alice", port=24819, endpoints=(LAN, PUBLIC)),
        {
            "event": "ready",
            "id": "PEER-ID",
            "name": "alice",
            "port": 24819,
            "endpoints": [LAN_JSON, PUBLIC_JSON],
        },
    ),
    (
        events.Ready(id="PEER-ID", name="alice", port=1, endpoints=(), invite="slinv1abc"),
        {
            "event": "ready",
            "id": "PEER-ID",
            "name": "alice",
            "port": 1,
            "endpoints": [],
            "invite": "slinv1abc",
        },
    ),
    (
        events.Paired(peer="bob", id="PEER-ID", calls_itself="Bob's laptop"),
        {"event": "paired", "peer": "bob", "id": "PEER-ID", "calls_itself": "Bob's laptop"},
    ),
    (
        events.Undelivered(
            id="ID",
            seq=3,
            peer="bob",
            peer_id="PEER-ID",
            at="2026-11-22T14:05:06.789Z",
            item="photos/a.jpg",
            status="refused",
            reason="too long",
        ),
        {
            "event": "undelivered",
            "id": "ID",
            "seq": 3,
            "peer": "bob",
            "peer_id": "PEER-ID",
            "at": "2026-11-22T14:05:06.789Z",
            "item": "photos/a.jpg",
            "status": "refused",
            "reason": "too long",
        },
    ),
    (
        events.LinkUp(peer="bob", address=FROM),
        {"event": "link-up", "peer": "bob", "address": FROM_JSON},
    ),
    (
        events.LinkUp(peer="bob", address=None),
        {"event": "link-up", "peer": "bob", "address": None},
    ),
    (
        events.LinkDown(peer="bob", address=FROM, reason="the connection was cut"),
        {
            "event": "link-down",
            "peer": "bob",
            "address": FROM_JSON,
            "reason": "the connection was cut",
        },
    ),
    (
        events.Message(
            id="017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
            seq=7,
            peer="bob",
            peer_id="PEER-ID",
            sent_at="2026-01-02T03:04:05.006Z",
            received_at="2026-01-02T03:04:05.007Z",
            text='two\nlines, a "quote" and ü',
        ),
        {
            "event": "message",
            "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
            "seq": 7,
            "peer": "bob",
            "peer_id": "PEER-ID",
            "sent_at": "2026-01-02T03:04:05.006Z",
            "received_at": "2026-01-02T03:04:05.007Z",
            "text": 'two\nlines, a "quote" and ü',
        },
    ),
    (
        events.File(
            id="017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
            seq=8,
            peer="bob",
            peer_id="PEER-ID",
            received_at="2026-01-02T03:04:05.007Z",
            name="photos/ü.jpg",
            path="/home/alice/Downloads/securelink/bob/photos/ü.jpg",
            size=2_300_000,
            kind="file",
            sha256="ab" * 32,
        ),
        {
            "event": "file",
            "id": "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
            "seq": 8,
            "peer": "bob",
            "peer_id": "PEER-ID",
            "received_at": "2026-01-02T03:04:05.007Z",
            "name": "photos/ü.jpg",
            "path": "/home/alice/Downloads/securelink/bob/photos/ü.jpg",
            "size": 2_300_000,
            "kind": "file",
            "sha256": "ab" * 32,
        },
    ),
    (
        events.File(
            id="ID",
            seq=9,
            peer="bob",
            peer_id="PEER-ID",
            received_at="2026-01-02T03:04:05.007Z",
            name="photos",
            path="/home/alice/Downloads/securelink/bob/photos",
            size=0,
            kind="folder",
        ),
        {
            "event": "file",
            "id": "ID",
            "seq": 9,
            "peer": "bob",
            "peer_id": "PEER-ID",
            "received_at": "2026-01-02T03:04:05.007Z",
            "name": "photos",
            "path": "/home/alice/Downloads/securelink/bob/photos",
            "size": 0,
            "kind": "folder",
        },
    ),
    (
        events.Invite(invite="slinv1abc", endpoints=(PUBLIC,)),
        {"event": "invite", "invite": "slinv1abc", "endpoints": [PUBLIC_JSON]},
    ),
    (
        events.Mapped(
            method="pcp", protocol="tcp", external=FROM, local=FROM, good_until="2026-01-02T03:04Z"
        ),
        {
            "event": "mapping",
            "method": "pcp",
            "protocol": "tcp",
            "external": FROM_JSON,
            "local": FROM_JSON,
            "good_until": "2026-01-02T03:04Z",
        },
    ),
    (
        events.Mapped(
            method="upnp",
            protocol="tcp",
            external=FROM,
            local=FROM,
            good_until=None,
            note="for ever",
        ),
        {
            "event": "mapping",
            "method": "upnp",
            "protocol": "tcp",
            "external": FROM_JSON,
            "local": FROM_JSON,
            "good_until": None,
            "note": "for ever",
        },
    ),
    (
        events.MappingFailed(verdict="blocked", reason="no-answer", sentence="No.", hint=None),
        {
            "event": "mapping-failed",
            "verdict": "blocked",
            "reason": "no-answer",
            "sentence": "No.",
            "hint": None,
        },
    ),
    (
        events.MappingLost(reason="the router was restarted"),
        {"event": "mapping-lost", "reason": "the router was restarted"},
    ),
    (
        events.PublicAddress(host="192.0.2.7", source="upnp", kind="public"),
        {"event": "public-address", "host": "192.0.2.7", "source": "upnp", "kind": "public"},
    ),
    (
        events.PublicAddress(host="192.0.2.7", source="stun", kind="public", note="Differs."),
        {
            "event": "public-address",
            "host": "192.0.2.7",
            "source": "stun",
            "kind": "public",
            "note": "Differs.",
        },
    ),
    (
        events.PublicAddressUnknown(sentence="No router answered.", hint="Enable it."),
        {
            "event": "public-address-unknown",
            "sentence": "No router answered.",
            "hint": "Enable it.",
        },
    ),
]


@pytest.mark.parametrize(("event", "golden"), GOLDEN, ids=lambda value: type(value).__name__)
def test_no_key_that_a_script_reads_is_lost_or_changed(event: events.Event, golden) -> None:
    encoded = msgspec.json.encode(event)
    assert b"\n" not in encoded
    found = json.loads(encoded)
    assert {key: found[key] for key in golden} == golden
    # Whoever adds a key adds it above, so that the next change cannot take it away again.
    assert found.keys() == golden.keys()
    assert next(iter(found)) == "event"


@pytest.mark.parametrize(("event", "golden"), GOLDEN, ids=lambda value: type(value).__name__)
def test_an_event_comes_back(event: events.Event, golden) -> None:
    assert msgspec.json.decode(json.dumps(golden), type=events.Event) == event


def test_every_event_is_held_here() -> None:
    assert {type(event) for event, _ in GOLDEN} == set(get_args(events.Event))


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (1767323045006, "2026-01-02T03:04:05.006Z"),
        (1767323045999, "2026-01-02T03:04:05.999Z"),
        (253402300799999, "9999-12-31T23:59:59.999Z"),
        # The wire has 64 bits for a time, and a peer may say anything.
        (253402300800000, "9999-12-31T23:59:59.000Z"),
        (2**63 - 1, "9999-12-31T23:59:59.807Z"),
        (2**64 - 1, "9999-12-31T23:59:59.615Z"),
    ],
)
def test_times(time: int, text: str) -> None:
    assert events.rfc3339(time) == text
