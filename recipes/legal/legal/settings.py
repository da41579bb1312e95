"""What to do: defaults, a preset, a configuration file and flags, put together, with what was changed and why."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from legal.keys import BY_NAME, KEYS
from outlast.budget.apply import Applied, apply
from outlast.errors import BadInput

PRESETS = Path(__file__).resolve().parent.parent / "presets"
_OURS = ("clear_cache_every", "gradient_accumulation_steps")
"""What `apply` would drop, or work out by itself: here it was said."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A configuration that was checked, and how it came about."""

    values: Mapping[str, Any]
    """By name, as in `legal.keys`; None where nothing was said and there is no default."""
    batch: int
    """Samples of one move of the optimizer."""
    micro_batch: int
    """Samples at once, at most."""
    applied: Applied | None
    """Before and after; None when memory optimizations were not to be applied, or there were none."""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def shown(self) -> str:
        """Before and after, as the notebook prints it."""
        if self.applied is None:
            return f"memory optimizations: none applied; batches of {self.batch}, {self.micro_batch} at once"
        more = [f"  clear_cache_every: {self['clear_cache_every']}  (asked for; see README)"] * bool(
            self["clear_cache_every"]
        )
        return "\n".join(["configuration updated for memory:", *more, str(self.applied)])


def presets() -> list[str]:
    """Names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load(path: Path) -> dict[str, Any]:
    """A configuration file: YAML, or JSON, which is YAML too.

    Raises:
        BadInput: when it cannot be read, or is no mapping.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"cannot read {path}: {error}", hint="--config takes a YAML or JSON file") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{path} holds a {type(value).__name__}", hint="expected keys and values, as in config.yaml")
    return value


def preset(name: str) -> dict[str, Any]:
    """A preset's memory_config.

    Raises:
        BadInput: when there is none of this name.
    """
    if name not in presets():
        raise BadInput(f"no preset called {name!r}", hint=f"one of {', '.join(presets())}")
    return load(PRESETS / f"{name}.yaml")


def settle(
    config: Mapping[str, Any] | None = None,
    *,
    preset_name: str | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Put it all together; what is said later stands above: defaults, file, preset, the file's memory_config, flags.

    Args:
        config: keys and values; ``memory_config`` and ``preset`` may be among them.
        preset_name: a preset, above the one that ``config`` names.
        flags: from the command line.

    Raises:
        BadInput: for an unknown key, a value that it may not be, or sizes that contradict each other.
    """
    given = dict(config or {})
    name = preset_name or given.pop("preset", None)
    given.pop("preset", None)
    memory = {**(preset(name) if name else {}), **_mapping(given.pop("memory_config", None))}
    memory, given, flags = _checked(memory), _checked(given), _checked(flags or {})
    for key, value in flags.items():
        # A flag replaces what the memory_config says, else what the configuration says.
        (memory if key in memory else given)[key] = value
    said = {**given, **memory}
    plain = {key.name: key.default for key in KEYS if key.default is not None} | given
    if not plain["apply_memory_optimizations"]:
        memory = {}
    goal = {key: value for key, value in memory.items() if key not in _OURS}
    if plain.get("save_optimizer_state") is not None:
        plain.pop("save")
    _check_sizes(plain, memory)
    applied = apply({k: v for k, v in plain.items() if k != "clear_cache_every"}, goal)
    after = {key.name: None for key in KEYS} | applied.config
    after["clear_cache_every"] = memory.get("clear_cache_every", plain["clear_cache_every"])
    if "subset_ratio" in said and "use_subset" not in said:
        after["use_subset"] = True
    return Settings(after, applied.effective_batch, applied.micro_batch, applied if memory else None)


def _mapping(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadInput(f"memory_config is a {type(value).__name__}", hint="expected keys and values, as in config.yaml")
    return dict(value)


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    checked = {}
    for name, value in given.items():
        key = BY_NAME.get(name)
        if key is None:
            near = difflib.get_close_matches(str(name), [*BY_NAME, "memory_config", "preset"], 1)
            hint = f"did you mean {near[0]}?" if near else "python train.py --help names all of them"
            raise BadInput(f"unknown key {name!r}", hint=hint)
        if value is None and key.default is None:
            continue
        try:
            checked[name] = key.kind.read(value)
        except (TypeError, ValueError, OverflowError):
            raise BadInput(f"{name} is {value!r}", hint=f"expected {key.kind.expected}") from None
    return checked


def _check_sizes(plain: Mapping[str, Any], memory: Mapping[str, Any]) -> None:
    """A memory_config that says both of its sizes must make the batch that is there."""
    at_once = memory.get("reduced_batch_size")
    steps = memory.get("gradient_accumulation_steps")
    batch = plain["batch_size"] * (1 if at_once else plain.get("gradient_accumulation_steps") or 1)
    if steps is None:
        return
    made = (at_once or batch // steps) * steps
    if made != batch:
        raise BadInput(
            f"{at_once or plain['batch_size']} at once, {steps} times, make {made}; the batch is {batch}",
            hint=f"the effective batch never changes silently: say batch_size {made}, or other sizes",
        )


def as_json(settings: Settings) -> str:
    """What was settled, for the run's folder."""
    return json.dumps(dict(settings.values), indent=1, sort_keys=True)
