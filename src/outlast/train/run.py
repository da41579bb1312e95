"""`Run`: checkpoints and exact resume for people with their own training loop. Needs torch."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from outlast.budget import clock
from outlast.caches import Reclaim
from outlast.checkpoints import (
    Checkpoint,
    Choice,
    Draft,
    Keep,
    Needs,
    Policy,
    Saver,
    Stage,
    Vault,
    codec,
    state,
)
from outlast.errors import BadInput
from outlast.guard.stop import Stop
from outlast.host import this_session
from outlast.train.cleanup import Cleanup
from outlast.train.leaving import Leaving, patience
from outlast.train.optimize import Step
from outlast.train.position import Position, epoch_from, loader_generators
from outlast.train.precision import Precision, precision_of, tell
from outlast.train.split import Known
from outlast.train.step import Splitter
from outlast.train.weights import bytes_of, without_aliases, write_file

_MODEL, _OPTIMIZER, _STATE = "model.safetensors", "optimizer.safetensors", "state.safetensors"


class Run:
    """A training run in a folder: saves that fit or make room, and resume from the newest that verifies.

    The model and the rest are put back as they were when the object is made; the data position and the random
    generators when `steps` starts. On CPU the losses are then bit for bit those of an uninterrupted run.

    Args:
        root: folder of this run's checkpoints; made if missing.
        model: the module to train, on its device already.
        optimizer: its optimizer.
        scheduler: learning-rate schedule, stepped by you, or by `step`.
        scaler: gradient scaler, used by you, or by `step`.
        every: save when this many steps have been done since the last save.
        every_seconds: or when this much time has passed; the sooner of the two.
        keep: retention; None keeps all, or follows ``outlast run --keep``.
        keep_exact: always hold a full checkpoint, even if new saves have to be light.
        save: ``full``, or ``light`` for a third of the bytes: a resumed run strays a little (docs/checkpoints.md). None
            follows ``outlast run --save``.
        also: further objects with ``state_dict`` and ``load_state_dict``, by name.
        precision: ``auto`` for what the model's device does best, ``bf16``, ``fp16``, ``fp32``, or a `Precision`:
            `step` computes the loss under autocast, and scales it where that needs a scaler. None leaves it to you.
        deadline: when this session ends: ``9h``, ``23:30``, ``auto`` (what the platform says). `steps` seals in time
            and raises `Stopped`, a SystemExit with code 0; the next start goes on from there.

    Raises:
        NoWayBack: when there are checkpoints here and none verifies.
        BadInput: when neither ``every`` nor ``every_seconds`` is positive, the deadline cannot be read, or the
            checkpoint is of other parts, or ``keep_exact`` is asked for together with light saves.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        model: Any,
        optimizer: Any = None,
        scheduler: Any = None,
        scaler: Any = None,
        every: int | None = 100,
        every_seconds: float | None = None,
        keep: Keep | None = None,
        keep_exact: bool = False,
        save: str | None = None,
        also: Mapping[str, Any] | None = None,
        deadline: str | None = None,
        precision: str | Precision | None = None,
    ) -> None:
        if (every is not None and every < 1) or (every_seconds is not None and every_seconds <= 0):
            raise BadInput(f"every is {every}, every_seconds is {every_seconds}", hint="both count from 1 up, or None")
        if keep is not None and not isinstance(keep, Keep):
            raise BadInput(f"keep is {keep!r}; expected a Keep", hint="keep=outlast.Keep(last=2)")
        inherited = Policy.from_environment()
        self.model, self.optimizer = model, optimizer
        self.precision = precision_of(model, precision)
        """Autocast and scaler, and why these; None where none was asked for."""
        if self.precision is not None and scaler is None:
            scaler = self.precision.scaler
        parts = {"scheduler": scheduler, "scaler": scaler, **(also or {})}
        self._parts = {name: part for name, part in parts.items() if part is not None}
        self.every, self.every_seconds = every, every_seconds
        policy = inherited.with_choice(keep, keep_exact=keep_exact, save=save)
        self.vault = Vault(root)
        self._saver = Saver(self.vault, policy, Reclaim(policy.reclaim, self.vault.journal), wait=patience)
        self._leaving = Leaving(
            self.vault.journal,
            deadline=clock.parse(deadline, time.time(), this_session()) if deadline is not None else None,
            save_bytes=self._save_bytes,
        )
        self.steps_done = 0
        """Steps done so far, those of earlier processes included."""
        self.resumed: Choice | None = None
        """What this process resumed from; None after a fresh start."""
        self._position = Position()
        self._generators: dict[str, Any] = {}
        self._loader_now: list[Any] = []
        self._loader: Any = None
        self._batch_size: int | None = None
        self._saved_at = (0, time.monotonic())
        self._splitter = Splitter()
        self._cleanup = Cleanup(self.vault.journal.write)
        self._resume()

    def steps(self, loader: Iterable[Any], *, epochs: int | None = None, total: int | None = None) -> Iterator[Any]:
        """The batches still to be trained on, from where the last checkpoint was.

        Args:
            loader: a DataLoader or another iterable that can be started again each epoch.
            epochs: stop after this many epochs, those done before included; None with ``total`` None means 1.
            total: stop after this many steps, those done before included.

        Yields:
            What the loader gives. The step that a batch is for counts from the moment it is given: call `checkpoint`
            when it is done, and not in the middle of it.

        Raises:
            Stopped: when the session ends, or the process was asked to stop; the last step is sealed.
        """
        if epochs is None and total is None:
            epochs = 1
        self._loader = loader
        self._check_batch_size(loader)
        self._leaving.total_steps = total
        self._leaving.begin()
        try:
            yield from self._steps(loader, epochs, total)
        finally:
            self._leaving.end()
        if self.steps_done > self._saved_at[0]:
            self.checkpoint(now=True)

    def _steps(self, loader: Iterable[Any], epochs: int | None, total: int | None) -> Iterator[Any]:
        is_resumed = self.resumed is not None
        while (epochs is None or self._position.epoch < epochs) and not self._is_over(total):
            is_within = is_resumed and self._position.batches > 0
            if is_resumed and not is_within:
                self._put_generators(loader)  # an epoch that is about to begin draws its order from these
            batches = epoch_from(loader, self._position, resumed=is_within)
            if is_within:
                self._put_generators(loader)
            is_resumed = False
            began_at = self._position.batches
            for batch in self._fetched(batches):
                self._position.batches += 1
                self.steps_done += 1
                yield batch
                if self._is_over(total):
                    break
                self._leave_if_due()
            else:
                if self._position.batches == began_at == 0:
                    raise BadInput("the loader gave no batch", hint="an iterator can be gone through only once")
                self._position.epoch, self._position.batches = self._position.epoch + 1, 0

    def _fetched(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches; where a signal to the group ended the workers that make them, the last step is sealed first."""
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                stop = self._leaving.after_broken_fetch(error)
                if stop is None or not self.steps_done:
                    raise
                self._leave(stop)
            yield batch

    def _leave_if_due(self) -> None:
        self._cleanup.after_step(self.steps_done)
        stop = self._leaving.after_step(self.steps_done)
        if stop is not None:
            self._leave(stop)

    def _leave(self, stop: Stop) -> NoReturn:
        if self.steps_done > self._saved_at[0]:
            self.checkpoint(now=True)
        self._leaving.leave(stop, self.steps_done)

    def _is_over(self, total: int | None) -> bool:
        return total is not None and self.steps_done >= total

    def step(
        self,
        batch: Any,
        loss_fn: Callable[[Any], Any],
        *,
        mean_over: str | Callable[[Any], float] = "samples",
        micro_batch: int | None = None,
        clip_norm: float | None = None,
        samples: int | None = None,
        split: Callable[[Any, int, int], Any] | None = None,
    ) -> Any:
        """One whole step: gradients are cleared, forward, backward, then the optimizer and the schedule move.

        When memory runs out, the same batch is computed in two halves, in four quarters, and so on: the same samples,
        the gradient of the whole batch, one move of the optimizer. The size that worked is remembered, saved with each
        checkpoint, and a larger one is tried later. To accumulate gradients, let the loader give the whole batch, and
        set ``micro_batch``.

        Args:
            batch: what `steps` gave; tensors in a dict, tuple, list, dataclass or BatchEncoding, samples first.
            loss_fn: forward: takes a batch, or a part of it in the same form, and returns the loss, one number. With
                autocast inside, where you use your own and not the Run's ``precision``.
            mean_over: what the loss is the mean of: ``samples``, ``tokens`` (labels that are not -100), ``next_tokens``
                (the same, where the model shifts the labels), ``sum`` (it is no mean: it adds up), or a function that
                counts what the mean of a batch is over.
            micro_batch: the most samples at once; None for as many as fit.
            clip_norm: clip the norm of the gradients to this before the optimizer moves; None does not.
            samples: number of samples in the batch; with ``split``, where Outlast cannot see it.
            split: ``split(batch, start, stop)`` returns these samples of it as a batch.

        Returns:
            The loss of the whole batch, detached.

        Raises:
            DoesNotFit: when a single sample, or a batch that cannot be split, does not fit; it says what would help.
            BadInput: for a loss that is not one number, or arguments that do not belong together.
        """
        if self.optimizer is None:
            raise BadInput("this Run has no optimizer", hint="outlast.Run(..., optimizer=...), or step by yourself")
        scheduler, scaler = self._parts.get("scheduler"), self._parts.get("scaler")
        moves = Step(self.model, self.optimizer, scheduler, scaler, self._tell, self._splitter)
        if self.precision is not None:
            loss_fn, moves.is_half = self.precision.around(loss_fn), self.precision.name != "fp32"
        return moves.make(
            batch, loss_fn, mean_over=mean_over, micro_batch=micro_batch, clip_norm=clip_norm,
            samples=samples, take=split, at_most=getattr(self._loader, "batch_size", None),
        )  # fmt: skip

    def _tell(self, event: str, **facts: Any) -> None:
        ranks = int(os.environ.get("WORLD_SIZE") or 1)
        self.vault.journal.write(event, step=self.steps_done, effective_batch=facts["samples"] * ranks, **facts)

    def checkpoint(self, metrics: Mapping[str, float] | None = None, *, now: bool = False) -> Checkpoint | None:
        """Save if it is due: atomic, verified; makes room, or waits for it, rather than fail.

        Call it at the end of a step, after the optimizer and the schedule have moved.

        Args:
            metrics: numbers for retention, e.g. ``{"val_f1": 0.81}``.
            now: save even if it is not due.

        Returns:
            What was sealed; None when it was not due.

        Raises:
            BadInput: for a part whose state has no safe form on disk.
        """
        if not now and not self._is_due():
            return None
        step = self.steps_done
        with self._leaving.saving():
            write = functools.partial(self._write, metrics=metrics or {})
            sealed = self._saver.save(f"step-{step}", step, self._needs(), write)
            self._saver.settle(sealed)
        self._saved_at = (step, time.monotonic())
        return sealed

    def _is_due(self) -> bool:
        step, when = self._saved_at
        has_stepped = self.every is not None and self.steps_done - step >= self.every
        return has_stepped or (self.every_seconds is not None and time.monotonic() - when >= self.every_seconds)

    # Saving

    def _save_bytes(self) -> int:
        return self._saver.next_bytes(self._needs())

    def _needs(self) -> Needs:
        weights = bytes_of(self.model.state_dict())
        if self.optimizer is None:
            return Needs({"full": (weights,)}, 64 * 1024)
        current = self.optimizer.state_dict()
        moments = bytes_of(current)
        # Adam's state is empty before the first step; then it is two moments.
        moments = moments if moments > weights // 8 else 2 * weights
        light = {"light": (weights,)} if codec.can_be_light(current) else {}
        sidecar = codec.sidecar_bytes(sum(parameter.numel() for parameter in self.model.parameters()))
        return Needs({"full": (weights, moments), **light}, 64 * 1024 + sidecar)

    def _write(self, stage: Stage, metrics: Mapping[str, float]) -> Draft:
        weights, aliases = without_aliases(self.model.state_dict())
        write_file(stage, _MODEL, weights, {"format": "pt"})
        without: dict[str, tuple[str, ...]] = {"full": ()}
        if self.optimizer is not None:
            without = self._write_optimizer(stage)
        doc = {
            "steps": self.steps_done,
            "aliases": aliases,
            "extra": {k: v for k, v in self.model.state_dict().items() if not hasattr(v, "untyped_storage")},
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "position": self._position.as_data(self._loader),
            "generators": state.take_generators(),
            "loader": [generator.get_state() for generator in loader_generators(self._loader)],
            "batch_size": getattr(self._loader, "batch_size", None),
            "memory": self._splitter.known.as_data(),
            "precision": self.precision.name if self.precision else None,
        }
        write_file(stage, _STATE, *codec.pack_views(doc))
        return Draft("outlast", without, {k: float(v) for k, v in metrics.items()})

    def _write_optimizer(self, stage: Stage) -> dict[str, tuple[str, ...]]:
        without: dict[str, tuple[str, ...]] = {}
        current = self.optimizer.state_dict()
        light = codec.to_light(current)
        if stage.kind == "full":
            write_file(stage, _OPTIMIZER, *codec.pack_views(current))
            without["full"] = ()
        if light is not None:
            write_file(stage, codec.SIDECAR, *codec.pack_views({"optimizer": light}))
            without["light"] = (_OPTIMIZER,)
        return without or {"weights": ()}

    # Resuming

    def _resume(self) -> None:
        self.vault.recover()
        self.resumed = choice = self.vault.take(keep_exact=self._saver.policy.keep_exact)
        if choice is None:
            tell(self.precision, None, is_resumed=False, write=self.vault.journal.write)
            return
        path = choice.checkpoint.path
        self._saver.lineage = choice.checkpoint.seal.lineage or self._saver.lineage
        doc = codec.unpack(path / _STATE)
        self._check_parts(doc)
        tell(self.precision, doc.get("precision"), is_resumed=True, write=self.vault.journal.write)
        self._load_model(path, doc)
        self._load_optimizer(path, choice.kind)
        for name, part in self._parts.items():
            if name in doc["parts"]:
                part.load_state_dict(doc["parts"][name])
        self.steps_done = int(doc["steps"])
        self._saved_at = (self.steps_done, time.monotonic())
        self._position = Position(**doc["position"])
        self._splitter.known = Known.from_data(doc.get("memory"))
        self._generators, self._loader_now, self._batch_size = doc["generators"], doc["loader"], doc["batch_size"]

    def _check_parts(self, doc: Mapping[str, Any]) -> None:
        # Whether there is a scaler follows from the precision, and that another one is gone on in is said.
        follows = {"scaler"} if self.precision is not None else set()
        if (set(doc["parts"]) ^ set(self._parts)) - follows:
            raise BadInput(
                f"the checkpoint holds {sorted(doc['parts'])}, this Run was given {sorted(self._parts)}",
                hint="give the same parts, or start in another folder: resume is exact or not at all",
            )

    def _load_model(self, path: Path, doc: Mapping[str, Any]) -> None:
        from safetensors.torch import load_file

        weights: dict[str, Any] = dict(load_file(path / _MODEL))
        for alias, name in doc["aliases"].items():
            weights[alias] = weights[name]
        self.model.load_state_dict({**weights, **doc["extra"]})

    def _load_optimizer(self, path: Path, kind: str) -> None:
        if self.optimizer is None:
            return
        if kind == "full":
            self.optimizer.load_state_dict(codec.unpack(path / _OPTIMIZER))
        elif kind == "light":
            self.optimizer.load_state_dict(codec.from_light(codec.unpack(path / codec.SIDECAR)["optimizer"]))

    def _put_generators(self, loader: Any) -> None:
        state.put_generators(self._generators)
        for generator, kept in zip(loader_generators(loader), self._loader_now, strict=False):
            generator.set_state(kept)

    def _check_batch_size(self, loader: Any) -> None:
        now = getattr(loader, "batch_size", None)
        if self.resumed is not None and self._batch_size != now:
            raise BadInput(
                f"the checkpoint was made with batches of {self._batch_size}, the loader gives {now}",
                hint="use the same batch size, or start in another folder: it never changes silently",
            )
