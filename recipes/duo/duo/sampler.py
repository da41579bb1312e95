"""From random tokens to text: the reverse process, step by step (MATH.md, section 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from duo import noise
from outlast.errors import BadInput

LAST = 1e-5
"""Time of the last step, after which `noise_removal` cleans what is left."""
REMOVALS = ("greedy", "ancestral")
_CHUNK_BYTES = 64 << 20


class Model(Protocol):
    """What `sample` needs of a network."""

    vocab: int

    def __call__(self, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Logits (batch, length, vocab)."""


@torch.no_grad()
def sample(
    model: Model,
    batch: int,
    length: int,
    steps: int,
    *,
    generator: torch.Generator | None = None,
    noise_removal: str = "greedy",
    p_nucleus: float = 1.0,
    use_float64: bool = True,
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Draw text.

    Args:
        model: a network in eval mode.
        batch: texts.
        length: tokens of each.
        steps: of the reverse process, from time 1 to LAST.
        generator: of the random numbers, on the device.
        noise_removal: the last step: ``ancestral`` draws the clean tokens as every step before; ``greedy`` takes the
            likeliest of each position: less diverse, easier to read.
        p_nucleus: only the likeliest tokens that together have this much are drawn; 1 for all.
        use_float64: probabilities and random numbers in float64. float32 has no random number between 0 and 2^-24, so
            that rare tokens are never drawn rightly: as if at a lower temperature.
        progress: told (steps done, steps in all) after each.
        device: of the tokens; None for the generator's, else the model's.

    Returns:
        Tokens, (batch, length).

    Raises:
        BadInput: for a count below 1, a removal that there is not, a nucleus outside of (0, 1].
    """
    _check(batch, length, steps, noise_removal, p_nucleus)
    device = device or (generator.device if generator is not None else _device_of(model))
    # Tokens do not depend on where the times are computed, so in float64 on the CPU: few numbers.
    times = torch.linspace(1.0, LAST, steps + 1, dtype=torch.float64)
    dtype = torch.float64 if use_float64 else torch.float32
    z = torch.randint(model.vocab, (batch, length), generator=generator, device=device)
    for done, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True), 1):
        z = step(_logits(model, z, t), z, s, t, generator=generator, p_nucleus=p_nucleus, dtype=dtype)
        if progress is not None:
            progress(done, steps)
    logits = _logits(model, z, times[-1])
    if noise_removal == "greedy":
        return logits.argmax(-1)
    clean = torch.zeros_like(times[-1])
    return step(logits, z, clean, times[-1], generator=generator, p_nucleus=p_nucleus, dtype=dtype)


def posterior(
    p: torch.Tensor, z: torch.Tensor, alpha_s: float | torch.Tensor, alpha_t: float | torch.Tensor
) -> torch.Tensor:
    """Distribution of the token at an earlier time s, given the token z at t and a distribution p of the clean one.

    Args:
        p: (..., vocab).
        z: (...).
        alpha_s: alpha at s; above alpha_t.
        alpha_t: alpha at t.

    Returns:
        (..., vocab), sums to 1.
    """
    vocab, ratio = p.shape[-1], alpha_t / alpha_s
    index = z[..., None]
    p_z = p.gather(-1, index)
    found = (alpha_s - alpha_t) * p + (1 - ratio) * (1 - alpha_s) / vocab
    found.scatter_add_(-1, index, alpha_t * vocab * p_z + (ratio - alpha_t))
    return found / (alpha_t * vocab * p_z + 1 - alpha_t)


def step(
    logits: torch.Tensor,
    z: torch.Tensor,
    s: torch.Tensor,
    t: torch.Tensor,
    *,
    generator: torch.Generator | None = None,
    p_nucleus: float = 1.0,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """Draw the tokens at time s from those at t: a draw from `posterior`, in two draws.

    The posterior is a mixture of three: the token stays, it is one of p, it is one of the whole vocabulary. Which of
    them is drawn first; numbers of the vocabulary's size are needed only where it is p, which in a step is seldom.

    Args:
        logits: of the clean tokens, (batch, length, vocab).
        z: tokens at t, (batch, length).
        s: the earlier time, a float64 scalar.
        t: the later one, the same.
        generator: of the random numbers.
        p_nucleus: only the likeliest tokens that together have this much.
        dtype: of probabilities and random numbers.
    """
    alpha_s, alpha_t, lost_s, lost_t = (float(f(u)) for f in (noise.alpha, noise.lost) for u in (s, t))
    vocab, flat, now = logits.shape[-1], logits.flatten(0, -2), z.flatten()
    parted = 1 - alpha_t / alpha_s  # what is lost between s and t
    fresh, any_token = alpha_s - alpha_t, parted * lost_s
    drawn = torch.randint(vocab, now.shape, generator=generator, device=z.device)
    which = torch.rand(now.shape, generator=generator, device=z.device, dtype=dtype)
    for rows in _parts(len(flat), vocab * dtype.itemsize):
        p = probabilities(flat[rows], p_nucleus, dtype)
        p_z = p.gather(-1, now[rows, None])[:, 0]
        at = which[rows] * (alpha_t * vocab * p_z + lost_t)  # the sum of the three
        found = torch.where(at < fresh + any_token, drawn[rows], now[rows])
        of_p = (at < fresh).nonzero()[:, 0]
        found[of_p] = draw(p[of_p], generator)
        drawn[rows] = found
    return drawn.view_as(z)


def draw(p: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """A token of each row of probabilities, by the Gumbel-max rule in p's type.

    argmax(log p + Gumbel) is argmax(p / Exponential): Gumbel is -log of an exponential number.
    """
    waits = torch.rand(p.shape, generator=generator, device=p.device, dtype=p.dtype)
    # -log(1 - u) is exact for small u, which is where the largest Gumbel numbers are. A u of 0 would win whatever p is;
    # it stands for all numbers below the next one.
    waits = waits.clamp_(min=torch.finfo(p.dtype).eps / 4).neg_().log1p_().neg_()
    return torch.div(p, waits, out=waits).argmax(-1)


def probabilities(logits: torch.Tensor, p_nucleus: float = 1.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Softmax of each row; with a nucleus below 1, of the likeliest tokens that together have at least that much."""
    p = logits.to(dtype).softmax(-1)
    if p_nucleus >= 1.0:
        return p
    ordered, order = p.sort(dim=-1, descending=True)
    # A token is in when those before it do not have enough: so the likeliest always is.
    ordered[ordered.cumsum(-1) - ordered >= p_nucleus] = 0.0
    kept = torch.zeros_like(p).scatter_(-1, order, ordered)
    return kept / kept.sum(-1, keepdim=True)


def _logits(model: Model, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return model(z, noise.sigma(t).float().to(z.device).expand(len(z)))


def _parts(count: int, row_bytes: int) -> Iterator[slice]:
    rows = max(1, _CHUNK_BYTES // row_bytes)
    return (slice(start, start + rows) for start in range(0, count, rows))


def _device_of(model: Model) -> torch.device | str:
    parameters = getattr(model, "parameters", None)
    first = next(parameters(), None) if parameters is not None else None
    return "cpu" if first is None else first.device


def _check(batch: int, length: int, steps: int, noise_removal: str, p_nucleus: float) -> None:
    for name, value in (("texts", batch), ("tokens of a text", length), ("sampling.steps", steps)):
        if value < 1:
            raise BadInput(f"{name}: {value}", hint="from 1 up")
    if noise_removal not in REMOVALS:
        raise BadInput(f"no sampling.noise_removal called {noise_removal!r}", hint="known: " + ", ".join(REMOVALS))
    if not 0.0 < p_nucleus <= 1.0:
        raise BadInput(f"sampling.p_nucleus is {p_nucleus}", hint="above 0, up to 1 (all tokens)")
