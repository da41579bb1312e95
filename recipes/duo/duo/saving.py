"""Which checkpoints there are: the newest few, and the best by val/nll; all sealed by Outlast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint

from duo.settings import Settings
from outlast.checkpoints import Vault
from outlast.errors import BadInput

LAST = "last.ckpt"
"""A link to the newest, for scripts that ask for it by name."""


class Kept(ModelCheckpoint):
    """Lightning's own, but it also lets go of the checkpoint that the training was resumed from."""

    @property
    def state_key(self) -> str:
        """The books go on when keep_last, or the steps between two saves, are other ones than in the last session."""
        return f"duo-{self.monitor}"

    def _should_remove_checkpoint(self, trainer: Any, previous: str, current: str) -> bool:
        # Lightning keeps that one for ever: one more file with each restart, until the disk is full.
        return previous != current


class NewestAndLast(Kept):
    """Saves every N steps, and the last step of the training whatever its number."""

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        """Save when due."""
        every = self._every_n_train_steps
        if trainer.global_step >= trainer.max_steps:
            self._every_n_train_steps = 1
        try:
            super().on_train_batch_end(trainer, *args, **kwargs)
        finally:
            self._every_n_train_steps = every


def folder(settings: Settings) -> Path:
    """Where the checkpoints are."""
    return Path(settings.checkpointing.save_dir) / "checkpoints"


def callbacks(settings: Settings) -> list[Kept]:
    """Lightning's own callbacks; what they no longer want goes through Outlast's vault."""
    asked, place = settings.checkpointing, folder(settings)
    newest = NewestAndLast(
        dirpath=place,
        filename="{step}",
        monitor="step",
        mode="max",
        save_top_k=asked.keep_last,
        save_last="link",  # a copy would be another 2.7 GB
        every_n_train_steps=asked.every_n_train_steps,
        enable_version_counter=False,
    )
    if not asked.keep_best:
        return [newest]
    best = Kept(
        dirpath=place,
        filename="best-{step}",
        monitor="val/nll",
        mode="min",
        save_top_k=asked.keep_best,
        save_on_train_epoch_end=False,
        enable_version_counter=False,
    )
    return [best, newest]


def resume_from(settings: Settings) -> str | None:
    """What `Trainer.fit` is to go on from: ``last`` is the newest that verifies; None is from the start.

    Raises:
        BadInput: for a checkpoint that was named and is not there.
    """
    asked = settings.checkpointing
    # LAST of this run's own folder is the newest that verifies; LAST of another one is what was asked for.
    own = (folder(settings) / LAST).absolute()
    if asked.resume_ckpt_path and Path(asked.resume_ckpt_path).absolute() != own:
        if not Path(asked.resume_ckpt_path).is_file():
            raise BadInput(f"no checkpoint {asked.resume_ckpt_path}", hint=f"this run's are in {folder(settings)}")
        return asked.resume_ckpt_path
    is_there = folder(settings).is_dir() and any(folder(settings).glob("*.ckpt"))
    return "last" if asked.resume_from_ckpt and is_there else None


def newest(settings: Settings) -> Path | None:
    """The newest checkpoint of the run that verifies; None when there is none."""
    place = folder(settings)
    if not place.is_dir():
        return None
    choice = Vault(place).choose()
    return choice.checkpoint.path if choice else None
