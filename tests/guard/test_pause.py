"""When a program that nothing is hooked in is stopped."""

from hypothesis import given
from hypothesis import strategies as st

from outlast.guard.forecast import Forecast
from outlast.guard.pause import floor_bytes, judge

MB = 10**6


def forecasted(free: int, *, save: int | None = None, total: int = 45 * MB, level: int | None = None) -> Forecast:
    return Forecast(free, total, save, None, None, None, level)


def test_a_hooked_program_is_never_stopped():
    assert not judge(forecasted(0), is_hooked=True, was_paused=False).paused


def test_below_the_floor_it_is_stopped_with_the_figures_in_the_reason():
    verdict = judge(forecasted(500_000), is_hooked=False, was_paused=False)
    assert verdict.paused
    assert "500.0 kB are free" in verdict.why and verdict.short_bytes > 0


def test_it_is_stopped_in_the_middle_of_a_save_that_cannot_fit():
    verdict = judge(forecasted(6 * MB, save=13 * MB, level=8 * MB), is_hooked=False, was_paused=False)
    assert verdict.paused and "13.0 MB" in verdict.why


def test_it_is_not_stopped_for_a_save_that_may_never_come():
    assert not judge(forecasted(8 * MB, save=13 * MB, level=8 * MB), is_hooked=False, was_paused=False).paused


def test_a_save_that_fits_is_let_through():
    assert not judge(forecasted(16 * MB, save=13 * MB, level=20 * MB), is_hooked=False, was_paused=False).paused


def test_once_stopped_it_waits_for_room_for_a_whole_save():
    assert judge(forecasted(9 * MB, save=13 * MB, level=8 * MB), is_hooked=False, was_paused=True).paused
    assert not judge(forecasted(14 * MB, save=13 * MB, level=8 * MB), is_hooked=False, was_paused=True).paused


def test_it_goes_on_only_when_there_is_clearly_room():
    floor = floor_bytes(45 * MB)
    assert judge(forecasted(floor), is_hooked=False, was_paused=True).paused
    assert not judge(forecasted(2 * floor), is_hooked=False, was_paused=True).paused


@given(st.integers(0, 10**12), st.none() | st.integers(0, 10**11), st.integers(1, 10**13))
def test_with_more_room_it_is_never_stopped_sooner(free, save, total):
    less = judge(forecasted(free, save=save, total=total), is_hooked=False, was_paused=False)
    more = judge(forecasted(free + MB, save=save, total=total), is_hooked=False, was_paused=False)
    assert less.paused or not more.paused
