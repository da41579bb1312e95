"""Transformers' Trainer: its saves are admitted, staged, sealed; its resume takes sealed and verified ones only.

Under `outlast run` every Trainer is guarded. In a script of your own: ``Trainer(..., callbacks=[OutlastCallback()])``.

How a save goes: `_save_checkpoint` of the Trainer writes everything into the stage (`_get_output_dir` is shadowed for
the call), the best checkpoint's path in trainer_state.json is set to its final place, the seal is written, the folder
gets its name; users' `on_save` callbacks run; what they changed is sealed again; then retention prunes in place of the
Trainer's own rotation.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast.checkpoints import (
    Checkpoint,
    Draft,
    Keep,
    Needs,
    Policy,
    Saver,
    Stage,
    Vault,
    codec,
    inspect,
    is_candidate,
    is_full,
    state,
)
from outlast.errors import BadInput, OutlastError, SealError
from outlast.host import room
from outlast.integrations import staged
from outlast.integrations.ranks import Ranks, is_first_process
from outlast.integrations.torch_save import tensor_bytes
from outlast.journal import RUN_VARIABLE

_log = logging.getLogger("outlast")
_OPTIMIZER = "optimizer.pt"
_STATE = "trainer_state.json"


@dataclass(slots=True)
class _Guard:
    """What Outlast keeps for one Trainer and one folder of checkpoints."""

    vault: Vault
    saver: Saver
    pending: Checkpoint | None = None
    """Saved, but the users' callbacks have not run yet."""
    limit: int | None = None
    """``save_total_limit``, where no rules of the user's own stand above it."""
    pushes: list[Path] = field(default_factory=list)
    """Uploads that the Trainer wanted to start in the middle of the save."""


_GUARDS: weakref.WeakKeyDictionary[Any, dict[Path, _Guard]] = weakref.WeakKeyDictionary()
_HANDLERS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def OutlastCallback(keep: Keep | None = None, *, keep_exact: bool = False) -> Any:  # noqa: N802 (reads as a class)
    """A Trainer callback that guards the Trainer it is given to.

    Args:
        keep: retention; None follows ``save_total_limit``, the best model and ``outlast run --keep``.
        keep_exact: always hold a full checkpoint, even if new saves have to be light.
    """
    import transformers.trainer
    import transformers.trainer_utils

    install_utils(sys.modules["transformers.trainer_utils"])
    install(sys.modules["transformers.trainer"])
    policy = Policy.from_environment()
    chosen = Policy(keep or policy.keep, keep_exact or policy.keep_exact, policy.forbid)
    kind = type("OutlastCallback", (transformers.trainer_callback.TrainerCallback,), {"policy": chosen})
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
        "train": _train,
        "_save_checkpoint": _save_checkpoint,
        "_load_optimizer_and_scheduler": _load_optimizer_and_scheduler,
        "_load_rng_state": _load_rng_state,
        "_load_scaler": _load_scaler,
        "_finalize_training": _finalize_training,
        "_push_from_checkpoint": _push_from_checkpoint,
        "save_model": _save_model,
    }.items():
        if hasattr(trainer, name):
            setattr(trainer, name, wrapper(getattr(trainer, name)))
    if hasattr(module, "rotate_checkpoints"):
        module.rotate_checkpoints = _unless_guarded(module.rotate_checkpoints)  # type: ignore[attr-defined]
    else:  # Transformers 4
        trainer._rotate_checkpoints = _unless_guarded(trainer._rotate_checkpoints)
    handler = sys.modules["transformers.trainer_callback"].CallbackHandler
    handler.on_save = _on_save(handler.on_save)


def install_utils(module: ModuleType) -> None:
    """Let `get_last_checkpoint` offer sealed and verified checkpoints only; once.

    Args:
        module: ``transformers.trainer_utils``.
    """
    original = module.get_last_checkpoint
    if getattr(original, "_outlast", False):
        return

    @functools.wraps(original)
    def get_last_checkpoint(folder: str) -> str | None:
        if not _is_guarded_run() and Path(folder).absolute() not in _known_roots():
            found: str | None = original(folder)
            return found
        os.listdir(folder)  # what the original raises for a folder that is not there stays as it is
        vault, exact = Vault(folder), Policy.from_environment().keep_exact
        if is_first_process():
            vault.recover()
            choice = vault.take(keep_exact=exact)
        else:
            choice = vault.choose(keep_exact=exact)
        return os.path.join(folder, choice.checkpoint.name) if choice else None

    get_last_checkpoint._outlast = True  # type: ignore[attr-defined]
    module.get_last_checkpoint = get_last_checkpoint  # type: ignore[attr-defined]
    for name in ("transformers.trainer",):
        other = sys.modules.get(name)
        if other is not None and getattr(other, "get_last_checkpoint", None) is original:
            other.get_last_checkpoint = get_last_checkpoint  # type: ignore[attr-defined]


