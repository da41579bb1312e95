"""ModelCheckpoint's own books of what it has saved, set right where the ladder has dropped something."""

from __future__ import annotations

import functools
import os
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
        original(self, _of_this_folder(state_dict, self.dirpath))
        _strike(self, [path for path in self.best_k_models if _is_gone(path)])
        if self.best_model_path and _is_gone(self.best_model_path):
            self.best_model_path = ""
        if self.last_model_path and _is_gone(self.last_model_path):
            self.last_model_path = ""

    return load_state_dict


_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


def _of_this_folder(state: dict[str, Any], dirpath: Any) -> dict[str, Any]:
    """The books with this name of the folder: Lightning takes relative and absolute, or a link, for two folders.

    It would begin new books then, and never remove what stands in the old ones.
    """
    there, here = state.get("dirpath"), dirpath
    if not there or not here or there == here or "://" in f"{there}{here}":
        return state
    if os.path.realpath(there) != os.path.realpath(here):
        return state
    named = {**state, "dirpath": here}
    named |= {name: _moved(state[name], there, here) for name in _PATHS if name in state}
    if "best_k_models" in state:
        named["best_k_models"] = {_moved(path, there, here): score for path, score in state["best_k_models"].items()}
    return named


def _moved(path: str, there: str, here: str) -> str:
    return os.path.join(here, os.path.relpath(path, there)) if path else path


def chosen_by_us(asked: Any, taken: Any) -> bool:
    """Whether the user left it to Lightning or Outlast which checkpoint a fit goes on from.

    Args:
        asked: ``ckpt_path`` as the script gave it.
        taken: the file that the fit goes on from; None for a start from the beginning.
    """
    if not taken or asked == "other":
        return False
    return asked in (None, "last") or local_path(asked) != local_path(taken)


def lets_go(original: Callable[..., Any]) -> Callable[..., Any]:
    """Lightning never removes what a fit was resumed from: one file more with each restart, until the disk is full.

    What the script itself named stays; what was taken as the newest is one checkpoint of the run among others.
    """

    @functools.wraps(original)
    def should_remove(self: Any, trainer: Any, previous: str, current: str) -> bool:
        if original(self, trainer, previous, current):
            return True
        chosen = getattr(trainer, "_outlast_chosen", None)
        if not chosen or previous == current:
            return False
        path, own = local_path(previous), local_path(Path(self.dirpath, "any"))
        return path is not None and own is not None and path == local_path(chosen) and path.parent == own.parent

    return should_remove
