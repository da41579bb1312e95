"""The words of plain configurations for what a fit decides: a table, by role. A new word is a row. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Key:
    """A word that configurations use."""

    name: str
    """As it stands in the configuration."""
    role: str
    """What it says."""
    read: Callable[[Any], Any] = lambda value: value
    """From what stands there to what it says; None where it says nothing."""
    write: Callable[[Any], Any] = lambda value: value
    """The other way round."""
    family: str = "plain"
    """Whose word it is: ``plain``, ``trainer`` (TrainingArguments) or ``lightning``."""


def _half(value: Any) -> str | None:
    """``use_mixed_precision`` does not say which half precision."""
    return "half" if value else "fp32"


def _is_half(precision: str) -> bool:
    return precision != "fp32"


def _accelerate_precision(value: Any) -> str:
    return "fp32" if value in (None, False, "no", "fp32") else str(value)


def _lightning_precision(value: Any) -> str:
    text = str(value)
    if text.startswith(("bf16", "bfloat16")):
        return "bf16"
    return "fp16" if text.startswith(("16", "fp16", "float16")) else "fp32"


def _count(value: Any) -> int | None:
    """``devices="auto"`` says no number."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_TO_LIGHTNING: Mapping[str, str] = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}
_TO_ACCELERATE = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}
_TO_TRAINER = {"adamw": "adamw_torch_fused", "adamw-8bit": "adamw_bnb_8bit", "adafactor": "adafactor"}


def _optimizer(value: Any) -> str | None:
    text = str(getattr(value, "value", value)).lower().replace("_", "-")
    if "adafactor" in text:
        return "adafactor"
    if "adam" not in text:
        return None
    return "adamw-8bit" if "8bit" in text else "adamw"


def _same(value: Any) -> Any:
    return value


def _named(
    role: str,
    names: str,
    family: str = "plain",
    read: Callable[[Any], Any] = _same,
    write: Callable[[Any], Any] = _same,
) -> tuple[Key, ...]:
    return tuple(Key(name, role, read, write, family) for name in names.split())


KEYS: tuple[Key, ...] = (
    *_named("micro_batch", "batch_size train_batch_size micro_batch_size"),
    *_named("reduced", "reduced_batch_size"),
    *_named("micro_batch", "per_device_train_batch_size per_gpu_train_batch_size", "trainer"),
    *_named("accumulation", "gradient_accumulation_steps accumulation_steps grad_accum_steps gradient_accumulation"),
    *_named("accumulation", "accumulate_grad_batches", "lightning"),
    *_named("precision", "use_mixed_precision use_amp amp mixed_precision_training", read=_half, write=_is_half),
    Key("mixed_precision", "precision", _accelerate_precision, _TO_ACCELERATE.__getitem__),
    Key("fp16", "precision", lambda value: "fp16" if value else None, lambda precision: precision == "fp16", "trainer"),
    Key("bf16", "precision", lambda value: "bf16" if value else None, lambda precision: precision == "bf16", "trainer"),
    Key("precision", "precision", _lightning_precision, _TO_LIGHTNING.__getitem__, "lightning"),
    *_named("checkpointing", "use_gradient_checkpointing", read=bool, write=bool),
    *_named("checkpointing", "gradient_checkpointing activation_checkpointing", "trainer", read=bool, write=bool),
    Key("optim", "optimizer", _optimizer, _TO_TRAINER.__getitem__, "trainer"),
    Key("optimizer", "optimizer", _optimizer),
    *_named("length", "max_length max_seq_length max_seq_len sequence_length"),
    *_named("save", "save", read=lambda value: value if value in ("full", "light") else None),
    *_named("save_state", "save_optimizer_state", read=bool, write=bool),
    *_named("weights_only", "save_only_model", "trainer", read=bool, write=bool),
    *_named("weights_only", "save_weights_only", "lightning", read=bool, write=bool),
    *_named("clear", "clear_cache_every empty_cache_steps"),
    *_named("clear", "torch_empty_cache_steps", "trainer"),
    *_named("find_batch", "auto_find_batch_size", "trainer", read=bool, write=bool),
    *_named("find_batch", "auto_scale_batch_size", "lightning", read=bool, write=bool),
    *_named("workers", "num_workers"),
    *_named("workers", "dataloader_num_workers", "trainer"),
    *_named("epochs", "num_epochs epochs"),
    *_named("epochs", "num_train_epochs", "trainer"),
    *_named("epochs", "max_epochs", "lightning"),
    *_named("subset", "use_subset"),
    *_named("subset_ratio", "subset_ratio"),
    *_named("subset_ratio", "limit_train_batches", "lightning"),
    *_named("save_frequency", "save_frequency"),
    Key("save_strategy", "save_frequency", lambda value: {"no": "none"}.get(str(value), str(value)),
        lambda value: {"none": "no"}.get(value, value), "trainer"),
    *_named("world", "world_size num_gpus devices", read=_count),
)  # fmt: skip
"""Every word that is recognised; any other stays as it is."""

ADDED: Mapping[tuple[str, str], str] = {
    ("accumulation", "lightning"): "accumulate_grad_batches",
    ("accumulation", "plain"): "gradient_accumulation_steps",
    ("accumulation", "trainer"): "gradient_accumulation_steps",
    ("precision", "lightning"): "precision",
    ("precision", "plain"): "use_mixed_precision",
    ("checkpointing", "plain"): "use_gradient_checkpointing",
    ("optimizer", "trainer"): "optim",
    ("optimizer", "plain"): "optimizer",
    ("length", "plain"): "max_length",
    ("workers", "trainer"): "dataloader_num_workers",
    ("workers", "plain"): "num_workers",
    ("epochs", "trainer"): "num_train_epochs",
    ("epochs", "lightning"): "max_epochs",
    ("epochs", "plain"): "num_epochs",
    ("save_frequency", "trainer"): "save_strategy",
    ("save_frequency", "plain"): "save_frequency",
    ("subset", "plain"): "use_subset",
    ("subset_ratio", "plain"): "subset_ratio",
    ("subset_ratio", "lightning"): "limit_train_batches",
}
"""The word to add where a configuration of that family has none for a role; where there is no row, none is added."""
