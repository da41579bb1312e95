"""Lightning: what ModelCheckpoint saves is admitted, staged, sealed; resume takes sealed and verified ones only.

Under `outlast run` every Trainer is guarded. In a script of your own: ``Trainer(plugins=[OutlastCheckpointIO()])``.

How a save goes: ModelCheckpoint says which file it is about to save; `TorchCheckpointIO.save_checkpoint` writes it with
torch.save into a reservation (not through RAM, TMPDIR and a copy), seals it and gives it its name. What Lightning no
longer wants goes through the vault, aloud; what the ladder dropped is struck from ``best_k_models``. The best one is
never dropped.

A save to any other path (``trainer.save_checkpoint("final.ckpt")``, Fabric) is the user's own: it is written beside and
renamed, and never deleted. Remote paths and sharded folders are Lightning's. A checkpoint is one file, so it has no
light form: a volume must hold two of them. Lightning does not save the random generators, so a resumed run with dropout
or shuffling goes on as Lightning would, from whole state, but not on the same bits.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast.checkpoints import Choice, Draft, Keep, Needs, Policy, Saver, Stage, Vault, inspect, reserved_file
from outlast.errors import NoWayBack
from outlast.integrations import torch_save
from outlast.journal import RUN_VARIABLE

_log = logging.getLogger("outlast")
_NAMESPACES = (("lightning.fabric", "lightning.pytorch"), ("lightning_fabric", "pytorch_lightning"))


@dataclass(slots=True)
class _Guard:
    """What Outlast keeps for one folder of checkpoints in this process."""

    vault: Vault
    saver: Saver
    callbacks: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    """The ModelCheckpoints that save here."""
    expected: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)
    """Files that a ModelCheckpoint is about to save, with the metrics of the moment; several where saves are async."""
    best_names: frozenset[str] = frozenset()
    """The best ones as of the last finished save: Lightning names the next best before it is saved."""
    trainer: Any = None
    """Weak reference to the Trainer that saves here."""
    unwanted: set[str] = field(default_factory=set)
    """What Lightning wanted to be removed while there was no other checkpoint that verifies."""


_GUARDS: dict[Path, _Guard] = {}


def OutlastCheckpointIO(keep: Keep | None = None, *, keep_exact: bool = False) -> Any:  # noqa: N802 (reads as a class)
    """A CheckpointIO plugin that guards the Trainer it is given to.

    Args:
        keep: retention; None follows ModelCheckpoint's ``save_top_k`` and `outlast run --keep`.
        keep_exact: for symmetry with the other integrations; a Lightning checkpoint is always whole.
    """
    policy = Policy.from_environment()
    plugin = _plugin_class()()
    plugin.policy = Policy(keep or policy.keep, keep_exact or policy.keep_exact, policy.forbid)
    plugin.arguments = (keep, keep_exact)
    return plugin


def _again(keep: Keep | None, keep_exact: bool) -> Any:
    return OutlastCheckpointIO(keep, keep_exact=keep_exact)


@functools.cache
def _plugin_class() -> type:
    bases = tuple(import_module(f"{fabric}.plugins.io.torch_io").TorchCheckpointIO for fabric in _installed())
    # Spawned workers get the plugin by pickle, where a class made at run time has no name to be found by.
    return type("OutlastCheckpointIO", bases, {"__reduce__": lambda self: (_again, self.arguments)})


def _installed() -> list[str]:
    """Guard each copy of Lightning that this process uses; the one that can be imported when none is in use yet."""
    copies = [names for names in _NAMESPACES if names[1] in sys.modules]
    copies = copies or [next((names for names in _NAMESPACES if _can_import(names[1])), _NAMESPACES[0])]
    for fabric, pytorch in copies:
        install_io(import_module(f"{fabric}.plugins.io.torch_io"))
        install_callback(import_module(f"{pytorch}.callbacks.model_checkpoint"))
        install_resume(import_module(f"{pytorch}.trainer.connectors.checkpoint_connector"))
    return [fabric for fabric, _ in copies]


def _can_import(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


def install_io(module: ModuleType) -> None:
    """Guard TorchCheckpointIO; once.

    Args:
        module: ``lightning.fabric.plugins.io.torch_io`` or ``lightning_fabric.plugins.io.torch_io``.
    """
    _wrap(module.TorchCheckpointIO, {"save_checkpoint": _save_checkpoint, "remove_checkpoint": _remove_checkpoint})


def install_callback(module: ModuleType) -> None:
    """Guard ModelCheckpoint; once.

    Args:
        module: ``lightning.pytorch.callbacks.model_checkpoint`` or ``pytorch_lightning.callbacks.model_checkpoint``.
    """
    _wrap(module.ModelCheckpoint, {"_save_checkpoint": _announced, "load_state_dict": _without_phantoms})


def install_resume(module: ModuleType) -> None:
    """Let a fit resume from sealed and verified checkpoints only; once.

    Args:
        module: ``...trainer.connectors.checkpoint_connector`` of either copy of Lightning.
    """
    _wrap(module._CheckpointConnector, {"_select_ckpt_path": _select_ckpt_path, "resume_start": _resume_start})


def _wrap(owner: type, wrappers: Mapping[str, Callable[[Any], Any]]) -> None:
    if "_outlast" in vars(owner):
        return
    owner._outlast = True  # type: ignore[attr-defined]
    for name, wrapper in wrappers.items():
        if hasattr(owner, name):
            setattr(owner, name, wrapper(getattr(owner, name)))


# Which folders are guarded


def _policy_of(trainer: Any) -> Policy | None:
    """The policy that a Trainer is guarded with; None when it is not guarded."""
    plugin = getattr(getattr(trainer, "strategy", None), "checkpoint_io", None)
    while plugin is not None:
        if isinstance(policy := getattr(plugin, "policy", None), Policy):
            return policy
        plugin = getattr(plugin, "checkpoint_io", None)  # AsyncCheckpointIO and its like wrap another one
    return Policy.from_environment() if RUN_VARIABLE in os.environ else None


def _local(path: Any) -> Path | None:
    """An absolute local path, links in its folder followed as ModelCheckpoint does; None for a remote one."""
    text = os.fspath(path)
    if not isinstance(text, str) or "://" in text:
        return None
    place = Path(text).absolute()
    return Path(os.path.realpath(place.parent)) / place.name


def _guard_at(root: Path, policy: Policy) -> _Guard:
    if root not in _GUARDS:
        vault = Vault(root, is_protected=lambda name: _protection(root, name))
        # Which checkpoints to keep is ModelCheckpoint's own decision, unless the user gave a rule to Outlast.
        _GUARDS[root] = _Guard(vault, Saver(vault, policy, wait=functools.partial(_wait, root)))
        vault.recover()
    return _GUARDS[root]


def _wait(root: Path, seconds: float) -> None:
    """Sleep while paused. Lightning answers SIGTERM after the batch: a save that waits would never get there."""
    time.sleep(seconds)
    trainer = _GUARDS[root].trainer
    if getattr(trainer and trainer(), "received_sigterm", False):
        raise SystemExit(128 + signal.SIGTERM)


def _protection(root: Path, name: str) -> str | None:
    guard = _GUARDS.get(root)
    if guard and name in guard.best_names | _best_names(guard):
        return "the best model so far"
    return None


def _best_names(guard: _Guard) -> frozenset[str]:
    """Best by a metric; without one, Lightning calls the newest the best, and that stays anyway."""
    return frozenset(Path(c.best_model_path).name for c in guard.callbacks if c.monitor and c.best_model_path)


# Saving


def _announced(original: Callable[..., Any]) -> Callable[..., Any]:
    """ModelCheckpoint says what it is about to save; afterwards its books are set right."""

    @functools.wraps(original)
    def save(self: Any, trainer: Any, filepath: str, *args: Any, **kwargs: Any) -> Any:
        policy, path = _policy_of(trainer), _local(filepath)
        folder = _local(self.dirpath) if self.dirpath else None
        is_ours = policy and path and folder and path.parent == Path(os.path.realpath(folder))
        if not is_ours or path is None or policy is None:
            return original(self, trainer, filepath, *args, **kwargs)
        guard = _guard_at(path.parent, policy) if trainer.is_global_zero else None
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
        _strike_phantoms(self, trainer, guard)
        return result

    return save


def _expect(guard: _Guard, callback: Any, name: str, metrics: Mapping[str, float]) -> None:
    guard.callbacks.add(callback)
    guard.expected.setdefault(name, []).append(metrics)


def _met(guard: _Guard, name: str) -> None:
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


def _save_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def save(self: Any, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        local = _local(path)
        guard = _GUARDS.get(local.parent) if local else None
        if local is None or storage_options is not None or local.is_dir():
            original(self, checkpoint, path, storage_options)
        elif guard and (local.name in guard.expected or _is_sealed(guard.vault, local.name)):
            _seal(guard, local.name, checkpoint)
        elif RUN_VARIABLE in os.environ or isinstance(getattr(self, "policy", None), Policy):
            import torch

            torch_save.install_here()
            local.parent.mkdir(parents=True, exist_ok=True)
            torch.save(checkpoint, local)
        else:
            original(self, checkpoint, path, storage_options)

    return save


def _is_sealed(vault: Vault, name: str) -> bool:
    return any(checkpoint.name == name for checkpoint in vault.checkpoints())


def _seal(guard: _Guard, name: str, checkpoint: Mapping[str, Any]) -> None:
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
    guard.best_names = _best_names(guard)
    unwanted, guard.unwanted = guard.unwanted - {name}, set()
    for other in sorted(unwanted):
        _drop(guard, other)
    try:
        guard.saver.settle(sealed)
    except OSError as error:  # the checkpoint is sealed: a failure to tidy up must not end the training
        guard.vault.journal.write("settle_failed", name=name, reason=str(error))


# Removing, and ModelCheckpoint's books


def _remove_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def remove(self: Any, path: Any) -> None:
        local = _local(path)
        guard = _GUARDS.get(local.parent) if local else None
        if local is None or guard is None:
            original(self, path)
        elif _is_sealed(guard.vault, local.name):
            _drop(guard, local.name)
        elif os.path.lexists(local):
            original(self, path)
            guard.vault.journal.write("removed_by_framework", path=str(local), why="Lightning no longer wants it")
        # Else the ladder has dropped it before, which is in the journal already.

    return remove


def _drop(guard: _Guard, name: str) -> None:
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


def _strike_phantoms(callback: Any, trainer: Any, guard: _Guard | None) -> None:
    """Take what is no longer there out of ModelCheckpoint's books, on every rank: the ladder may have dropped it."""
    gone = [
        path for path in callback.best_k_models if guard and _is_gone(path) and Path(path).name not in guard.expected
    ]
    _strike(callback, trainer.strategy.broadcast(gone))


