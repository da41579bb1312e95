"""Deadlines, paces and what is left of a session."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.budget import clock
from outlast.errors import BadInput
from outlast.host import PLATFORMS, Session

NOW = 1_790_000_000.0
KAGGLE = next(platform for platform in PLATFORMS if platform.name == "kaggle")
PLAIN = PLATFORMS[-1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("9h", 32400), ("90m", 5400), ("1h30m", 5400), ("40s", 40), ("2d", 172800), ("1.5h", 5400), (" 30 min ", 1800)],
)
def test_a_span_counts_from_now(text: str, seconds: float) -> None:
    assert clock.parse(text, NOW).by == NOW + seconds


@pytest.mark.parametrize(
    "text", ["", "9", "h", "9x", "0h", "-3h", "9h foo", "25:00", "12:60", "1e9d", "999999999999h", "٣h"]
)
def test_what_is_no_deadline_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match="deadline") as found:
        clock.parse(text, NOW)
    assert "23:30" in found.value.hint


@given(st.integers(0, 23), st.integers(0, 59), st.floats(1.7e9, 1.9e9))
def test_a_time_of_day_is_the_next_one(hour: int, minute: int, now: float) -> None:
    by = clock.parse(f"{hour:02}:{minute:02}", now).by
    there = time.localtime(by)
    assert (there.tm_hour, there.tm_min, there.tm_sec) == (hour, minute, 0)
    assert now < by <= now + 25 * 3600  # a day, and an hour where clocks are put back


def test_auto_is_the_end_of_the_slurm_job_where_slurm_says_so() -> None:
    session = Session(KAGGLE, NOW - 3600, {"SLURM_JOB_END_TIME": str(int(NOW + 500))})
    assert clock.parse("auto", NOW, session).by == NOW + 500


@pytest.mark.parametrize("text", ["0", "1", "9" * 400, "-5", "", "soon", "٣" * 10])
def test_an_end_that_slurm_cannot_have_meant_is_not_taken(text: str) -> None:
    with pytest.raises(BadInput):
        clock.parse("auto", NOW, Session(PLAIN, NOW, {"SLURM_JOB_END_TIME": text}))


def test_auto_is_the_platforms_limit_from_the_sessions_start() -> None:
    found = clock.parse("auto", NOW, Session(KAGGLE, NOW - 3600))
    assert found.by == NOW + 11 * 3600
    assert "Kaggle" in found.why and "kaggle.com" in found.why


@pytest.mark.parametrize("session", [None, Session(PLAIN, NOW), Session(KAGGLE, None)])
def test_auto_that_is_not_known_is_refused_not_guessed(session: Session | None) -> None:
    with pytest.raises(BadInput):
        clock.parse("auto", NOW, session)


def test_the_first_step_pays_for_what_is_made_once_and_is_no_measure() -> None:
    pace = clock.Pace()
    pace.step(60.0)
    assert pace.mean_step_seconds is None
    pace.step(1.0)
    pace.step(2.0)
    assert pace.mean_step_seconds == 1.5
    assert pace.needed_seconds == 2.0 + clock.EXIT_SECONDS


def test_a_measured_save_takes_the_place_of_the_guess() -> None:
    pace = clock.Pace(guessed_save_seconds=clock.guess_save_seconds(3_000_000_000))
    assert pace.needed_seconds == clock.SAVE_MARGIN * 31.0 + clock.EXIT_SECONDS
    pace.save(4.0)
    assert pace.needed_seconds == clock.SAVE_MARGIN * 4.0 + clock.EXIT_SECONDS


@given(
    st.lists(st.floats(0.01, 100), min_size=3, max_size=40),
    st.lists(st.floats(0.01, 100), min_size=1, max_size=10),
    st.floats(1, 1e5),
)
def test_leaving_when_due_is_always_in_time_while_nothing_gets_slower(
    steps: list[float], saves: list[float], session: float
) -> None:
    """A step is begun only when it, a save and the end still fit, if they take no longer than the worst so far."""
    pace = clock.Pace()
    for seconds in steps:
        pace.step(seconds)
    for seconds in saves:
        pace.save(seconds)
    worst_step, worst_save = max(list(pace.steps)), max(list(pace.saves))
    now = 0.0
    while not clock.is_due(session, now, pace.needed_seconds) and now < session:
        now += worst_step
    if now:  # else the session was too short from the start
        assert now + worst_save + clock.EXIT_SECONDS <= session + 1e-6


def test_the_issues_example_of_an_eta() -> None:
    found = clock.eta(28_000, 1.44, now=NOW, by=NOW + 9 * 3600, session_seconds=9 * 3600)
    assert clock.sentence(found) == "28,000 steps need 11.2 h; this session ends in 9.0 h: 2 sessions"


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3), st.floats(0, 1e5), st.floats(1, 1e5))
def test_sessions_are_as_many_as_hold_the_rest(left: int, step: float, here: float, session: float) -> None:
    found = clock.eta(left, step, now=NOW, by=NOW + here, session_seconds=session)
    assert found.sessions is not None
    room = found.session_seconds + (found.sessions - 1) * session
    assert found.seconds <= room * (1 + 1e-9)
    if found.sessions > 1:
        assert found.seconds > room - session - 1e-6 * max(1.0, math.fabs(room))


def test_without_a_deadline_only_the_time_is_told() -> None:
    found = clock.eta(100, 1.0, now=NOW, by=None, session_seconds=None)
    assert clock.sentence(found) == "100 steps need 100.0 s"
    assert clock.sentence(replace(found, session_seconds=50.0)).endswith("they do not fit")