def _is_guarded_run() -> bool:
    return RUN_VARIABLE in os.environ


def _known_roots() -> set[Path]:
    return {root for guards in _GUARDS.values() for root in guards}


def _policy_of(trainer: Any) -> Policy | None:
    """The policy that a Trainer is guarded with; None when it is not guarded."""
    for callback in trainer.callback_handler.callbacks:
        policy = getattr(callback, "policy", None)
        if isinstance(policy, Policy):
            return policy
    return Policy.from_environment() if _is_guarded_run() else None


def _guard_of(trainer: Any, root: Path) -> _Guard | None:
    policy = _policy_of(trainer)
    if policy is None:
        return None
    guards = _GUARDS.setdefault(trainer, {})
    if root not in guards:
        this = weakref.ref(trainer)
        vault = Vault(root, is_protected=lambda name: _protection(this(), name))
        guards[root] = _Guard(vault, Saver(vault, policy))
        _HANDLERS[trainer.callback_handler] = this
    guard = guards[root]
    limit = trainer.args.save_total_limit
    guard.limit = limit if limit and limit > 0 and policy.keep is None else None
    guard.saver.keep = policy.keep or _rotation(guard)
    return guard


def _rotation(guard: _Guard) -> Keep:
    """The Trainer's own rotation: a best model that is older than the last so many is one of them."""
    if guard.limit is None:
        return Keep()
    names = [checkpoint.name for checkpoint in guard.vault.checkpoints() if checkpoint.kind]
    has_old_best = any(guard.vault.is_protected(name) for name in names[: -guard.limit])
    return Keep(last=max(1, guard.limit - has_old_best))


def _protection(trainer: Any, name: str) -> str | None:
    """The best model that the Trainer will load at the end, or names in its state, must stay."""
    best = getattr(getattr(trainer, "state", None), "best_model_checkpoint", None)
    step = getattr(getattr(trainer, "state", None), "best_global_step", None)
    if (best and Path(best).name == name) or (step and name == f"checkpoint-{step}"):
        return "the best model so far"
    return None


# Saving


def _save_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def guarded(self: Any, model: Any, trial: Any, *args: Any, **kwargs: Any) -> None:
        root = Path(self._get_output_dir(trial=trial)).absolute()
        guard = _guard_of(self, root)
        if guard is None:
            original(self, model, trial, *args, **kwargs)
            return
        run = functools.partial(original, self, model, trial, *args, **kwargs)
        ranks = Ranks()
        if ranks.is_first:
            _settle(guard)
            _save_as_first(self, guard, ranks, run)
        else:
            _save_as_other(self, ranks, run)

    return guarded


def _save_as_first(trainer: Any, guard: _Guard, ranks: Ranks, run: Callable[[], None]) -> None:
    name = f"checkpoint-{trainer.state.global_step}"
    callbacks_before = copy.deepcopy(trainer.state.stateful_callbacks)

    def write(stage: Stage) -> Draft:
        # A retry must not append each callback's state a second time.
        trainer.state.stateful_callbacks = copy.deepcopy(callbacks_before)
        guard.pushes.clear()
        ranks.broadcast(("write", str(stage.path), stage.kind))
        outcome = _write_here(trainer, stage, ranks, run)
        _raise_any(ranks.gather(outcome), stage)
        return _finish(trainer, guard, stage)

    try:
        guard.pending = guard.saver.save(name, trainer.state.global_step, _needs(trainer), write)
    except BaseException as error:
        ranks.broadcast(("failed", f"{type(error).__name__}: {error}", ""))
        raise
    ranks.broadcast(("done", "", ""))
    for folder in guard.pushes:
        type(trainer)._push_from_checkpoint(trainer, str(guard.vault.root / folder.name))


