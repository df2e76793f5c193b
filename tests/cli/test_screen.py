"""What `serve` shows of its events."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest

from securelink import events
from securelink.cli.output import Output
from securelink.cli.screen import Screen, router_lines
from securelink.endpoints import Endpoint, Kind
from securelink.events import Address


def shown(event: events.Event, *, as_json: bool = False) -> str:
    out = io.StringIO()
    Screen(Output(json=as_json, stdout=out, stderr=io.StringIO(), environ={})).event(event)
    return out.getvalue()


def file(**more: object) -> events.File:
    told = {
        "id": "ID",
        "seq": 1,
        "peer": "bob",
        "peer_id": "PEER-ID",
        "received_at": "2026-01-02T03:04:05.007Z",
        "name": "photos/a.jpg",
        "path": "/srv/files/bob/photos/a (2).jpg",
        "size": 2_300_000,
        "kind": "file",
    }
    return events.File(**(told | more))  # type: ignore[arg-type]


def test_a_file() -> None:
    line = shown(file())
    assert line.endswith(" bob photos/a.jpg (2.3 MB) -> /srv/files/bob/photos/a (2).jpg\n")
    assert line.startswith("2026-01-0")


def test_a_folder() -> None:
    line = shown(file(kind="folder", name="photos", size=0, path="/srv/files/bob/photos"))
    assert line.endswith(" bob photos/ -> /srv/files/bob/photos\n")


def test_for_scripts() -> None:
    told = json.loads(shown(file(), as_json=True))
    assert (told["event"], told["name"], told["size"]) == ("file", "photos/a.jpg", 2_300_000)


def test_a_long_line_on_a_terminal(monkeypatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    Screen(Output(stdout=out, stderr=io.StringIO(), environ={"NO_COLOR": "1"})).event(file())
    first, second = out.getvalue().splitlines()
    assert first.endswith(" bob photos/a.jpg (2.3 MB)")
    assert second == "      -> /srv/files/bob/photos/a (2).jpg"


class Invite:
    """As much of an invite as the screen looks at."""

    def __init__(self, *endpoints: Endpoint) -> None:
        self.endpoints = endpoints

    def encode(self) -> str:
        return "slinv1" + "".join(each.kind[0] for each in self.endpoints)


LAN = Endpoint(Kind.LAN, "192.168.1.20", 24819)
PUBLIC = Endpoint(Kind.PUBLIC, "1.2.3.4", 24819)


def test_the_invite_is_shown_again_only_when_it_is_another_one() -> None:
    out, err = io.StringIO(), io.StringIO()
    screen = Screen(Output(stdout=out, stderr=err, environ={}))

    def moved(*endpoints: Endpoint) -> None:
        screen.event(events.Invite(invite=Invite(*endpoints).encode(), endpoints=endpoints))

    moved(LAN)
    assert (out.getvalue(), err.getvalue()) == ("", ""), "the first screen has not shown it yet"
    # What the service knows is newer than the event that tells of it.
    screen.invite(SimpleNamespace(invite=Invite(PUBLIC, LAN)), lonely=True)
    moved(PUBLIC, LAN)
    assert out.getvalue() == "securelink join slinv1pl\n"
    assert "works inside" not in err.getvalue()
    moved(LAN)
    moved(PUBLIC, LAN)
    assert out.getvalue().splitlines()[1:] == [
        "securelink join slinv1l",
        "securelink join slinv1pl",
    ]
    assert err.getvalue().count("the addresses have changed") == 2


@pytest.mark.parametrize(
    ("endpoints", "where"), [((LAN,), "inside this network"), ((), "on this machine")]
)
def test_an_invite_that_nobody_outside_can_use(endpoints, where) -> None:
    err = io.StringIO()
    screen = Screen(Output(stdout=io.StringIO(), stderr=err, environ={}))
    screen.invite(SimpleNamespace(invite=Invite(*endpoints)), lonely=True)
    assert f"this invite works {where} only: no public address is in it\n" in err.getvalue()


MAPPED = events.Mapped(
    method="nat-pmp",
    protocol="tcp",
    external=Address("1.2.3.4", 24820),
    local=Address("192.168.1.20", 24819),
    good_until=None,
)


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        (MAPPED, ["the router forwards 1.2.3.4:24820 to this machine (NAT-PMP)"]),
        (
            events.MappingFailed(verdict="lan-only", reason="x", sentence="No.", hint="Do this."),
            ["No.", "Do this."],
        ),
        (
            events.MappingLost(reason="the router was restarted"),
            ["the router forwards the port no longer: the router was restarted"],
        ),
        (
            events.PublicAddress(host="1.2.3.4", source="nat-pmp", kind="public"),
            ["the public address is 1.2.3.4 (by NAT-PMP)"],
        ),
        (
            events.PublicAddress(host="1.2.3.9", source="stun", kind="public", note="Differs."),
            ["the public address is 1.2.3.9 (by STUN)", "Differs."],
        ),
        (
            events.PublicAddress(host="1.2.3.4", source="interface", kind="public"),
            ["the public address is 1.2.3.4 (this machine's own)"],
        ),
        (
            events.PublicAddress(host="10.0.0.1", source="upnp", kind="private"),
            ["the router's own address is 10.0.0.1, which is not public"],
        ),
        (
            events.PublicAddress(host="10.0.0.1", source="upnp", kind="private", note="Double."),
            ["Double."],
        ),
        (
            events.PublicAddressUnknown(sentence="No router answered.", hint="Enable it."),
            ["the public address is not known: No router answered."],
        ),
        (file(), []),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, events.Event) else "",
)
def test_what_is_said_of_the_router(event: events.Event, lines: list[str]) -> None:
    assert router_lines(event) == lines
