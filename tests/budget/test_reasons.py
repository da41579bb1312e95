"""Why a candidate was not chosen, and what an error says where nothing fits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outlast.budget import Candidate, Estimate, Fit, Tried, Wanted, gpu_named
from outlast.budget.reasons import refusal, relative_time, why_not

GIB = 1 << 30
T4 = gpu_named("T4")
WANTED = Wanted(16, T4.memory_bytes, GIB, "fp16", length=512)
HERE = Candidate(8, 2, 1, "fp16", False, "adamw", 512)


def tried(needed: float, seconds: float = 1.0, **change: object) -> Tried:
    found = Estimate(int(needed * GIB), seconds, 0.0)
    return Tried(replace(HERE, **change), found, found.needed_bytes <= WANTED.allowed_bytes)  # type: ignore[arg-type]


CHOSEN = tried(8)
FIT = Fit(WANTED, CHOSEN, (CHOSEN,))


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (CHOSEN, "chosen"),
        (tried(20, micro_batch=16, accumulation=1), "6.9 GB too much"),
        (tried(4, optimizer="adamw-8bit"), "changes training without need"),
        (tried(4, length=256), "shorter than need be"),
        (tried(4, checkpointing=True), "computes the forward twice"),
        (tried(4, micro_batch=4, accumulation=4), "smaller micro-batches"),
        (tried(4, checkpointing=True, micro_batch=16, accumulation=1), "computes the forward twice"),
    ],
)
def test_every_other_candidate_has_its_reason(one: Tried, says: str) -> None:
    assert why_not(one, FIT) == says


def test_more_at_once_than_a_preset_allows_is_said_to_be() -> None:
    fit = replace(FIT, wanted=replace(WANTED, at_most=8))
    assert why_not(tried(9, micro_batch=16, accumulation=1), fit) == "more than 8 at once: not allowed"


def test_times_are_compared_within_one_optimizer_only() -> None:
    slower = tried(4, 1.5, micro_batch=4, accumulation=4)
    assert relative_time(slower, FIT) == pytest.approx(3.0)
    assert relative_time(tried(4, optimizer="adafactor"), FIT) is None


def test_the_error_says_what_is_short_and_everything_that_would_help() -> None:
    least = tried(20, micro_batch=1, accumulation=16, checkpointing=True, precision="fp32")
    wanted = replace(WANTED, precision="fp32", optimizers=("adamw",))
    error = refusal(Fit(wanted, None, (tried(40), least)), T4, "bert-huge")
    assert "needs 21.5 GB at least (micro-batch 1, fp32, adamw, activation checkpointing, length 512)" in error.message
    assert error.message.endswith("6.9 GB too much")
    for way in ("--precision fp16", "--optimizer", "--allow-shorter", "--lora 16", "a GPU such as L4"):
        assert way in error.hint


def test_a_smaller_margin_is_named_where_it_would_do() -> None:
    least = tried(14)
    error = refusal(Fit(WANTED, None, (least,)), T4, "x", can_shorten=False, can_adapt=False)
    assert "a margin below 600.8 MB" in error.hint and "--lora" not in error.hint and "--allow" not in error.hint


def test_where_no_gpu_holds_it_a_smaller_model_is_the_only_way() -> None:
    error = refusal(Fit(WANTED, None, (tried(500),)), T4, "x", can_shorten=False, can_adapt=False)
    assert error.hint == "a smaller model: no GPU of the table holds it"
