"""Which checkpoints are kept, and why."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.checkpoints import Candidate, Keep, decide
from outlast.errors import BadInput

VALUES = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.1, 0.2, 0.3])


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    steps = draw(st.lists(st.integers(0, 20_000), unique=True, max_size=12))
    return [
        Candidate(
            f"checkpoint-{step}",
            step,
            (float(draw(st.integers(0, 1))), step),
            {"loss": draw(VALUES)} if draw(st.booleans()) else {},
            ("pinned",) if draw(st.integers(0, 5)) == 0 else (),
        )
        for step in steps
    ]


KEEPS = st.builds(
    Keep,
    last=st.none() | st.integers(1, 6),
    best=st.integers(0, 4),
    metric=st.just("loss"),
    mode=st.sampled_from(["min", "max"]),
    every=st.none() | st.integers(1, 5000),
)


def saved(*steps: int, **metrics: float) -> list[Candidate]:
    return [Candidate(f"checkpoint-{step}", step, (0.0, step), metrics) for step in steps]


def scored(**losses: float) -> list[Candidate]:
    """Candidates in the order of their making, each with its loss."""
    return [Candidate(name, step, (0.0, step), {"loss": loss}) for step, (name, loss) in enumerate(losses.items())]


def kept(found: list[Candidate], keep: Keep) -> list[str]:
    return [verdict.name for verdict in decide(found, keep) if verdict.keep]


def oldest_first(found: list[Candidate]) -> list[Candidate]:
    return sorted(found, key=lambda one: one.age)


@given(candidates(), KEEPS)
def test_there_is_one_verdict_each_in_the_order_given_and_never_without_a_reason(
    found: list[Candidate], keep: Keep
) -> None:
    verdicts = decide(found, keep)
    assert [verdict.name for verdict in verdicts] == [one.name for one in found]
    assert all(verdict.reasons and all(verdict.reasons) for verdict in verdicts)


@given(candidates(), KEEPS)
def test_the_newest_is_always_kept(found: list[Candidate], keep: Keep) -> None:
    assert set(kept(found, keep)) >= {one.name for one in oldest_first(found)[-1:]}


@given(candidates(), KEEPS)
def test_what_others_hold_is_always_kept(found: list[Candidate], keep: Keep) -> None:
    assert set(kept(found, keep)) >= {one.name for one in found if one.holds}


@given(candidates(), KEEPS.filter(lambda keep: keep.last is not None))
def test_the_last_so_many_are_kept(found: list[Candidate], keep: Keep) -> None:
    assert set(kept(found, keep)) >= {one.name for one in oldest_first(found)[-(keep.last or 0) :]}


@given(candidates(), KEEPS)
def test_a_rule_adds_and_takes_nothing_away(found: list[Candidate], keep: Keep) -> None:
    only_last = Keep(last=keep.last or 1)
    assert set(kept(found, keep)) >= set(kept(found, only_last))


@given(candidates(), KEEPS)
def test_none_that_is_better_is_dropped_while_a_worse_one_is_kept_for_being_best(
    found: list[Candidate], keep: Keep
) -> None:
    verdicts = {verdict.name: verdict for verdict in decide(found, keep)}
    best = [one for one in found if any(reason.startswith("best ") for reason in verdicts[one.name].reasons)]
    known = [one for one in found if not math.isnan(one.metrics.get("loss", math.nan))]
    assert len(best) == min(keep.best, len(known))
    sign = 1 if keep.mode == "min" else -1
    rest = [sign * one.metrics["loss"] for one in known if one not in best]
    assert all(sign * one.metrics["loss"] <= other for one in best for other in rest)


@given(candidates(), KEEPS)
def test_nan_is_never_best(found: list[Candidate], keep: Keep) -> None:
    verdicts = {verdict.name: verdict for verdict in decide(found, keep)}
    nameless = [one.name for one in found if math.isnan(one.metrics.get("loss", math.nan))]
    assert not any(reason.startswith("best ") for name in nameless for reason in verdicts[name].reasons)


@given(candidates(), st.integers(1, 5000))
def test_every_multiple_is_kept(found: list[Candidate], every: int) -> None:
    assert set(kept(found, Keep(last=1, every=every))) >= {one.name for one in found if one.step % every == 0}


@given(candidates())
def test_without_a_rule_all_are_kept(found: list[Candidate]) -> None:
    assert len(kept(found, Keep())) == len(found)


@given(st.permutations(saved(10, 20, 30, 40, loss=0.5)), KEEPS)
def test_the_order_in_which_they_are_found_does_not_matter(found: list[Candidate], keep: Keep) -> None:
    assert set(kept(found, keep)) == set(kept(saved(10, 20, 30, 40, loss=0.5), keep))


def test_steps_are_numbers_and_not_text() -> None:
    assert kept(saved(9000, 10_000), Keep(last=1)) == ["checkpoint-10000"]


def test_a_newer_training_in_the_same_folder_counts_before_a_later_step() -> None:
    old = Candidate("checkpoint-900", 900, (1.0, 900))
    new = Candidate("checkpoint-10", 10, (2.0, 10))
    assert kept([old, new], Keep(last=1)) == ["checkpoint-10"]


def test_of_equally_good_ones_the_newer_is_best() -> None:
    assert kept(scored(a=0.5, b=0.5, c=0.9), Keep(last=1, best=1, metric="loss")) == ["b", "c"]


def test_the_best_is_the_highest_when_that_is_better() -> None:
    assert kept(scored(a=0.5, b=0.9, c=0.1), Keep(last=1, best=1, metric="loss", mode="max")) == ["b", "c"]


def test_infinite_loss_is_worse_than_any_and_known_all_the_same() -> None:
    assert kept(scored(a=math.inf, b=3.0, c=math.nan), Keep(last=1, best=1, metric="loss")) == ["b", "c"]


def test_a_verdict_says_in_words_why() -> None:
    first, second, third = decide(scored(a=0.25, b=0.5, c=0.75), Keep(last=1, best=1, metric="loss"))
    assert first.reasons == ("best 1 by loss (0.25, min)",)
    assert second.reasons == ("not wanted by last=1,best=1,metric=loss,mode=min",)
    assert third.reasons == ("newest", "among the last 1")


# The rules as text


@given(KEEPS)
def test_rules_that_were_shown_keep_the_same(keep: Keep) -> None:
    again = Keep.parse(str(keep))
    assert (again.last, again.best, again.every) == (keep.last, keep.best, keep.every)
    assert again == keep or not keep.best


@pytest.mark.parametrize(
    ("text", "keep"),
    [
        ("", Keep()),
        ("last=2", Keep(last=2)),
        (" last = 2 , every=1000", Keep(last=2, every=1000)),
        ("best=1,metric=eval/f1,mode=max", Keep(best=1, metric="eval/f1", mode="max")),
    ],
)
def test_rules_are_read_in_any_order(text: str, keep: Keep) -> None:
    assert Keep.parse(text) == keep


@pytest.mark.parametrize(
    "text", ["last", "last=", "last=two", "newest=2", "last=0", "every=0", "best=1", "best=-1", "mode=up", "last=1.5"]
)
def test_rules_that_cannot_be_followed_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        Keep.parse(text)
    assert "last=2" in caught.value.hint


@pytest.mark.parametrize("rule", [{"last": 0}, {"best": 1}, {"best": -1}, {"mode": "up"}, {"every": 0}, {"last": -3}])
def test_rules_that_cannot_be_followed_are_refused_in_python_too(rule: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(rule))):
        Keep(**rule)


def test_a_metric_that_no_checkpoint_has_lets_the_rules_delete_nothing() -> None:
    found = saved(10, 20, 30, loss=0.5)
    assert len(kept(found, Keep(last=1, best=1, metric="los"))) == 3
    assert len(kept(found, Keep(last=1, best=1, metric="loss"))) < 3
