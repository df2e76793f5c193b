"""What `serve` shows of its events."""

from __future__ import annotations

import io
import json

from securelink import events
from securelink.cli.output import Output
from securelink.cli.screen import Screen


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
