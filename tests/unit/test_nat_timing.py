"""Renewals, retries, epochs and other ports."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink.nat.ports import MOST_OTHERS, others
from securelink.nat.terms import is_port
from securelink.nat.timing import (
    RETRANSMISSIONS,
    Epoch,
    EpochRecord,
    natpmp_epoch_holds,
    pcp_epoch_holds,
    renew_after,
    retries,
)


def test_a_question_takes_two_seconds() -> None:
    assert list(itertools.accumulate(RETRANSMISSIONS)) == [0.25, 0.75, 1.75, 2.0]


def test_renewed_around_half_of_the_lease() -> None:
    assert renew_after(3600, 0) == pytest.approx(1620)
    assert renew_after(3600, 0.5) == pytest.approx(1800)
    assert renew_after(3600, 1) == pytest.approx(1980)


def test_retries() -> None:
    assert list(itertools.islice(retries(), 5)) == [5, 15, 60, 60, 60]


@pytest.mark.parametrize(
    ("server", "client", "holds"),
    [
        (0, 0, True),
        (100, 100, True),
        (-1, 0, True),  # packets may overtake each other
        (-2, 0, False),
        (102, 100, True),
        (97, 100, True),
        # client + 2 < server - server / 16
        (109, 100, False),
        (108, 100, True),
        # server + 2 < client - client / 16
        (91, 100, False),
        (92, 100, True),
        (0, 3600, False),
    ],
)
def test_pcp_epoch(server: int, client: float, holds: bool) -> None:
    before = Epoch(5000, 100.0)
    assert pcp_epoch_holds(before, Epoch(5000 + server, 100 + client)) is holds


@pytest.mark.parametrize(
    ("server", "client", "holds"),
    [
        (0, 0, True),
        (-2, 0, True),
        (-3, 0, False),
        (85.5, 100, True),
        (85, 100, False),
        (900, 100, True),  # a quick clock is none of our business
    ],
)
def test_natpmp_epoch(server: float, client: float, holds: bool) -> None:
    before = Epoch(5000, 100.0)
    assert natpmp_epoch_holds(before, Epoch(5000 + server, 100 + client)) is holds  # type: ignore[arg-type]  # halves, for the limit


def test_a_restart_is_told_once() -> None:
    record = EpochRecord(pcp_epoch_holds)
    record.note(Epoch(50, 0.0))
    assert not record.take_restarted()
    record.note(Epoch(1, 60.0))
    record.note(Epoch(2, 61.0))
    assert record.take_restarted()
    assert not record.take_restarted()


@given(st.ip_addresses(v=4).map(str), st.integers(1, 65535))
def test_other_ports(local: str, port: int) -> None:
    found = others(local, port)
    assert found == others(local, port)
    assert len(set(found)) == MOST_OTHERS
    assert port not in found
    assert all(is_port(each) and 20_000 <= each <= 49_151 for each in found)


def test_other_ports_differ_between_machines_and_stay_for_ever() -> None:
    assert others("192.168.1.20", 24819) != others("192.168.1.21", 24819)
    assert others("192.168.1.20", 24819) != others("192.168.1.20", 24820)
    assert others("192.168.1.20", 24819)[0] == 41244
    # Here the first candidate is the wanted port itself.
    assert 27512 not in others("192.168.1.1", 27512)