def _save_as_other(trainer: Any, ranks: Ranks, run: Callable[[], None]) -> None:
    while True:
        order, text, kind = ranks.broadcast(None)
        if order == "done":
            return
        if order == "failed":
            raise OutlastError(f"rank 0 could not save: {text}", hint="see rank 0's error")
        stage = Stage(Path(text), kind, None)
        ranks.gather(_write_here(trainer, stage, ranks, run))


def _write_here(trainer: Any, stage: Stage, ranks: Ranks, run: Callable[[], None]) -> tuple[bool, str] | None:
    """Let the Trainer write this rank's part; None when it went well, else whether it was a full volume, and what."""
    if stage.kind != "full":
        stage.skipped.add(_OPTIMIZER)
    stage.holds_errors = ranks.world > 1
    try:
        with _writing_into(trainer, stage), staged.staging(stage):
            run()
        if stage.error:
            raise stage.error
    except Exception as error:
        if ranks.world == 1:
            raise
        return is_full(error) or is_full(stage.error), f"{type(error).__name__}: {error}"
    return None


def _raise_any(outcomes: list[tuple[bool, str] | None], stage: Stage) -> None:
    for rank, outcome in enumerate(outcomes):
        if outcome:
            full, text = outcome
            if full:
                stage.error = stage.error or OSError(28, f"rank {rank}: {text}")
                raise stage.error
            raise OutlastError(f"rank {rank} could not write its part: {text}", hint="see that rank's log")


@contextmanager
def _writing_into(trainer: Any, stage: Stage) -> Iterator[None]:
    """The Trainer's output folder is the stage's, and its deletions see nothing, for the length of a save."""
    trainer._get_output_dir = lambda *args, **kwargs: str(stage.path.parent)
    try:
        yield
    finally:
        del trainer._get_output_dir


def _finish(trainer: Any, guard: _Guard, stage: Stage) -> Draft:
    """Correct the paths in the Trainer's state, add the sidecar, and say what makes up each kind."""
    best = trainer.state.best_global_step if hasattr(trainer.state, "best_global_step") else None
    if best:
        folder = f"checkpoint-{best}"
        final = guard.vault.root / folder
        if final.is_dir() or folder == stage.path.name:
            trainer.state.best_model_checkpoint = (
                os.path.join(trainer.args.output_dir, folder)
                if (Path(trainer.args.output_dir).absolute() == guard.vault.root)
                else str(final)
            )
    if (stage.path / _STATE).exists():
        trainer.state.save_to_json(str(stage.path / _STATE))
    has_sidecar = _write_sidecar(trainer, stage)
    has_optimizer = (stage.path / _OPTIMIZER).exists()
    without: dict[str, tuple[str, ...]] = {}
    if stage.kind == "full" and not trainer.args.save_only_model:
        without["full"] = ()
    if has_sidecar:
        without["light"] = (_OPTIMIZER,) if has_optimizer else ()
    if not without:
        without["weights"] = ()
    return Draft("transformers", without, _metrics(trainer), _notes(trainer, stage))


def _write_sidecar(trainer: Any, stage: Stage) -> bool:
    """What a Trainer would otherwise forget: the factored second moment, and with save_only_model the small state."""
    import safetensors.torch

    if trainer.optimizer is None or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return False
    light = codec.to_light(trainer.optimizer.state_dict())
    if light is None:
        return False
    try:
        doc: dict[str, Any] = {"optimizer": light, "scheduler": trainer.lr_scheduler.state_dict()}
        if trainer.args.save_only_model:
            scaler = getattr(trainer.accelerator, "scaler", None)
            doc["generators"] = state.take_generators()
            doc["scaler"] = scaler.state_dict() if scaler is not None else None
        tensors, metadata = codec.pack(doc)
    except BadInput:
        return False  # a scheduler with state of its own classes: no light form, the Trainer's files stay needed
    with staged.staging(stage):
        safetensors.torch.save_file(tensors, stage.path / codec.SIDECAR, metadata=metadata)
    return True


def _metrics(trainer: Any) -> dict[str, float]:
    """Numbers that were logged at this step: the evaluation that came with the save, and the loss."""
    found: dict[str, float] = {}
    for entry in reversed(trainer.state.log_history[-8:]):
        if entry.get("step") == trainer.state.global_step:
            found |= {k: float(v) for k, v in entry.items() if k != "step" and isinstance(v, int | float)}
    return found


