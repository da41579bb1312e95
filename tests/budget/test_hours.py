"""How long, in how many sessions, and what a kill costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.budget.hours import Lost, lost_if_killed, run_seconds, sessions


def test_a_kill_costs_half_an_interval_on_average_and_a_whole_one_at_worst() -> None:
    assert lost_if_killed(1000) == Lost(500, 1000)


def test_the_run_takes_its_steps_and_its_saves() -> None:
    assert run_seconds(28_000, 28, 1.0, 30.0) == 28_840
    assert run_seconds(28_000, 28, 1.0, None) == 28_000
    assert run_seconds(28_000, 28, None, 30.0) is None


@pytest.mark.parametrize(("hours", "expected"), [(8.9, 1), (9, 1), (9.1, 2), (11.2, 2), (17.9, 2), (18, 3), (27.5, 4)])
def test_sessions_of_nine_hours_each_with_a_last_save(hours: float, expected: int) -> None:
    assert sessions(28_000, hours * 3600, 9 * 3600, 60.0) == expected


def test_a_session_that_is_shorter_than_its_save_gets_nowhere() -> None:
    assert sessions(1000, 100_000, 3600, 3600) is None


@given(st.integers(1, 10**6), st.floats(1, 1e7), st.floats(60, 1e6), st.floats(0, 0.5))
def test_the_sessions_hold_the_run_and_one_less_would_not(
    steps: int, total: float, session: float, part: float
) -> None:
    count = sessions(steps, total, session, session * part)
    useful = session - 1.5 * session * part - 5
    if count is None:
        assert useful <= 0
        return
    assert max(session, count * useful) >= total * (1 - 1e-9)
    assert count == 1 or (count - 1) * useful < total * (1 + 1e-9)
