"""Every knob: its name, its place in a configuration, its default and what it does. Presets, files and flags.

A configuration is YAML with the sections ``model``, ``data``, ``lora``, ``training`` and ``session``. In ``training``
every field of Transformers' ``TrainingArguments`` is understood; what is not in the table below is passed on as it is.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from outlast.errors import BadInput

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
OFFLINE = "offline"
"""Stands for data that the recipe makes itself."""


def _knob(default: Any, section: str, text: str, *, key: str = "", choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"section": section, "key": key, "help": text, "choices": choices})


@dataclass(frozen=True)
class Settings:
    """What a training is told. Steps are optimizer steps, lengths are tokens."""

    model: str | None = _knob(None, "model", "hub id or folder; without one a tiny random Llama is made", key="name")
    revision: str | None = _knob(None, "model", "commit, tag or branch of a hub model")
    dtype: str = _knob(
        "auto", "model", "type of the frozen weights", choices=("auto", "float32", "bfloat16", "float16")
    )
    quantization: str = _knob(
        "none", "model", "nf4: QLoRA, with bitsandbytes and a CUDA GPU; else said, and LoRA", choices=("none", "nf4")
    )
    attention: str = _knob("sdpa", "model", "attn_implementation of the model")
    data: str = _knob(
        OFFLINE, "data", "JSON lines, Parquet, or a folder of them; offline: from Python's docstrings", key="train"
    )
    validation: str | None = _knob(None, "data", "a file or folder, or the share of prompts to hold out (0.05)")
    max_length: int = _knob(1024, "data", "tokens of a sample; what is longer is cut at the end")
    limit: int | None = _knob(None, "data", "use this many conversations only, the first ones", key="limit")
    lora_r: int = _knob(16, "lora", "rank", key="r")
    lora_alpha: int = _knob(16, "lora", "the update counts alpha / r", key="alpha")
    lora_dropout: float = _knob(0.0, "lora", "dropout before the update", key="dropout")
    lora_targets: str = _knob("all-linear", "lora", "q_proj,v_proj ... or all-linear", key="targets")
    output_dir: str = _knob("runs/lora", "training", "checkpoints, base/ and final/ go here")
    max_steps: int = _knob(-1, "training", "steps in all; -1: num_train_epochs decides")
    num_train_epochs: float = _knob(3.0, "training", "passes over the data")
    per_device_train_batch_size: int = _knob(8, "training", "samples of a step on one device")
    per_device_eval_batch_size: int = _knob(8, "training", "samples at once in an evaluation")
    gradient_accumulation_steps: int = _knob(1, "training", "batches of a step")
    learning_rate: float = _knob(2e-4, "training", "at its highest")
    lr_scheduler_type: str = _knob("cosine", "training", "linear, cosine, constant_with_warmup ...")
    warmup_steps: int = _knob(0, "training", "steps until the learning rate is at its highest")
    weight_decay: float = _knob(0.0, "training", "of the adapter")
    optim: str = _knob("adamw_torch", "training", "adamw_torch, adamw_8bit (bitsandbytes), adafactor ...")
    gradient_checkpointing: bool = _knob(False, "training", "compute activations twice, to hold fewer")
    save_steps: int = _knob(500, "training", "steps between checkpoints")
    save_total_limit: int | None = _knob(2, "training", "checkpoints that are kept")
    save_only_model: bool = _knob(False, "training", "no optimizer in checkpoints: they are resumed as light ones")
    logging_steps: int = _knob(10, "training", "steps between lines of loss")
    eval_steps: int | None = _knob(500, "training", "steps between evaluations, where there is validation data")
    dataloader_num_workers: int = _knob(0, "training", "processes that make batches")
    seed: int = _knob(42, "training", "of the adapter, the tiny base, the order of the data")
    deadline: str | None = _knob(None, "session", "leave in time, sealed: 9h, 23:30, auto (outlast run --deadline too)")
    resume: str = _knob(
        "auto",
        "session",
        "never: a fresh start, refused if a checkpoint is there",
        choices=("auto", "never"),
    )
    others: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of ``TrainingArguments``."""


KNOBS: tuple[Field[Any], ...] = tuple(knob for knob in fields(Settings) if knob.metadata)
_SECTIONS = tuple(dict.fromkeys(knob.metadata["section"] for knob in KNOBS))
_TYPES = {"str": str, "int": int, "float": float, "bool": bool}


def parse(words: Sequence[str]) -> Settings:
    """Settings from a command line: a preset or a file, and flags that stand above it.

    Args:
        words: without the program's name.

    Raises:
        BadInput: for a key or a value that is not understood.
    """
    told = _parser().parse_args([_dashed(word) for word in words])
    file = told.config or (_preset(told.preset) if told.preset else None)
    values = from_file(Path(file)) if file else {}
    values |= {knob.name: told.__dict__[knob.name] for knob in KNOBS if told.__dict__[knob.name] is not None}
    for word in told.set:
        key, equals, value = word.partition("=")
        if not equals:
            raise BadInput(f"--set {word}: expected KEY=VALUE", hint="for example --set max_grad_norm=0.3")
        values |= _placed("training", {key: value}, "--set")
    named = {name: _typed(name, value) for name, value in values.items() if not name.startswith("others.")}
    others = {name[7:]: _number(value) for name, value in values.items() if name.startswith("others.")}
    return _checked(Settings(**named, others=others))


