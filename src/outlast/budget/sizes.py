"""How large a save is: from what is there already, from what was said, or counted. Pure; each figure has its source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from outlast.checkpoints import codec
from outlast.errors import BadInput

SMALL_BYTES = 48 * 1024
"""A Trainer's small files in whole blocks: random states, schedule, arguments, configuration, state (measured)."""
LOG_BYTES = 170
"""One entry of a Trainer's log history as trainer_state.json holds it (measured: 160 to 180)."""
PER_TENSOR = {"weights": 100, "moments": 800}
"""What the file formats add for each tensor: a safetensors header; records and pickles of a state (both measured)."""
DTYPES: Mapping[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of one number."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """What an optimizer's state takes for one trained number."""

    moments: float
    """Numbers as large as the weight itself, in the weight's own type: torch's optimizers take theirs from it."""
    fixed_bytes: float = 0.0
    """Bytes whatever the weight's type."""
    source: str = "torch.optim"
    """Who says so."""


OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw": Optimizer(2),
    "adamw-8bit": Optimizer(0, 2 + 8 / 256, "bitsandbytes: 2 bytes, and 2 float32 for each 256"),
    "adafactor": Optimizer(0, 0.02, "row and column means; below a fiftieth of a byte for matrices from 400 on"),
    "sgd": Optimizer(0),
    "sgd-momentum": Optimizer(1),
    "lion": Optimizer(1, source="one moment"),
    "lion-8bit": Optimizer(0, 1 + 4 / 256, "bitsandbytes"),
    "adagrad": Optimizer(1),
    "rmsprop": Optimizer(1),
}
"""By our names; `optimizer_named` knows those of TrainingArguments and torch's classes too."""
_ALIASES = (
    (r"(paged_)?(adamw|adam).*8bit", "adamw-8bit"),
    (r"(paged_)?lion.*8bit", "lion-8bit"),
    (r"(paged_)?(adamw|adam|ademamix|nadam|radam)(_.*)?", "adamw"),
    (r"(paged_)?lion(_.*)?", "lion"),
    (r"adafactor", "adafactor"),
    (r"sgd", "sgd"),
    (r"adagrad", "adagrad"),
    (r"rmsprop(_.*)?", "rmsprop"),
)


def optimizer_named(name: str) -> str | None:
    """Our name for ``adamw_torch_fused``, ``AdamW``, ``paged_adamw_8bit`` ...; None when it is not known."""
    plain = name.lower().removeprefix("optimizernames.")
    if plain in OPTIMIZERS:
        return plain
    return next((ours for pattern, ours in _ALIASES if re.fullmatch(pattern, plain)), None)


@dataclass(frozen=True, slots=True)
class SaveBytes:
    """What one save takes."""

    weights: int
    """The weights' files."""
    moments: int
    """The optimizer's file."""
    small: int
    """Everything else that the framework writes."""
    sidecar: int
    """What Outlast adds, so that the save can become light."""
    source: str
    """Where the figures are from."""
    has_log: bool = True
    """Whether ``small`` holds a log already; a counted save's grows with each entry."""

    @property
    def full(self) -> int:
        """A save as the framework writes it."""
        return self.weights + self.moments + self.small

    def plain(self, *, only_model: bool) -> int:
        """A save without Outlast."""
        return self.full - (self.moments if only_model else 0)

    def kinds(self, *, is_light: bool) -> dict[str, int]:
        """A save under Outlast that has a light form, in each kind that it may be, richest first."""
        light = self.weights + self.small + self.sidecar
        return {"light": light} if is_light else {"full": light + self.moments, "light": light}


def said(full: int, *, source: str = "said with --save-bytes") -> SaveBytes:
    """From the bytes of one full save alone: its parts as AdamW's with moments of the weights' type."""
    small = min(SMALL_BYTES, full // 10)
    weights = (full - small) // 3
    guess = f"{source}; a third taken for weights, as with AdamW"
    return SaveBytes(weights, full - small - weights, small, codec.sidecar_bytes(weights // 4), guess)


def counted(
    total: int, trained: int | None = None, *, optimizer: str = "adamw", dtype: str = "fp32", small: int = SMALL_BYTES
) -> SaveBytes:
    """From numbers of parameters.

    Args:
        total: all parameters.
        trained: those that are trained, when fewer (an adapter): then only they are saved.
        optimizer: a name that `optimizer_named` knows.
        dtype: the type in which what is trained is held: ``fp32``, ``bf16``, ``fp16``.
        small: bytes of the small files.

    Raises:
        BadInput: for an optimizer or a type that is not known, or more trained than there are.
    """
    known = optimizer_named(optimizer)
    if known is None:
        raise BadInput(f"no optimizer called {optimizer!r}", hint="known: " + ", ".join(OPTIMIZERS))
    if dtype not in DTYPES:
        raise BadInput(f"no type called {dtype!r}", hint="known: " + ", ".join(DTYPES))
    if trained is not None and trained > total:
        raise BadInput(f"{trained} parameters are trained of {total}", hint="--trainable is a part of --params")
    numbers = total if trained is None else trained
    row = OPTIMIZERS[known]
    moments = int(numbers * (row.moments * DTYPES[dtype] + row.fixed_bytes))
    what = f"{numbers:,} numbers in {dtype}" + ("" if trained is None else f" of {total:,}, the rest is not saved")
    light = codec.sidecar_bytes(numbers) if row.moments else 0
    return SaveBytes(numbers * DTYPES[dtype], moments, small, light, f"counted: {what}, {known}", False)


def with_logs(size: SaveBytes, entries: int) -> SaveBytes:
    """The same when trainer_state.json holds so many log entries."""
    return size if size.has_log else replace(size, small=size.small + entries * LOG_BYTES)


def measured(weights: int, moments: int, small: int, where: str) -> SaveBytes:
    """From the files of a checkpoint that is there.

    Args:
        weights: bytes of the weights' files.
        moments: bytes of the optimizer's.
        small: bytes of the others, without what Outlast added.
        where: the checkpoint's name.
    """
    return SaveBytes(weights, moments, small, codec.sidecar_bytes(weights // 4), f"measured from {where}")


_COUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmbt]?)\s*", re.IGNORECASE)
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def parse_count(text: str) -> int:
    """Parameters in ``8B``, ``40M`` or ``1100000``.

    Raises:
        BadInput: when the text is no such number, or is zero.
    """
    match = _COUNT.fullmatch(text)
    count = round(float(match[1]) * _THOUSANDS[match[2].lower()]) if match else 0
    if not 1 <= count < 10**15:
        raise BadInput(f"expected a number of parameters, got {text!r}", hint="for example 8B, 40M or 1100000")
    return count
