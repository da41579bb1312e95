"""What full, light and bare checkpoints of a model take, from its parameters' shapes. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from outlast.budget.weights import Weights
from outlast.checkpoints import codec


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of checkpoint."""

    name: str
    """``full``, ``light`` or ``weights``."""
    bytes: int
    """Of its tensors: weights, AdamW's moments, their light form; headers and small state are some kilobytes more."""
    keeps: str
    """What is in it."""


def kinds_of(weights: Weights, *, trained_only: bool = False) -> tuple[Kind, ...]:
    """The kinds of checkpoint of a model that AdamW trains; its moments have the type of the weights.

    Args:
        weights: its parameters.
        trained_only: frozen weights are not saved, as peft does it.
    """
    plain = moments = light = 0
    for one in weights.parameters:
        size = math.prod(one.shape) * one.size
        plain += size if one.is_trained or not trained_only else 0
        moments += 2 * size if one.is_trained else 0
        light += codec.light_bytes(one.shape, one.size) if one.is_trained else 0
    return (
        # A light form is in every checkpoint, so that making one light is an unlink.
        Kind("full", plain + moments + light, "everything: resumes exactly"),
        Kind("light", plain + light, "weights, the first moment's signs, the second one's means, step, schedule"),
        Kind("weights", plain, "no training state"),
    )
