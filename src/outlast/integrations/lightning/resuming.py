"""Resuming: a fit goes on from sealed and verified checkpoints only, also in the folder of an earlier start."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from outlast.checkpoints import Choice, Policy, inspect
from outlast.errors import NoWayBack
from outlast.integrations.lightning import books, leaving
from outlast.integrations.lightning.guard import (
    GUARDS,
    Guard,
    folder_of,
    guard_at,
    is_sealed,
    local_path,
    model_checkpoints,
    policy_of,
)  # fmt: skip

_log = logging.getLogger("outlast")


def select_ckpt_path(original: Callable[..., Any]) -> Callable[..., Any]:
    """Remember what was asked for: `resume_start` sees only what Lightning made of it."""

    @functools.wraps(original)
    def select(self: Any, state_fn: Any, ckpt_path: Any, *args: Any, **kwargs: Any) -> Any:
        self._outlast_asked = ckpt_path if str(getattr(state_fn, "value", state_fn)) == "fit" else "other"
        return original(self, state_fn, ckpt_path, *args, **kwargs)

    return select


def resume_start(original: Callable[..., Any]) -> Callable[..., Any]:
    """The place where the ranks are connected and each ModelCheckpoint knows its folder, and nothing is loaded yet."""

    @functools.wraps(original)
    def start(self: Any, checkpoint_path: Any = None, *args: Any, **kwargs: Any) -> Any:
        asked, self._outlast_asked = getattr(self, "_outlast_asked", "other"), "other"
        policy = policy_of(self.trainer)
        if policy is not None and asked != "other":
            found = _resume_from(self.trainer, policy, asked, checkpoint_path) if self.trainer.is_global_zero else None
            checkpoint_path, folder = self.trainer.strategy.broadcast(found)
            _move_to(self.trainer, folder)
            self.trainer._outlast_chosen = checkpoint_path if books.chosen_by_us(asked, checkpoint_path) else None
            leaving.look_after(self.trainer)
        return original(self, checkpoint_path, *args, **kwargs)

    return start


def _resume_from(trainer: Any, policy: Policy, asked: Any, resolved: Any) -> tuple[Any, str | None]:
    """The file to resume from, and the folder that ModelCheckpoint should go on in when it is another one."""
    roots = [root for root in map(folder_of, model_checkpoints(trainer)) if root]
    for root in roots:
        guard_at(root, policy)
    local = local_path(resolved) if resolved else None
    if asked is None and os.environ.get("OUTLAST_RESUME") != "1":
        return resolved, None
    if asked in (None, "last"):
        return _newest(roots, policy) or (resolved, None)
    if local is None or local.parent not in roots:
        return resolved, None  # not of this run: pretrained weights, another training
    # A link (save_last="link") stands for the checkpoint that it leads to.
    target = Path(os.path.realpath(local))
    guard = GUARDS[local.parent]
    if not is_sealed(guard.vault, target.name) and target.is_file() and inspect(target).kind:
        return resolved, None  # under a name of the user's own, neither sealed nor adopted; it parses
    choice = _taken(guard, target.name) if _choose(guard) else None
    return (str(choice.checkpoint.path) if choice else resolved), None


def _newest(roots: list[Path], policy: Policy) -> tuple[str, str | None] | None:
    """The newest checkpoint in any of the folders; else in those of earlier starts: ``version_3`` for ``version_4``."""
    for group in [roots, *([earlier] for root in roots for earlier in _earlier(root))]:
        guards = [guard_at(root, policy) for root in group]
        found = [(choice.checkpoint, guard) for guard in guards if (choice := _choose(guard))]
        if found:
            _, guard = max(found, key=lambda pair: (pair[0].step, pair[0].seal.created))
            taken = _taken(guard, None)
            root = guard.vault.root
            return (str(taken.checkpoint.path), None if root in roots else str(root)) if taken else None
    return None


def _choose(guard: Guard) -> Choice | None:
    try:
        choice = guard.vault.choose()
    except NoWayBack as error:
        guard.vault.journal.write("no_way_back", root=str(guard.vault.root), reason=error.message)
        return None
    if choice and choice.kind != "full":
        # Lightning raises KeyError for a checkpoint without optimizer, even where weights are all that was ever saved.
        _log.warning("outlast: %s holds bare weights; Lightning cannot resume from it", choice.checkpoint.path)
        guard.vault.journal.write("passed_over", name=choice.checkpoint.name, reason="bare weights")
        return None
    return choice


def _taken(guard: Guard, wanted: str | None) -> Choice | None:
    choice = guard.vault.take(wanted=wanted)
    if choice:
        guard.saver.lineage = choice.checkpoint.seal.lineage or guard.saver.lineage
    return choice


def _earlier(root: Path) -> Iterator[Path]:
    """Folders of earlier starts, newest first: without a dirpath Lightning makes a new ``version_N`` for each."""
    match = re.fullmatch(r"version_(\d+)", root.parent.name)
    if match is None:
        return
    siblings = [re.fullmatch(r"version_(\d+)", path.name) for path in root.parent.parent.glob("version_*")]
    numbers = sorted((int(found[1]) for found in siblings if found), reverse=True)
    for number in numbers:
        folder = root.parent.with_name(f"version_{number}") / root.name
        if number < int(match[1]) and folder.is_dir():
            yield folder


def _move_to(trainer: Any, folder: str | None) -> None:
    """Go on in the folder that was resumed from: the room that older checkpoints there take can be used again."""
    for callback in model_checkpoints(trainer):
        if folder and callback.dirpath and re.fullmatch(r"version_\d+", Path(callback.dirpath).parent.name):
            callback.dirpath = folder
