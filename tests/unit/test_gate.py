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


LIMITS = Limits(unproven=6, unproven_per_address=2, unfinished=4, unfinished_per_address=2)

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


Entry = tuple[int, str | None]


def add(waiting: list[Entry], entry: Entry, most: int, most_of_a_group: int) -> list[int]:
    """Append to a plain list; remove and return who must go."""
    waiting.append(entry)
    number, group = entry
    fellows = [each for each, other in waiting if group is not None and other == group]
    out: list[int] = []
    if len(fellows) > most_of_a_group:
        out = [fellows[0]]
    elif len(waiting) > most:
        out = [waiting[0][0]]
    assert number not in out
    waiting[:] = [each for each in waiting if each[0] not in out]
    return out


class GateMachine(RuleBasedStateMachine):
    """The model: two lists, oldest first."""

    waiting = Bundle("waiting")
    proven = Bundle("proven")

    def __init__(self) -> None:
        super().__init__()
        self.gate: Gate[int] = Gate(LIMITS)
        self.unproven: list[Entry] = []
        self.unfinished: list[Entry] = []
        self.number = 0

    @rule(target=waiting, host=st.sampled_from(sorted(HOSTS)))
    def enter(self, host: str) -> tuple[int, str]:
        self.number += 1
        entry = (self.number, HOSTS[host])
        expected = add(self.unproven, entry, LIMITS.unproven, LIMITS.unproven_per_address)
        assert self.gate.enter(self.number, host) == expected
        return self.number, host

    @rule(target=proven, connection=consumes(waiting))
    def prove(self, connection: tuple[int, str]):
        number, host = connection
        # One that was put out may have a message 1 on its way yet.
        self.unproven = [entry for entry in self.unproven if entry[0] != number]
        entry = (number, HOSTS[host])
        expected = add(self.unfinished, entry, LIMITS.unfinished, LIMITS.unfinished_per_address)
        assert self.gate.prove(number, host) == expected
        return connection

    @rule(target=proven, host=st.sampled_from(sorted(HOSTS)))
    def prove_at_once(self, host: str):
        """The first message was there before the connection was judged."""
        self.number += 1
        entry = (self.number, HOSTS[host])
        expected = add(self.unfinished, entry, LIMITS.unfinished, LIMITS.unfinished_per_address)
        assert self.gate.prove(self.number, host) == expected
        return self.number, host

    @rule(count=st.integers(1, 4))
    def no_room_at_all(self, count: int) -> None:
        expected = [each for each, _ in [*self.unproven, *self.unfinished]][:count]
        assert self.gate.oldest(count) == expected
        self.unproven = [entry for entry in self.unproven if entry[0] not in expected]
        self.unfinished = [entry for entry in self.unfinished if entry[0] not in expected]

    @rule(connection=consumes(waiting) | consumes(proven))
    def leave(self, connection: tuple[int, str]) -> None:
        number, _ = connection
        self.unproven = [entry for entry in self.unproven if entry[0] != number]
        self.unfinished = [entry for entry in self.unfinished if entry[0] != number]
        self.gate.leave(number)
        self.gate.leave(number)

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
        for kept, model in (
            (self.gate._unproven, self.unproven),
            (self.gate._unfinished, self.unfinished),
        ):
            assert list(kept) == [number for number, _ in model]
            counted = sum(len(members) for members in kept._groups.values())
            assert counted == sum(1 for _, group in model if group is not None)
            assert all(kept._groups.values())


TestGate = GateMachine.TestCase
TestGate.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_loopback_counts_in_the_total_alone() -> None:
    gate: Gate[int] = Gate(LIMITS)
    assert [gate.enter(number, "127.0.0.1") for number in range(6)] == [[]] * 6
    assert gate.enter(6, "::1") == [0]
    assert [gate.prove(number, "127.0.0.1") for number in range(10, 14)] == [[]] * 4
    assert gate.prove(14, "::1") == [10]


def test_the_bounds_that_the_protocol_names() -> None:
    limits = Limits()
    assert (limits.unproven, limits.unproven_per_address) == (512, 64)
    assert (limits.unfinished, limits.unfinished_per_address) == (128, 32)
    gate: Gate[int] = Gate(limits)
    assert not any(gate.enter(number, "192.0.2.1") for number in range(64))
    assert gate.enter(64, "192.0.2.1") == [0]
    for number in range(65, 513):
        assert gate.enter(number, f"198.51.{number // 250}.{number % 250}") == []
    assert gate.enter(513, "203.0.113.1") == [1]


def test_of_those_that_are_proven_one_address_has_some_only() -> None:
    gate: Gate[int] = Gate(Limits())
    assert gate.prove(0, "198.51.100.1") == []
    assert not any(gate.prove(number, "192.0.2.1") for number in range(1, 33))
    # However many more come from there, nobody else goes.
    assert [gate.prove(number, "192.0.2.1") for number in range(33, 400)] == [
        [number - 32] for number in range(33, 400)
    ]
