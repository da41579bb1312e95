"""Which smaller ranks would do, from the energy ranks of a trained adapter. Pure.

A suggestion keeps each layer's scale: with a rank that is k times smaller, alpha is k times smaller too (sqrt k for
rsLoRA). It is never above the present rank.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

_Number = TypeVar("_Number", int, float)
ALLOWED = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Ranks that are suggested."""
MARGIN = 1.25
"""What a layer's own energy rank is multiplied by, since another training does not use exactly the same."""
_MOMENTS_BYTES = 8
"""AdamW's two moments of a trained number, float32."""


class Scaled(Protocol):
    """A layer with a rank and an alpha."""

    @property
    def name(self) -> str:
        """Its name in the base model."""

    @property
    def r(self) -> int:
        """Present rank."""

    @property
    def alpha(self) -> float | None:
        """Present lora_alpha; None when unknown."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a suggestion needs to know of a layer."""

    name: str
    """Its name in the base model."""
    r: int
    """Present rank."""
    alpha: float | None
    """Present lora_alpha; None when unknown."""
    energy_rank: int
    """The least rank that holds 90 % of its update's energy."""
    row_bytes: int
    """Bytes of the stored factors for one of r."""
    rows: int
    """Numbers of the factors for one of r."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Ranks as PEFT's configuration has them."""

    r: int
    """The most frequent rank."""
    lora_alpha: float | None
    """The most frequent alpha; None when unknown."""
    rank_pattern: Mapping[str, int]
    """Layers of another rank."""
    alpha_pattern: Mapping[str, float]
    """Layers of another alpha."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Ranks for the next training."""

    name: str
    """``uniform-median``, ``uniform-p90`` or ``per-layer``."""
    ranks: Mapping[str, int]
    """By layer."""
    pattern: Pattern
    """The same for a LoraConfig."""
    adapter_bytes: int
    """Bytes of the factors then."""
    saves_bytes: int
    """Bytes that the adapter's file gets smaller by."""
    saves_checkpoint_bytes: int
    """Bytes that a full checkpoint gets smaller by: the file, and AdamW's moments in float32."""


def suggestions(layers: Sequence[Ranked], *, is_rslora: bool) -> tuple[Suggestion, ...]:
    """Three suggestions; none where nothing has been trained yet."""
    ranks = sorted(layer.energy_rank for layer in layers)
    if not ranks or not ranks[-1]:
        return ()
    uniform = {"uniform-median": quantile(ranks, 0.5), "uniform-p90": quantile(ranks, 0.9)}
    wishes = {name: dict.fromkeys((layer.name for layer in layers), wish) for name, wish in uniform.items()}
    wishes["per-layer"] = {layer.name: layer.energy_rank * MARGIN for layer in layers}
    return tuple(_suggestion(name, layers, wish, is_rslora=is_rslora) for name, wish in wishes.items())


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile of sorted values, between two of them in proportion."""
    place = share * (len(values) - 1)
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def rounded_up(wish: float, most: int) -> int:
    """The least allowed rank that is not below a wish, and not above the present rank."""
    return min(next((rank for rank in ALLOWED if rank >= wish), most), most)


def pattern_of(layers: Sequence[Scaled], ranks: Mapping[str, int], *, is_rslora: bool) -> Pattern:
    """Ranks, and alphas that keep each layer's scale, as ``r``, ``lora_alpha`` and patterns for the rest."""
    alphas = {layer.name: _alpha(layer, ranks[layer.name], is_rslora=is_rslora) for layer in layers}
    r = _most_frequent([ranks[layer.name] for layer in layers])
    known = [alpha for alpha in alphas.values() if alpha is not None]
    alpha = _most_frequent(known) if len(known) == len(alphas) else None
    return Pattern(
        r,
        alpha,
        _keyed({layer.name: ranks[layer.name] for layer in layers}, r),
        _keyed({name: one for name, one in alphas.items() if one is not None and alpha is not None}, alpha),
    )


def _alpha(layer: Scaled, rank: int, *, is_rslora: bool) -> float | None:
    if layer.alpha is None:
        return None
    alpha = layer.alpha * (math.sqrt(rank / layer.r) if is_rslora else rank / layer.r)
    return int(alpha) if alpha == int(alpha) else alpha


def _most_frequent(values: Sequence[_Number]) -> _Number:
    counted = Counter(values)
    return max(counted, key=lambda value: (counted[value], value))


def _keyed(wanted: Mapping[str, _Number], default: object) -> dict[str, _Number]:
    """Patterns for the layers that differ: anchored, since PEFT would take a bare name for the end of others too."""
    return {f"^{re.escape(name)}": value for name, value in wanted.items() if value != default}


def _suggestion(name: str, layers: Sequence[Ranked], wish: Mapping[str, float], *, is_rslora: bool) -> Suggestion:
    ranks = {layer.name: rounded_up(max(wish[layer.name], 1), layer.r) for layer in layers}
    saved = sum((layer.r - ranks[layer.name]) * layer.row_bytes for layer in layers)
    numbers = sum((layer.r - ranks[layer.name]) * layer.rows for layer in layers)
    return Suggestion(
        name,
        ranks,
        pattern_of(layers, ranks, is_rslora=is_rslora),
        sum(ranks[layer.name] * layer.row_bytes for layer in layers),
        saved,
        saved + numbers * _MOMENTS_BYTES,
    )
