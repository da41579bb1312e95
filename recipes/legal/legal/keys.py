"""Every word of a configuration: what it may be, what it is when nothing is said, what it means. A word is a row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be."""

    expected: str
    """For people."""
    read: Callable[[Any], Any]
    """From YAML, JSON or a flag; raises ValueError or TypeError for what it may not be."""


@dataclass(frozen=True, slots=True)
class Key:
    """A word of the configuration, and a flag of the same name."""

    name: str
    """As it stands in the configuration; ``--name`` with hyphens."""
    kind: Kind
    """What it may be."""
    default: Any
    """When nothing is said; None: nothing."""
    meaning: str
    """For ``--help``."""


def _number(least: float, most: float = math.inf, *, above: bool = False) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        number = float(value)
        if isinstance(value, bool) or not least <= number <= most or (above and number == least):
            raise ValueError
        return number

    return read


def _count(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or int(value) != float(value) or int(value) < least:
            raise ValueError
        return int(value)

    return read


def _switch(value: Any) -> bool:
    said = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in said:
        raise ValueError
    return said[str(value).lower()]


def _frequency(value: Any) -> str | int:
    if value in ("epoch", "none"):
        return str(value)
    return _count(1)(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _save(value: Any) -> str:
    if value not in ("full", "light"):
        raise ValueError
    return str(value)


COUNT = Kind("a whole number from 1 up", _count(1))
COUNT_OR_NONE = Kind("a whole number from 0 up", _count(0))
SHARE = Kind("a number above 0 and up to 1", _number(0, 1, above=True))
PART = Kind("a number between 0 and 1", _number(0, 0.999, above=True))
RATE = Kind("a number above 0", _number(0, 10, above=True))
DECAY = Kind("a number from 0 up to 1", _number(0, 1))
SWITCH = Kind("true or false", _switch)
FREQUENCY = Kind("epoch, none, or a number of steps", _frequency)
TEXT = Kind("a text", _text)
SAVE = Kind("full or light", _save)

KEYS: tuple[Key, ...] = (
    Key("data", TEXT, None, "folder or file of documents with labelled sentences (JSON, JSON lines, CSV)"),
    Key("out", TEXT, "runs/legal", "folder of this run: checkpoints, best model, report"),
    Key("model", TEXT, "law-ai/InLegalBERT", "hub id or folder; 'small' for a small BERT from random weights"),
    Key("apply_memory_optimizations", SWITCH, True, "put the preset and memory_config into the rest; false leaves it"),
    # what a step is
    Key("batch_size", COUNT, 16, "samples of one move of the optimizer; times gradient_accumulation_steps, if said"),
    Key("reduced_batch_size", COUNT, None, "samples at once, at most; the batch stays what it is"),
    Key("gradient_accumulation_steps", COUNT, None, "how often so many samples make the batch"),
    Key("use_mixed_precision", SWITCH, False, "bf16 or fp16, whichever the device is good at"),
    Key("use_gradient_checkpointing", SWITCH, False, "compute activations again rather than keep them: a third slower"),
    Key("clear_cache_every", COUNT_OR_NONE, 0, "empty torch's GPU cache every so many steps; 0: only when it helps"),
    # learning
    Key("num_epochs", COUNT, 5, "how often the training data is gone through"),
    Key("learning_rate", RATE, 2e-5, "after the warm-up"),
    Key("warmup_ratio", DECAY, 0.1, "share of all steps in which the rate rises; it falls to zero from there"),
    Key("weight_decay", DECAY, 0.01, "AdamW's"),
    Key("max_length", Kind("a whole number from 8 up", _count(8)), 256, "tokens of a sentence with its context"),
    Key("context", COUNT_OR_NONE, 0, "sentences before it, of the same document, that are given along"),
    Key("seed", COUNT_OR_NONE, 0, "of weights, order and split"),
    # data
    Key("use_subset", SWITCH, False, "train on subset_ratio of the documents"),
    Key("subset_ratio", SHARE, 0.2, "share of the documents in training; validation stays whole"),
    Key("validation", PART, 0.1, "share of the documents that are held out"),
    Key("num_workers", COUNT_OR_NONE, 0, "processes that put batches together"),
    # saving
    Key("save_frequency", FREQUENCY, "epoch", "epoch, none, or also every so many steps"),
    Key("save_optimizer_state", SWITCH, None, "false: light checkpoints, a third of the bytes"),
    Key("save", SAVE, "full", "full or light: the same as save_optimizer_state"),
    Key("keep_n_checkpoints", COUNT, None, "how many to keep; nothing said: all, or with keep_only_best one"),
    Key("keep_only_best", SWITCH, False, "of those, the best by validation F1; the newest stays too: it is the way on"),
    Key("log_every", COUNT, 10, "steps between two lines of log.jsonl"),
    Key("deadline", TEXT, None, "when this session ends: 9h, 23:30, auto"),
)

BY_NAME = {key.name: key for key in KEYS}
