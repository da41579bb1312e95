"""Transformers' Trainer: its saves are sealed, it resumes from verified ones only, its steps are split to fit memory.

Under `outlast run` every Trainer is guarded. In a script of your own: ``Trainer(..., callbacks=[OutlastCallback()])``.

How a save goes: `_save_checkpoint` of the Trainer writes everything into the stage (`_get_output_dir` is shadowed for
the call), the best checkpoint's path in trainer_state.json is set to its final place, the seal is written, the folder
gets its name; users' `on_save` callbacks run; what they changed is sealed again; then retention prunes in place of the
Trainer's own rotation.
"""

from __future__ import annotations

import os
import sys
import time
from types import ModuleType
from typing import Any

from outlast.budget import clock
from outlast.checkpoints import Keep, Policy
from outlast.host import this_session
from outlast.integrations.planning import VARIABLE as PLAN
from outlast.integrations.transformers import leaving, resuming, saving, step

__all__ = ["OutlastCallback", "install", "install_utils"]


def OutlastCallback(  # noqa: N802 (reads as a class)
    keep: Keep | None = None, *, keep_exact: bool = False, save: str | None = None, deadline: str | None = None
) -> Any:
    """A Trainer callback that guards the Trainer it is given to.

    Args:
        keep: retention; None follows ``save_total_limit``, the best model and ``outlast run --keep``.
        keep_exact: always hold a full checkpoint, even if new saves have to be light.
        save: ``full`` or ``light``; None follows `outlast run --save`. ``save_only_model=True`` is light in any case.
        deadline: when this session ends, counted from here: ``9h``, ``23:30``, ``auto``. The last step that fits is
            sealed and the process ends with code 0 (`outlast.Stopped`). An earlier one of `outlast run` counts.

    Raises:
        BadInput: when the deadline cannot be read.
    """
    import transformers.trainer
    import transformers.trainer_utils

    if PLAN not in os.environ:  # `outlast plan` looks and leaves: nothing is written
        install_utils(sys.modules["transformers.trainer_utils"])
        install(sys.modules["transformers.trainer"])
    policy = Policy.from_environment()
    chosen = policy.with_choice(keep, keep_exact=keep_exact, save=save)
    by = clock.parse(deadline, time.time(), this_session()) if deadline is not None else None
    held = {"policy": chosen, "deadline": by}
    kind = type("OutlastCallback", (transformers.trainer_callback.TrainerCallback,), held)
    return kind()


def install(module: ModuleType) -> None:
    """Guard the Trainer class; once.

    Args:
        module: ``transformers.trainer``.
    """
    trainer = module.Trainer
    if getattr(trainer, "_outlast", False):
        return
    trainer._outlast = True
    for name, wrapper in {
        "train": resuming.train,
        "training_step": step.training_step,
        "_save_checkpoint": saving.save_checkpoint,
        "_load_optimizer_and_scheduler": resuming.load_optimizer_and_scheduler,
        "_load_rng_state": resuming.load_rng_state,
        "_load_scaler": resuming.load_scaler,
        "_finalize_training": saving.finalize_training,
        "_push_from_checkpoint": saving.push_from_checkpoint,
        "save_model": saving.save_model,
    }.items():
        if hasattr(trainer, name):
            setattr(trainer, name, wrapper(getattr(trainer, name)))
    if hasattr(module, "rotate_checkpoints"):
        module.rotate_checkpoints = saving.unless_guarded(module.rotate_checkpoints)  # type: ignore[attr-defined]
    else:  # Transformers 4
        trainer._rotate_checkpoints = saving.unless_guarded(trainer._rotate_checkpoints)
    handler = sys.modules["transformers.trainer_callback"].CallbackHandler
    handler.on_save = saving.on_save(handler.on_save)
    handler.on_step_end = leaving.on_step_end(handler.on_step_end)


def install_utils(module: ModuleType) -> None:
    """Let `get_last_checkpoint` offer sealed and verified checkpoints only; once.

    Args:
        module: ``transformers.trainer_utils``.
    """
    original = module.get_last_checkpoint
    if getattr(original, "_outlast", False):
        return

    get_last_checkpoint = resuming.last_checkpoint(original)
    get_last_checkpoint._outlast = True  # type: ignore[attr-defined]
    module.get_last_checkpoint = get_last_checkpoint  # type: ignore[attr-defined]
    trainer = sys.modules.get("transformers.trainer")
    if getattr(trainer, "get_last_checkpoint", None) is original:
        trainer.get_last_checkpoint = get_last_checkpoint  # type: ignore[union-attr]
