"""Saving: ModelCheckpoint announces, TorchCheckpointIO writes into a reservation and seals; removing goes aloud."""

from __future__ import annotations

import functools
import os
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from outlast.checkpoints import Draft, Needs, Policy, Stage, reserved_file
from outlast.integrations import torch_save
from outlast.integrations.lightning import leaving
from outlast.integrations.lightning.books import strike_phantoms
from outlast.integrations.lightning.guard import GUARDS, Guard, best_names, guard_at, is_sealed, local_path, policy_of
from outlast.journal import RUN_VARIABLE


def announced(original: Callable[..., Any]) -> Callable[..., Any]:
    """ModelCheckpoint says what it is about to save; afterwards its books are set right."""

    @functools.wraps(original)
    def save(self: Any, trainer: Any, filepath: str, *args: Any, **kwargs: Any) -> Any:
        policy, path = policy_of(trainer), local_path(filepath)
        folder = local_path(self.dirpath) if self.dirpath else None
        is_ours = policy and path and folder and path.parent == Path(os.path.realpath(folder))
        if not is_ours or path is None or policy is None:
            return original(self, trainer, filepath, *args, **kwargs)
        guard = guard_at(path.parent, policy) if trainer.is_global_zero else None
        if guard:
            guard.trainer = weakref.ref(trainer)
            _expect(guard, self, path.name, _metrics(trainer))
        try:
            result = original(self, trainer, filepath, *args, **kwargs)
        except BaseException:
            if guard:
                _met(guard, path.name)
            raise
        if guard and path.is_dir():
            _met(guard, path.name)
            guard.vault.journal.write("left_to_framework", path=str(path), why="a sharded checkpoint, not one file")
        strike_phantoms(self, trainer, guard)
        return result

    return save


def _expect(guard: Guard, callback: Any, name: str, metrics: Mapping[str, float]) -> None:
    guard.callbacks.add(callback)
    guard.expected.setdefault(name, []).append(metrics)


def _met(guard: Guard, name: str) -> None:
    waiting = guard.expected.get(name, [])
    del waiting[:1]
    if not waiting:
        guard.expected.pop(name, None)


def _metrics(trainer: Any) -> dict[str, float]:
    found = {}
    for name, value in trainer.callback_metrics.items():
        with suppress(TypeError, ValueError, RuntimeError):  # metrics of several elements have no one value
            found[str(name)] = float(value)
    return found


def save_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    """What ModelCheckpoint announced is admitted and sealed; another local file is written beside and renamed."""

    @functools.wraps(original)
    def save(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        local = local_path(path)
        guard = GUARDS.get(local.parent) if local else None
        if local is None or storage_options is not None or local.is_dir():
            original(self, checkpoint, path, storage_options)
        elif guard and (local.name in guard.expected or is_sealed(guard.vault, local.name)):
            _seal(guard, local.name, checkpoint)
        elif RUN_VARIABLE in os.environ or isinstance(getattr(self, "policy", None), Policy):
            import torch

            torch_save.install_here()
            local.parent.mkdir(parents=True, exist_ok=True)
            torch.save(checkpoint, local)
        else:
            original(self, checkpoint, path, storage_options)

    return save


def _seal(guard: Guard, name: str, checkpoint: Mapping[str, Any]) -> None:
    import torch

    metrics = next(iter(guard.expected.get(name, [])), {})
    size = torch_save.tensor_bytes(checkpoint)
    kind = "full" if "optimizer_states" in checkpoint else "weights"

    def write(stage: Stage) -> Draft:
        with reserved_file(stage, stage.path, size) as file:
            torch.save(checkpoint, file)
        return Draft("lightning", {kind: ()}, metrics)

    step = int(checkpoint.get("global_step", 0))
    sealed = guard.saver.save(name, step, Needs({kind: (size,)}, 64 * 1024, is_one_file=True), write)
    _met(guard, name)
    guard.best_names = best_names(guard)
    unwanted, guard.unwanted = guard.unwanted - {name}, set()
    unwanted |= {leaving.NAME} if leaving.superseded(guard, name, step) else set()
    for other in sorted(unwanted):
        _drop(guard, other)
    try:
        guard.saver.settle(sealed)
    except OSError as error:  # the checkpoint is sealed: a failure to tidy up must not end the training
        guard.vault.journal.write("settle_failed", name=name, reason=str(error))


def remove_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    """What is sealed goes through the vault; the rest is Lightning's own to remove, and journaled."""

    @functools.wraps(original)
    def remove(self: Any, path: Any) -> None:
        local = local_path(path)
        guard = GUARDS.get(local.parent) if local else None
        if local is None or guard is None:
            original(self, path)
        elif is_sealed(guard.vault, local.name):
            _drop(guard, local.name)
        elif os.path.lexists(local):
            original(self, path)
            guard.vault.journal.write("removed_by_framework", path=str(local), why="Lightning no longer wants it")
        # Else the ladder has dropped it before, which is in the journal already.

    return remove


def _drop(guard: Guard, name: str) -> None:
    """What Lightning wants removed goes, unless the user pinned it or gave Outlast a rule of their own."""
    vault = guard.vault
    held = next((checkpoint for checkpoint in vault.checkpoints() if checkpoint.name == name), None)
    if held is None:
        return
    if held.is_pinned or guard.saver.policy.keep:
        reason = "it is pinned" if held.is_pinned else f"--keep {guard.saver.policy.keep} decides"
        vault.journal.write("not_deleted", path=str(held.path), held_bytes=held.bytes, reason=reason)
        return
    if vault.drop(name, "ModelCheckpoint's save_top_k no longer wants it").reason:
        guard.unwanted.add(name)