def _notes(trainer: Any, stage: Stage) -> dict[str, Any]:
    notes: dict[str, Any] = {"micro_batch_size": trainer._train_batch_size}
    if trainer.args.save_only_model:
        notes["why_light"] = "save_only_model"
    elif stage.kind != "full":
        notes["why_light"] = "a full save did not fit"
    return notes


def _needs(trainer: Any) -> Needs:
    """Bytes of the next save, from the model and the optimizer as they are."""
    model = trainer.model
    is_adapter = hasattr(model, "peft_config")
    weights = tensor_bytes([p for p in model.parameters() if p.requires_grad] if is_adapter else model)
    trainable = tensor_bytes([p for p in model.parameters() if p.requires_grad])
    moments = tensor_bytes(trainer.optimizer) if trainer.optimizer is not None else 0
    # Adam's state is empty before the first step; then it is two moments.
    moments = moments if moments > trainable // 8 else 2 * trainable
    sidecar = trainable // 250
    vocabulary = trainer.processing_class
    small = 64 * 1024 + sidecar + (100 * len(vocabulary) if hasattr(vocabulary, "__len__") else 0)
    light = {"light": (weights,)}
    return Needs(light if trainer.args.save_only_model else {"full": (weights, moments), **light}, small)


def _save_model(original: Callable[..., Any]) -> Callable[..., Any]:
    """The model at the end of a script goes beside the checkpoints: they make room for it."""

    @functools.wraps(original)
    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        target = Path(output_dir or self.args.output_dir).absolute()
        guard = None if _internal_call or staged.is_on() else _guard_of(self, Path(self.args.output_dir).absolute())
        run = functools.partial(original, self, output_dir, _internal_call=_internal_call)
        if guard is None or not Ranks().is_first or room(target).device != room(guard.vault.root).device:
            run()
            return
        weights = list(_needs(self).files.values())[-1]
        guard.saver.write_beside(str(target), Needs({"file": weights}), run)

    return save_model