def _is_gone(path: str) -> bool:
    local = _local(path)
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


def _without_phantoms(original: Callable[..., Any]) -> Callable[..., Any]:
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


# Resuming


def _select_ckpt_path(original: Callable[..., Any]) -> Callable[..., Any]:
    """Remember what was asked for: `resume_start` sees only what Lightning made of it."""

    @functools.wraps(original)
    def select(self: Any, state_fn: Any, ckpt_path: Any, *args: Any, **kwargs: Any) -> Any:
        self._outlast_asked = ckpt_path if str(getattr(state_fn, "value", state_fn)) == "fit" else "other"
        return original(self, state_fn, ckpt_path, *args, **kwargs)

    return select


def _resume_start(original: Callable[..., Any]) -> Callable[..., Any]:
    """The place where the ranks are connected and each ModelCheckpoint knows its folder, and nothing is loaded yet."""

    @functools.wraps(original)
    def start(self: Any, checkpoint_path: Any = None, *args: Any, **kwargs: Any) -> Any:
        asked, self._outlast_asked = getattr(self, "_outlast_asked", "other"), "other"
        policy = _policy_of(self.trainer)
        if policy is not None and asked != "other":
            found = _resume_from(self.trainer, policy, asked, checkpoint_path) if self.trainer.is_global_zero else None
            checkpoint_path, folder = self.trainer.strategy.broadcast(found)
            _move_to(self.trainer, folder)
        return original(self, checkpoint_path, *args, **kwargs)

    return start


