"""Figures over layers: what kind of module they are in, how deep, and where the update's energy sits. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outlast.audit.suggest import quantile

if TYPE_CHECKING:
    from outlast.audit.report import Layer

KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("embedding", re.compile(r"(embed|wte|wpe|shared$|lm_head$|output_embeddings)")),
    (
        "attention",
        re.compile(r"(attn|attention|(^|\.)(q|k|v|o|query|key|value|q_proj|k_proj|v_proj|o_proj|qkv)$)", re.I),
    ),
    (
        "mlp",
        re.compile(
            r"(mlp|feed_forward|ffn|fc\d|intermediate|gate_proj|up_proj|down_proj|dense_|\.w[io]|experts)", re.I
        ),
    ),
    ("mlp", re.compile(r"(^|\.)layer\.\d+\.output\.dense$")),
)
"""What a layer's name says of its module; the first row that matches counts. Adding a model's names is adding a row."""
_DEPTH = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|block|encoder|decoder|transformer)\.(\d+)(?:\.|$)")
TOP = 10
"""Layers whose share of the energy is told."""


@dataclass(frozen=True, slots=True)
class Average:
    """Of one figure over the layers that have it."""

    mean: float
    """Plain mean."""
    median: float
    """Half of the layers are below."""
    weighted: float
    """Mean weighted by the layers' parameters."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Over some layers. A figure that no layer has is None."""

    layers: int
    """How many."""
    parameters: int
    """Numbers in their factors."""
    stable_rank: Average | None
    """Of the stable ranks."""
    effective_rank: Average | None
    """Of the effective ranks."""
    utilization: Average | None
    """Of stable rank / r."""
    energy_rank_90_p50: float | None
    """Median of the least ranks that hold 90 % of the energy."""
    energy_rank_90_p90: float | None
    """Nine of ten layers need no more."""
    udr: Average | None
    """Of the update's norm / the base's."""
    energy_share: float | None
    """Their part of the whole adapter's update, squared Frobenius norm; None where it is zero or unknown."""


def kind_of(name: str) -> str:
    """``attention``, ``mlp``, ``embedding`` or ``other``, by a layer's name."""
    return next((kind for kind, pattern in KINDS if pattern.search(name)), "other")


def depth_of(name: str) -> int | None:
    """The number of the block that a layer is in; None when its name has none."""
    match = _DEPTH.search(name)
    return int(match[1]) if match else None


def totals(layers: Sequence[Layer], whole: float | None = None) -> Totals:
    """Figures over layers.

    Args:
        layers: which.
        whole: energy of the whole adapter's update; None takes that of these layers.
    """
    own = energy(layers)
    whole = own if whole is None else whole
    ranks = sorted(layer.energy_rank_90 for layer in layers)
    return Totals(
        len(layers),
        sum(layer.parameters for layer in layers),
        _average(layers, lambda layer: layer.stable_rank),
        _average(layers, lambda layer: layer.effective_rank),
        _average(layers, lambda layer: layer.utilization),
        quantile(ranks, 0.5) if ranks else None,
        quantile(ranks, 0.9) if ranks else None,
        _average(layers, lambda layer: layer.udr),
        own / whole if own is not None and whole else None,
    )


def energy(layers: Iterable[Layer]) -> float | None:
    """Squared Frobenius norm of the updates together; None where a norm is unknown."""
    found = 0.0
    for layer in layers:
        if layer.delta_fro_norm is None:
            return None
        found += layer.delta_fro_norm**2
    return found


def grouped(layers: Sequence[Layer], key: Callable[[Layer], str | int | None]) -> dict[str, Totals]:
    """Figures by what a key says of each layer, without those of which it says nothing."""
    whole = energy(layers)
    members: dict[str | int, list[Layer]] = {}
    for layer in layers:
        value = key(layer)
        if value is not None:
            members.setdefault(value, []).append(layer)
    return {str(value): totals(members[value], whole) for value in sorted(members)}


def _average(layers: Sequence[Layer], figure: Callable[[Layer], float | None]) -> Average | None:
    known = [(value, layer.parameters) for layer in layers if (value := figure(layer)) is not None]
    if not known:
        return None
    values = sorted(value for value, _ in known)
    weight = sum(parameters for _, parameters in known)
    return Average(
        sum(values) / len(values),
        quantile(values, 0.5),
        sum(value * parameters for value, parameters in known) / weight,
    )
