"""What a run's own configuration says of its saves: keys of the Trainer and its like, in nested sections. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Said:
    """A value, and who said it."""

    value: Any
    """The value."""
    source: str
    """``--save-steps``, ``train.yaml: training.save_steps``, ``the Trainer's default`` ..."""


def _whole(value: Any) -> int:
    number = float(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _limit(value: Any) -> int:
    """A limit below 1 keeps all: so do the Trainer (0 and less) and Lightning (-1)."""
    return max(0, _whole(value))


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return words[str(value).lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError
    return value


_Key = tuple[str, Callable[[Any], Any], str]
KEYS: Mapping[str, _Key] = {
    "output_dir": ("output_dir", _text, "a path"),
    "dirpath": ("output_dir", _text, "a path"),
    "default_root_dir": ("output_dir", _text, "a path"),
    "save_strategy": ("strategy", _text, "a word"),
    "save_steps": ("every", float, "a number"),
    "checkpointing_steps": ("every", str, "a number or epoch"),
    "every_n_train_steps": ("every", float, "a number"),
    "every_n_epochs": ("every_epochs", float, "a number"),
    "eval_steps": ("eval_every", float, "a number"),
    "save_total_limit": ("limit", _limit, "a whole number"),
    "total_limit": ("limit", _limit, "a whole number"),
    "checkpoints_total_limit": ("limit", _limit, "a whole number"),
    "save_top_k": ("limit", _limit, "a whole number"),
    "save_last": ("copies_last", lambda value: value != "link" and _truth(value), "true, false or link"),
    "max_steps": ("steps", _whole, "a whole number"),
    "max_train_steps": ("steps", _whole, "a whole number"),
    "num_train_epochs": ("epochs", float, "a number"),
    "num_epochs": ("epochs", float, "a number"),
    "max_epochs": ("epochs", float, "a number"),
    "per_device_train_batch_size": ("batch", _whole, "a whole number"),
    "micro_batch_size": ("batch", _whole, "a whole number"),
    "gradient_accumulation_steps": ("accumulation", _whole, "a whole number"),
    "accumulate_grad_batches": ("accumulation", _whole, "a whole number"),
    "save_only_model": ("only_model", _truth, "true or false"),
    "save_weights_only": ("only_model", _truth, "true or false"),
    "load_best_model_at_end": ("best", _truth, "true or false"),
    "push_to_hub": ("pushes", _truth, "true or false"),
    "hub_strategy": ("push_strategy", _text, "a word"),
    "logging_steps": ("log_every", float, "a number"),
    "optim": ("optimizer", _text, "a name"),
}
"""Keys that are looked for, what they are called here, how they are read, and what was expected."""

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
        ours, read, expected = KEYS[key]
        where = ".".join((*path, key))
        try:
            new = read(value)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise BadInput(f"{name}: {where} is {value!r}", hint=f"expected {expected}") from None
        depth, there, _, old = found.get(ours, (len(path), where, key, new))
        if depth == len(path) and old != new:
            raise BadInput(f"{name}: {there} is {old!r} and {where} is {new!r}", hint="say which with an option")
        found.setdefault(ours, (len(path), where, key, new))
    settings = {ours: Said(value, f"{name}: {where}") for ours, (_, where, _, value) in found.items()}
    if framework:
        settings["framework"] = Said(framework, f"{name}: by its keys")
    return settings


def _pairs(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """Known keys with a value, those that stand higher first."""
    front: list[tuple[Any, tuple[str, ...]]] = [(node, path)]
    while front:
        deeper: list[tuple[Any, tuple[str, ...]]] = []
        for one, where in front:
            for key, value in _children(one):
                if isinstance(value, Mapping | list):
                    deeper.append((value, (*where, key)))
                elif key in KEYS and value is not None:
                    yield where, key, value
        front = deeper


def _children(node: Any) -> Sequence[tuple[str, Any]]:
    if isinstance(node, Mapping):
        return [(str(key), value) for key, value in node.items()]
    return [(str(number), value) for number, value in enumerate(node)]


def first(*layers: Mapping[str, Said]) -> dict[str, Said]:
    """Settings of several origins: of each name the one of the first layer that has it."""
    return {name: said for layer in reversed(layers) for name, said in layer.items()}
