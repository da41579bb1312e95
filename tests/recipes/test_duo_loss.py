"""The loss: nothing for a perfect model, the divergence of the two chains for any other, the same in any chunks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from duo import noise
from duo.loss import naive_loss, token_loss
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.budget.replay import counted_peak
from outlast.budget.trace import Recorder
from outlast.errors import BadInput

TIMES = st.floats(1e-3, 1.0)
LOSSES = {
    "chunked": lambda *given: token_loss(*given, precision="float64"),
    "naive": naive_loss,
}


def one_token(p: np.ndarray, x: int, z: int, t: float):
    """Arguments of a loss at one position, in float64."""
    logits = torch.log(torch.tensor(p, dtype=torch.float64))[None, None]
    return logits, torch.tensor([[x]]), torch.tensor([[z]]), torch.tensor([t], dtype=torch.float64), len(p)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@given(vocab=st.integers(2, 40), t=TIMES, data=st.data())
def test_a_model_that_knows_the_clean_token_loses_nothing(loss, vocab, t, data) -> None:
    x, z = data.draw(st.integers(0, vocab - 1)), data.draw(st.integers(0, vocab - 1))
    sure = np.full(vocab, 0.0)
    sure[x] = 1.0
    with np.errstate(divide="ignore"):
        found = loss(*one_token(sure, x, z, t)).item()
    assert abs(found) < 1e-7


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@given(vocab=st.integers(2, 40), t=TIMES, data=st.data())
def test_any_other_model_loses_something(loss, vocab, t, data) -> None:
    x, z = data.draw(st.integers(0, vocab - 1)), data.draw(st.integers(0, vocab - 1))
    shares = np.array(data.draw(st.lists(st.floats(0.01, 1.0), min_size=vocab, max_size=vocab)))
    assert loss(*one_token(shares / shares.sum(), x, z, t)).item() > 0
    assert loss(*one_token(np.full(vocab, 1 / vocab), x, z, t)).item() > 0


def chain_divergence(p: np.ndarray, x: int, times: np.ndarray) -> float:
    """Discrete-time KL of the forward chain's posterior and the model's reverse chain, summed over all steps.

    From the chain's definition alone: a step from s to t is the matrix ratio I + (1 - ratio) / V; its reverse, given
    what the clean token is or is thought to be, is Bayes' rule. Nothing of the loss's formula is used.

    Args:
        p: what the model thinks of the clean token when it sees z, by rows z.
        x: the clean token.
        times: from the least to the largest.
    """
    vocab = len(p)
    same, flat = np.eye(vocab), np.full((vocab, vocab), 1 / vocab)
    kept = 1 - (1 - 1e-3) * times
    total = 0.0
    for block in np.array_split(np.arange(len(times) - 1), 20):  # in blocks: the arrays are (steps, V, V)
        at_s, at_t = kept[block][:, None, None], kept[block + 1][:, None, None]
        ratio = at_t / at_s
        onward = ratio * same + (1 - ratio) * flat  # [step, from s, to t]
        until_s = at_s * same + (1 - at_s) * flat  # [step, clean, at s]
        until_t = at_t * same + (1 - at_t) * flat

        def backward(clean: np.ndarray, onward=onward, until_s=until_s) -> np.ndarray:
            """[step, at t, at s], given the clean token's distribution for each token at t."""
            at_s_given = np.einsum("zx,nxs->nzs", clean, until_s)
            joint = np.swapaxes(onward, 1, 2) * at_s_given
            return joint / joint.sum(-1, keepdims=True)

        truth, model = backward(np.tile(same[x], (vocab, 1))), backward(p)
        divergence = (truth * np.log(truth / model)).sum(-1)
        total += (until_t[:, x] * divergence).sum()
    return total


def mean_loss(loss, p: np.ndarray, x: int, low: float) -> float:
    """Integral over time of the expected loss, by Gauss-Legendre in log t."""
    nodes, weights = np.polynomial.legendre.leggauss(200)
    span = np.log(1.0 / low)
    t = torch.tensor(np.exp(np.log(low) + span * (nodes + 1) / 2))
    vocab = len(p)
    z = torch.arange(vocab).repeat(len(t), 1)
    found = loss(torch.tensor(np.log(p)).expand(len(t), -1, -1), torch.full_like(z, x), z, t, vocab)
    alpha = noise.alpha(t)[:, None]
    seen = alpha * (z == x) + (1 - alpha) / vocab
    inner = (found * seen).sum(1) * t * span / 2
    return float((inner.numpy() * weights).sum())


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("x", [0, 3])
def test_it_is_the_divergence_of_the_two_chains_in_many_small_steps(loss, x) -> None:
    p = np.random.default_rng(x).dirichlet(np.ones(5), size=5)
    low, continuous = 1e-3, mean_loss(loss, p, x, 1e-3)
    off = {n: chain_divergence(p, x, np.linspace(low, 1.0, n + 1)) / continuous - 1 for n in (1_000, 10_000)}
    assert abs(off[10_000]) < 1e-3
    assert abs(off[10_000]) < abs(off[1_000]) / 5  # and it goes on: the first order of the step is what is left


