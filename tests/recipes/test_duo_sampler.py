"""The sampler draws what the model says: from the posterior in each step, from the text's own distribution in all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from duo import noise
from duo.sampler import draw, posterior, probabilities, sample, step
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.overrides import TorchFunctionMode

from outlast.errors import BadInput


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Knows:
    """A model that knows the distribution of the texts, and says of each token what the others tell of it.

    That is the best a model can do (MATH.md, section 4): its own noisy token is left out, the posterior brings it in.
    """

    def __init__(self, joint: np.ndarray) -> None:
        self.joint, self.vocab = torch.tensor(joint), joint.shape[0]

    def __call__(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        alpha = torch.exp(-sigma[0].double())
        seen = (
            alpha * torch.eye(self.vocab, dtype=torch.float64)[z] + (1 - alpha) / self.vocab
        )  # [text, place, clean token]
        one, two, three = seen.unbind(1)
        p = torch.stack(
            [
                torch.einsum("abc,nb,nc->na", self.joint, two, three),
                torch.einsum("abc,na,nc->nb", self.joint, one, three),
                torch.einsum("abc,na,nb->nc", self.joint, one, two),
            ],
            dim=1,
        )
        return (p / p.sum(-1, keepdim=True)).log()


def joint(vocab: int = 4) -> np.ndarray:
    """A distribution of three tokens that hang together: far from the product of its margins."""
    found = np.random.default_rng(0).dirichlet(np.full(vocab**3, 0.6)).reshape([vocab] * 3)
    found = 0.9 * found + 0.1 / vocab**3
    return found / found.sum()


def misfit(model: Knows, texts: int, steps: int, wanted: np.ndarray, **options) -> float:
    """P value of the drawn texts under the wanted distribution."""
    drawn = sample(model, texts, 3, steps, generator=seeded(1), noise_removal="ancestral", **options)
    v = model.vocab
    counts = torch.bincount(drawn @ torch.tensor([v * v, v, 1]), minlength=v**3).numpy()
    return stats.chisquare(counts, texts * wanted.ravel()).pvalue


def test_many_steps_draw_the_texts_as_often_as_they_are() -> None:
    assert misfit(Knows(joint()), 10_000, 100, joint()) > 0.01


def test_one_step_does_not_know_what_hangs_together() -> None:
    product = np.einsum("a,b,c->abc", joint().sum((1, 2)), joint().sum((0, 2)), joint().sum((0, 1)))
    assert misfit(Knows(joint()), 10_000, 1, joint()) < 1e-6
    assert misfit(Knows(joint()), 10_000, 1, product) > 0.01


@pytest.mark.parametrize("steps", [1, 2, 17])
def test_a_single_token_is_exact_in_any_number_of_steps(steps) -> None:
    share = np.array([0.5, 0.3, 0.15, 0.04, 0.01])

    class Says:
        vocab = 5

        def __call__(self, z, sigma):
            return torch.tensor(share).log().expand(*z.shape, 5)

    drawn = sample(Says(), 1, 40_000, steps, generator=seeded(2), noise_removal="ancestral")
    assert stats.chisquare(torch.bincount(drawn[0], minlength=5).numpy(), 40_000 * share).pvalue > 0.01


@given(vocab=st.integers(2, 8), s=st.floats(0.0, 0.99), gap=st.floats(1e-4, 1.0), seed=st.integers(0, 100))
def test_the_posterior_is_bayes_rule_on_the_chains_matrices(vocab, s, gap, seed) -> None:
    t = min(1.0, s + gap)
    alpha_s, alpha_t = 1 - (1 - noise.EPS) * s, 1 - (1 - noise.EPS) * t
    p = np.random.default_rng(seed).dirichlet(np.ones(vocab))
    same, flat = np.eye(vocab), np.full((vocab, vocab), 1 / vocab)
    ratio = alpha_t / alpha_s
    onward = ratio * same + (1 - ratio) * flat
    at_s = p @ (alpha_s * same + (1 - alpha_s) * flat)
    wanted = (onward * at_s[:, None]).T  # [at t, at s]
    wanted /= wanted.sum(1, keepdims=True)
    found = posterior(torch.tensor(p).expand(vocab, vocab), torch.arange(vocab), alpha_s, alpha_t)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("s", "t"), [(0.5, 0.6), (0.0, 0.3), (0.1, 1.0), (0.9, 0.95)])
def test_a_step_draws_from_the_posterior(s, t, dtype) -> None:
    p, z, texts = torch.tensor([0.6, 0.25, 0.1, 0.05, 0.0], dtype=torch.float64), torch.tensor(1), 50_000
    s, t = torch.tensor(s, dtype=torch.float64), torch.tensor(t, dtype=torch.float64)
    wanted = posterior(p, z, noise.alpha(s), noise.alpha(t)).numpy()
    drawn = step(p.log().expand(1, texts, 5), z.expand(1, texts), s, t, generator=seeded(3), dtype=dtype)
    counts = torch.bincount(drawn[0], minlength=5).numpy()
    assert counts[wanted < 1e-9].sum() == 0
    assert stats.chisquare(counts[wanted >= 1e-9], texts * wanted[wanted >= 1e-9]).pvalue > 0.005


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gumbel_draws_as_often_as_it_should(dtype) -> None:
    share = torch.tensor([0.7, 0.2, 0.09, 0.01, 0.0], dtype=dtype)
    counts = torch.bincount(draw(share.expand(50_000, 5), seeded(4)), minlength=5).numpy()
    assert counts[4] == 0
    assert stats.chisquare(counts[:4], 50_000 * share[:4].double().numpy()).pvalue > 0.01


class Types(TorchFunctionMode):
    """Notes the types of random numbers and of probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = set()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if getattr(function, "__name__", "") in ("rand", "softmax"):
            self.seen.add((function.__name__, found.dtype))
        return found


