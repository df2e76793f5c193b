"""One link receives a file, and of several the newest: every order of taking and letting go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from securelink.claims import Claim, Claims

KEY = (b"peer", b"id")


class Story:
    """Claims on one file, and what was told to whom."""

    def __init__(self) -> None:
        self.claims = Claims()
        self.told: list[str] = []
        self.held: dict[str, Claim] = {}

    def take(self, name: str, key: tuple[bytes, bytes] = KEY) -> None:
        self.held[name] = self.claims.take(
            key,
            granted=lambda: self.told.append(f"{name} has it"),
            lost=lambda: self.told.append(f"{name} must let go"),
        )

    def release(self, name: str) -> None:
        self.claims.release(self.held.pop(name))


def test_who_comes_first_has_it_at_once() -> None:
    it = Story()
    it.take("a")
    it.release("a")
    it.take("b")
    assert it.told == ["a has it", "b has it"]


def test_the_newer_one_waits_until_the_older_has_let_go() -> None:
    it = Story()
    it.take("a")
    it.take("b")
    assert it.told == ["a has it", "a must let go"]
    it.release("a")
    assert it.told[2:] == ["b has it"]


def test_of_those_who_wait_the_newest_gets_it() -> None:
    it = Story()
    for name in "abc":
        it.take(name)
    assert it.told == ["a has it", "a must let go", "b must let go"]
    it.release("b")
    it.release("a")
    assert it.told[3:] == ["c has it"]


def test_who_waits_may_give_up() -> None:
    it = Story()
    it.take("a")
    it.take("b")
    it.release("b")
    it.release("a")
    it.take("c")
    assert it.told == ["a has it", "a must let go", "c has it"]


def test_files_have_nothing_to_do_with_each_other() -> None:
    it = Story()
    it.take("a")
    it.take("b", (b"peer", b"other"))
    it.take("c", (b"stranger", b"id"))
    assert it.told == ["a has it", "b has it", "c has it"]


def test_letting_go_twice_does_nothing() -> None:
    it = Story()
    it.take("a")
    old = it.held["a"]
    it.release("a")
    it.claims.release(old)
    it.take("b")
    it.claims.release(old)
    it.take("c")
    assert it.told == ["a has it", "b has it", "b must let go"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=40))
def test_never_two_at_a_time_and_never_nobody_while_one_waits(
    steps: list[tuple[bool, int]],
) -> None:
    claims = Claims()
    having: list[int] = []
    alive: dict[int, Claim] = {}
    for at, (takes, which) in enumerate(steps):
        if takes:
            alive[at] = claims.take(KEY, granted=lambda at=at: having.append(at), lost=lambda: None)
        elif alive:
            gone = sorted(alive)[which % len(alive)]
            # Whoever lost its turn while waiting will never have it.
            claim = alive.pop(gone)
            if gone in having:
                having.remove(gone)
            claims.release(claim)
        assert len(having) <= 1
        if alive and max(alive) == at and takes:
            assert having
    for name in sorted(alive):
        if name in having:
            having.remove(name)
        claims.release(alive[name])
    assert not having
    fresh: list[str] = []
    claims.take(KEY, granted=lambda: fresh.append("free"), lost=lambda: None)
    assert fresh == ["free"]