@settings(max_examples=30)
@given(share=st.lists(st.floats(0.02, 1.0), min_size=2, max_size=9))
def test_of_a_single_token_the_best_model_pays_its_entropy(share) -> None:
    prior = np.array(share) / sum(share)
    same = np.tile(prior, (len(prior), 1))
    paid = sum(prior[x] * mean_loss(naive_loss, same, x, 1e-7) for x in range(len(prior)))
    assert paid == pytest.approx(-(prior * np.log(prior)).sum(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_the_best_model_says_of_a_token_what_the_others_tell_of_it(t) -> None:
    """Over all texts of two dependent tokens and all their noisy forms: there the expected loss is stationary."""
    vocab, time = 3, torch.tensor([t], dtype=torch.float64)
    texts = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(9))).view(3, 3)
    alpha = noise.alpha(time)
    seen = alpha * torch.eye(vocab, dtype=torch.float64) + (1 - alpha) / vocab  # [clean, noisy]
    x, z = (each.reshape(-1, 2) for each in torch.cartesian_prod(*[torch.arange(vocab)] * 4).split(2, dim=1))
    often = texts[x[:, 0], x[:, 1]] * seen[x, z].prod(1)
    by_other = [(texts @ seen).T, (texts.T @ seen).T]  # [the other noisy token, this clean one]
    with_own = [by_other[0][None] * seen.T[:, None], by_other[1][None] * seen.T[:, None]]  # [own, other, clean]

    def expected(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        logits = torch.stack((first[z[:, 0], z[:, 1]], second[z[:, 1], z[:, 0]]), 1)
        return (token_loss(logits, x, z, time.expand(len(x)), vocab, precision="float64").sum(1) * often).sum()

    best = [each.log().expand(vocab, -1, -1).clone().requires_grad_() for each in by_other]
    loss = expected(*best)
    for gradient in torch.autograd.grad(loss, best):
        assert gradient.abs().max() < 1e-12
    assert loss < expected(*(each.log() for each in with_own))


def on_a_batch(loss, vocab: int, width: int = 16, batch: int = 3, length: int = 7, bias: bool = True, seed: int = 0):
    """Loss of each token, and the gradients of hidden states, weight and bias, in float64."""
    made = torch.Generator().manual_seed(seed)
    numbers = {"generator": made, "dtype": torch.float64}
    hidden = torch.randn(batch, length, width, **numbers).requires_grad_()
    weight = torch.randn(vocab, width, **numbers).requires_grad_()
    shift = torch.randn(vocab, **numbers).requires_grad_() if bias else None
    x = torch.randint(vocab, (batch, length), generator=made)
    t = noise.draw_times(batch, generator=made).double()
    z = noise.corrupt(x, noise.alpha(t), vocab, generator=made)
    z[0, 0] = x[0, 0]
    found = loss(hidden, weight, shift, x, z, t, vocab)
    inputs = [hidden, weight] + ([shift] if bias else [])
    # Each token has its own share, so that a gradient at the wrong row would be seen.
    return found, torch.autograd.grad((found * torch.rand(found.shape, **numbers)).sum(), inputs)


def naive(hidden, weight, bias, x, z, t, vocab):
    return naive_loss(torch.nn.functional.linear(hidden, weight, bias), x, z, t, vocab)


@pytest.mark.parametrize("rows", [1, 4, 20, 21, 1000])
@pytest.mark.parametrize("bias", [True, False])
def test_in_chunks_the_loss_and_its_gradients_are_the_naive_ones(rows, bias) -> None:
    def chunked(hidden, weight, shift, *rest):
        return token_loss((hidden, weight, shift), *rest, precision="float64", chunk_bytes=rows * 101 * 8)

    found, gradients = on_a_batch(chunked, 101, bias=bias)
    wanted, wanted_gradients = on_a_batch(naive, 101, bias=bias)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    for gradient, other in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-10)


def test_logits_give_what_hidden_states_give() -> None:
    def from_logits(hidden, weight, bias, *rest):
        logits = torch.nn.functional.linear(hidden, weight, bias)
        before = logits.detach().clone()
        found = token_loss(logits, *rest, precision="float64", chunk_bytes=4 * 101 * 8)
        assert torch.equal(logits, before)  # they are the caller's
        return found

    found, gradients = on_a_batch(from_logits, 101)
    wanted, wanted_gradients = on_a_batch(naive, 101)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    for gradient, other in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-10)


