"""The Trainer's resume: sealed and verified checkpoints only, light ones expanded."""

from __future__ import annotations

import functools
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from outlast.checkpoints import Policy, Vault, codec, inspect, is_candidate, state
from outlast.errors import SealError
from outlast.integrations.ranks import is_first_process
from outlast.integrations.transformers import leaving, saving, step
from outlast.integrations.transformers.guard import Guard, guard_of, is_guarded_run, known_roots, policy_of
from outlast.train.ranks import Ranks

_log = logging.getLogger("outlast")


def last_checkpoint(original: Callable[..., Any]) -> Callable[..., Any]:
    """`get_last_checkpoint`, which looks inside."""

    @functools.wraps(original)
    def get_last_checkpoint(folder: str) -> str | None:
        if not is_guarded_run() and Path(folder).absolute() not in known_roots():
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

    return get_last_checkpoint


def train(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Trainer.train`, started from a sealed and verified checkpoint."""

    @functools.wraps(original)
    def train(self: Any, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        guard = guard_of(self, Path(self.args.output_dir).absolute())
        if guard is None:
            return original(self, resume_from_checkpoint, *args, **kwargs)
        ranks = Ranks()
        found = _resume_from(guard, resume_from_checkpoint) if ranks.is_first else None
        resume_from_checkpoint = ranks.broadcast(found)
        step.restore(self, resume_from_checkpoint)
        with leaving.looked_after(self, guard, functools.partial(saving.save_bytes, self, guard)):
            return original(self, resume_from_checkpoint, *args, **kwargs)

    return train


def _resume_from(guard: Guard, asked: Any) -> Any:
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


def load_optimizer_and_scheduler(original: Callable[..., Any]) -> Callable[..., Any]:
    """Expand a light checkpoint; where the Trainer would silently start afresh, at least go on in the schedule."""

    @functools.wraps(original)
    def load(self: Any, checkpoint: str | None) -> Any:
        has_native = checkpoint is None or _has_native_state(Path(checkpoint))
        if has_native or policy_of(self) is None:
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
    _log.warning(
        "outlast: this checkpoint holds bare weights, no training state: the optimizer starts afresh; "
        "the schedule goes on at step %d", trainer.state.global_step,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns when a schedule moves before the optimizer's first step
        for _ in range(trainer.state.global_step):
            with suppress(TypeError):  # ReduceLROnPlateau wants a metric, and starts where it was configured
                trainer.lr_scheduler.step()


def load_rng_state(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Trainer._load_rng_state`, from the sidecar where only the model was saved."""

    @functools.wraps(original)
    def load(self: Any, checkpoint: str | None) -> Any:
        doc = None if checkpoint is None or any(Path(checkpoint).glob("rng_state*.pth")) else _sidecar(checkpoint)
        if doc and doc.get("generators") and policy_of(self) is not None:
            state.put_generators(doc["generators"])
            return None
        return original(self, checkpoint)

    return load


def load_scaler(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Trainer._load_scaler`, likewise."""

    @functools.wraps(original)
    def load(self: Any, checkpoint: str | None) -> Any:
        doc = None if checkpoint is None or Path(checkpoint, "scaler.pt").is_file() else _sidecar(checkpoint)
        scaler = getattr(self.accelerator, "scaler", None)
        if doc and doc.get("scaler") and scaler is not None and policy_of(self) is not None:
            scaler.load_state_dict(doc["scaler"])
            return None
        return original(self, checkpoint)

    return load
