"""A model's parameters without their values: what they are, not what is in them. `weights_of` needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outlast.errors import BadInput, OutlastError

if TYPE_CHECKING:
    from outlast.budget.subject import Subject


@dataclass(frozen=True, slots=True)
class Parameter:
    """One tensor of weights."""

    shape: tuple[int, ...]
    """Its sides."""
    size: int
    """Bytes of one number."""
    is_trained: bool
    """It has a gradient."""


@dataclass(frozen=True, slots=True)
class Weights:
    """All of them."""

    parameters: tuple[Parameter, ...]
    """Tied ones once."""
    can_checkpoint: bool
    """The model has a switch for activation checkpointing."""

    @property
    def count(self) -> int:
        """Numbers in all."""
        return sum(math.prod(one.shape) for one in self.parameters)

    @property
    def trained(self) -> int:
        """Numbers that are trained."""
        return sum(math.prod(one.shape) for one in self.parameters if one.is_trained)

    @property
    def trained_bytes(self) -> int:
        """Of the trained weights; their gradients take the same."""
        return sum(math.prod(one.shape) * one.size for one in self.parameters if one.is_trained)


def weights_of(subject: Subject) -> Weights:
    """The model is made on tensors without data, and looked at.

    Raises:
        BadInput: when its code fails.
    """
    from outlast.budget.steps import built

    try:
        model = built(subject.model_fn)
    except OutlastError:
        raise
    except Exception as error:
        raise failed(subject, error) from error
    has_switch = hasattr(model, "activation_checkpointing_enable") or hasattr(model, "gradient_checkpointing_enable")
    return Weights(
        tuple(Parameter(tuple(one.shape), one.element_size(), one.requires_grad) for one in model.parameters()),
        subject.checkpointing is not None or (has_switch and getattr(model, "supports_gradient_checkpointing", True)),
    )


def failed(subject: Subject, error: Exception) -> BadInput:
    """The error for the user's code that failed in a prediction."""
    return BadInput(
        f"the code of {subject.name} failed on tensors without data: {type(error).__name__}: {error}",
        hint="does one step of it run on the CPU? If so, docs/memory-prediction.md says what is not known",
    )