def test_a_second_backward_pass_gives_the_same_again() -> None:
    x = torch.tensor([[1, 2]])
    logits = torch.randn(1, 2, 11, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = token_loss(logits, x, x, torch.tensor([0.5]), 11).sum()
    first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, logits)[0], first)


def test_float32_and_bfloat16_agree_with_float64_as_well_as_they_can() -> None:
    made = torch.Generator().manual_seed(3)
    vocab, t = 5_000, torch.tensor([1e-3, 0.1, 0.6, 1.0])
    logits = 3 * torch.randn(4, 64, vocab, generator=made)
    x = torch.randint(vocab, (4, 64), generator=made)
    z = noise.corrupt(x, torch.full((4,), 0.5), vocab, generator=made)
    exact = naive_loss(logits.double(), x, z, t.double(), vocab)
    single, half = (token_loss(logits, x, z, t, vocab, precision=name) for name in ("float32", "bfloat16"))
    assert single.dtype == half.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(half.double(), exact, rtol=5e-2, atol=5e-2)


@pytest.mark.parametrize("rows", [5, 1000])
def test_in_bfloat16_the_gradient_still_points_the_right_way_in_any_chunks(rows) -> None:
    def low(hidden, weight, bias, x, z, t, vocab):
        source = hidden.float(), weight.float(), bias.float()
        return token_loss(source, x, z, t.float(), vocab, precision="bf16", chunk_bytes=rows * 2 * 101).double()

    _, gradients = on_a_batch(low, 101)
    _, wanted = on_a_batch(naive, 101)
    for gradient, other in zip(gradients, wanted, strict=True):
        assert torch.nn.functional.cosine_similarity(gradient.flatten(), other.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("t", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize("size", [1.0, 300.0])
def test_no_time_and_no_certainty_makes_it_infinite(t, size) -> None:
    made = torch.Generator().manual_seed(4)
    logits = (size * torch.randn(1, 40, 1000, generator=made)).requires_grad_()
    x = torch.randint(1000, (1, 40), generator=made)
    z = noise.corrupt(x, torch.tensor([0.5]), 1000, generator=made)
    z[0, :5], x[0, :5] = logits[0, :5].argmax(-1), logits[0, :5].argmin(-1)
    loss = token_loss(logits, x, z, torch.tensor([t]), 1000)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


def test_under_autocast_the_product_is_in_its_type_and_gradients_in_the_weights() -> None:
    def low(hidden, weight, bias, x, z, t, vocab):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return token_loss((hidden.float(), weight.float(), bias.float()), x, z, t.float(), vocab).double()

    found, gradients = on_a_batch(low, 101)
    wanted, wanted_gradients = on_a_batch(naive, 101)
    assert found.mean().item() == pytest.approx(wanted.mean().item(), rel=0.05)
    for gradient, other in zip(gradients, wanted_gradients, strict=True):
        assert torch.nn.functional.cosine_similarity(gradient.flatten(), other.flatten(), dim=0) > 0.99


def peak_bytes(loss) -> int:
    """Most bytes alive at once in forward and backward, all of them counted, at GPT-2's vocabulary."""
    vocab, width = 50_257, 32
    weight = torch.zeros(vocab, width).normal_(generator=torch.Generator().manual_seed(0)).requires_grad_()
    hidden = torch.ones(1, 48, width, requires_grad=True)
    x = torch.arange(48)[None]
    recorder = Recorder()
    with recorder:
        recorder.start()
        found = loss(hidden, weight, None, x, x.flip(1), torch.tensor([0.5]), vocab)
        found.mean().backward()
    return counted_peak(recorder.finish().events)


def test_in_chunks_the_peak_is_under_half_of_the_naive_one() -> None:
    def chunked(hidden, weight, bias, *rest):
        return token_loss((hidden, weight, bias), *rest, chunk_bytes=8 * 50_257 * 4)

    assert peak_bytes(chunked) < peak_bytes(naive) / 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"precision": "float16"}, "float16"),
        ({"vocab": 12}, "do not belong together"),
        ({"t": torch.tensor([0.5, 0.5])}, "do not belong together"),
        ({"z": torch.zeros(1, 3, dtype=torch.long)}, "do not belong together"),
    ],
)
def test_what_cannot_be_is_refused(change, says) -> None:
    right = {"source": torch.zeros(1, 2, 11), "x": torch.zeros(1, 2, dtype=torch.long),
             "z": torch.zeros(1, 2, dtype=torch.long), "t": torch.tensor([0.5]), "vocab": 11}  # fmt: skip
    with pytest.raises(BadInput, match=says):
        token_loss(**{**right, **change})
