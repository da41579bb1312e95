"""Which Trainer is guarded, with what, and where: one guard for each Trainer and folder of checkpoints."""

from __future__ import annotations

import os
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlast.budget.clock import Deadline
from outlast.caches import Reclaim
from outlast.checkpoints import Checkpoint, Keep, Policy, Saver, Vault
from outlast.journal import RUN_VARIABLE
from outlast.train.leaving import patience


@dataclass(slots=True)
class Guard:
    """What Outlast keeps for one Trainer and one folder of checkpoints."""

    vault: Vault
    saver: Saver
    pending: Checkpoint | None = None
    """Saved, but the users' callbacks have not run yet."""
    limit: int | None = None
    """``save_total_limit``, where no rules of the user's own stand above it."""
    pushes: list[Path] = field(default_factory=list)
    """Uploads that the Trainer wanted to start in the middle of the save."""


GUARDS: weakref.WeakKeyDictionary[Any, dict[Path, Guard]] = weakref.WeakKeyDictionary()
HANDLERS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def trainer_of(handler: Any) -> Any:
    """The guarded Trainer that a CallbackHandler belongs to; None when there is none, or no more."""
    return HANDLERS[handler]() if handler in HANDLERS else None


def is_guarded_run() -> bool:
    """True in a process that `outlast run` started."""
    return RUN_VARIABLE in os.environ


def known_roots() -> set[Path]:
    """Folders of checkpoints of the guarded Trainers of this process."""
    return {root for guards in GUARDS.values() for root in guards}


def policy_of(trainer: Any) -> Policy | None:
    """The policy that a Trainer is guarded with; None when it is not guarded."""
    for callback in trainer.callback_handler.callbacks:
        policy = getattr(callback, "policy", None)
        if isinstance(policy, Policy):
            return policy
    return Policy.from_environment() if is_guarded_run() else None


def deadline_of(trainer: Any) -> Deadline | None:
    """When the training of this Trainer ends by its callback's own words; None without any."""
    found = [getattr(callback, "deadline", None) for callback in trainer.callback_handler.callbacks]
    return min((one for one in found if isinstance(one, Deadline)), key=lambda one: one.by, default=None)


def guard_of(trainer: Any, root: Path) -> Guard | None:
    """A Trainer's guard for a folder, with retention as its arguments say now; None when it is not guarded."""
    policy = policy_of(trainer)
    if policy is None:
        return None
    guards = GUARDS.setdefault(trainer, {})
    if root not in guards:
        this = weakref.ref(trainer)
        vault = Vault(root, is_protected=lambda name: _protection(this(), name))
        guards[root] = Guard(vault, Saver(vault, policy, Reclaim(policy.reclaim, vault.journal), wait=patience))
        HANDLERS[trainer.callback_handler] = this
    guard = guards[root]
    limit = trainer.args.save_total_limit
    guard.limit = limit if limit and limit > 0 and policy.keep is None else None
    guard.saver.keep = policy.keep or rotation(guard)
    return guard


def rotation(guard: Guard) -> Keep:
    """The Trainer's own rotation: a best model that is older than the last so many is one of them."""
    if guard.limit is None:
        return Keep()
    names = [checkpoint.name for checkpoint in guard.vault.checkpoints() if checkpoint.kind]
    has_old_best = any(guard.vault.is_protected(name) for name in names[: -guard.limit])
    return Keep(last=max(1, guard.limit - has_old_best))


def _protection(trainer: Any, name: str) -> str | None:
    """The best model that the Trainer will load at the end, or names in its state, must stay."""
    best = getattr(getattr(trainer, "state", None), "best_model_checkpoint", None)
    step = getattr(getattr(trainer, "state", None), "best_global_step", None)
    if (best and Path(best).name == name) or (step and name == f"checkpoint-{step}"):
        return "the best model so far"
    return None
