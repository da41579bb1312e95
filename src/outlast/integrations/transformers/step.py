"""The Trainer's `training_step`, split when memory runs out; effective batch and gradient stay those of the whole.

What a piece's loss counts for is `loss_kind`'s to find out. With several processes each splits its own part (see
`outlast.train.step`); at a save they agree on the size that all of them can hold.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlast.checkpoints import seal
from outlast.errors import DoesNotFit, SealError
from outlast.integrations.transformers import loss_kind
from outlast.integrations.transformers.guard import guard_of, is_guarded_run, policy_of
from outlast.train import split
from outlast.train.advice import TRAINER, Setup, advise, longest
from outlast.train.ranks import Ranks
from outlast.train.step import Splitter, Work

NOTE = "memory"
"""Name of the seal's note that holds what was learned."""

_OTHERWISE = "a smaller per_device_train_batch_size, and gradient_accumulation_steps larger by the same factor"
_ASKS = 16
"""Times that a loss is asked where the samples are too alike to tell."""


@dataclass(slots=True)
class Stepping:
    """What Outlast keeps for one Trainer's steps."""

    splitter: Splitter = field(default_factory=Splitter)
    """Knows what fits."""
    step: int = -1
    """Optimizer step that the splitter's window belongs to."""
    kinds: dict[bool, str] = field(default_factory=dict)
    """What the loss is a mean of, with and without ``num_items_in_batch``; empty before it was told for certain."""
    can_split: bool | None = None
    """One process can repeat a forward by itself; None before it was looked at."""
    asked: int = 0
    """Times that it was asked."""


_STEPPING: weakref.WeakKeyDictionary[Any, Stepping] = weakref.WeakKeyDictionary()


def _stepping(trainer: Any) -> Stepping:
    found = _STEPPING.get(trainer)
    if found is None:
        found = _STEPPING[trainer] = Stepping()
    return found


def training_step(original: Callable[..., Any]) -> Callable[..., Any]:
    """`Trainer.training_step`, in as many pieces as memory asks for."""

    @functools.wraps(original)
    def training_step(self: Any, model: Any, inputs: Any, num_items_in_batch: Any = None, *rest: Any) -> Any:
        is_guarded = is_guarded_run() or policy_of(self) is not None
        stepping = _stepping(self)
        if stepping.can_split is None:
            stepping.can_split = _can_split(self)
        if not is_guarded or not stepping.can_split:
            return original(self, model, inputs, num_items_in_batch, *rest)
        if stepping.step != self.state.global_step:
            stepping.step = self.state.global_step
            stepping.splitter.forget_window()

        def go(piece: Any, share: float) -> Any:
            with _share_of_loss(self, share):
                return original(self, model, piece, num_items_in_batch, *rest)

        work = Work(
            go=go,
            undo=model.zero_grad,
            weigh=functools.partial(_weigh, self, stepping, model, inputs, num_items_in_batch),
            model=model,
            tell=functools.partial(_tell, self),
            advice=lambda: advise(_setup(self, inputs), TRAINER),
            otherwise=_OTHERWISE,
        )
        closes = bool(self.accelerator.gradient_state.sync_gradients)
        return stepping.splitter.run(inputs, work, closes=closes)

    return training_step


def _can_split(trainer: Any) -> bool:
    """False where a forward is shared with other processes, or a sequence is: one process cannot repeat it alone."""
    sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled or getattr(trainer, "is_tp_enabled", False)
    plan = getattr(trainer.accelerator, "parallelism_config", None)
    shares_forward = any(getattr(plan, f"{kind}_enabled", False) for kind in ("tp", "cp", "sp"))
    return not sharded and not shares_forward


@contextmanager
def _share_of_loss(trainer: Any, share: float) -> Iterator[None]:
    """What `compute_loss` returns counts for a part, for the length of a piece's forward and backward."""
    if share == 1.0:
        yield
        return
    own = trainer.__dict__.get("compute_loss")
    compute_loss = trainer.compute_loss

    def shared(*args: Any, **kwargs: Any) -> Any:
        found = compute_loss(*args, **kwargs)
        return (found[0] * share, *found[1:]) if isinstance(found, tuple) else found * share

    trainer.compute_loss = shared
    try:
        yield
    finally:
        if own is None:
            del trainer.compute_loss
        else:
            trainer.compute_loss = own


def _weigh(
    trainer: Any, stepping: Stepping, model: Any, inputs: Any, items: Any, pieces: list[Any], sizes: tuple[int, ...]
) -> tuple[float, ...]:
    kind = stepping.kinds.get(items is not None)
    if kind is None:
        answer = loss_kind.ask(trainer, model, inputs, sum(sizes), items)
        kind = answer.kind if answer else loss_kind.likeliest(trainer, model, inputs, items)
        if kind == "none":
            raise DoesNotFit(
                "out of memory, and the batch cannot be split: the loss of two samples together is not made of theirs",
                hint=_OTHERWISE,
            )
        stepping.asked += 1
        if (answer and answer.is_certain) or stepping.asked >= _ASKS:
            stepping.kinds[items is not None] = kind
    return loss_kind.shares(kind, pieces, sizes)


# What is told, and what is kept


def _tell(trainer: Any, event: str, **facts: Any) -> None:
    guard = guard_of(trainer, Path(trainer.args.output_dir).absolute())
    if guard is None:
        return
    accumulated = getattr(trainer, "current_gradient_accumulation_steps", trainer.args.gradient_accumulation_steps)
    effective = facts["samples"] * accumulated * trainer.args.world_size
    guard.vault.journal.write(event, step=trainer.state.global_step + 1, effective_batch=effective, **facts)


def _setup(trainer: Any, inputs: Any) -> Setup:
    arguments = trainer.args
    weights = next((p for p in trainer.model.parameters() if p.is_floating_point()), None)
    is_half = arguments.bf16 or arguments.fp16 or (weights is not None and weights.element_size() < 4)
    is_checkpointed = getattr(arguments, "activation_checkpointing", None) or arguments.gradient_checkpointing
    optimizer = str(getattr(arguments.optim, "value", arguments.optim))
    return Setup(is_half, bool(is_checkpointed), longest(inputs), optimizer)


def learned(trainer: Any) -> dict[str, Any]:
    """What the next seal's notes say of memory; empty when nothing has to be held back."""
    stepping = _STEPPING.get(trainer)
    return {NOTE: stepping.splitter.known.as_data()} if stepping and stepping.splitter.known.fails is not None else {}


def agree(trainer: Any, ranks: Ranks) -> None:
    """At a save all ranks go on with the size that each of them can hold."""
    stepping = _STEPPING.get(trainer)
    if ranks.world > 1 and policy_of(trainer) is not None:
        known = stepping.splitter.known if stepping else split.Known()
        common = split.agreed([split.Known.from_data(one) for one in ranks.gather(known.as_data())])
        _stepping(trainer).splitter.known = common


def restore(trainer: Any, checkpoint: Any) -> None:
    """Go on with the size that worked when the checkpoint was made."""
    known = split.Known()
    if isinstance(checkpoint, str | Path):
        try:
            known = split.Known.from_data(seal.read(Path(checkpoint)).notes.get(NOTE, {}))
        except (OSError, SealError):
            known = split.Known()  # a folder without a seal was saved by somebody else: nothing is known
    _stepping(trainer).splitter = Splitter(known)
