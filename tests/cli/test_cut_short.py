"""What an interrupted `send` says when nothing was left to deliver."""

from __future__ import annotations

import pytest

from securelink.cli.cut_short import sentence
from securelink.client import Remains
from securelink.items import FilesItem
from securelink.sources import Argument


@pytest.mark.parametrize(
    ("missed", "said"),
    [
        ((0, 0), "all of it was delivered to alice"),
        ((2, 1), "all else was delivered to alice, but 3 could not be sent"),
    ],
)
def test_what_could_not_be_sent_is_not_called_delivered(missed, said):
    remains = [
        Remains(
            FilesItem("photos", Argument(b"/photos", "photos")),
            "file",
            total=4,
            delivered=4,
            unconfirmed=0,
            queued=0,
            whole=True,
            missed=each,
            resumes=True,
        )
        for each in missed
    ]
    assert sentence("alice", remains, lambda _: "photos", alone=True, queue=False) == said
