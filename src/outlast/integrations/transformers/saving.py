"""The Trainer's saves: written into a stage, sealed, settled after the users' callbacks.

`install` in the package's door assigns these wrappers; each takes the original and returns a plain function.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from outlast.checkpoints import Checkpoint, Draft, Needs, Stage, codec, state
from outlast.errors import BadInput, OutlastError
from outlast.host import room
from outlast.integrations import staged
from outlast.integrations.ranks import follow, lead
from outlast.integrations.torch_save import tensor_bytes
from outlast.integrations.transformers import leaving, step
from outlast.integrations.transformers.guard import GUARDS, Guard, guard_of, rotation, trainer_of
from outlast.train.ranks import Ranks

_OPTIMIZER = "optimizer.pt"
_STATE = "trainer_state.json"


def save_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Trainer._save_checkpoint`, staged and sealed."""

    @functools.wraps(original)
    def guarded(self: Any, model: Any, trial: Any, *args: Any, **kwargs: Any) -> None:
        guard = guard_of(self, Path(self._get_output_dir(trial=trial)).absolute())
        if guard is None:
            original(self, model, trial, *args, **kwargs)
            return
        run = functools.partial(original, self, model, trial, *args, **kwargs)
        write_part = functools.partial(_write_part, self, run)
        ranks = Ranks()
        step.agree(self, ranks)
        with leaving.timed_save(self):
            if ranks.is_first:
                settle(guard)
                guard.pending = lead(ranks, functools.partial(_save, self, guard), write_part)
                for folder in guard.pushes:
                    type(self)._push_from_checkpoint(self, str(guard.vault.root / folder.name))
            else:
                follow(ranks, write_part)

    return guarded


def _save(trainer: Any, guard: Guard, write_everywhere: Callable[[Stage], None]) -> Checkpoint:
    callbacks_before = copy.deepcopy(trainer.state.stateful_callbacks)

    def write(stage: Stage) -> Draft:
        # A retry must not append each callback's state a second time.
        trainer.state.stateful_callbacks = copy.deepcopy(callbacks_before)
        guard.pushes.clear()
        write_everywhere(stage)
        return _finish(trainer, guard, stage)

    number = trainer.state.global_step
    return guard.saver.save(f"checkpoint-{number}", number, _needs(trainer), write)


def _write_part(trainer: Any, run: Callable[[], None], stage: Stage) -> None:
    """Let the Trainer write what this rank writes."""
    if stage.kind != "full":
        stage.skipped.add(_OPTIMIZER)
    with _writing_into(trainer, stage), staged.staging(stage):
        run()


@contextmanager
def _writing_into(trainer: Any, stage: Stage) -> Iterator[None]:
    """The Trainer's output folder is the stage's, and its deletions see nothing, for the length of a save."""
    trainer._get_output_dir = lambda *args, **kwargs: str(stage.path.parent)
    try:
        yield
    finally:
        del trainer._get_output_dir


def _finish(trainer: Any, guard: Guard, stage: Stage) -> Draft:
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
    return Draft("transformers", without, _metrics(trainer), _notes(trainer))


def _write_sidecar(trainer: Any, stage: Stage) -> bool:
    """What a Trainer would forget: the light form of its moments; with save_only_model the small state too."""
    import safetensors.torch

    light = codec.to_light(trainer.optimizer.state_dict()) if _can_be_light(trainer) else None
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


def _notes(trainer: Any) -> dict[str, Any]:
    notes: dict[str, Any] = {"micro_batch_size": trainer._train_batch_size, **step.learned(trainer)}
    if trainer.args.save_only_model:
        notes["why_light"] = "save_only_model"
    return notes


def save_bytes(trainer: Any, guard: Guard) -> int:
    """What the next save takes, bytes."""
    return guard.saver.next_bytes(_needs(trainer))


