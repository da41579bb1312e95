"""What each change would do, which comes first, what a volume costs, and what a run that died must have met."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outlast.budget import Outlook, Run, SaveBytes, Saves, Thing, Volume, habit_named, look_ahead
from outlast.budget.knobs import Explanation, advice, explained, knobs, price
from outlast.budget.schedule import save_steps
from outlast.checkpoints import Keep, Policy
from outlast.errors import BadInput

GB = 10**9
THREE_GB = SaveBytes(GB, 2 * GB, 0, GB // 20, "a test")


def outlook(total: float | None = 100, used: float = 25, last: int | None = 3, **more: object) -> Outlook:
    """The run of seeds/001."""
    here = Volume("/data", None if total is None else int(total * GB), (Thing("used before", int(used * GB)),))
    saves = Saves(save_steps(28_000, 1000, at_end=True), THREE_GB, habit_named("transformers"), Keep(last=last))
    return look_ahead(Run(replace(saves, **more), 1000, 28_000, here, Policy(), 1.03))


def by_name(now: Outlook) -> dict[str, Outlook]:
    return {knob.change: knob.outlook for knob in knobs(now)}


def test_saving_less_often_frees_nothing_and_loses_more_where_old_ones_are_deleted() -> None:
    now = outlook()
    rarer = by_name(now)["save every 2,000 steps"]
    assert (rarer.needs_bytes, now.needs_bytes) == (37 * GB, 37 * GB)
    assert (rarer.lost.mean_steps, now.lost.mean_steps) == (1000, 500)


def test_keeping_fewer_frees_a_save_each() -> None:
    changes = by_name(outlook())
    assert (changes["keep 2"].needs_bytes, changes["keep 1"].needs_bytes) == (34 * GB, 31 * GB)
    assert "keep 3" not in changes


def test_where_all_are_kept_a_limit_is_offered_and_saving_less_often_does_free_something() -> None:
    now = outlook(last=None)
    changes = by_name(now)
    assert now.plain.full_at == 26_000
    assert changes["keep 3"].plain.fits
    assert changes["save every 2,000 steps"].needs_bytes == 25 * GB + 14 * 3 * GB


def test_the_changes_that_fit_come_first_and_the_inexact_one_after_exact_ones() -> None:
    changes = knobs(outlook(36))
    codes = [knob.outlook.exit_code for knob in changes]
    assert codes == sorted(codes)
    exact = [knob.is_exact for knob in changes if knob.outlook.exit_code == 0]
    assert exact == sorted(exact, reverse=True)


@pytest.mark.parametrize(
    ("total", "words", "code"),
    [
        (200, "nothing has to change", 0),
        (100, "nothing has to change while old checkpoints are really deleted", 0),
        (36, "outlast run -- ...: older checkpoints give way from step 4,000 on", 1),
        (27.05, "a volume of 27.1 GB or more: no change here makes it fit", 2),
        (None, "say how large the volume is", 1),
    ],
)
def test_the_advice_is_the_first_thing_to_do(total: float | None, words: str, code: int) -> None:
    now = outlook(total)
    assert advice(now, knobs(now)).startswith(words)
    assert now.exit_code == code


def test_deletions_that_fail_are_to_be_mended_first() -> None:
    now = outlook(100, 75, deletes=False)
    assert advice(now, knobs(now)) == "see that old checkpoints are really deleted: then 87.0 GB are enough"


def test_a_change_is_advised_where_even_outlast_would_wait() -> None:
    """One file for each save, which Outlast may not touch: nothing but a rarer save helps."""
    now = outlook(75, 25, None, habit=habit_named("torch.save-each"))
    assert now.exit_code == 2
    assert advice(now, knobs(now)) == "save every 2,000 steps: then it ends well"


def test_the_seeds_volume_was_full_of_something_else() -> None:
    """At step 9,000: 3 checkpoints and the new one, or 8 and the new one if none was deleted."""
    assert explained(outlook(), 9000) == (
        Explanation("old ones were deleted", 88 * GB, 88 * GB),
        Explanation("none was deleted", 73 * GB, 76 * GB),
    )


def test_what_explains_an_end_does_bring_it_about() -> None:
    """More than the least of it, and no more than the most, lets the run die at that step and not before."""
    _, none_deleted = explained(outlook(), 9000)
    for used, step in ((none_deleted.over_bytes, 10_000), (none_deleted.over_bytes + 1, 9000),
                       (none_deleted.until_bytes, 9000), (none_deleted.until_bytes + 1, 8000)):  # fmt: skip
        assert outlook(100, used / GB, deletes=False).plain.full_at == step


def test_a_step_at_which_nothing_is_saved_explains_nothing() -> None:
    with pytest.raises(BadInput, match="no save is due at step 9001"):
        explained(outlook(), 9001)
    with pytest.raises(BadInput):
        explained(outlook(None), 9000)


def test_the_seeds_price_is_22_times_that_of_its_platform() -> None:
    """50 GB at 0.10 a GB and month (docs.vast.ai, vastai list volumes: the default) is 0.0068 an hour, not 0.15."""
    an_hour = price(50 * GB, 0.10, 1)
    assert an_hour == pytest.approx(0.00685, abs=0.00001)
    assert 0.15 / an_hour == pytest.approx(21.9, abs=0.1)


def test_hours_are_those_of_the_steps() -> None:
    assert outlook().seconds == pytest.approx(28_840)
    assert outlook().price_hours == pytest.approx(8.01, abs=0.01)
