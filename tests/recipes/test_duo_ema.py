"""The mean of weights is exactly that, goes into a checkpoint and out of it, and into the model and out of it."""

from __future__ import annotations

import pytest
import torch
from duo.ema import Ema

from outlast.errors import BadInput


def model(seed: int = 0) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 2, dtype=torch.float64)


def walk(linear: torch.nn.Linear, steps: int, seed: int = 1) -> list[torch.Tensor]:
    """Random weights, step by step."""
    made = torch.Generator().manual_seed(seed)
    return [torch.randn(linear.weight.shape, generator=made, dtype=torch.float64) for _ in range(steps)]


def follow(linear: torch.nn.Linear, mean: Ema, weights: list[torch.Tensor]) -> None:
    for weight in weights:
        with torch.no_grad():
            linear.weight.copy_(weight)
        mean.update()


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_it_is_the_sum_that_defines_it(decay) -> None:
    linear = model()
    start, weights = linear.weight.detach().clone(), walk(linear, 20)
    mean = Ema(linear.parameters(), decay, warmup=False)
    follow(linear, mean, weights)
    wanted = decay**20 * start + sum((1 - decay) * decay ** (19 - i) * weight for i, weight in enumerate(weights))
    torch.testing.assert_close(mean.state_dict()["means"][0], wanted)


def test_in_a_short_run_the_random_start_is_forgotten() -> None:
    linear = model()
    with torch.no_grad():
        linear.weight.fill_(1000.0)
    mean = Ema(linear.parameters(), 0.9999)
    follow(linear, mean, [torch.ones_like(linear.weight)] * 100)
    assert mean.state_dict()["means"][0].max() < 1.01


def test_goes_on_bit_for_bit_from_its_state(tmp_path) -> None:
    weights = walk(model(), 30)
    linear = model()
    whole = Ema(linear.parameters(), 0.99)
    follow(linear, whole, weights)
    linear = model()
    first = Ema(linear.parameters(), 0.99)
    follow(linear, first, weights[:13])
    torch.save(first.state_dict(), tmp_path / "state")
    linear = model(seed=9)
    second = Ema(linear.parameters(), 0.99)
    second.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    follow(linear, second, weights[13:])
    assert torch.equal(second.state_dict()["means"][0], whole.state_dict()["means"][0])
    assert second.updates == 30


def test_inside_the_model_has_the_means_and_after_it_its_own_weights_also_after_an_error() -> None:
    linear = model()
    mean = Ema(linear.parameters(), 0.5)
    follow(linear, mean, walk(linear, 5))
    own, means = linear.weight.detach().clone(), mean.state_dict()["means"][0].clone()
    with pytest.raises(ZeroDivisionError), mean.swapped():
        assert torch.equal(linear.weight, means)
        raise ZeroDivisionError
    assert torch.equal(linear.weight, own)
    assert torch.equal(mean.state_dict()["means"][0], means)


def test_an_optimizer_goes_on_after_a_swap() -> None:
    linear = model()
    mean, optimizer = Ema(linear.parameters(), 0.5), torch.optim.SGD(linear.parameters(), lr=0.1)
    with mean.swapped():
        linear(torch.ones(1, 3, dtype=torch.float64))
    before = linear.weight.detach().clone()
    linear(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(linear.weight.detach(), before - 0.1)


@pytest.mark.parametrize("what", ["update", "state_dict"])
def test_no_checkpoint_is_made_of_a_model_that_has_the_means(what) -> None:
    mean = Ema(model().parameters(), 0.5)
    with mean.swapped(), pytest.raises(RuntimeError, match="swap back first"):
        getattr(mean, what)()


def test_the_mean_of_another_model_is_refused_and_changes_nothing() -> None:
    mean = Ema(model().parameters(), 0.5)
    other = Ema(torch.nn.Linear(4, 2).parameters(), 0.5).state_dict()
    before = mean.state_dict()["means"][0].clone()
    with pytest.raises(BadInput, match="another model"):
        mean.load_state_dict(other)
    assert torch.equal(mean.state_dict()["means"][0], before)


def test_frozen_weights_have_no_mean() -> None:
    linear = model()
    linear.bias.requires_grad_(False)
    assert len(Ema(linear.parameters(), 0.5).state_dict()["means"]) == 1


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_is_none_is_refused(decay) -> None:
    with pytest.raises(BadInput, match="from 0 to below 1"):
        Ema(model().parameters(), decay)
