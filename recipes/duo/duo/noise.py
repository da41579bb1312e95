"""The forward process: each token stays with probability alpha(t), else it is drawn anew from the whole vocabulary."""

from __future__ import annotations

import torch

EPS = 1e-3
"""alpha(1): what is left of the clean text at the end of the noise; also the smallest time of training."""


def alpha(t: torch.Tensor) -> torch.Tensor:
    """Probability that a token is kept until time t, from 1 at t = 0 down to EPS at t = 1 (log-linear schedule)."""
    return 1.0 - lost(t)


def lost(t: torch.Tensor) -> torch.Tensor:
    """1 - alpha(t), without the digits that the subtraction would lose at small t."""
    return (1.0 - EPS) * t


def dalpha(t: torch.Tensor) -> torch.Tensor:
    """Derivative of alpha at t: the same everywhere."""
    return torch.full_like(t, EPS - 1.0)


def sigma(t: torch.Tensor) -> torch.Tensor:
    """Total noise -log alpha(t), which the network is told."""
    return -torch.log1p(-lost(t))


def draw_times(
    batch: int,
    *,
    generator: torch.Generator | None = None,
    antithetic: bool = True,
    eps: float = EPS,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Times of a batch, each uniform in [eps, 1].

    Args:
        batch: how many.
        generator: of the random numbers, on `device`.
        antithetic: one number for the batch, moved on by 1/batch from sample to sample: each time alone is still
            uniform, together they cover the range, and the loss varies less from batch to batch.
        eps: the smallest time; the loss has no finite variance at 0.
        device: where to; None for the generator's.
    """
    device = device or (generator.device if generator is not None else None)
    if antithetic:
        one = torch.rand(1, generator=generator, device=device)
        u = (one + torch.arange(batch, device=device) / batch) % 1.0
    else:
        u = torch.rand(batch, generator=generator, device=device)
    return eps + (1.0 - eps) * u


def corrupt(
    x: torch.Tensor, alpha: torch.Tensor, vocab: int, *, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Noisy tokens z of clean ones x.

    Args:
        x: tokens, (batch, length).
        alpha: probability of keeping a token, (batch,).
        vocab: how many tokens there are; what is not kept is drawn from all of them, and may be the same one.
        generator: of the random numbers, on x's device.
    """
    kept = torch.rand(x.shape, generator=generator, device=x.device) < alpha[:, None]
    drawn = torch.randint(vocab, x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return torch.where(kept, x, drawn)
