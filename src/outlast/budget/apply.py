"""A plain configuration rewritten so that it fits, with the effective batch that it had. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from outlast.budget.fit import Candidate, Fit, divisors
from outlast.budget.keys import ADDED, KEYS, Key
from outlast.budget.presets import at_most, preset_named
from outlast.budget.ready import checkpointing_name
from outlast.errors import BadInput

_BY_NAME = {key.name: key for key in KEYS}

WHY = {
    "micro_batch": "what is in memory at once",
    "reduced": "what is in memory at once",
    "accumulation": "so that the effective batch stays",
    "precision": "activations take half, and tensor cores are used where there are any",
    "checkpointing": "activations are computed again rather than kept",
    "optimizer": "its state is smaller; training takes another course",
    "length": "shorter sequences: other data",
    "save_state": "`save` says it from now on: bare weights resume with a fresh optimizer",
    "light": "1 % of a full state beside the weights; its loss strays a fifth as far (benchmarks/light.py)",
    "full": "resume is exact",
    "weights_only": "a folder without an optimizer resumes with a fresh one and a restarted schedule",
    "clear": "emptying the cache every N steps costs speed; Outlast does it when fragments hold memory",
    "find_batch": "it changes the effective batch silently, and starts the training again; Outlast splits the batch",
    "other": "asked for",
}
"""Why a role is changed or dropped."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key."""

    key: str
    """Its name."""
    before: Any
    """What stood there; None where it did not."""
    after: Any
    """What stands there now; None where it was dropped."""
    why: str
    """The reason."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A configuration that was rewritten; printed, it shows before and after."""

    config: dict[str, Any]
    """The new one; the one that was given is as it was."""
    changes: tuple[Change, ...]
    """What is other than before."""
    effective_batch: int
    """Samples of one move of the optimizer, before and after."""
    micro_batch: int
    """Samples at once on one device, now."""
    accumulation: int
    """Micro-batches before the optimizer moves, now."""
    world: int
    """Devices."""

    def __str__(self) -> str:
        lines = [f"  {one.key}: {_shown(one.before)} -> {_shown(one.after)}  ({one.why})" for one in self.changes]
        parts = f"{self.micro_batch} x {self.accumulation}" + (f" x {self.world} devices" if self.world > 1 else "")
        return "\n".join(
            [*(lines or ["  nothing to change"]), f"  effective batch: {self.effective_batch}, as before ({parts})"]
        )