@pytest.mark.parametrize(("use_float64", "dtype"), [(True, torch.float64), (False, torch.float32)])
def test_random_numbers_and_probabilities_are_of_the_type_asked_for(use_float64, dtype) -> None:
    """A random number of float32 has 24 bits, so that what is rarer than 2^-24 is not drawn rightly."""
    with Types() as types:
        sample(Certain(), 2, 11, 5, generator=seeded(), noise_removal="ancestral", use_float64=use_float64)
    assert types.seen == {("rand", dtype), ("softmax", dtype)}


def test_a_random_number_of_zero_does_not_draw_what_is_all_but_impossible() -> None:
    class Zeros(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            return found.index_fill_(1, torch.tensor([1]), 0.0) if function is torch.rand else found

    share = torch.tensor([1.0, 1e-30]).expand(100, 2)
    with Zeros():
        assert (draw(share, seeded()) == 0).all()


def test_a_nucleus_is_the_fewest_tokens_that_have_enough() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    kept = {size: probabilities(logits, size)[0].tolist() for size in (0.4, 0.5, 0.74, 0.8, 1.0)}
    assert kept[0.4] == [0, 1, 0, 0]
    assert kept[0.74] == pytest.approx([0, 2 / 3, 0, 1 / 3])
    assert kept[0.8] == pytest.approx([0, 0.5 / 0.9, 0.15 / 0.9, 0.25 / 0.9])
    assert kept[1.0] == pytest.approx([0.1, 0.5, 0.15, 0.25])


@given(size=st.floats(0.01, 1.0), seed=st.integers(0, 100))
def test_any_nucleus_is_a_distribution_of_the_likeliest(size, seed) -> None:
    logits = torch.randn(3, 30, generator=seeded(seed))
    whole, kept = probabilities(logits).numpy(), probabilities(logits, size).numpy()
    np.testing.assert_allclose(kept.sum(-1), 1.0)
    for p, q in zip(whole, kept, strict=True):
        assert p[q > 0].sum() >= size - 1e-9
        assert p[q > 0].sum() - p[q > 0].min() < size + 1e-9
        assert p[q > 0].min() >= p[q == 0].max(initial=0.0)


class Certain:
    """Sure of one text."""

    vocab = 11

    def __call__(self, z, sigma):
        return 50.0 * torch.nn.functional.one_hot(torch.arange(z.shape[1]) % 11, 11).expand(len(z), -1, -1)


@pytest.mark.parametrize("noise_removal", ["greedy", "ancestral"])
@pytest.mark.parametrize("use_float64", [True, False])
def test_a_certain_model_gives_its_text(noise_removal, use_float64) -> None:
    told = []
    drawn = sample(
        Certain(), 3, 20, 30, generator=seeded(), noise_removal=noise_removal, use_float64=use_float64,
        progress=lambda done, of: told.append((done, of)),
    )  # fmt: skip
    assert torch.equal(drawn, (torch.arange(20) % 11).expand(3, -1))
    assert told == [(done, 30) for done in range(1, 31)]


def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    first, again, other = (
        sample(Knows(joint()), 50, 3, 5, generator=seeded(seed), noise_removal="ancestral") for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_greedy_takes_the_likeliest_of_each_position() -> None:
    class Says:
        vocab = 3

        def __call__(self, z, sigma):
            return torch.tensor([0.2, 0.5, 0.3]).log().expand(*z.shape, 3)

    assert (sample(Says(), 2, 40, 3, generator=seeded()) == 1).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"steps": 0}, "sampling.steps: 0"),
        ({"batch": 0}, "texts: 0"),
        ({"length": -1}, "tokens of a text: -1"),
        ({"noise_removal": "none"}, "'none'"),
        ({"p_nucleus": 0.0}, "p_nucleus is 0.0"),
        ({"p_nucleus": 1.5}, "p_nucleus is 1.5"),
    ],
)
def test_what_cannot_be_sampled_is_refused(change, says) -> None:
    with pytest.raises(BadInput, match=says):
        sample(Certain(), **{"batch": 1, "length": 2, "steps": 3, **change})
