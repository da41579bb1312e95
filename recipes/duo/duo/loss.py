"""The loss: negative ELBO of uniform-state diffusion in continuous time, nats a token (MATH.md, sections 2 and 3).

With rho = vocab alpha / (1 - alpha), the loss needs of the model's distribution p at one position only

    spread = sum_i log(1 + rho p_i),   p_z,   p_x

so `token_loss` makes these in chunks (chunks.py), and never holds the logits of a batch. `naive_loss` is the paper's
formula as it stands, for comparison: it holds them many times.
"""

from __future__ import annotations

import torch

from duo import noise
from duo.chunks import numbers, rows_of
from outlast.errors import BadInput

PRECISIONS = {
    "float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16,
    "fp64": torch.float64, "fp32": torch.float32, "bf16": torch.bfloat16, "64": torch.float64, "32": torch.float32,
}  # fmt: skip
"""Names of `precision`. Not float16: rho is up to 1000 times the vocabulary, more than it can hold."""

Projection = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]
"""Hidden states (batch, length, width), weight (vocab, width), bias (vocab,): logits that were not yet made."""


def token_loss(
    source: torch.Tensor | Projection,
    x: torch.Tensor,
    z: torch.Tensor,
    t: torch.Tensor,
    vocab: int,
    *,
    precision: str | torch.dtype = "float32",
    chunk_bytes: int | None = None,
) -> torch.Tensor:
    """Loss of each token, nats; its mean over valid tokens is the loss of training, exp of it the perplexity's bound.

    Args:
        source: what the model says at (z, t): logits (batch, length, vocab), or better (hidden, weight, bias), from
            which they are made chunk by chunk.
        x: clean tokens, (batch, length).
        z: noisy tokens, (batch, length).
        t: time of each sample in (0, 1], (batch,).
        vocab: how many tokens there are.
        precision: type of what has the vocabulary's size, a key of PRECISIONS. Products are in autocast's type.
        chunk_bytes: largest buffer of the vocabulary's size, bytes; None for that of `duo.chunks.CHUNK_BYTES`.

    Returns:
        (batch, length), float32 or float64; never below 0 but for rounding.

    Raises:
        BadInput: for a precision that there is not, or shapes that do not belong together.
    """
    hidden, weight, bias = source if isinstance(source, tuple) else (source, None, None)
    dtype = _precision(precision)
    _check(hidden, weight, x, z, t, vocab)
    matmul = hidden.dtype
    if torch.is_autocast_enabled(hidden.device.type):
        matmul = torch.get_autocast_dtype(hidden.device.type)
    elif weight is not None:
        matmul = torch.promote_types(hidden.dtype, weight.dtype)
    times = t.to(numbers(hidden.device))[:, None].expand(x.shape)
    spread, p_z, p_x = rows_of(
        hidden.flatten(0, 1), weight, bias, x.flatten(), z.flatten(), _rho(times, vocab).reshape(-1, 1),
        matmul=matmul, precision=dtype, chunk_bytes=chunk_bytes,
    )  # fmt: skip
    loss = row_loss(spread.view(x.shape), p_z.view(x.shape), p_x.view(x.shape), z == x, times, vocab)
    return loss.to(torch.promote_types(dtype, torch.float32))


def row_loss(
    spread: torch.Tensor, p_z: torch.Tensor, p_x: torch.Tensor, same: torch.Tensor, t: torch.Tensor, vocab: int
) -> torch.Tensor:
    """Loss of a token from the three numbers of its distribution, nats. Elementwise.

    In float64, where there is one: near t = 0 numbers of the size of 1 / (1 - alpha) are subtracted from each other,
    and there are few of them.

    Args:
        spread: sum_i log(1 + rho p_i) over the vocabulary.
        p_z: what the model gives to the noisy token.
        p_x: what it gives to the clean token.
        same: whether the noisy token is the clean one.
        t: time.
        vocab: how many tokens there are.
    """
    r, gone = _rho(t, vocab), noise.lost(t)
    log_z, log_x, log_full = torch.log1p(r * p_z), torch.log1p(r * p_x), torch.log1p(r)
    around = spread - vocab * log_z
    stays = -(around + (vocab - 1) * log_full) / (1 + r)
    moved = -around - r * (log_x - log_z) + (1 + r) * log_full
    # The rate at which the truth leaves z, less the model's.
    leaving = torch.where(same, (p_z - 1) * r / (1 + r), r * p_z) / (gone * (1 + r * p_z))
    return -noise.dalpha(t) / noise.alpha(t) * (torch.where(same, stays, moved) / vocab - leaving)


def naive_loss(logits: torch.Tensor, x: torch.Tensor, z: torch.Tensor, t: torch.Tensor, vocab: int) -> torch.Tensor:
    """The paper's formula, as it stands, in the logits' type; arguments and result as of `token_loss`."""
    alpha = noise.alpha(t)[:, None]
    p = logits.softmax(-1)
    mean = vocab * alpha[..., None] * p + 1 - alpha[..., None]
    log_mean = mean.log()
    mean_z, log_z, log_x = _at(mean, z), _at(log_mean, z), _at(log_mean, x)
    same = z == x
    true_z = torch.where(same, vocab * alpha + 1 - alpha, 1 - alpha)
    c = (1 - alpha) / (vocab * alpha + 1 - alpha)
    around = log_mean.sum(-1) - vocab * log_z
    stays = -c * around + (vocab - 1) * c * c.log()
    moved = -around - vocab * alpha / (1 - alpha) * (log_x - log_z) - c.log() / c
    rates = vocab * (1 / true_z - 1 / mean_z)
    return noise.dalpha(t)[:, None] / (vocab * alpha) * (rates - torch.where(same, stays, moved))


def _rho(t: torch.Tensor, vocab: int) -> torch.Tensor:
    return vocab * noise.alpha(t) / noise.lost(t)


def _at(tensor: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return tensor.gather(-1, tokens[..., None])[..., 0]


def _precision(name: str | torch.dtype) -> torch.dtype:
    if name in PRECISIONS.values():
        return name
    if (dtype := PRECISIONS.get(str(name))) is None:
        raise BadInput(f"no precision of the loss called {name!r}", hint="known: " + ", ".join(PRECISIONS))
    return dtype


def _check(
    hidden: torch.Tensor, weight: torch.Tensor | None, x: torch.Tensor, z: torch.Tensor, t: torch.Tensor, vocab: int
) -> None:
    size = hidden.shape[-1] if weight is None else weight.shape[0]
    if hidden.dim() != 3 or not hidden.shape[:2] == x.shape == z.shape or t.shape != x.shape[:1] or size != vocab:
        raise BadInput(
            f"shapes do not belong together: {tuple(hidden.shape)} of {size} tokens from the model, "
            f"x {tuple(x.shape)}, z {tuple(z.shape)}, t {tuple(t.shape)}, vocabulary {vocab}",
            hint="(batch, length, width or vocab), (batch, length), (batch, length), (batch,)",
        )
