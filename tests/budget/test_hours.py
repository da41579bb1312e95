"""How long, in how many sessions, and what a kill costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.budget.hours import Lost, lost_if_killed, run_seconds, sessions
from outlast.errors import BadInput


def test_a_kill_costs_half_an_interval_on_average_and_a_whole_one_at_worst() -> None:
    assert lost_if_killed(1000) == Lost(500, 1000)


def test_the_run_takes_its_steps_and_its_saves() -> None:
    assert run_seconds(28_000, 28, 1.0, 30.0) == 28_840
    assert run_seconds(28_000, 28, 1.0, None) == 28_000
    assert run_seconds(28_000, 28, None, 30.0) is None


@pytest.mark.parametrize(
    ("hours", "lost", "expected"), [(8.9, 0, 1), (9, 1, 1), (11.2, 0, 2), (18, 0, 2), (18, 0.5, 3), (27, 0, 3)]
)
def test_sessions_of_nine_hours(hours: float, lost: float, expected: int) -> None:
    assert sessions(hours * 3600, 9 * 3600, lost * 3600) == expected


def test_a_session_that_loses_more_than_it_gains_gets_nowhere() -> None:
    with pytest.raises(BadInput, match="gets nowhere"):
        sessions(100_000, 3600, 3600)


@given(st.floats(1, 1e7), st.floats(60, 1e6), st.floats(0, 0.9))
def test_the_sessions_hold_the_run_and_one_less_would_not(total: float, session: float, part: float) -> None:
    count, useful = sessions(total, session, session * part), session * (1 - part)
    assert session + (count - 1) * useful >= total * (1 - 1e-9)
    assert count == 1 or session + (count - 2) * useful < total * (1 + 1e-9)
