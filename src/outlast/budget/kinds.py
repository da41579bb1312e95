"""What full, light and bare checkpoints of a model take, from its parameters' shapes and the codec. Needs torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outlast.budget.estimates import Weights
from outlast.checkpoints import codec

_HEADER = 64
"""Bytes of a tensor's entry in a safetensors header or a torch.save archive, about."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of checkpoint."""

    name: str
    """``full``, ``light`` or ``weights``."""
    bytes: int
    """Of its large files: weights, optimizer, light form."""
    keeps: str
    """What is in it."""


def kinds_of(weights: Weights, *, trained_only: bool = False) -> tuple[Kind, ...]:
    """The kinds of checkpoint of a model that is trained with AdamW, whose moments have the type of the weights.

    Args:
        weights: its parameters.
        trained_only: frozen weights are not saved, as peft does it.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    saved = [(shape, size, trained) for shape, size, trained in weights.shapes if trained or not trained_only]
    plain = sum(_bytes(shape, size) + _HEADER for shape, size, _ in saved)
    moments = light = 0
    known: dict[tuple[tuple[int, ...], int], tuple[int, int]] = {}
    with FakeTensorMode():
        for shape, size, trained in weights.shapes:
            if not trained:
                continue
            if (shape, size) not in known:
                known[shape, size] = _adam(shape, size)
            moments += known[shape, size][0]
            light += known[shape, size][1]
    return (
        Kind("full", plain + moments + light, "everything: resumes bit for bit"),
        Kind("light", plain + light, "weights, first moment's signs, second one's means, step, schedule"),
        Kind("weights", plain, "no training state"),
    )


def _bytes(shape: tuple[int, ...], size: int) -> int:
    for side in shape:
        size *= side
    return size


def _adam(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Bytes of one parameter's AdamW state, and of its light form; on tensors without data."""
    import torch

    dtype = {2: torch.bfloat16, 4: torch.float32, 8: torch.float64}[size]
    slots = {name: torch.empty(shape, dtype=dtype) for name in ("exp_avg", "exp_avg_sq")}
    state = {"state": {0: {"step": torch.empty(()), **slots}}, "param_groups": []}
    slim = codec.to_light(state)
    return _taken(state["state"]), _taken(slim["state"]) if slim else 0


def _taken(value: Any) -> int:
    """Bytes of the tensors, and of what names them."""
    if hasattr(value, "element_size"):
        return int(value.numel() * value.element_size()) + _HEADER
    if isinstance(value, Mapping):
        return sum(map(_taken, value.values()))
    return len(json.dumps(value, default=str))
