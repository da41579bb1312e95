"""What a run's own configuration says of its saves: keys of the Trainer and its like, in nested sections. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outlast.errors import BadInput
from outlast.host.numbers import COUNT, NOT_NEGATIVE, POSITIVE, Number, shown


@dataclass(frozen=True, slots=True)
class Said:
    """A value, and who said it."""

    value: Any
    """The value."""
    source: str
    """``--save-steps``, ``train.yaml: training.save_steps``, ``the Trainer's default`` ..."""


@dataclass(frozen=True, slots=True)
class Word:
    """What is said in words, or with true and false."""

    read: Callable[[Any], Any]
    """From what stands there; raises ValueError, TypeError or KeyError for what makes no sense."""
    expected: str
    """In words, for a hint."""


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return words[str(value).lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


def _path(value: Any) -> str:
    if b"\0" in os.fsencode(_text(value)):
        raise ValueError
    return str(value)


def _one_of(*words: str) -> Word:
    """A word of an enumeration; one that was dumped may carry its class: ``SaveStrategy.STEPS``."""
    known = {word: word for word in words}
    return Word(lambda value: known[_text(value).lower().rpartition(".")[2]], "one of " + ", ".join(words))


_PATH, _TRUE, _NAME = Word(_path, "a path"), Word(_truth, "true or false"), Word(_text, "a name")
_NOT_SAID = "; -1 says nothing"
NUMBERS: Mapping[str, Number] = {
    "steps": Number(f"a whole number{_NOT_SAID}", -1, is_whole=True),
    "epochs": Number(f"a number{_NOT_SAID}", -1),
    # A limit below 1 keeps all: so do the Trainer (0 and less) and Lightning (-1).
    "limit": Number("a whole number", -1e20, is_whole=True, floor=0),
    "batch": COUNT,
    "accumulation": COUNT,
    "devices": COUNT,
    "samples": COUNT,
    "steps_per_epoch": COUNT,
    "eval_every": NOT_NEGATIVE,
    "log_every": NOT_NEGATIVE,
}
"""Which numbers make sense for a setting, by our names, in a file and in what a script tells."""
OPTIONS: Mapping[str, Number] = {
    **NUMBERS,
    "steps": COUNT,
    "epochs": POSITIVE,
    "was_full_at": COUNT,
    "seconds_per_step": POSITIVE,
    "seconds_per_save": NOT_NEGATIVE,
    "session_hours": Number("hours, a minute (0.017) or more", 1 / 60),
    "price_gb_month": NOT_NEGATIVE,
    "price_gb_hour": NOT_NEGATIVE,
    "timeout": POSITIVE,
}
"""The same for options: who types one says something."""

_Key = tuple[str, Word | Number]
KEYS: Mapping[str, _Key] = {
    "output_dir": ("output_dir", _PATH),
    "dirpath": ("output_dir", _PATH),
    "default_root_dir": ("output_dir", _PATH),
    "save_strategy": ("strategy", _one_of("steps", "epoch", "best", "no", "none")),
    "save_steps": ("every", POSITIVE),
    "checkpointing_steps": (
        "every",
        Word(lambda value: "1epoch" if value == "epoch" else POSITIVE.read(value), "a number or epoch"),
    ),
    "every_n_train_steps": ("every", POSITIVE),
    "every_n_epochs": ("every_epochs", POSITIVE),
    "eval_steps": ("eval_every", NUMBERS["eval_every"]),
    "save_total_limit": ("limit", NUMBERS["limit"]),
    "total_limit": ("limit", NUMBERS["limit"]),
    "checkpoints_total_limit": ("limit", NUMBERS["limit"]),
    "save_top_k": ("limit", NUMBERS["limit"]),
    "save_last": ("copies_last", Word(lambda value: value != "link" and _truth(value), "true, false or link")),
    "max_steps": ("steps", NUMBERS["steps"]),
    "max_train_steps": ("steps", NUMBERS["steps"]),
    "num_train_epochs": ("epochs", NUMBERS["epochs"]),
    "num_epochs": ("epochs", NUMBERS["epochs"]),
    "max_epochs": ("epochs", NUMBERS["epochs"]),
    "per_device_train_batch_size": ("batch", NUMBERS["batch"]),
    "micro_batch_size": ("batch", NUMBERS["batch"]),
    "gradient_accumulation_steps": ("accumulation", NUMBERS["accumulation"]),
    "accumulate_grad_batches": ("accumulation", NUMBERS["accumulation"]),
    "save_only_model": ("only_model", _TRUE),
    "save_weights_only": ("only_model", _TRUE),
    "load_best_model_at_end": ("best", _TRUE),
    "push_to_hub": ("pushes", _TRUE),
    "hub_strategy": ("push_strategy", _one_of("end", "every_save", "checkpoint", "all_checkpoints")),
    "logging_steps": ("log_every", NUMBERS["log_every"]),
    "optim": ("optimizer", _NAME),
}
"""Keys that are looked for, what they are called here, and how they are read."""

FRAMEWORK_KEYS: Mapping[str, str] = {
    "every_n_train_steps": "lightning",
    "save_top_k": "lightning",
    "accumulate_grad_batches": "lightning",
    "total_limit": "accelerate",
    "checkpointing_steps": "accelerate",
}
"""Keys that tell a framework; without any it is the Trainer."""


def from_document(document: Any, name: str) -> dict[str, Said]:
    """The settings that a configuration holds, wherever in it they stand.

    Args:
        document: mappings and lists, as YAML or JSON gives them.
        name: its file's name, for sources and errors.

    Returns:
        Our names to what was said; of one key in two places, the one that stands higher.

    Raises:
        BadInput: when it is no mapping, a value has the wrong form, or two places of one depth say different things.
    """
    if not isinstance(document, Mapping):
        raise BadInput(f"{name} holds no settings", hint="expected keys such as output_dir, save_steps, max_steps")
    found: dict[str, tuple[int, str, str, Any]] = {}
    framework = None
    for path, key, value in _pairs(document, ()):
        framework = framework or FRAMEWORK_KEYS.get(key)
        ours, kind = KEYS[key]
        where = ".".join((*path, key))
        try:
            new = kind.read(value)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise BadInput(f"{name}: {where} is {shown(value)}", hint=f"expected {kind.expected}") from None
        depth, there, _, old = found.get(ours, (len(path), where, key, new))
        if depth == len(path) and old != new:
            raise BadInput(
                f"{name}: {there} is {shown(old)} and {where} is {shown(new)}", hint="say which with an option"
            )
        found.setdefault(ours, (len(path), where, key, new))
    settings = {ours: Said(value, f"{name}: {where}") for ours, (_, where, _, value) in found.items()}
    if framework:
        settings["framework"] = Said(framework, f"{name}: by its keys")
    return settings


def _pairs(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Known keys with a value, those that stand higher first.

    Each mapping and list is entered once, where it stands highest: a YAML alias may stand in many places, or in itself.
    """
    front: list[tuple[Any, tuple[str, ...]]] = [(node, path)]
    entered = {id(node)}
    while front:
        deeper: list[tuple[Any, tuple[str, ...]]] = []
        for one, where in front:
            for key, value in _children(one):
                if _says(key, value):
                    yield where, key, value
                elif isinstance(value, Mapping | list) and id(value) not in entered:
                    entered.add(id(value))
                    deeper.append((value, (*where, key)))
        front = deeper


def _says(key: str, value: Any) -> bool:
    """Whether this is a setting; a section may be called as one that is said in words (``optim``), none as a number."""
    if key not in KEYS or value is None:
        return False
    return not isinstance(value, Mapping | list) or isinstance(KEYS[key][1], Number)


def _children(node: Any) -> Sequence[tuple[str, Any]]:
    if isinstance(node, Mapping):
        return [(key if isinstance(key, str) else shown(key), value) for key, value in node.items()]
    return [(str(number), value) for number, value in enumerate(node)]


def told(answer: Mapping[str, Any], name: str) -> dict[str, Said]:
    """The settings that a script told by our names.

    Args:
        answer: what it told.
        name: the script, for sources and errors.

    Raises:
        BadInput: for a number that makes no sense.
    """
    found = {ours: NUMBERS[ours].given(f"{name}: {ours}", value) if ours in NUMBERS else value
             for ours, value in answer.items()}  # fmt: skip
    return {ours: Said(value, name) for ours, value in found.items()}


def first(*layers: Mapping[str, Said]) -> dict[str, Said]:
    """Settings of several origins: of each name the one of the first layer that has it."""
    return {name: said for layer in reversed(layers) for name, said in layer.items()}