def _on_save(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def on_save(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        trainer = _HANDLERS[self]() if self in _HANDLERS else None
        for guard in _GUARDS.get(trainer, {}).values() if trainer is not None else ():
            _settle(guard)
        return result

    return on_save


def _settle(guard: _Guard) -> None:
    """After the users' callbacks: seal what they changed, prune. A failure here must not end the training."""
    if guard.pending is None:
        return
    checkpoint, guard.pending = guard.pending, None
    if guard.limit is not None:
        guard.saver.keep = _rotation(guard)
    try:
        guard.saver.settle(checkpoint)
    except OSError as error:
        guard.vault.journal.write("settle_failed", name=checkpoint.name, reason=str(error))


def _push_from_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def push(self: Any, checkpoint_folder: str) -> None:
        folder = Path(checkpoint_folder)
        if staged.stage_of(folder / _STATE) is not None:
            # The folder gets its name only after the save: an upload of the stage would lose its files under way.
            for guard in _GUARDS.get(self, {}).values():
                guard.pushes.append(folder)
            return
        original(self, checkpoint_folder)

    return push


def _unless_guarded(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def rotate_checkpoints(*args: Any, **kwargs: Any) -> Any:
        return None if staged.is_on() else original(*args, **kwargs)

    return rotate_checkpoints


def _finalize_training(original: Callable[..., Any]) -> Callable[..., Any]:
    """With save_total_limit=1 and a best model the Trainer deletes the others here, unseen; Outlast does it aloud."""

    @functools.wraps(original)
    def finalize(self: Any, trial: Any, *args: Any, **kwargs: Any) -> Any:
        guard = _guard_of(self, Path(self._get_output_dir(trial=trial)).absolute())
        limit = self.args.save_total_limit
        if guard is None or limit != 1:
            return original(self, trial, *args, **kwargs)
        object.__setattr__(self.args, "save_total_limit", None)
        try:
            result = original(self, trial, *args, **kwargs)
        finally:
            object.__setattr__(self.args, "save_total_limit", limit)
        if Ranks().is_first and self.state.best_model_checkpoint:
            best = Path(self.state.best_model_checkpoint).name
            for checkpoint in guard.vault.checkpoints():
                if checkpoint.name != best and not checkpoint.is_pinned:
                    guard.vault.drop(checkpoint.name, "training is over, save_total_limit=1 keeps the best")
        return result

    return finalize


# Resuming


def _train(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def train(self: Any, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        guard = _guard_of(self, Path(self.args.output_dir).absolute())
        if guard is not None:
            ranks = Ranks()
            found = _resume_from(guard, resume_from_checkpoint) if ranks.is_first else None
            resume_from_checkpoint = ranks.broadcast(found)
        return original(self, resume_from_checkpoint, *args, **kwargs)

    return train


def _resume_from(guard: _Guard, asked: Any) -> Any:
    """The folder to resume from: sealed and verified, or what was asked for when that means a fresh start."""
    guard.vault.recover()
    is_named = isinstance(asked, str | os.PathLike)
    if not asked and os.environ.get("OUTLAST_RESUME") != "1":
        return asked
    if is_named and Path(asked).absolute().parent != guard.vault.root:
        _refuse_damaged(Path(asked))
        return asked
    choice = guard.vault.take(keep_exact=guard.saver.policy.keep_exact, wanted=Path(asked).name if is_named else None)
    if choice is None:
        return asked
    guard.saver.lineage = choice.checkpoint.seal.lineage or guard.saver.lineage
    if choice.kind != "full":
        _log.warning("outlast: resuming from a %s checkpoint, %s", choice.kind, choice.checkpoint.path)
    return str(choice.checkpoint.path)


def _refuse_damaged(path: Path) -> None:
    """A checkpoint that was named and lies elsewhere: there is no other one to take instead.

    Raises:
        SealError: when it does not agree with its seal, or, without one, does not parse.
    """
    vault = Vault(path.parent)
    sealed = [checkpoint for checkpoint in vault.checkpoints() if checkpoint.name == path.name]
    if sealed:
        problems = vault.check(sealed[0]).problems
    else:
        problems = inspect(path).problems if is_candidate(path.name) and path.is_dir() else ()
    if problems:
        raise SealError(f"{path} is not whole: {'; '.join(problems)}", hint="resume from another checkpoint")


def _sidecar(checkpoint: str | None) -> Mapping[str, Any] | None:
    path = Path(checkpoint or "", codec.SIDECAR)
    return codec.unpack(path) if checkpoint and path.is_file() else None


def _load_optimizer_and_scheduler(original: Callable[..., Any]) -> Callable[..., Any]:
    """Expand a light checkpoint; where the Trainer would silently start afresh, at least go on in the schedule."""

    @functools.wraps(original)
    def load(self: Any, checkpoint: str | None) -> Any:
        has_native = checkpoint is None or _has_native_state(Path(checkpoint))
        if has_native or _policy_of(self) is None:
            return original(self, checkpoint)
        doc = _sidecar(checkpoint)
        if doc is None:
            _advance_schedule(self)
            return None
        self.optimizer.load_state_dict(codec.from_light(doc["optimizer"]))
        self.lr_scheduler.load_state_dict(doc["scheduler"])
        return None

    return load


def _has_native_state(checkpoint: Path) -> bool:
    """True when the Trainer itself finds an optimizer there (DeepSpeed and FSDP have folders of their own)."""
    return any(checkpoint.glob("*optimizer*")) or any(checkpoint.glob("global_step*"))


def _advance_schedule(trainer: Any) -> None:
    import warnings

    _log.warning(
        "outlast: this checkpoint holds bare weights, no training state: the optimizer starts afresh; "
        "the schedule goes on at step %d", trainer.state.global_step,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns when a schedule moves before the optimizer's first step
        for _ in range(trainer.state.global_step):
            with suppress(TypeError):  # ReduceLROnPlateau wants a metric, and starts where it was configured
                trainer.lr_scheduler.step()


def _load_rng_state(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load(self: Any, checkpoint: str | None) -> Any:
        doc = None if checkpoint is None or any(Path(checkpoint).glob("rng_state*.pth")) else _sidecar(checkpoint)
        if doc and doc.get("generators") and _policy_of(self) is not None:
            state.put_generators(doc["generators"])
            return None
        return original(self, checkpoint)

    return load


def _load_scaler(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load(self: Any, checkpoint: str | None) -> Any:
        doc = None if checkpoint is None or Path(checkpoint, "scaler.pt").is_file() else _sidecar(checkpoint)
        scaler = getattr(self.accelerator, "scaler", None)
        if doc and doc.get("scaler") and scaler is not None and _policy_of(self) is not None:
            scaler.load_state_dict(doc["scaler"])
            return None
        return original(self, checkpoint)

    return load