def _resume_from(trainer: Any, policy: Policy, asked: Any, resolved: Any) -> tuple[Any, str | None]:
    """The file to resume from, and the folder that ModelCheckpoint should go on in when it is another one."""
    roots = [root for root in map(_folder_of, _model_checkpoints(trainer)) if root]
    for root in roots:
        _guard_at(root, policy)
    local = _local(resolved) if resolved else None
    if asked is None and os.environ.get("OUTLAST_RESUME") != "1":
        return resolved, None
    if asked in (None, "last"):
        return _newest(roots, policy) or (resolved, None)
    if local is None or local.parent not in roots:
        return resolved, None  # not of this run: pretrained weights, another training
    # A link (save_last="link") stands for the checkpoint that it leads to.
    target = Path(os.path.realpath(local))
    guard = _GUARDS[local.parent]
    if not _is_sealed(guard.vault, target.name) and target.is_file() and inspect(target).kind:
        return resolved, None  # under a name of the user's own, neither sealed nor adopted; it parses
    choice = _taken(guard, target.name) if _choose(guard) else None
    return (str(choice.checkpoint.path) if choice else resolved), None


def _newest(roots: list[Path], policy: Policy) -> tuple[str, str | None] | None:
    """The newest checkpoint in any of the folders; else in those of earlier starts: ``version_3`` for ``version_4``."""
    for group in [roots, *([earlier] for root in roots for earlier in _earlier(root))]:
        guards = [_guard_at(root, policy) for root in group]
        found = [(choice.checkpoint, guard) for guard in guards if (choice := _choose(guard))]
        if found:
            _, guard = max(found, key=lambda pair: (pair[0].step, pair[0].seal.created))
            taken = _taken(guard, None)
            root = guard.vault.root
            return (str(taken.checkpoint.path), None if root in roots else str(root)) if taken else None
    return None


def _choose(guard: _Guard) -> Choice | None:
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


def _taken(guard: _Guard, wanted: str | None) -> Choice | None:
    choice = guard.vault.take(wanted=wanted)
    if choice:
        guard.saver.lineage = choice.checkpoint.seal.lineage or guard.saver.lineage
    return choice


def _model_checkpoints(trainer: Any) -> Iterator[Any]:
    return (callback for callback in trainer.checkpoint_callbacks if hasattr(callback, "best_k_models"))


def _folder_of(callback: Any) -> Path | None:
    folder = _local(callback.dirpath) if callback.dirpath else None
    return Path(os.path.realpath(folder)) if folder else None


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
    for callback in _model_checkpoints(trainer):
        if folder and callback.dirpath and re.fullmatch(r"version_\d+", Path(callback.dirpath).parent.name):
            callback.dirpath = folder
