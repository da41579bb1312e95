"""What the loss needs of softmax(hidden W^T + b), row by row, with one vocabulary-sized buffer alive at a time.

Forward leaves three numbers a row; backward makes the probabilities of a chunk again, turns them into the gradient of
the logits in place, and adds that to the gradients of hidden states, weight and bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

CHUNK_BYTES = {"cuda": 256 << 20}
"""Largest vocabulary-sized buffer by kind of device, bytes. Where all rows fit into one, it is kept for the backward
pass and nothing is computed twice: on a GPU that is so for 2 texts of 512 tokens of GPT-2's vocabulary."""
CHUNK_BYTES_ELSE = 64 << 20
_TILES = 8  # elementwise work goes over an eighth of a chunk at a time: its temporaries are that small
_CPU_TILE = 1 << 18  # numbers; what stays in a core's second-level cache


class Rows(torch.autograd.Function):
    """(spread, p_z, p_x) of each row: sum_i log(1 + rho p_i), and p at the noisy and at the clean token."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        x: torch.Tensor,
        z: torch.Tensor,
        rho: torch.Tensor,
        dtypes: tuple[torch.dtype, torch.dtype],
        rows: int,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `rows_of`; `dtypes` are those of the matrix product and of all that follows, `rows` those of a chunk."""
        found = torch.empty(3, len(hidden), dtype=numbers(hidden.device), device=hidden.device)
        pull = torch.empty_like(found[0])
        sums = torch.promote_types(dtypes[1], torch.float32)
        norm = torch.empty(len(hidden), 1, dtype=sums, device=hidden.device)
        low = weight if weight is None else weight.to(dtypes[0])
        vocab = hidden.shape[1] if weight is None else len(weight)
        tiles = _tile_rows(hidden.device, min(rows, len(hidden)), vocab)
        p = None
        for part in _parts(len(hidden), rows):
            p = None  # before the next one is made
            p = _logits(hidden[part], low, bias, dtypes)
            for tile in _parts(len(p), tiles):
                piece = p[tile]
                top = piece.amax(1, keepdim=True)
                total = piece.sub_(top).exp_().sum(1, keepdim=True, dtype=sums)
                piece.div_(total)
                norm[part][tile] = total.log_().add_(top)
                scaled = piece * rho[part][tile].to(piece.dtype)
                pull[part][tile] = (scaled / (scaled + 1)).sum(1, dtype=sums)
                found[0, part][tile] = scaled.log1p_().sum(1, dtype=sums)
            found[1, part] = _at(p, z[part])
            found[2, part] = _at(p, x[part])
        keeps = any(ctx.needs_input_grad) and len(hidden) <= rows
        ctx.save_for_backward(hidden, weight, bias, x, z, rho, norm, pull, found)
        ctx.kept = p if keeps else None
        ctx.dtypes, ctx.rows, ctx.tiles = dtypes, rows, tiles
        return found[0], found[1], found[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of `hidden`, `weight` and `bias`."""
        hidden, weight, bias, x, z, rho, norm, pull, found = ctx.saved_tensors
        of_spread, of_z, of_x = (grad[:, None] for grad in grads)
        # d p_i / d logit_k = p_i ([i = k] - p_k): what every logit is pulled down by, before its own share is added.
        at_z, at_x = of_z * found[1][:, None], of_x * found[2][:, None]
        down = of_spread * pull[:, None] + at_z + at_x
        low = weight if weight is None else weight.to(ctx.dtypes[0])
        to_hidden, to_weight, to_bias = (
            torch.zeros_like(tensor) if wanted else None
            for tensor, wanted in zip((hidden, weight, bias), ctx.needs_input_grad, strict=False)
        )
        tiles = ctx.tiles
        for part in _parts(len(hidden), ctx.rows):
            p, ctx.kept = ctx.kept, None
            if p is None:
                p = _logits(hidden[part], low, bias, ctx.dtypes).sub_(norm[part]).exp_()
            for tile in _parts(len(p), tiles):
                piece = p[tile]
                scaled = piece * rho[part][tile].to(p.dtype)
                share = scaled.div_(scaled + 1).mul_(of_spread[part][tile].to(p.dtype))
                piece.mul_(-down[part][tile].to(p.dtype)).add_(share)
            for token, own in ((z, at_z), (x, at_x)):
                # One index a row: no two additions meet, so this is deterministic, also on a GPU.
                index = token[part][:, None]
                p.scatter_(1, index, p.gather(1, index).add_(own[part].to(p.dtype)))
            if to_bias is not None:
                to_bias.add_(p.sum(0))
            if low is None:
                if to_hidden is not None:
                    to_hidden[part] = p
                continue
            p = p.to(low.dtype)
            if to_hidden is not None:
                to_hidden[part] = (p @ low).to(hidden.dtype)
            if to_weight is not None:
                _add_product(to_weight, p, hidden[part].to(low.dtype))
        return to_hidden, to_weight, to_bias, None, None, None, None, None


def numbers(device: torch.device) -> torch.dtype:
    """Type of what is one number a row: float64, but on Apple's GPUs, which have none."""
    return torch.float32 if device.type == "mps" else torch.float64


def rows_of(
    hidden: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    x: torch.Tensor,
    z: torch.Tensor,
    rho: torch.Tensor,
    *,
    matmul: torch.dtype,
    precision: torch.dtype,
    chunk_bytes: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(spread, p_z, p_x), each (rows,), with gradients to `hidden`, `weight` and `bias`.

    Args:
        hidden: (rows, width); the logits themselves where `weight` is None.
        weight: (vocab, width), or None.
        bias: (vocab,), or None.
        x: clean tokens, (rows,).
        z: noisy tokens, (rows,).
        rho: vocab alpha / (1 - alpha), (rows, 1).
        matmul: type of the product.
        precision: type of everything of the vocabulary's size after it; sums of it are in float32 at least.
        chunk_bytes: largest vocabulary-sized buffer, bytes; None for that of CHUNK_BYTES.
    """
    vocab = len(weight) if weight is not None else hidden.shape[1]
    row_bytes = vocab * precision.itemsize
    if chunk_bytes is None:
        chunk_bytes = CHUNK_BYTES.get(hidden.device.type, CHUNK_BYTES_ELSE)
    rows = max(1, chunk_bytes // row_bytes)
    with torch.autocast(hidden.device.type, enabled=False):
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = Rows.apply(
            hidden, weight, bias, x, z, rho, (matmul, precision), rows
        )
    return found


def _logits(
    hidden: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    dtypes: tuple[torch.dtype, torch.dtype],
) -> torch.Tensor:
    """A new buffer of logits, which the caller may change."""
    if weight is None:
        return hidden.to(dtypes[1], copy=True)
    if bias is not None and dtypes[0] == dtypes[1]:
        return torch.addmm(bias.to(dtypes[0]), hidden.to(dtypes[0]), weight.t())
    logits = (hidden.to(dtypes[0]) @ weight.t()).to(dtypes[1])
    return logits if bias is None else logits.add_(bias)


def _add_product(total: torch.Tensor, grad: torch.Tensor, hidden: torch.Tensor) -> None:
    if total.dtype == grad.dtype:
        total.addmm_(grad.t(), hidden)
    else:
        total.add_(grad.t() @ hidden)


def _at(p: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return p.gather(1, tokens[:, None])[:, 0]


def _tile_rows(device: torch.device, rows: int, vocab: int) -> int:
    count = -(-rows // _TILES)
    return min(count, max(1, _CPU_TILE // vocab)) if device.type == "cpu" else count


def _parts(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