def from_file(path: Path) -> dict[str, Any]:
    """Values of a configuration by our names; those of further training arguments as ``others.NAME``.

    Raises:
        BadInput: when it cannot be read, or has a key that nothing understands.
    """
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path} cannot be read as YAML: {error}", hint="see configs/toy.yaml for its form") from None
    if not isinstance(tree, dict):
        raise BadInput(f"{path}: expected sections, came {type(tree).__name__}", hint="see configs/toy.yaml")
    values: dict[str, Any] = {}
    for section, content in tree.items():
        if section not in _SECTIONS:
            raise _unknown(f"{path}: section", str(section), _SECTIONS)
        if not isinstance(content, dict):
            raise BadInput(f"{path}: {section} is not a section of keys", hint="see configs/toy.yaml for its form")
        values |= _placed(section, content, str(path))
    return values


def _preset(name: str) -> Path:
    presets = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    if name not in presets:
        raise _unknown("--preset", name, presets)
    return CONFIGS / f"{name}.yaml"


def _placed(section: str, content: Mapping[str, Any], where: str) -> dict[str, Any]:
    ours = {knob.metadata["key"] or knob.name: knob.name for knob in KNOBS if knob.metadata["section"] == section}
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key in ours:
            values[ours[key]] = value
        elif section == "training":
            values[f"others.{key}"] = value  # known only to Transformers, which is not imported for --help
        else:
            raise _unknown(f"{where}: {section}", str(key), ours)
    return values


def _unknown(what: str, word: str, known: Iterable[str]) -> BadInput:
    known = sorted(known)
    close = difflib.get_close_matches(word, known, 3)
    return BadInput(f"{what}: unknown {word!r}", hint=f"one of: {', '.join(close or known)}")


def _typed(name: str, value: Any) -> Any:
    """A value as its knob's type: YAML reads 2e-4 as text, and a list of targets may be a list."""
    knob = next(knob for knob in KNOBS if knob.name == name)
    kind, _, optional = str(knob.type).partition(" | ")
    if value is None and optional:
        return None
    if isinstance(value, list):
        value = ",".join(map(str, value))
    try:
        if value is None or (kind == "bool" and not isinstance(value, bool)):
            raise ValueError
        if kind == "int" and float(value) != int(float(value)):
            raise ValueError
        found = _TYPES[kind](float(value) if kind == "int" else value)
    except (TypeError, ValueError):
        raise BadInput(f"{name}: expected {kind}, came {value!r}", hint=knob.metadata["help"]) from None
    if knob.metadata["choices"] and found not in knob.metadata["choices"]:
        raise _unknown(name, str(found), knob.metadata["choices"])
    return found


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    words = {"true": True, "false": False, "none": None, "null": None}
    if value.lower() in words:
        return words[value.lower()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


_POSITIVE = (
    "max_length", "lora_r", "lora_alpha", "per_device_train_batch_size", "per_device_eval_batch_size",
    "gradient_accumulation_steps", "save_steps", "logging_steps", "eval_steps", "limit",
)  # fmt: skip


def _checked(settings: Settings) -> Settings:
    for name in _POSITIVE:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise BadInput(f"{name}: expected 1 or more, came {value}", hint="see --help")
    return settings


def changed(settings: Settings) -> dict[str, Any]:
    """What differs from the defaults, by our names, for the user to see."""
    return {knob.name: getattr(settings, knob.name) for knob in KNOBS if getattr(settings, knob.name) != knob.default}


def _dashed(word: str) -> str:
    """``--save_steps``, as Transformers' own scripts have it, is ``--save-steps``."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else word


def _parser() -> argparse.ArgumentParser:
    presets = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="LoRA fine-tuning of a causal language model, guarded by Outlast.",
        epilog="Flags stand above the configuration, the configuration above the defaults.",
    )
    file = parser.add_mutually_exclusive_group()
    file.add_argument("--preset", metavar="NAME", help=f"one of configs/: {presets}")
    file.add_argument("--config", metavar="FILE", help="YAML with the sections " + ", ".join(_SECTIONS))
    groups = {section: parser.add_argument_group(section) for section in _SECTIONS}
    for knob in KNOBS:
        kind = str(knob.type).partition(" | ")[0]
        default = "" if knob.default in (None, MISSING) else f" ({knob.default})"
        more: dict[str, Any] = (
            {"action": argparse.BooleanOptionalAction}
            if kind == "bool"
            else {"metavar": "|".join(knob.metadata["choices"]) or kind.upper()}
        )
        groups[knob.metadata["section"]].add_argument(
            _dashed(f"--{knob.name}"),
            dest=knob.name,
            default=None,
            help=(knob.metadata["help"] + default).replace("%", "%%"),
            **more,
        )
    groups["training"].add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="any other field of TrainingArguments"
    )
    return parser
