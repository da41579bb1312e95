"""What Outlast keeps for each folder that a ModelCheckpoint saves into."""

from __future__ import annotations

import functools
import os
import signal
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlast.caches import Reclaim
from outlast.checkpoints import Policy, Saver, Vault
from outlast.journal import RUN_VARIABLE
from outlast.train.leaving import patience


@dataclass(slots=True)
class Guard:
    """What Outlast keeps for one folder of checkpoints in this process."""

    vault: Vault
    saver: Saver
    callbacks: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    """The ModelCheckpoints that save here."""
    expected: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    """Files that a ModelCheckpoint is about to save, with the metrics of the moment; several where saves are async."""
    best_names: frozenset[str] = frozenset()
    """The best ones as of the last finished save: Lightning names the next best before it is saved."""
    trainer: Any = None
    """Weak reference to the Trainer that saves here."""
    unwanted: set[str] = field(default_factory=set)
    """What Lightning wanted to be removed while there was no other checkpoint that verifies."""


GUARDS: dict[Path, Guard] = {}


def policy_of(trainer: Any) -> Policy | None:
    """The policy that a Trainer is guarded with; None when it is not guarded."""
    plugin = getattr(getattr(trainer, "strategy", None), "checkpoint_io", None)
    while plugin is not None:
        if isinstance(policy := getattr(plugin, "policy", None), Policy):
            return policy
        plugin = getattr(plugin, "checkpoint_io", None)  # AsyncCheckpointIO and its like wrap another one
    return Policy.from_environment() if RUN_VARIABLE in os.environ else None


def local_path(path: Any) -> Path | None:
    """An absolute local path, links in its folder followed as ModelCheckpoint does; None for a remote one."""
    text = os.fspath(path)
    if not isinstance(text, str) or "://" in text:
        return None
    place = Path(text).absolute()
    return Path(os.path.realpath(place.parent)) / place.name


def model_checkpoints(trainer: Any) -> Iterator[Any]:
    """The ModelCheckpoints of a Trainer."""
    return (callback for callback in trainer.checkpoint_callbacks if hasattr(callback, "best_k_models"))


def folder_of(callback: Any) -> Path | None:
    """Where a ModelCheckpoint saves, links followed; None before it knows, or for a remote place."""
    folder = local_path(callback.dirpath) if callback.dirpath else None
    return Path(os.path.realpath(folder)) if folder else None


def guard_at(root: Path, policy: Policy) -> Guard:
    """The guard of a folder; at first sight the folder is put in order."""
    if root not in GUARDS:
        vault = Vault(root, is_protected=lambda name: _protection(root, name))
        # Which checkpoints to keep is ModelCheckpoint's own decision, unless the user gave a rule to Outlast.
        reclaim = Reclaim(policy.reclaim, vault.journal)
        GUARDS[root] = Guard(vault, Saver(vault, policy, reclaim, wait=functools.partial(_wait, root)))
        vault.recover()
    return GUARDS[root]


def _wait(root: Path, seconds: float) -> None:
    """Sleep while paused. Lightning answers SIGTERM after the batch: a save that waits would never get there."""
    patience(seconds)
    trainer = GUARDS[root].trainer
    if getattr(trainer and trainer(), "received_sigterm", False):
        raise SystemExit(128 + signal.SIGTERM)


def _protection(root: Path, name: str) -> str | None:
    guard = GUARDS.get(root)
    if guard and name in guard.best_names | best_names(guard):
        return "the best model so far"
    return None


def best_names(guard: Guard) -> frozenset[str]:
    """Best by a metric; without one, Lightning calls the newest the best, and that stays anyway."""
    return frozenset(Path(c.best_model_path).name for c in guard.callbacks if c.monitor and c.best_model_path)


def is_sealed(vault: Vault, name: str) -> bool:
    """True when there is a sealed checkpoint of this name."""
    return any(checkpoint.name == name for checkpoint in vault.checkpoints())
