"""At which steps a run saves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.budget.schedule import Every, save_steps, steps_per_epoch
from outlast.errors import BadInput


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1000", Every(1000)), ("0.1", Every(0.1)), ("500 steps", Every(500)), ("1epoch", Every(1, "epochs")),
     ("2 Epochs", Every(2, "epochs")), ("30min", Every(1800, "seconds")), ("1.5h", Every(5400, "seconds")),
     ("45 s", Every(45, "seconds"))],
)  # fmt: skip
def test_how_often_is_read(text: str, expected: Every) -> None:
    assert Every.parse(text) == expected


@pytest.mark.parametrize("text", ["", "0", "often", "-5", "5 days", "1e3"])
def test_what_is_no_interval_is_said_to_be_none(text: str) -> None:
    with pytest.raises(BadInput, match="cannot save every"):
        Every.parse(text)


def test_a_part_of_the_run_is_rounded_up_as_the_trainer_does() -> None:
    assert Every(0.3).steps(101, None, None) == 31


def test_epochs_and_seconds_need_to_be_known() -> None:
    assert Every(1, "epochs").steps(1000, 250, None) == 250
    assert Every(600, "seconds").steps(1000, None, 1.5) == 400
    with pytest.raises(BadInput, match="by epochs"):
        Every(1, "epochs").steps(1000, None, 1.0)
    with pytest.raises(BadInput, match="by the clock"):
        Every(60, "seconds").steps(1000, 250, None)


def test_the_last_step_is_saved_too_where_the_framework_does_so() -> None:
    assert save_steps(105, 50, at_end=True) == (50, 100, 105)
    assert save_steps(105, 50, at_end=False) == (50, 100)
    assert save_steps(100, 50, at_end=True) == (50, 100)


def test_a_run_that_goes_on_saves_at_the_same_steps_as_before() -> None:
    assert save_steps(105, 50, at_end=True, start=50) == (100, 105)
    assert save_steps(105, 50, at_end=True, start=105) == ()


@given(st.integers(1, 5000), st.integers(1, 6000), st.booleans(), st.integers(0, 5000))
def test_the_steps_are_multiples_and_the_end(total: int, every: int, at_end: bool, start: int) -> None:
    steps = save_steps(total, every, at_end=at_end, start=start)
    assert list(steps) == sorted(set(steps))
    assert all(start < step <= total and (step % every == 0 or (at_end and step == total)) for step in steps)


def test_an_epochs_steps_are_counted_as_the_trainer_counts_them() -> None:
    assert steps_per_epoch(1001, 4) == 251
    assert steps_per_epoch(1001, 4, accumulation=4) == 63
    assert steps_per_epoch(1001, 4, devices=2) == 126
    assert steps_per_epoch(3, 8, accumulation=4) == 1
