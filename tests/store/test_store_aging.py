from __future__ import annotations

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from securelink.store import aging, schema
from securelink.store.aging import MOST_AT_ONCE

MINUTE = 60_000


def test_it_begins_at_nothing_and_goes_on_with_the_clock(conn: sqlite3.Connection) -> None:
    assert aging.age(conn) == 0
    assert aging.observe(conn, 1_000_000) == 0
    assert aging.observe(conn, 1_000_000 + 5 * MINUTE) == 5 * MINUTE
    assert aging.age(conn) == 5 * MINUTE


def test_moments_add_up_without_being_written(conn: sqlite3.Connection) -> None:
    aging.observe(conn, 0)
    before = conn.total_changes
    for second in range(1, 60):
        assert aging.observe(conn, second * 1000) == 0
    assert conn.total_changes == before
    assert aging.observe(conn, MINUTE) == MINUTE


def test_a_jump_counts_as_a_day_and_a_step_back_as_nothing(conn: sqlite3.Connection) -> None:
    year = 365 * MOST_AT_ONCE
    aging.observe(conn, year)
    assert aging.observe(conn, 2 * year) == MOST_AT_ONCE
    assert aging.observe(conn, year) == MOST_AT_ONCE
    # The clock is right again, and from there it counts.
    assert aging.observe(conn, year + MINUTE) == MOST_AT_ONCE + MINUTE


def test_its_present_age_is_told_without_being_written(conn: sqlite3.Connection) -> None:
    assert aging.present(conn, MINUTE) == 0
    aging.observe(conn, MINUTE)
    before = conn.total_changes
    assert aging.present(conn, MINUTE + 1000) == 1000
    assert aging.present(conn, 0) == 0
    assert aging.present(conn, 9 * MOST_AT_ONCE) == MOST_AT_ONCE
    assert (conn.total_changes, aging.age(conn)) == (before, 0)


@given(looks=st.lists(st.integers(0, 100 * MOST_AT_ONCE), min_size=1, max_size=30))
def test_never_back_and_never_more_than_a_day(looks: list[int]) -> None:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    for script in schema.MIGRATIONS:
        conn.executescript(script)
    before = 0
    for now in looks:
        age = aging.observe(conn, now)
        assert before <= age <= before + MOST_AT_ONCE
        before = age
    conn.close()
