"""What would make a single sample fit: what is not done yet of what usually helps, most effective first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Setup:
    """How a model is trained, as far as it bears on memory."""

    is_half: bool
    """Forward and backward run in bf16 or fp16."""
    is_checkpointed: bool
    """Activations are computed again in the backward rather than kept."""
    length: int | None
    """Longest second dimension of the batch's tensors (tokens of a sequence); None when there is none."""
    optimizer: str
    """Class or name of the optimizer; empty when not known."""


_LIGHT = ("8bit", "adafactor", "sgd", "lion", "galore", "lomo")
RAW = {
    "half": "bf16 where it is not on yet (torch.autocast('cuda', torch.bfloat16), or the model in bf16)",
    "checkpointing": "activation checkpointing (model.gradient_checkpointing_enable(), or torch.utils.checkpoint)",
    "length": "shorter sequences (now {length})",
    "optimizer": "a lighter optimizer than {optimizer} (8-bit AdamW, Adafactor)",
    "else": "LoRA or a smaller model",
}
"""For a loop of one's own."""
TRAINER = {
    **RAW,
    "half": "bf16=True (fp16=True before Ampere)",
    "checkpointing": "gradient_checkpointing=True (activation_checkpointing=True from Transformers 5.20 on)",
    "length": "shorter sequences (max_length below {length})",
    "optimizer": "a lighter optimizer than {optimizer} (optim='adamw_bnb_8bit' or 'adafactor')",
}
"""For TrainingArguments."""


def advise(setup: Setup, words: dict[str, str] = RAW) -> str:
    """The hint of an error: what to change so that one sample fits."""
    found = [] if setup.is_half else [words["half"]]
    found += [] if setup.is_checkpointed else [words["checkpointing"]]
    found += [words["length"].format(length=setup.length)] if setup.length and setup.length > 1 else []
    is_light = any(name in setup.optimizer.lower() for name in _LIGHT)
    found += [words["optimizer"].format(optimizer=setup.optimizer)] if setup.optimizer and not is_light else []
    return f"what would make it fit: {'; '.join([*found, words['else']])}"


def longest(batch: Any) -> int | None:
    """The longest second dimension of the two-dimensional tensors in a batch: tokens of a padded sequence."""
    if hasattr(batch, "shape") and hasattr(batch, "ndim"):
        return int(batch.shape[1]) if batch.ndim == 2 else None
    values: Sequence[Any] = ()
    if hasattr(batch, "values"):
        values = list(batch.values())
    elif isinstance(batch, list | tuple):
        values = batch
    lengths = [length for value in values if (length := longest(value))]
    return max(lengths, default=None)
