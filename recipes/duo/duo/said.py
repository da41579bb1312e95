"""What a training tells: lines on the terminal and in log.jsonl, and Weights & Biases where it is asked for."""

from __future__ import annotations

import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback

from duo.settings import Settings
from outlast.durable import FULL


def say(text: str) -> None:
    """A line for the user; of several processes the first one speaks."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"duo: {text}", flush=True)


class Lines(Callback):
    """A line every ``log_every_n_steps`` steps and at each validation; the same figures as JSON lines in a file.

    After a resume the steps that were lost are there twice, with the same losses.

    Args:
        path: of the JSON lines.
        tokens: of a step.
    """

    def __init__(self, path: Path, tokens: int) -> None:
        self.path, self.tokens, self.cannot_write = path, tokens, False
        self.since: tuple[float, int] | None = None

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Say where it goes on."""
        self.since = (time.monotonic(), trainer.global_step)
        if trainer.global_step:
            say(f"goes on from step {trainer.global_step:,}")

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """A line when due."""
        step = trainer.global_step
        is_due = step % trainer.log_every_n_steps == 0 or step == trainer.max_steps
        if not is_due or (index + 1) % trainer.accumulate_grad_batches:
            return
        loss = float(trainer.callback_metrics["train/nll"])
        began, first = self.since or (time.monotonic(), step)
        speed = (step - first) * self.tokens / max(time.monotonic() - began, 1e-9)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        text = f"step {step:,}/{trainer.max_steps:,}  loss {loss:.4f}  lr {rate:.2e}  {speed:,.0f} tokens/s"
        self._tell(trainer, text, {"step": step, "loss": loss, "lr": rate})

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """A line for each validation."""
        if "val/nll" in trainer.callback_metrics:
            nats = float(trainer.callback_metrics["val/nll"])
            text = f"step {trainer.global_step:,}  val/nll {nats:.4f}"
            self._tell(trainer, text, {"step": trainer.global_step, "val/nll": nats})

    def _tell(self, trainer: Any, text: str, facts: dict[str, Any]) -> None:
        if not trainer.is_global_zero:
            return
        say(text)
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(facts) + "\n")
        except OSError as error:
            if error.errno not in FULL:
                raise
            # A line of the log is not worth a training; the checkpoints' ladder makes room.
            if not self.cannot_write:
                say(f"{self.path} cannot be written: the disk is full; the training goes on")
            self.cannot_write = True


def loggers(settings: Settings) -> list[Any]:
    """Weights & Biases, where it is installed and asked for."""
    asked = settings.wandb
    if all(value is None for value in (asked.offline, asked.project, asked.name, asked.group)):
        return []
    if importlib.util.find_spec("wandb") is None:
        say("wandb is asked for and not installed (pip install wandb): the figures are in log.jsonl")
        return []
    from lightning.pytorch.loggers import WandbLogger

    return [
        WandbLogger(
            name=asked.name,
            project=asked.project or "duo",
            group=asked.group,
            offline=bool(asked.offline),
            save_dir=settings.checkpointing.save_dir,
        )
    ]
