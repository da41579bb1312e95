"""Lightning's part of `outlast plan -- COMMAND`: ModelCheckpoint's arguments, where its training would begin."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast.integrations.planning import counted, leave
from outlast.integrations.torch_save import tensor_bytes


def install(module: ModuleType) -> None:
    """Let every Trainer tell and leave instead of fitting.

    Args:
        module: ``lightning.pytorch.trainer.trainer`` or ``pytorch_lightning.trainer.trainer``.
    """

    def fit(self: Any, model: Any, train_dataloaders: Any = None, *args: Any, **kwargs: Any) -> None:
        leave(told(self, model, train_dataloaders))

    module.Trainer.fit = fit


def told(trainer: Any, model: Any, loader: Any) -> dict[str, Any]:
    """What a Trainer's first ModelCheckpoint would save, when, and how large it is."""
    callback = next((one for one in trainer.callbacks if hasattr(one, "save_top_k")), None)
    base: dict[str, Any] = {
        "framework": "lightning",
        "output_dir": str(Path(getattr(callback, "dirpath", None) or trainer.default_root_dir).absolute()),
        "steps": trainer.max_steps if trainer.max_steps > 0 else None,
        "epochs": trainer.max_epochs if (trainer.max_epochs or -1) > 0 else None,
        "steps_per_epoch": _steps_per_epoch(trainer, loader),
        "optimizer": _optimizer(model),
        **counted(model.parameters()),
        "weights_bytes": tensor_bytes(model.state_dict()),
        "small_bytes": 0,
    }
    if callback is None:
        return {**base, "strategy": "no"}
    every = getattr(callback, "_every_n_train_steps", 0)
    epochs = getattr(callback, "_every_n_epochs", 0)
    return {
        **base,
        "every": every or None,
        "every_epochs": float(epochs) if epochs and not every else None,
        "limit": max(0, callback.save_top_k),
        "copies_last": callback.save_last is True,
        "only_model": callback.save_weights_only,
    }


def _steps_per_epoch(trainer: Any, loader: Any) -> int | None:
    with suppress(TypeError, NotImplementedError, ValueError):
        return max(1, -(-len(loader) // int(trainer.accumulate_grad_batches)))
    return None


def _optimizer(model: Any) -> str | None:
    """The class that ``configure_optimizers`` makes; None where it cannot do so without a running Trainer."""
    with suppress(Exception):
        found = model.configure_optimizers()
        while isinstance(found, list | tuple) and found:
            found = found[0]
        if isinstance(found, Mapping):
            found = found["optimizer"]
        return type(found).__name__ if hasattr(found, "param_groups") else None
    return None
