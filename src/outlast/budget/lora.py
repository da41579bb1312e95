"""LoRA as peft trains it, as far as it bears on memory. Needs torch.

What peft 0.21 does by default, without being needed: the model is frozen; beside each target module lie matrices of low
rank in float32; the input is cast to float32 before them; the head of a classifier is trained too, as a copy.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from outlast.errors import BadInput

TARGETS: tuple[tuple[str, ...], ...] = (
    ("q_proj", "v_proj"),
    ("query", "value"),
    ("query_proj", "value_proj"),
    ("q_lin", "v_lin"),
    ("q", "v"),
    ("c_attn",),
    ("query_key_value",),
    ("in_proj",),
)
"""Names of the modules that peft adapts where none are named (``TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING``);
the first pair that a model has."""
ALL = "all-linear"
"""Every linear layer but the output layer, as in peft."""
_HEADS = ("classifier", "score", "qa_outputs")


class Adapted(torch.nn.Module):  # type: ignore[misc]
    """A frozen layer and a trained update of low rank.

    Args:
        inner: a linear layer, or GPT-2's ``Conv1D``.
        rank: of the update.
    """

    def __init__(self, inner: Any, rank: int) -> None:
        super().__init__()
        inputs, outputs = _sides(inner) or (0, 0)
        self.inner = inner
        self.down = torch.nn.Linear(inputs, rank, bias=False)
        self.up = torch.nn.Linear(rank, outputs, bias=False)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As peft's ``LoraLayer``; the factor stands for alpha / rank."""
        result = self.inner(x)
        kept = result.dtype
        result = result + self.up(self.down(x.to(self.down.weight.dtype))) * 2.0
        return result.to(kept)


def with_lora(model: Any, rank: int, targets: Sequence[str] = ()) -> Any:
    """Freeze a model, and put a trained update of this rank beside the target modules.

    Args:
        model: a Transformers model; changed in place.
        rank: of the updates.
        targets: last parts of the modules' names, or ``all-linear``; empty: what peft takes for such a model.

    Raises:
        BadInput: when the model has no such modules.
    """
    wanted = tuple(targets)
    places = [
        (parent, name, module)
        for parent in model.modules()
        for name, module in parent.named_children()
        if _sides(module) and not isinstance(parent, Adapted)
    ]
    names = {name for _, name, _ in places}
    if not wanted:
        wanted = next((pair for pair in TARGETS if set(pair) <= names), ())
    output = getattr(model, "get_output_embeddings", lambda: None)()
    chosen = [
        (parent, name, module)
        for parent, name, module in places
        if (name in wanted or ALL in wanted) and module is not output and name not in _HEADS
    ]
    if not chosen:
        raise BadInput(
            f"the model has no modules {', '.join(wanted) or 'that are usually adapted'}",
            hint=f"--lora-targets, one or more of: {', '.join(sorted(names))}",
        )
    model.requires_grad_(False)
    for parent, name, module in chosen:
        setattr(parent, name, Adapted(module, rank))
    for name in _HEADS:
        if isinstance(getattr(model, name, None), torch.nn.Module):
            _train_copy(model, name)
    return model


def _train_copy(model: Any, name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        head = copy.deepcopy(getattr(model, name)).requires_grad_(True)
    model.register_module(f"{name}_before", getattr(model, name))
    setattr(model, name, head)


def _sides(module: Any) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer; None for any other module."""
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D":
        return tuple(module.weight.shape)
    return None
