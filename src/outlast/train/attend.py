"""Three ways to compute attention, with one layout (batch, heads, length, head) and one meaning. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (everybody's name for it)

from outlast.budget import FLASH_PACKAGES, FlashPackage
from outlast.errors import BadInput
from outlast.train import flash

Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, bool, float, float | None], torch.Tensor]
"""Query, key, value, mask, causal, dropout, scale."""


def by_flash(
    row: FlashPackage,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    dropout: float,
    scale: float | None,
) -> torch.Tensor:
    """By a package's ``flash_attn_func``, whose layout is batch, length, heads, head.

    Raises:
        BadInput: where it cannot be imported, for a mask, or for dropout that it does not have.
    """
    if mask is not None or (dropout and not row.has_dropout):
        raise BadInput(
            f"{row.name} has no {'mask' if mask is not None else 'dropout'}", hint="using='sdpa', or leave the choice"
        )
    try:
        function = flash.function_of(row)
    except (Exception, SystemExit) as error:
        raise BadInput(f"{row.module} cannot be imported: {error}", hint="using='sdpa', or leave the choice") from error
    options: dict[str, Any] = {"dropout_p": dropout} if row.has_dropout else {}
    if torch.are_deterministic_algorithms_enabled():
        options["deterministic"] = True  # else its backward adds in the order in which blocks are done
    # Its operators are unknown to autocast.
    given = [_as_autocast_would(tensor).transpose(1, 2) for tensor in (query, key, value)]
    found = function(*given, softmax_scale=scale, causal=causal, **options)
    return (found[0] if isinstance(found, tuple) else found).transpose(1, 2)


def _as_autocast_would(tensor: torch.Tensor) -> torch.Tensor:
    kind = tensor.device.type
    if tensor.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return tensor.to(torch.get_autocast_dtype(kind))
    return tensor


def by_torch(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    dropout: float,
    scale: float | None,
) -> torch.Tensor:
    """By torch's ``scaled_dot_product_attention``."""
    # Its own flag means the upper left corner, and goes with no mask.
    is_plain = mask is None and query.shape[-2] == key.shape[-2]
    if causal and not is_plain:
        mask = _with_causal(mask, query, key)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(query.dtype)
    # Grouped heads are repeated: of torch's kernels only flash takes them as they are.
    return F.scaled_dot_product_attention(
        query, _repeated(key, query), _repeated(value, query),
        attn_mask=mask, dropout_p=dropout, is_causal=causal and is_plain, scale=scale,
    )  # fmt: skip


def by_hand(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    dropout: float,
    scale: float | None,
) -> torch.Tensor:
    """By matmul and softmax; the softmax in float32 at least."""
    size = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query @ _repeated(key, query).transpose(-2, -1) * size
    if causal:
        mask = _with_causal(mask, query, key)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
        # A query that sees no key would be a row of NaN, also in the gradients.
        sees_none = scores.isneginf().all(-1, keepdim=True)
        scores = scores.masked_fill(sees_none, 0.0)
    weights = scores.softmax(-1, dtype=torch.float64 if scores.dtype == torch.float64 else torch.float32)
    if mask is not None:
        weights = weights.masked_fill(sees_none, 0.0)
    weights = F.dropout(weights, dropout) if dropout else weights
    return weights.to(value.dtype) @ _repeated(value, query)


def _with_causal(mask: torch.Tensor | None, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    queries, keys = query.shape[-2], key.shape[-2]
    seen = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    if mask is None:
        return seen
    return mask & seen if mask.dtype == torch.bool else torch.where(seen, mask, -math.inf)


def _repeated(tensor: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    groups = query.shape[1] // tensor.shape[1]
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=1)


WAYS: dict[str, Way] = {row.name: partial(by_flash, row) for row in FLASH_PACKAGES} | {
    "sdpa": by_torch,
    "eager": by_hand,
}
"""By the names of `outlast.budget.AttentionChoice`."""
