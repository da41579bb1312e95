"""What the program was told: plain frozen data, read from Hydra's configuration and checked. No torch, no files.

`configs/` holds the values, this holds their types and what they must be together. A key that is in neither is an
error with the nearest names, whether Hydra would have let it in with a ``+`` or not.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from duo import limits
from outlast.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Data:
    """Which text, and how it becomes blocks of tokens."""

    name: str
    source: str | None
    """What `outlast data fetch` takes; None is this Python's own library."""
    column: str
    rows: int | None
    """Documents; None takes all."""
    split: str
    tokenizer: str | None
    """A hub id, a folder or a tokenizer.json; None trains a BPE on the text."""
    vocab_size: int
    """Of a BPE that is trained here."""
    cache_dir: str
    wrap: bool


@dataclass(frozen=True, slots=True)
class Algo:
    """Which objective, on which network."""

    name: str
    backbone: str


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of the network."""

    name: str
    hidden_size: int
    n_blocks: int
    n_heads: int
    cond_dim: int
    length: int
    """Tokens of a block."""
    dropout: float
    attention: str


@dataclass(frozen=True, slots=True)
class Strategy:
    """How many processes train together, and how."""

    name: str


@dataclass(frozen=True, slots=True)
class Loader:
    """Batch sizes, in blocks."""

    batch_size: int
    global_batch_size: int | None
    eval_batch_size: int
    eval_global_batch_size: int | None
    num_workers: int


@dataclass(frozen=True, slots=True)
class Trainer:
    """What Lightning's Trainer is made with."""

    max_steps: int
    devices: int
    num_nodes: int
    accelerator: str
    precision: str
    accumulate_grad_batches: int
    gradient_clip_val: float | None
    log_every_n_steps: int
    val_check_interval: int
    """Steps of the optimizer."""
    limit_val_batches: int | float | None


@dataclass(frozen=True, slots=True)
class Optim:
    """AdamW, and its warm-up."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    warmup_steps: int | None
    """None: 2,500, and in a short run a tenth of it."""


@dataclass(frozen=True, slots=True)
class Training:
    """The objective's own knobs."""

    ema: float
    antithetic_sampling: bool
    sampling_eps: float
    loss_precision: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How text is drawn."""

    predictor: str
    steps: int
    noise_removal: str
    num_sample_batches: int
    p_nucleus: float
    use_float64: bool


@dataclass(frozen=True, slots=True)
class Eval:
    """What is evaluated, and where its results go."""

    checkpoint_path: str | None
    allow_remote_code: bool
    """Published weights that are no safetensors may be loaded by their repository's own code."""
    generate_samples: bool
    generated_samples_path: str
    perplexity_path: str


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """Where the run lives, and what it keeps."""

    save_dir: str
    resume_from_ckpt: bool
    resume_ckpt_path: str | None
    every_n_train_steps: int
    keep_last: int
    keep_best: int


@dataclass(frozen=True, slots=True)
class Wandb:
    """Weights & Biases; all None: not asked for."""

    offline: bool | None
    project: str | None
    name: str | None
    group: str | None


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole of it."""

    mode: str
    seed: int
    data: Data
    algo: Algo
    model: Model
    strategy: Strategy
    loader: Loader
    trainer: Trainer
    optim: Optim
    training: Training
    sampling: Sampling
    eval: Eval
    checkpointing: Checkpointing
    wandb: Wandb


def read(values: Mapping[str, Any]) -> Settings:
    """Settings from nested plain values.

    Raises:
        BadInput: for a key that is unknown or missing, a value of the wrong type, or values that contradict.
    """
    settings = _build(Settings, values, "")
    limits.check(settings)
    return settings


def known_keys(kind: type = Settings, above: str = "") -> list[str]:
    """Every key as it is written on the command line: ``loader.batch_size``, and the groups themselves."""
    found: list[str] = []
    for name, hint in get_type_hints(kind).items():
        found.append(above + name)
        if is_dataclass(hint):
            found += known_keys(hint, f"{above}{name}.")  # type: ignore[arg-type]
    return found


def unknown_key(key: str) -> BadInput:
    """The error for a key that there is not, with the nearest names that there are."""
    names = known_keys()
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.6)
    leaf = key.rpartition(".")[2]
    near += [name for name in names if name.rpartition(".")[2] == leaf and name not in near]
    meant = (
        f"did you mean {', '.join(near)}?" if near else "the keys are in configs/; `python main.py --help` lists them"
    )
    return BadInput(f"no key {key!r}", hint=meant)


def _build(kind: type[T], values: Mapping[str, Any], above: str) -> T:
    hints = get_type_hints(kind)
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise unknown_key(above + str(key))
    if missing := sorted(names - set(values)):
        raise BadInput(f"{above + missing[0]} has no value", hint="every key needs one, in configs/ or here")
    return kind(**{name: _value(hints[name], values[name], above + name) for name in names})


def _value(hint: Any, value: Any, key: str) -> Any:
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise BadInput(f"{key} is {value!r}; it is a group of keys", hint=f"give {key}.NAME=VALUE")
        return _build(hint, value, key + ".")  # type: ignore[arg-type]
    allowed = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for one in allowed:
        converted = _CONVERT[one](value)
        if converted is not _NOT:
            return converted
    words = " or ".join(_WORDS[one] for one in allowed)
    raise BadInput(f"{key} is {value!r}; expected {words}", hint=f"for example {key}={_EXAMPLES[allowed[0]]}")


_NOT = object()
_CONVERT: Mapping[Any, Callable[[Any], Any]] = {
    int: lambda value: value if isinstance(value, int) and not isinstance(value, bool) else _NOT,
    float: lambda value: float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _NOT,
    bool: lambda value: value if isinstance(value, bool) else _NOT,
    # YAML reads `precision=16` and `name=2026` as numbers; they are meant as text here.
    str: lambda value: str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else _NOT,
    type(None): lambda value: None if value is None else _NOT,
}
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
_EXAMPLES = {int: "8", float: "0.1", bool: "true", str: "text"}
