"""When a training has to be asked to leave, and what is a leak: from made-up curves of memory."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.guard import ram
from outlast.guard.ram import RamReading, leak, needed_seconds, outlook, recent, slope

GB = 10**9
LIMIT = 10 * GB


def curve(size, seconds: float, every: float = 0.25, *, own=None, stall=None) -> list[RamReading]:
    """Readings of a function of the time, in bytes."""
    times = [every * number for number in range(int(seconds / every) + 1)]
    return [RamReading(t, int(size(t)), LIMIT, None if own is None else int(own(t)), stall) for t in times]


def look(readings: list[RamReading], needed: float = 20.0, **more: object) -> ram.Outlook:
    more.setdefault("start_bytes", min(one.held_bytes for one in readings))
    return outlook(recent(readings), needed, **more)


def rising(start: float, pace: float):
    return lambda t: min(LIMIT, start + pace * t)


# Near the limit


def test_it_is_asked_to_leave_when_a_step_and_a_save_still_fit_before_the_limit() -> None:
    what = look(curve(rising(7 * GB, 0.15 * GB), 10))
    assert what.must_leave and what.left_seconds == pytest.approx(10, rel=0.1)
    assert what.why == ("8.5 GB of 10.0 GB of main memory are held, 9.0 GB more each minute: the limit comes in 10.0 s")


def test_it_is_left_alone_while_there_is_time() -> None:
    assert not look(curve(rising(7 * GB, 0.15 * GB), 10), needed=5).must_leave


def test_the_slower_it_grows_the_closer_it_may_come() -> None:
    assert not look(curve(rising(9.3 * GB, 0.01 * GB), 15)).must_leave
    assert look(curve(rising(9.65 * GB, 0.01 * GB), 15), start_bytes=5 * GB).must_leave


def test_what_is_far_from_its_limit_is_not_judged() -> None:
    assert look(curve(rising(1 * GB, 0.38 * GB), 15)) == ram.Outlook(False, "", None)


def test_a_steady_level_however_high_is_no_reason() -> None:
    noise = random.Random(7)
    assert not look(curve(lambda t: 9.6 * GB + noise.gauss(0, 0.01 * GB), 15), start_bytes=GB).must_leave


def test_a_jump_is_no_growth() -> None:
    for at in range(1, 15):
        assert not look(curve(lambda t, at=at: (8 if t < at else 9.6) * GB, 15), start_bytes=GB).must_leave, at


@pytest.mark.parametrize("period", [1.0, 2.5, 6.0])
def test_a_saw_tooth_is_no_growth(period: float) -> None:
    assert not look(curve(lambda t: (7.5 + 2.0 * (t % period) / period) * GB, 15), start_bytes=GB).must_leave


def test_a_level_that_was_reached_and_left_before_is_no_news() -> None:
    grows = curve(rising(7 * GB, 0.15 * GB), 10)
    assert not look(grows, receded_bytes=9 * GB).must_leave
    assert look(grows, receded_bytes=8 * GB).must_leave


def test_what_a_restart_would_not_give_back_is_no_reason_to_leave() -> None:
    assert not look(curve(rising(9.8 * GB, 0.01 * GB), 10)).must_leave


def test_a_leak_that_is_known_is_enough_near_the_floor() -> None:
    noise = random.Random(7)
    jumpy = curve(lambda t: 9.75 * GB + noise.gauss(0, 0.02 * GB), 15)
    assert not look(jumpy, start_bytes=GB).must_leave
    assert look(jumpy, start_bytes=GB, is_leak=True).must_leave


def test_a_program_that_only_waits_for_memory_leaves_before_it_is_killed() -> None:
    stalls = curve(lambda t: 9.5 * GB, 5, stall=42.0)
    what = look(stalls, start_bytes=5 * GB)
    assert what.must_leave and what.why.endswith("everything waits for memory 42 % of the time")
    assert not look(curve(lambda t: 8.5 * GB, 5, stall=42.0), start_bytes=5 * GB).must_leave


def test_where_others_grow_it_is_told_and_not_asked_to_leave() -> None:
    what = look(curve(rising(7 * GB, 0.15 * GB), 10, own=lambda t: 2 * GB), start_own_bytes=2 * GB)
    assert not what.must_leave and what.why.endswith("what grows is not of this run")
    assert look(curve(rising(7 * GB, 0.15 * GB), 10, own=rising(2 * GB, 0.1 * GB)), start_own_bytes=2 * GB).must_leave


def test_two_seconds_of_growth_are_the_least() -> None:
    fast = rising(7 * GB, 1.0 * GB)
    assert not look(curve(fast, 1.75)).must_leave
    assert look(curve(fast, 2.0)).must_leave


@settings(max_examples=40)
@given(st.floats(0.05, 2.0), st.floats(0.1, 1.0), st.floats(0.02, 5.0))
def test_any_steady_growth_is_asked_to_leave_in_time(start: float, pace: float, step: float) -> None:
    """Whatever the pace: looked at four times a second, it is asked while a step and a save still fit."""
    need = needed_seconds(step, step)
    grows = curve(rising(start * GB, pace * GB), (LIMIT / GB - start) / pace)
    for end in range(8, len(grows)):
        if look(grows[: end + 1], need, start_bytes=int(start * GB)).must_leave:
            left = (LIMIT - grows[end].held_bytes) / (pace * GB)
            assert left >= min(2 * step, 0.25 * (LIMIT / GB / pace)) or grows[end].time < 3
            return
    raise AssertionError("it was never asked")


def test_what_is_needed_is_twice_a_step_and_a_save_or_a_guess() -> None:
    assert needed_seconds(1.5, 2.0) == 8.0
    assert needed_seconds(None, None) == 2 * (ram.STEP_SECONDS + ram.SAVE_SECONDS) + 1


# The slope


@given(st.floats(-1e6, 1e6), st.integers(3, 40), st.randoms(use_true_random=False))
def test_the_slope_is_the_lines_whatever_a_quarter_of_the_points_say(pace: float, count: int, chance) -> None:
    points = [(float(at), pace * at + 5) for at in range(count)]
    for at in chance.sample(range(count), count // 4 - 1 if count >= 8 else 0):
        points[at] = (float(at), chance.uniform(-1e9, 1e9))
    assert slope(points) == pytest.approx(pace, rel=1e-6, abs=abs(pace) + 1e-3)
    assert math.copysign(1, slope(points) or pace) == math.copysign(1, pace) or abs(pace) < 1e-3


@given(st.floats(-1e6, 1e6), st.integers(2, 40))
def test_the_slope_of_a_line_is_exact(pace: float, count: int) -> None:
    assert slope([(float(at), pace * at) for at in range(count)]) == pytest.approx(pace)


def test_one_moment_has_no_slope() -> None:
    assert slope([(1.0, 5.0)]) == slope([(1.0, 5.0), (1.0, 9.0)]) == 0.0


# Leaks


def test_a_steady_rise_over_minutes_is_a_leak_with_its_pace_and_its_end() -> None:
    found = leak(curve(rising(2 * GB, GB / 600), 600, 10))
    assert found is not None
    assert found.bytes_per_minute == pytest.approx(GB / 10) and found.limit_in_seconds == pytest.approx(7 * 600)
    said = ram.leak_sentence(found)
    assert "100.0 MB a minute" in said and "the limit comes in 70 min" in said


def test_a_leak_below_a_saw_tooth_and_noise_is_found() -> None:
    noise = random.Random(3)
    found = leak(curve(lambda t: 2 * GB + t * GB / 300 + (t % 45) * GB / 300 + noise.gauss(0, GB / 100), 600, 10))
    assert found is not None and found.bytes_per_minute == pytest.approx(GB / 5, rel=0.2)


@pytest.mark.parametrize(
    "size",
    [
        lambda t: 2 * GB,
        lambda t: 2 * GB + 3 * GB * (1 - math.exp(-t / 120)),
        lambda t: (2 if t < 300 else 4) * GB,
        lambda t: 2 * GB + (t % 300) * GB / 100,
        lambda t: 8 * GB - t * GB / 600,
        lambda t: 2 * GB + t * 10_000,
    ],
    ids=["level", "warm-up", "jump", "epochs", "falling", "log"],
)
def test_what_levels_out_or_comes_back_is_no_leak(size) -> None:
    assert leak(curve(size, 600, 10)) is None


def test_a_few_minutes_tell_nothing() -> None:
    assert leak(curve(rising(2 * GB, GB / 60), 240, 10)) is None


def test_where_others_share_the_limit_only_our_own_growth_is_a_leak() -> None:
    assert leak(curve(rising(2 * GB, GB / 600), 600, 10, own=lambda t: GB)) is None
    assert leak(curve(lambda t: 5 * GB, 600, 10, own=rising(GB, GB / 600))) is not None