def _needs(trainer: Any) -> Needs:
    """Bytes of the next save, from the model and the optimizer as they are."""
    model = trainer.model
    is_adapter = hasattr(model, "peft_config")
    weights = tensor_bytes([p for p in model.parameters() if p.requires_grad] if is_adapter else model)
    trainable = tensor_bytes([p for p in model.parameters() if p.requires_grad])
    moments = tensor_bytes(trainer.optimizer) if trainer.optimizer is not None else 0
    # Adam's state is empty before the first step; then it is two moments.
    moments = moments if moments > trainable // 8 else 2 * trainable
    sidecar = codec.sidecar_bytes(sum(p.numel() for p in model.parameters() if p.requires_grad))
    vocabulary = trainer.processing_class
    small = 64 * 1024 + sidecar + (100 * len(vocabulary) if hasattr(vocabulary, "__len__") else 0)
    if trainer.args.save_only_model:
        return Needs({"light": (weights,)}, small)
    return Needs({"full": (weights, moments), **({"light": (weights,)} if _can_be_light(trainer) else {})}, small)


def _can_be_light(trainer: Any) -> bool:
    """False where the optimizer's state is sharded, or its meaning is not known: then a save is whole or not at all."""
    if trainer.optimizer is None or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return False
    return codec.can_be_light(trainer.optimizer.state_dict()) and _has_safe_form(trainer.lr_scheduler)


def _has_safe_form(scheduler: Any) -> bool:
    """False for a schedule with state of its own classes."""
    try:
        codec.pack_views({"scheduler": scheduler.state_dict()} if scheduler is not None else {})
    except BadInput:
        return False
    return True


def save_model(original: Callable[..., Any]) -> Callable[..., Any]:
    """The model at the end of a script goes beside the checkpoints: they make room for it."""

    @functools.wraps(original)
    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        target = Path(output_dir or self.args.output_dir).absolute()
        guard = None if _internal_call or staged.is_on() else guard_of(self, Path(self.args.output_dir).absolute())
        run = functools.partial(original, self, output_dir, _internal_call=_internal_call)
        if guard is None or not Ranks().is_first or room(target).device != room(guard.vault.root).device:
            run()
            return
        weights = list(_needs(self).files.values())[-1]
        guard.saver.write_beside(str(target), Needs({"file": weights}), run)

    return save_model


def on_save(original: Callable[..., Any]) -> Callable[..., Any]:
    """`CallbackHandler.on_save`, and then the guard's share of it."""

    @functools.wraps(original)
    def on_save(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        trainer = trainer_of(self)
        for guard in GUARDS.get(trainer, {}).values() if trainer is not None else ():
            settle(guard)
        if trainer is not None:
            leaving.leave_if_asked(trainer)
        return result

    return on_save


def settle(guard: Guard) -> None:
    """After the users' callbacks: seal what they changed, prune. A failure here must not end the training."""
    if guard.pending is None:
        return
    checkpoint, guard.pending = guard.pending, None
    if guard.limit is not None:
        guard.saver.keep = rotation(guard)
    try:
        guard.saver.settle(checkpoint)
    except (OSError, OutlastError) as error:
        guard.vault.journal.write("settle_failed", name=checkpoint.name, reason=str(error))


def push_from_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Trainer._push_from_checkpoint`, postponed until the folder has its name."""

    @functools.wraps(original)
    def push(self: Any, checkpoint_folder: str) -> None:
        folder = Path(checkpoint_folder)
        if staged.stage_of(folder / _STATE) is not None:
            # The folder gets its name only after the save: an upload of the stage would lose its files under way.
            for guard in GUARDS.get(self, {}).values():
                guard.pushes.append(folder)
            return
        original(self, checkpoint_folder)

    return push


def unless_guarded(original: Callable[..., Any]) -> Callable[..., Any]:
    """A rotation that does nothing while a guarded save is on: retention is the vault's."""

    @functools.wraps(original)
    def rotate_checkpoints(*args: Any, **kwargs: Any) -> Any:
        return None if staged.is_on() else original(*args, **kwargs)

    return rotate_checkpoints


def finalize_training(original: Callable[..., Any]) -> Callable[..., Any]:
    """With save_total_limit=1 and a best model the Trainer deletes the others here, unseen; Outlast does it aloud."""

    @functools.wraps(original)
    def finalize(self: Any, trial: Any, *args: Any, **kwargs: Any) -> Any:
        guard = guard_of(self, Path(self._get_output_dir(trial=trial)).absolute())
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
