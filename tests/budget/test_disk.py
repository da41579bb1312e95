"""Disk over time: what the simulation says of saves, retention, and of what Outlast would do."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.budget import HABITS, Course, Lying, SaveBytes, Saves, Thing, Volume, habit_named, least_bytes, simulate
from outlast.checkpoints import Keep, Policy

GB = 10**9
THREE_GB = SaveBytes(GB, 2 * GB - 10**6, 10**6, GB // 20, "a test")


def volume(total: float | None = 100, used: float = 25, *more: Thing) -> Volume:
    there = Thing("used before", int(used * GB))
    return Volume("/data", None if total is None else int(total * GB), (there, *more))


def saves(last: int | None = 3, *, framework: str = "transformers", count: int = 28, **more: object) -> Saves:
    steps = tuple(range(1000, 1000 * count + 1, 1000))
    return replace(Saves(steps, THREE_GB, habit_named(framework), Keep(last=last)), **more)


def names(course: Course) -> list[str]:
    return [one.name for one in course.left]


def test_a_trainer_peaks_at_one_more_than_its_limit() -> None:
    course = simulate(volume(), saves(3), 28000)
    assert (course.peak_bytes, course.peak_step, course.full_at) == (37 * GB, 4000, None)
    assert course.made_of == {"used before": 25 * GB, "3 checkpoints": 9 * GB, "the save under way": 3 * GB}
    assert names(course) == ["step 26000", "step 27000", "step 28000"]


def test_where_nothing_is_deleted_the_seeds_run_is_full_at_step_26000_and_not_at_9000() -> None:
    course = simulate(volume(), saves(3, deletes=False), 28000)
    assert course.full_at == 26000
    assert len(course.left) == 25


@pytest.mark.parametrize(
    ("framework", "peak"),
    [("transformers", 4), ("accelerate", 3), ("lightning", 4), ("torch.save", 1), ("torch.save-each", 28), ("dcp", 28),
     ("outlast", 4)],
)  # fmt: skip
def test_each_framework_peaks_as_it_deletes(framework: str, peak: int) -> None:
    keep = 3 if framework in ("transformers", "accelerate", "lightning", "outlast") else None
    course = simulate(volume(None, 0), saves(keep, framework=framework), 28000)
    assert course.peak_bytes == peak * 3 * GB


def test_every_framework_of_the_table_is_in_the_test_above() -> None:
    assert {habit.name for habit in HABITS} == {
        "transformers", "accelerate", "lightning", "torch.save", "torch.save-each", "dcp", "outlast"
    }  # fmt: skip


def test_one_file_saved_over_and_over_needs_room_for_two_under_outlast() -> None:
    here, loop = volume(None, 0), saves(None, framework="torch.save")
    assert simulate(here, loop, 28000).peak_bytes == 3 * GB
    assert 6 * GB < simulate(here, loop, 28000, Policy()).peak_bytes < 6.1 * GB


def test_an_old_best_model_with_a_limit_of_one_makes_it_three() -> None:
    course = simulate(volume(None, 0), saves(1, best_is_old=True), 28000)
    assert course.peak_bytes == 9 * GB
    assert names(course) == ["step 1000", "step 28000"]


def test_an_old_best_model_is_one_of_the_last_so_many() -> None:
    course = simulate(volume(None, 0), saves(3, best_is_old=True), 28000)
    assert course.peak_bytes == 12 * GB
    assert names(course) == ["step 1000", "step 27000", "step 28000"]


def test_a_copy_of_the_last_is_one_save_more() -> None:
    kept = saves(1, framework="lightning", copies_last=True)
    assert simulate(volume(None, 0), kept, 28000).peak_bytes == 9 * GB


def test_what_comes_later_and_what_grows_counts_from_its_step() -> None:
    things = Thing("data", 40 * GB, 5000), Thing("logs", 0, 0, 1e6)
    course = simulate(volume(100, 25, *things), saves(3), 28000)
    assert course.points[1].bytes == 26 * GB, "the log has grown by 1 GB, the data are not there yet"
    assert course.full_at == 24000, "25 + 40 + 12 + 23 fit just so"


def test_the_log_in_each_checkpoint_grows_with_the_run() -> None:
    size = replace(THREE_GB, has_log=False)
    course = simulate(volume(), saves(3, size=size, logs_per_step=0.1), 28000)
    last = course.left[-1].bytes
    assert last - 3 * GB == 2800 * 170
    assert course.peak_step == 28000


def test_outlast_makes_older_checkpoints_light_where_the_trainer_dies() -> None:
    small = volume(36)
    assert simulate(small, saves(3), 28000).full_at == 4000
    course = simulate(small, saves(3), 28000, Policy())
    assert course.fits and course.kinds == {"full": 28}
    assert {deed.move.action for deed in course.deeds} >= {"lighten"}
    assert course.deeds[0].step == 4000
    assert course.peak_bytes <= 36 * GB


def test_on_a_roomy_volume_outlast_does_nothing_but_add_its_files_and_reserve() -> None:
    course = simulate(volume(), saves(3), 28000, Policy())
    assert course.deeds == ()
    assert 37 * GB < course.peak_bytes < 37.4 * GB


def test_what_cannot_be_deleted_is_never_dropped_or_made_light() -> None:
    course = simulate(volume(), saves(3, deletes=False), 28000, Policy())
    assert {deed.move.action for deed in course.deeds} <= {"save_as", "release_ballast"}
    assert len(course.left) >= 24


def test_where_not_even_light_saves_fit_outlast_waits_at_that_step() -> None:
    course = simulate(volume(26.2), saves(3), 28000, Policy())
    assert course.full_at == 2000, "one light save fits, and is the only way back"
    assert course.short_bytes > 0
    assert len(course.left) == 1


def test_keep_exact_holds_a_full_way_back_and_lets_saves_be_light() -> None:
    course = simulate(volume(30), saves(3), 28000, Policy(keep_exact=True))
    assert course.fits
    assert course.kinds["light"] > 0
    assert any(one.kind == "full" for one in course.left)


def test_light_by_choice_is_light_from_the_first_save_where_there_is_such_a_form() -> None:
    course = simulate(volume(), saves(3), 28000, Policy(save="light"))
    assert course.kinds == {"light": 28} and course.deeds == ()
    one_file = simulate(volume(), saves(3, framework="lightning"), 28000, Policy(save="light"))
    assert one_file.kinds == {"full": 28}


def test_a_forbidden_rung_is_not_taken() -> None:
    course = simulate(volume(36), saves(3), 28000, Policy(forbid=frozenset({5})))
    assert all(deed.move.rung != 5 for deed in course.deeds)


def test_rules_given_to_outlast_stand_above_the_frameworks() -> None:
    course = simulate(volume(), saves(3), 28000, Policy(Keep(last=1, every=10_000)))
    assert names(course) == ["step 10000", "step 20000", "step 28000"]


def test_best_by_a_metric_is_taken_for_an_old_one() -> None:
    course = simulate(volume(), saves(None), 28000, Policy(Keep.parse("best=2,metric=loss,last=2")))
    assert names(course) == ["step 1000", "step 2000", "step 27000", "step 28000"]


def test_it_goes_on_from_what_lies_there() -> None:
    lying = tuple(Lying(f"checkpoint-{step}", step, 3 * GB, "full", GB) for step in (7000, 8000, 9000))
    course = simulate(volume(), saves(3, lying=lying, steps=(10000, 11000)), 11000)
    assert course.points[0].bytes == 34 * GB
    assert names(course) == ["checkpoint-9000", "step 10000", "step 11000"]


def test_the_least_volume_without_outlast_is_the_peak() -> None:
    assert least_bytes(volume(), saves(3), 28000) == 37 * GB


def test_the_least_volume_under_outlast_holds_a_light_way_back_and_the_new_full_save() -> None:
    full = least_bytes(volume(), saves(3), 28000, Policy())
    assert 25 * GB + 4.1 * GB < full < 25 * GB + 4.3 * GB
    light = least_bytes(volume(), saves(3), 28000, Policy(), takes_light=True)
    assert 25 * GB + 2.1 * GB < light < 25 * GB + 2.3 * GB


def test_twenty_thousand_saves_are_judged_by_the_first_and_the_last() -> None:
    logs = Thing("logs", 0, 0, 1e6)
    many = saves(3, steps=tuple(range(1, 20_001)))
    assert least_bytes(volume(100, 25, logs), many, 20_000) == simulate(volume(None, 25, logs), many, 20_000).peak_bytes


VOLUMES = st.builds(volume, st.integers(4, 120), st.integers(0, 30))
SAVES = st.builds(
    saves,
    st.none() | st.integers(1, 5),
    framework=st.sampled_from([habit.name for habit in HABITS]),
    count=st.integers(1, 12),
    only_model=st.booleans(),
    best_is_old=st.booleans(),
    copies_last=st.booleans(),
    deletes=st.booleans(),
)
POLICIES = st.none() | st.builds(
    Policy,
    st.none() | st.builds(Keep, last=st.integers(1, 3)),
    st.booleans(),
    st.sets(st.integers(1, 9)).map(frozenset),
)


@given(VOLUMES, SAVES, POLICIES)
def test_nothing_ever_lies_there_that_the_volume_does_not_hold(
    here: Volume, what: Saves, policy: Policy | None
) -> None:
    course = simulate(here, what, 20_000, policy)
    began = course.points[0].bytes
    assert all(point.bytes <= max(began, here.total_bytes or 0) for point in course.points)
    assert course.peak_bytes == max(point.bytes for point in course.points)
    assert sum(course.made_of.values()) == course.peak_bytes
    assert [point.step for point in course.points] == sorted(point.step for point in course.points)
    assert course.fits == (course.short_bytes == 0)


@given(VOLUMES, SAVES, POLICIES)
def test_under_outlast_there_is_always_a_checkpoint_from_the_first_save_on(
    here: Volume, what: Saves, policy: Policy | None
) -> None:
    course = simulate(here, what, 20_000, policy or Policy())
    assert bool(course.left) == bool(course.kinds)


def test_accelerate_with_a_limit_of_one_has_no_checkpoint_while_it_saves_and_dies_with_none() -> None:
    course = simulate(volume(30, 25, Thing("data", 3 * GB, 2000)), saves(1, framework="accelerate"), 28000)
    assert (course.full_at, course.left) == (2000, ())


@given(VOLUMES, SAVES, POLICIES)
def test_the_least_volume_is_enough(here: Volume, what: Saves, policy: Policy | None) -> None:
    enough = least_bytes(here, what, 20_000, policy)
    course = simulate(replace(here, total_bytes=enough), what, 20_000, policy)
    assert course.fits
    assert len(course.kinds) == 1, "every save of the kind that the script asks for"


@given(VOLUMES, SAVES)
def test_without_outlast_one_byte_less_than_the_least_is_not_enough(here: Volume, what: Saves) -> None:
    enough = least_bytes(here, what, 20_000)
    assert not simulate(replace(here, total_bytes=enough - 1), what, 20_000).fits


@given(VOLUMES, SAVES)
def test_deletions_that_fail_never_need_less(here: Volume, what: Saves) -> None:
    failing, working = replace(what, deletes=False), replace(what, deletes=True)
    assert least_bytes(here, failing, 20_000) >= least_bytes(here, working, 20_000)


@given(VOLUMES, SAVES)
def test_outlast_ends_well_wherever_there_is_a_tenth_to_spare(here: Volume, what: Saves) -> None:
    """Its own files, margins and reserve are less than that; what is overwritten stays until the new one is whole."""
    plain = least_bytes(here, what, 20_000)
    beside = 3 * GB * (what.habit.deletes in ("in place", "before")) + 3 * GB * what.copies_last
    roomy = replace(here, total_bytes=int(plain * 1.1) + beside + GB)
    assert simulate(roomy, what, 20_000, Policy()).fits
