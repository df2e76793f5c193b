from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securelink import names
from securelink.errors import UsageError


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("alice", "alice"),
        ("Alice", "alice"),
        ("Jörgs-MacBook.local", "jorgs-macbook.local"),
        ("  my  laptop ", "my-laptop"),
        ("web_01", "web_01"),
        ("--help", "help"),
        ("..", "peer"),
        (".ssh", "ssh"),
        ("-._", "_"),
        ("a/../b", "a-..-b"),
        ("\x1b[31mred", "31mred"),
        ("日本", "peer"),
        ("", "peer"),
        ("me", "me-peer"),
        ("ALL", "all-peer"),
        ("a" * 40, "a" * 32),
        ("a" * 31 + ".local", "a" * 31),
    ],
)
def test_a_name_is_made_of_anything(text: str, name: str) -> None:
    assert names.clean(text) == name


@given(st.text())
def test_a_cleaned_name_is_one_that_a_person_may_choose(text: str) -> None:
    name = names.clean(text)
    assert names.check(name) == name
    assert names.clean(name) == name


@pytest.mark.parametrize("name", ["a", "alice", "alice-2", "a.b", "_x", "0", "a" * 32])
def test_good_names_pass(name: str) -> None:
    assert names.check(name) == name


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "a name can't be empty", "choose one, such as alice"),
        ("me", "the name me is reserved: it means this node itself", "me-peer would do"),
        ("all", "the name all is reserved: it means every peer", "all-peer would do"),
        ("-x", "a name can't begin with '-'", "x would do"),
        (".x", "a name can't begin with '.'", "x would do"),
        ("Alice", "a name can't hold 'A', only a-z, 0-9 and . _ -", "alice would do"),
        ("my pc", "a name can't hold ' ', only a-z, 0-9 and . _ -", "my-pc would do"),
        ("zoë", r"a name can't hold '\xeb', only a-z, 0-9 and . _ -", "zoe would do"),
        ("bob\n", r"a name can't hold '\n', only a-z, 0-9 and . _ -", "bob would do"),
        ("a" * 33, "a name has 32 characters at most, this has 33", f"{'a' * 32} would do"),
    ],
)
def test_each_wrong_name_says_what_is_wrong_and_what_would_do(
    text: str, message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as raised:
        names.check(text)
    assert (raised.value.message, raised.value.hint) == (message, hint)


def test_a_free_name_is_kept() -> None:
    assert names.free("bob", {"alice"}) == "bob"


def test_a_taken_name_gets_the_first_free_number() -> None:
    assert names.free("bob", {"bob"}) == "bob-2"
    assert names.free("bob", {"bob", "bob-2", "bob-4"}) == "bob-3"


def test_a_numbered_name_keeps_within_32_characters() -> None:
    long = "a" * 32
    taken = {long} | {"a" * 30 + f"-{number}" for number in range(2, 10)}
    assert names.free(long, {long}) == "a" * 30 + "-2"
    assert names.free(long, taken) == "a" * 29 + "-10"
