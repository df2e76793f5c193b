"""Who waits at the door: the gate against a plain list that anybody can check by eye."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from securelink.gate import Gate, group_of
from securelink.limits import Limits


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"),
        ("fe80::1%eth0", "fe80::2%eth1"),
    ],
)
def test_these_count_as_one_address(one: str, other: str) -> None:
    assert group_of(one) is not None
    assert group_of(one) == group_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8:0:2::1", "2001:db8:0:3::1"),
        ("192.0.2.1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2"),
    ],
)
def test_these_are_two(one: str, other: str) -> None:
    assert group_of(one) != group_of(other)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_in_no_group(host: str) -> None:
    assert group_of(host) is None


LIMITS = Limits(unproven=6, unproven_per_address=2, unfinished=3)

HOSTS = {
    "192.0.2.1": "a",
    "::ffff:192.0.2.1": "a",
    "192.0.2.2": "b",
    "192.0.2.3": "c",
    "192.0.2.4": "d",
    "2001:db8:0:1::1": "e",
    "2001:db8:0:1::2": "e",
    "2001:db8:0:2::1": "f",
    "127.0.0.1": None,
    "::1": None,
}


class GateMachine(RuleBasedStateMachine):
    """The model: two lists, oldest first."""

    waiting = Bundle("waiting")
    proven = Bundle("proven")

    def __init__(self) -> None:
        super().__init__()
        self.gate: Gate[int] = Gate(LIMITS)
        self.unproven: list[tuple[int, str | None]] = []
        self.unfinished: list[int] = []
        self.number = 0

    @rule(target=waiting, host=st.sampled_from(sorted(HOSTS)))
    def enter(self, host: str) -> int:
        self.number += 1
        group = HOSTS[host]
        self.unproven.append((self.number, group))
        fellows = [each for each, other in self.unproven if group is not None and other == group]
        expected = None
        if len(fellows) > LIMITS.unproven_per_address:
            expected = fellows[0]
        elif len(self.unproven) > LIMITS.unproven:
            expected = self.unproven[0][0]
        out = self.gate.enter(self.number, host)
        assert out == expected
        assert out != self.number
        self.unproven = [entry for entry in self.unproven if entry[0] != out]
        return self.number

    @rule(target=proven, connection=consumes(waiting))
    def prove(self, connection: int):
        # One that was put out may have a message 1 on its way yet.
        self.unproven = [entry for entry in self.unproven if entry[0] != connection]
        self.unfinished.append(connection)
        expected = self.unfinished[0] if len(self.unfinished) > LIMITS.unfinished else None
        out = self.gate.prove(connection)
        assert out == expected
        assert out != connection
        self.unfinished = [each for each in self.unfinished if each != out]
        return connection

    @rule(target=proven)
    def prove_at_once(self):
        """The first message was there before the connection was judged."""
        self.number += 1
        self.unfinished.append(self.number)
        out = self.gate.prove(self.number)
        expected = self.unfinished.pop(0) if len(self.unfinished) > LIMITS.unfinished else None
        assert out == expected
        return self.number

    @rule(connection=consumes(waiting) | consumes(proven))
    def leave(self, connection: int) -> None:
        self.unproven = [entry for entry in self.unproven if entry[0] != connection]
        self.unfinished = [each for each in self.unfinished if each != connection]
        self.gate.leave(connection)
        self.gate.leave(connection)

    @rule(target=waiting)
    def forget_nobody(self):
        self.gate.leave(-1)
        return multiple()

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.unproven) <= LIMITS.unproven
        assert len(self.unfinished) <= LIMITS.unfinished

    @invariant()
    def nothing_is_kept_of_who_is_gone(self) -> None:
        gate = self.gate
        assert list(gate._unproven) == [connection for connection, _ in self.unproven]
        assert list(gate._unfinished) == self.unfinished
        counted = sum(len(members) for members in gate._groups.values())
        assert counted == sum(1 for _, group in self.unproven if group is not None)
        assert all(gate._groups.values())


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_loopback_counts_in_the_total_alone() -> None:
    gate: Gate[int] = Gate(LIMITS)
    assert [gate.enter(number, "127.0.0.1") for number in range(6)] == [None] * 6
    assert gate.enter(6, "::1") == 0


def test_the_bounds_that_the_protocol_names() -> None:
    limits = Limits()
    assert (limits.unproven, limits.unproven_per_address, limits.unfinished) == (512, 64, 128)
    gate: Gate[int] = Gate(limits)
    assert all(gate.enter(number, "192.0.2.1") is None for number in range(64))
    assert gate.enter(64, "192.0.2.1") == 0
    for number in range(65, 513):
        assert gate.enter(number, f"198.51.{number // 250}.{number % 250}") is None
    assert gate.enter(513, "203.0.113.1") == 1
