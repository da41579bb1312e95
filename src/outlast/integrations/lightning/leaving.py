"""Lightning's last step of a session: a callback that looks after each step, saves it, and leaves.

The file that it saves is `NAME`, beside those of ModelCheckpoint; it goes once a newer one is sealed.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from signal import SIGTERM
from typing import Any

from outlast.integrations.lightning.guard import Guard, folder_of, guard_at, model_checkpoints, policy_of
from outlast.train.cleanup import Cleanup
from outlast.train.leaving import Leaving

NAME = "outlast-last-step.ckpt"
"""Where the last step of a session is saved when ModelCheckpoint did not save it anyway."""


def look_after(trainer: Any) -> None:
    """Add the callback to a Trainer that is about to fit; once. It needs a ModelCheckpoint with a local folder."""
    saver = next(model_checkpoints(trainer), None)
    if saver is None or folder_of(saver) is None:
        return
    for callback in trainer.callbacks:
        if getattr(callback, "_outlast_leaving", False):
            callback.begin(trainer, saver)
            return
    base = next(kind for kind in type(saver).__mro__ if kind.__name__ == "Callback")
    callback = _kind(base)()
    callback.begin(trainer, saver)
    trainer.callbacks.append(callback)  # after ModelCheckpoint, which saves this step first if it is due


@functools.cache
def _kind(base: type) -> type:
    return type("OutlastLeaving", (_LookAfterEachStep, base), {})


class _LookAfterEachStep:
    """What the callback does; its base is that of the copy of Lightning in use."""

    _outlast_leaving = True

    def begin(self, trainer: Any, saver: Any) -> None:
        policy, folder = policy_of(trainer), folder_of(saver)
        if policy is None or folder is None:
            return
        self.saver = saver
        journal = guard_at(folder, policy).vault.journal
        self.leaving, self.cleanup = Leaving(journal), Cleanup(journal.write)
        self.leaving.begin(signals=(SIGTERM,))  # USR1 is Lightning's own under Slurm: it queues the job again
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        step = trainer.global_step
        last = trainer.estimated_stepping_batches
        if step == self.step or step >= last:
            return
        self.step = step
        self.cleanup.after_step(step)
        self.leaving.total_steps = None if math.isinf(last) else int(last)
        stop = self.leaving.after_step(step)
        if stop is None:
            return
        if self.saver._last_global_step_saved != step:
            with self.leaving.saving():
                self.saver._save_checkpoint(trainer, str(Path(self.saver.dirpath, NAME)))
        self.leaving.leave(stop, step)

    def teardown(self, *_: Any, **__: Any) -> None:
        self.leaving.end()

    def on_exception(self, *_: Any) -> None:
        self.leaving.end()


def superseded(guard: Guard, name: str, step: int) -> bool:
    """Whether the last step of an earlier session lies here and is older than what was sealed now."""
    found = next((c for c in guard.vault.checkpoints() if c.name == NAME), None)
    return found is not None and name != NAME and found.step < step
