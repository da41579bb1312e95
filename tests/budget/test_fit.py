"""The search for a way to train that fits, on made-up predictors, against trying everything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.budget import Candidate, Estimate, Tried, Wanted, beside, choose
from outlast.budget.fit import candidate, divisors
from outlast.errors import BadInput

STATE = {"adamw": 8, "adamw-8bit": 2, "adafactor": 1}
Predictor = Callable[[Candidate], Estimate]


def predictor(weights: int, sample: int, recomputed: int, launch: float = 1.0) -> Predictor:
    """Memory and time as they are in principle: state, gradients beside activations when accumulating, activations."""

    def estimate(one: Candidate) -> Estimate:
        kept = (recomputed if one.checkpointing else sample) * one.micro_batch * (one.length or 1)
        state = STATE[one.optimizer] * weights
        gradients = 4 * weights
        step = kept + gradients if one.accumulation > 1 else max(kept, gradients)
        seconds = (launch + one.micro_batch * (one.length or 1)) * (4 / 3 if one.checkpointing else 1)
        return Estimate(4 * weights + state + step, seconds, 0.5, optimizer_bytes=state)

    return estimate


predictors = st.builds(
    lambda weights, recomputed, more, launch: predictor(weights, recomputed + more, recomputed, launch),
    weights=st.integers(1, 50), recomputed=st.integers(1, 20), more=st.integers(0, 80), launch=st.floats(0, 50),
)  # fmt: skip
wishes = st.builds(
    lambda parts, world, capacity, length, most, **more: Wanted(
        global_batch=parts * world, world=world, capacity_bytes=capacity, margin_bytes=capacity // 20, precision="fp16",
        length=length, at_most=most, **more,
    ),
    parts=st.integers(1, 96), world=st.integers(1, 4), capacity=st.integers(1, 6000),
    length=st.none() | st.integers(2, 12), most=st.none() | st.integers(1, 96),
    checkpointing=st.sampled_from([(False, True), (False,), (True,)]),
    optimizers=st.sampled_from([("adamw", "adamw-8bit", "adafactor"), ("adamw",), ("adafactor",)]),
)  # fmt: skip


def everything(wanted: Wanted, estimate: Predictor, length: int | None) -> list[Tried]:
    """The fastest of each optimizer, by trying all."""
    found = []
    for optimizer in wanted.optimizers:
        fitting = []
        for size, kind in product(divisors(wanted.on_one_device), wanted.checkpointing):
            if size <= (wanted.at_most or size):
                one = candidate(wanted, size, checkpointing=kind, optimizer=optimizer, length=length)
                needs = estimate(one)
                fitting += [Tried(one, needs, True)] if needs.needed_bytes <= wanted.allowed_bytes else []
        found += [min(fitting, key=lambda one: one.seconds or 0)] if fitting else []
    return found


@given(wishes, predictors)
def test_the_choice_is_the_fastest_that_trying_everything_finds(wanted: Wanted, estimate: Predictor) -> None:
    found = choose(wanted, estimate).chosen
    best = everything(wanted, estimate, wanted.length)
    if not best:
        assert found is None
    else:
        assert found is not None
        assert found.candidate.optimizer == best[0].candidate.optimizer  # the first with which anything fits
        assert found.seconds == pytest.approx(best[0].seconds)


@given(wishes, predictors)
def test_the_effective_batch_is_exact_and_what_was_not_allowed_is_not_chosen(
    wanted: Wanted, estimate: Predictor
) -> None:
    fit = choose(wanted, estimate)
    assert all(one.candidate.effective_batch == wanted.global_batch for one in fit.tried)
    assert all(one.candidate.length == wanted.length for one in fit.tried)
    assert all(one.candidate.precision == wanted.precision for one in fit.tried)
    if fit.chosen is not None:
        here = fit.chosen.candidate
        assert fit.chosen.estimate.needed_bytes + wanted.margin_bytes <= wanted.capacity_bytes
        assert here.micro_batch <= (wanted.at_most or here.micro_batch)
        assert here.checkpointing in wanted.checkpointing and here.optimizer in wanted.optimizers


@given(wishes, predictors)
def test_few_predictions_are_made_and_none_twice(wanted: Wanted, estimate: Predictor) -> None:
    asked: list[Candidate] = []

    def counting(one: Candidate) -> Estimate:
        asked.append(one)
        return estimate(one)

    fit = choose(wanted, counting)
    rounds = 2 + len(divisors(wanted.on_one_device)).bit_length()
    assert len(asked) == len(set(asked)) == len(fit.tried)
    assert len(asked) <= len(wanted.optimizers) * 3 + 2 * rounds


@given(wishes, predictors)
def test_a_shorter_length_is_the_longest_that_fits_and_only_where_the_own_one_does_not(
    wanted: Wanted, estimate: Predictor
) -> None:
    if wanted.length is None:
        return
    found = choose(replace(wanted, shorter=tuple(range(1, wanted.length))), estimate).chosen
    lengths = [length for length in range(wanted.length, 0, -1) if everything(wanted, estimate, length)]
    if not lengths:
        assert found is None
    elif lengths[0] == wanted.length:
        assert found is not None and found.candidate.length == wanted.length
    else:
        # The whole batch at once can need less than one sample of it; a search for lengths looks at one sample only.
        singles = [length for length in lengths if fits_one_at_a_time(wanted, estimate, length)]
        assert (found.candidate.length if found else None) == (singles[0] if singles else None)


def fits_one_at_a_time(wanted: Wanted, estimate: Predictor, length: int) -> bool:
    return any(
        estimate(
            candidate(wanted, 1, checkpointing=max(wanted.checkpointing), optimizer=name, length=length)
        ).needed_bytes
        <= wanted.allowed_bytes
        for name in wanted.optimizers
    )


def wanted(batch: int = 16, capacity: int = 10_000, **more: object) -> Wanted:
    return Wanted(global_batch=batch, capacity_bytes=capacity, margin_bytes=0, precision="fp16", **more)  # type: ignore[arg-type]


def test_a_batch_that_fits_whole_takes_one_prediction() -> None:
    fit = choose(wanted(), predictor(10, 10, 1))
    assert fit.chosen is not None and fit.chosen.candidate.accumulation == 1
    assert len(fit.tried) == 1


def test_a_larger_micro_batch_with_recomputation_wins_where_small_ones_are_slow() -> None:
    slow_start, no_start = (choose(wanted(capacity=400), predictor(10, 100, 1, launch)) for launch in (100, 0))
    assert slow_start.chosen is not None and slow_start.chosen.candidate.checkpointing
    assert no_start.chosen is not None and not no_start.chosen.candidate.checkpointing


def test_other_optimizers_are_not_asked_for_where_their_state_cannot_be_what_is_short() -> None:
    fit = choose(wanted(capacity=100), predictor(10, 100, 90))
    assert fit.chosen is None
    assert {one.candidate.optimizer for one in fit.tried} == {"adamw"}


def test_where_no_time_is_known_nothing_is_computed_twice_without_need() -> None:
    def timeless(one: Candidate) -> Estimate:
        return Estimate(predictor(10, 100, 1)(one).needed_bytes)

    found = choose(wanted(capacity=400), timeless).chosen
    assert found is not None and not found.candidate.checkpointing


def test_neighbours_are_looked_at_beside_the_choice() -> None:
    estimate = predictor(10, 100, 1)
    fit = beside(choose(wanted(capacity=1_000), estimate), estimate)
    assert fit.chosen is not None
    here = fit.chosen.candidate
    others = {one.candidate for one in fit.tried} - {here}
    assert {one.micro_batch for one in others if not one.checkpointing} >= {here.micro_batch // 2, here.micro_batch * 2}
    assert any(one.checkpointing for one in others) and any(one.optimizer == "adamw-8bit" for one in others)


@pytest.mark.parametrize(("batch", "world", "hint"), [(10, 4, "8 or 12"), (3, 4, "4"), (0, 1, "from 1 up")])
def test_a_batch_that_devices_cannot_share_is_refused(batch: int, world: int, hint: str) -> None:
    with pytest.raises(BadInput, match=hint):
        choose(wanted(batch, world=world), predictor(1, 1, 1))


@given(st.integers(1, 5000))
def test_divisors_are_all_and_ascending(number: int) -> None:
    assert divisors(number) == tuple(n for n in range(1, number + 1) if number % n == 0)
