"""ModelCheckpoint's own books of what it has saved, set right where the ladder has dropped something."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outlast.integrations.lightning.guard import Guard, local_path


def strike_phantoms(callback: Any, trainer: Any, guard: Guard | None) -> None:
    """Take what is no longer there out of ModelCheckpoint's books, on every rank: the ladder may have dropped it."""
    gone = [
        path for path in callback.best_k_models if guard and _is_gone(path) and Path(path).name not in guard.expected
    ]
    _strike(callback, trainer.strategy.broadcast(gone))


def _is_gone(path: str) -> bool:
    local = local_path(path)
    return local is not None and not local.exists()


def _strike(callback: Any, gone: list[str]) -> None:
    """ModelCheckpoint finds the worst of the best k anew when a k-th joins, so an entry less is all that it needs."""
    for path in gone:
        callback.best_k_models.pop(path, None)
    if callback.kth_best_model_path in gone:
        callback.kth_best_model_path = ""
    if callback.best_model_path in gone:
        better = min if callback.mode == "min" else max
        best = better(callback.best_k_models, key=callback.best_k_models.get, default="")
        callback.best_model_path = best
        callback.best_model_score = callback.best_k_models.get(best)


def without_phantoms(original: Callable[..., Any]) -> Callable[..., Any]:
    """A checkpoint's own copy of the books was written before the ladder made room for it."""

    @functools.wraps(original)
    def load_state_dict(self: Any, state_dict: dict[str, Any]) -> None:
        original(self, state_dict)
        _strike(self, [path for path in self.best_k_models if _is_gone(path)])
        if self.best_model_path and _is_gone(self.best_model_path):
            self.best_model_path = ""
        if self.last_model_path and _is_gone(self.last_model_path):
            self.last_model_path = ""

    return load_state_dict
