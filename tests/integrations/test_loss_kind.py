"""What a loss is a mean of, told from two samples alone and together."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from outlast.integrations.transformers.loss_kind import NEXT_TOKENS, SAMPLES, SUM, TOKENS, Answer, decide
from outlast.train import split

LOSS = st.floats(0.01, 20)
COUNT = st.integers(2, 4096)


def weights(first: int, second: int) -> dict[str, tuple[float, float]]:
    tokens, shifted = split.shares([first, second]), split.shares([first - 1, second - 1])
    return {SUM: (1, 1), SAMPLES: (0.5, 0.5), TOKENS: (tokens[0], tokens[1]), NEXT_TOKENS: (shifted[0], shifted[1])}


@given(LOSS, LOSS, COUNT, COUNT, st.sampled_from([SUM, SAMPLES, TOKENS, NEXT_TOKENS]), st.floats(-1e-7, 1e-7))
def test_what_is_taken_for_certain_is_right(a: float, b: float, m: int, n: int, kind: str, noise: float) -> None:
    known = weights(m, n)
    together = (known[kind][0] * a + known[kind][1] * b) * (1 + noise)
    found = decide((a, b), together, known)
    assume(found is not None)
    assert found is not None
    if found.is_certain:
        assert found.kind == kind
    else:
        assert known[found.kind] == pytest.approx(known[kind])


@given(LOSS, st.floats(0.3, 0.9), st.sampled_from([SUM, SAMPLES, TOKENS, NEXT_TOKENS]))
def test_samples_of_different_lengths_and_losses_tell(a: float, part: float, kind: str) -> None:
    known = weights(12, 3)
    b = a * part
    assert decide((a, b), known[kind][0] * a + known[kind][1] * b, known) == Answer(kind, True)


@given(LOSS, COUNT)
def test_samples_of_one_length_do_not_tell_tokens_from_samples_but_a_sum_from_a_mean(a: float, count: int) -> None:
    known = weights(count, count)
    assert decide((a, 2 * a), 1.5 * a, known) == Answer(SAMPLES, False)
    assert decide((a, 2 * a), 3 * a, known) == Answer(SUM, True)


@given(LOSS)
def test_a_loss_that_compares_samples_is_none_of_them(together: float) -> None:
    assert decide((0.0, 0.0), together, weights(5, 3)) == Answer("none", True)


def test_what_is_no_number_tells_nothing() -> None:
    assert decide((math.nan, 1.0), 1.0, weights(5, 3)) is None
