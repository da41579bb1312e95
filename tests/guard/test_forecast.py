"""How long the room lasts."""

from hypothesis import given
from hypothesis import strategies as st

from outlast.guard.forecast import Reading, Save, forecast, repeated_drop, sentence

MB = 10**6


def readings(*free_mb: float, total_mb: float = 45) -> list[Reading]:
    return [Reading(float(time), int(free * MB), int(total_mb * MB)) for time, free in enumerate(free_mb)]


def test_the_issues_own_example():
    saves = [Save(step, int(13.4 * MB)) for step in (10, 20)]
    what = forecast(readings(12.1), saves)
    assert (what.saves_left, what.full_at_step) == (0, 30)
    text = sentence(what, makes_room=False)
    assert text == "12.1 MB of 45.0 MB free, 13.4 MB a checkpoint, full at step ~30"


def test_a_hooked_save_makes_room_instead_of_filling():
    saves = [Save(step, 13 * MB) for step in (10, 20)]
    assert sentence(forecast(readings(12), saves), makes_room=True).endswith("the next save makes room first")
    assert sentence(forecast(readings(14), saves), makes_room=True).endswith("the next save fits")


def test_without_a_save_the_pace_tells_when_it_is_full():
    what = forecast(readings(40, 39, 38))
    assert what.full_in_seconds == 38
    assert sentence(what, makes_room=False).endswith("full in about 38.0 s")


def test_a_volume_that_does_not_get_fuller_has_no_end():
    assert forecast(readings(40, 41)).full_in_seconds is None


def test_repeated_drops_are_taken_for_saves():
    assert repeated_drop(readings(45, 45, 31, 31, 31, 18, 18)) == 14 * MB


def test_one_large_download_is_not_taken_for_a_save():
    assert repeated_drop(readings(45, 45, 5, 5, 5)) is None
    assert repeated_drop(readings(45, 45, 15, 15, 10, 10)) is None


def test_a_save_seen_halfway_through_is_not_a_plateau():
    assert repeated_drop(readings(45, 45, 40, 31.6, 31.6, 25, 18.2, 18.2)) == int(31.6 * MB) - int(18.2 * MB)


def test_steps_that_went_back_after_a_resume_do_not_confuse_the_forecast():
    saves = [Save(10, MB), Save(20, MB), Save(10, MB), Save(20, MB)]
    assert forecast(readings(1.5), saves).full_at_step == 40


@given(
    st.lists(st.integers(0, 10**13), min_size=1, max_size=30),
    st.lists(st.tuples(st.none() | st.integers(0, 10**6), st.integers(0, 10**12)), max_size=12),
)
def test_a_forecast_never_fails_and_never_promises_more_than_there_is(free, saves):
    seen = [Reading(float(time), size) for time, size in enumerate(free)]
    what = forecast(seen, [Save(*save) for save in saves])
    if what.saves_left is not None:
        assert what.saves_left * what.save_bytes <= what.free_bytes
    assert sentence(what, makes_room=False)
