"""Times and noisy tokens are drawn as they are said to be."""

from __future__ import annotations

import pytest
import torch
from duo import noise
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats


def test_the_schedule_goes_from_all_to_a_thousandth() -> None:
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert noise.alpha(t).tolist() == pytest.approx([1.0, 0.5005, 0.001])
    assert noise.sigma(t).tolist() == pytest.approx([0.0, 0.692147, 6.907755], abs=1e-6)
    assert noise.dalpha(t).tolist() == pytest.approx([-0.999] * 3)


def test_what_is_lost_keeps_its_digits_where_little_is() -> None:
    t = torch.tensor([1e-6])
    assert noise.lost(t).item() == pytest.approx(0.999e-6, rel=1e-6)
    assert noise.sigma(t).item() == pytest.approx(0.999e-6, rel=1e-5)


@given(batch=st.integers(1, 50), seed=st.integers(0, 1000), eps=st.sampled_from([1e-3, 0.1]))
def test_antithetic_times_are_one_step_apart_around_the_circle(batch, seed, eps) -> None:
    t = noise.draw_times(batch, generator=torch.Generator().manual_seed(seed), eps=eps)
    assert eps <= t.min()
    assert t.max() <= 1.0
    round_ = ((t - eps) / (1 - eps)).sort().values
    gaps = torch.diff(torch.cat((round_, round_[:1] + 1)))
    torch.testing.assert_close(gaps, torch.full_like(gaps, 1 / batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("antithetic", [True, False])
def test_each_time_alone_is_uniform(antithetic) -> None:
    made = torch.Generator().manual_seed(0)
    t = torch.stack([noise.draw_times(4, generator=made, antithetic=antithetic) for _ in range(1000)])
    for sample in range(4):
        assert stats.kstest(t[:, sample].double().numpy(), stats.uniform(1e-3, 0.999).cdf).pvalue > 1e-3


def test_a_token_stays_or_is_any_token_also_the_same() -> None:
    vocab, alpha = 5, torch.tensor([0.0, 0.3, 1.0])
    x = torch.full((3, 20_000), 2)
    z = noise.corrupt(x, alpha, vocab, generator=torch.Generator().manual_seed(6))
    for row, a in zip(z, alpha.tolist(), strict=True):
        seen = torch.bincount(row, minlength=vocab).numpy()
        wanted = [a * (token == 2) + (1 - a) / vocab for token in range(vocab)]
        if a == 1.0:
            assert seen.tolist() == [0, 0, 20_000, 0, 0]
        else:
            assert stats.chisquare(seen, [20_000 * share for share in wanted]).pvalue > 1e-3


def test_the_same_generator_gives_the_same_noise() -> None:
    x = torch.arange(50)[None]
    first, second = (
        noise.corrupt(x, torch.tensor([0.5]), 99, generator=torch.Generator().manual_seed(1)) for _ in range(2)
    )
    assert torch.equal(first, second)