def apply(
    config: Mapping[str, Any],
    to: Mapping[str, Any] | Fit | Candidate | str | None = None,
    *,
    half: str = "fp16",
    transformers: str | None = None,
) -> Applied:
    """Rewrite a configuration; the effective batch never changes.

    Keys are recognised by the table `outlast.budget.keys.KEYS` (plain ones as in notebooks, TrainingArguments',
    Lightning's). Unknown keys stay.

    Args:
        config: what a notebook or script trains by; it is not changed.
        to: a fit or candidate to put in; a preset's name; other keys that are to hold, such as a ``memory_config``;
            None only mends what is there.
        half: half precision that a preset means: ``fp16``, or ``bf16`` from Ampere on.
        transformers: its version, for the names of arguments that have to be added; None: the newest.

    Raises:
        BadInput: without a batch size, or for a micro-batch that does not divide the batch.
    """
    work = _Rewriting(config, transformers)
    goal = _goal(to, work, half)
    micro = goal.pop("micro_batch", None) or work.said("reduced") or work.micro_batch
    if not isinstance(micro, int) or micro < 1 or work.effective % (micro * work.world):
        sizes = ", ".join(map(str, divisors(work.effective // work.world)))
        raise BadInput(
            f"micro-batches of {micro} do not make a batch of {work.effective}"
            + (f" on {work.world} devices" if work.world > 1 else ""),
            hint=f"one of: {sizes}; the effective batch is never changed",
        )
    accumulation = work.effective // (micro * work.world)
    work.put("micro_batch", micro)
    work.put("reduced", micro, only_there=True)
    work.put("accumulation", accumulation, only_there=accumulation == 1)
    save = goal.pop("save", None)
    for role, value in goal.items():
        if role in _ROLES:
            work.put(role, value)
        else:
            work.change(role, value, WHY["other"])
    work.mend(save)
    return Applied(work.config, tuple(work.changes), work.effective, micro, accumulation, work.world)


_ROLES = {key.role for key in KEYS}
_NOT_WISHES = {"accumulation", "world", "reduced", "save_state", "weights_only", "clear", "find_batch"}
"""Roles of a second configuration that are no wishes of their own: they follow, or are mended."""


def _goal(to: Any, work: _Rewriting, half: str) -> dict[str, Any]:
    """What the configuration is to say, by role; keys that have none by their own name."""
    if to is None:
        return {}
    if isinstance(to, Fit):
        if to.chosen is None:
            raise BadInput("nothing fitted, so there is nothing to apply", hint="outlast fit says what would")
        to = to.chosen.candidate
    if isinstance(to, Candidate):
        return _of_candidate(to, work)
    if isinstance(to, str):
        preset = preset_named(to)
        per_device = work.effective // work.world
        return {
            "micro_batch": min(at_most(per_device, preset.share), work.micro_batch),
            "precision": half if preset.is_half else "fp32",
            "save": preset.save,
            **preset.settings,
        }
    goal: dict[str, Any] = {}
    for name, value in to.items():
        key = _BY_NAME.get(name)
        if key is None:
            goal[name] = value
        elif key.role == "save_state":
            goal["save"] = "full" if value else "light"
        elif key.role == "reduced":
            goal["micro_batch"] = value
        elif key.role not in _NOT_WISHES and (said := key.read(value)) is not None:
            goal.setdefault(key.role, half if said == "half" else said)
    return goal


def _of_candidate(chosen: Candidate, work: _Rewriting) -> dict[str, Any]:
    if chosen.effective_batch != work.effective:
        raise BadInput(
            f"the fit is for a batch of {chosen.effective_batch}, the configuration's is {work.effective}",
            hint=f"outlast fit ... --batch {work.effective}: the effective batch is never changed",
        )
    goal: dict[str, Any] = {"micro_batch": chosen.micro_batch, "precision": chosen.precision}
    if chosen.checkpointing or work.said("checkpointing"):
        goal["checkpointing"] = chosen.checkpointing
    if chosen.optimizer != (work.said("optimizer") or "adamw"):
        goal["optimizer"] = chosen.optimizer
    if chosen.length is not None and work.said("length"):
        goal["length"] = chosen.length
    return goal


class _Rewriting:
    """A copy of a configuration, and what was changed in it."""

    def __init__(self, config: Mapping[str, Any], transformers: str | None) -> None:
        self.config = dict(config)
        self.changes: list[Change] = []
        self._transformers = transformers
        micro, reduced = self.said("micro_batch"), self.said("reduced")
        if not any(isinstance(size, int) and size > 0 for size in (micro, reduced)):
            raise BadInput(
                "the configuration has no batch size",
                hint="one of the keys " + ", ".join(key.name for key in KEYS if key.role == "micro_batch"),
            )
        self.world = self.said("world") or 1
        self.micro_batch: int = micro or reduced
        # Beside a larger batch size, a reduced one brings its own accumulation: the batch is what stood there first.
        is_wish = micro and reduced and reduced < micro
        steps = 1 if is_wish else self.said("accumulation") or 1
        self.effective: int = self.micro_batch * steps * self.world

    def keys(self, role: str) -> Iterator[Key]:
        """The keys of a role that are there."""
        return (_BY_NAME[name] for name in list(self.config) if name in _BY_NAME and _BY_NAME[name].role == role)

    def said(self, role: str) -> Any:
        """What the configuration says; None where it does not."""
        found = (key.read(self.config[key.name]) for key in self.keys(role))
        return next((value for value in found if value is not None), None)

    def put(self, role: str, value: Any, *, only_there: bool = False) -> None:
        """Let every key of a role say this; add one where there is none."""
        there = list(self.keys(role))
        if role == "precision" and self._is_so(there, value):
            return
        for key in there:
            if key.read(self.config[key.name]) != key.read(key.write(value)):
                self.change(key.name, key.write(value), WHY.get(role, WHY["other"]))
        if only_there or (there and not self._lacks_type(role, there, value)):
            return
        name = self._added(role, value)
        if name is not None:
            key = _BY_NAME[name]
            self.change(name, key.write(value), WHY.get(role, WHY["other"]))

    def _is_so(self, there: list[Key], value: Any) -> bool:
        """Half precision without saying which is any."""
        said = [key.read(self.config[key.name]) for key in there]
        said = [one for one in said if one is not None]
        return (not there and value == "fp32") or (
            bool(said) and all(one in (value, "half") for one in said) and value != "fp32"
        )

    def _lacks_type(self, role: str, there: list[Key], value: Any) -> bool:
        """TrainingArguments say fp16 and bf16 by a key each."""
        return role == "precision" and value != "fp32" and {key.name for key in there} == {"fp16", "bf16"} - {value}

    def _added(self, role: str, value: Any) -> str | None:
        family = self._family()
        if family == "trainer" and role == "precision":
            return None if value == "fp32" else str(value)
        if family == "trainer" and role == "checkpointing":
            return checkpointing_name(self._transformers)
        return ADDED.get((role, family))

    def _family(self) -> str:
        families = [_BY_NAME[name].family for name in self.config if name in _BY_NAME]
        return next((family for family in ("trainer", "lightning") if family in families), "plain")

    def change(self, name: str, value: Any, why: str) -> None:
        """Set a key, and remember it where that is a change."""
        if name in self.config and self.config[name] == value and type(self.config[name]) is type(value):
            return
        self.changes.append(Change(name, self.config.get(name), value, why))
        self.config[name] = value

    def drop(self, name: str, why: str) -> None:
        """Take a key out."""
        self.changes.append(Change(name, self.config.pop(name), None, why))

    def mend(self, save: str | None) -> None:
        """What does harm: bare weights, periodic emptying, a search that changes the batch."""
        for key in list(self.keys("save_state")):
            save = save or ("full" if self.config[key.name] else "light")
            self.drop(key.name, WHY["save_state"])
        if save is not None and self._family() == "plain":
            self.change("save", save, WHY[save])
        for key in list(self.keys("weights_only")):
            if self.config[key.name]:
                self.change(key.name, False, WHY["weights_only"])
        for role in ("clear", "find_batch"):
            for key in list(self.keys(role)):
                if self.config[key.name]:
                    self.drop(key.name, WHY[role])


def _shown(value: Any) -> str:
    return "-" if value is None else repr(value) if isinstance(value, str) else str(value)
