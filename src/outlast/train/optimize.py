"""`Run.step`: from a batch to the optimizer's move, in as many pieces as memory asks for. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from outlast.errors import BadInput, DoesNotFit
from outlast.train import batches, split
from outlast.train.advice import Setup, advise, longest
from outlast.train.out_of_memory import is_out_of_memory, let_go
from outlast.train.step import Splitter, Work

MEANS = ("samples", "tokens", "next_tokens", "sum")
"""What a loss can be a mean over; ``sum`` for one that adds up by itself."""


@dataclass(slots=True)
class Step:
    """What moves when a step is made."""

    model: Any
    """The module in training."""
    optimizer: Any
    """Its optimizer."""
    scheduler: Any
    """Moved after the optimizer; None for none."""
    scaler: Any
    """Gradient scaler; None for none."""
    tell: Callable[..., None]
    """Writes to the journal: an event and its facts."""
    splitter: Splitter = field(default_factory=Splitter)
    """Knows what fits."""
    is_half: bool = False
    """The loss is computed under autocast that is ours."""

    def make(
        self,
        batch: Any,
        loss_fn: Callable[[Any], Any],
        *,
        mean_over: str | Callable[[Any], float],
        micro_batch: int | None,
        clip_norm: float | None,
        samples: int | None,
        take: Callable[[Any, int, int], Any] | None,
        at_most: int | None,
    ) -> Any:
        """Gradient of the batch, then the optimizer, then the schedule; see `Run.step`."""
        _check(mean_over, micro_batch, samples, take)
        work = Work(
            go=lambda piece, share: self._go(piece, share, loss_fn),
            undo=self._undo,
            weigh=lambda pieces, sizes: _weigh(pieces, sizes, mean_over),
            model=self.model,
            tell=self.tell,
            advice=lambda: advise(_setup(self.model, self.optimizer, batch, is_half=self.is_half)),
            cap=micro_batch,
            take=take,
            samples=samples,
            at_most=at_most,
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.splitter.run(batch, work)
        try:
            self._move(clip_norm)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            caught = error
        else:
            return loss
        let_go(caught)
        raise DoesNotFit(
            "the gradients fitted, the optimizer's own state did not: no smaller batch cures that",
            hint=advise(Setup(True, True, None, type(self.optimizer).__name__)),
        ) from caught

    def _go(self, piece: Any, share: float, loss_fn: Callable[[Any], Any]) -> Any:
        loss = loss_fn(piece)
        if not hasattr(loss, "backward") or loss.numel() != 1:
            raise BadInput(f"loss_fn returned {_shown(loss)}", hint="return the loss alone, a tensor of one number")
        loss = loss if share == 1.0 else loss * share
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return loss.detach()

    def _undo(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        # Parameters that the optimizer does not hold collect gradients too.
        self.model.zero_grad(set_to_none=True)

    def _move(self, clip_norm: float | None) -> None:
        has_moved = True
        if clip_norm is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            scale = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            # A scale that shrank means that the gradients were not finite and the optimizer did not move.
            has_moved = self.scaler.get_scale() >= scale
        is_by_metric = isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        if self.scheduler is not None and has_moved and not is_by_metric:
            self.scheduler.step()


def _check(mean_over: Any, micro_batch: int | None, samples: int | None, take: Any) -> None:
    if not callable(mean_over) and mean_over not in MEANS:
        raise BadInput(f"mean_over is {mean_over!r}", hint=f"one of {', '.join(MEANS)}, or a function that counts")
    if micro_batch is not None and micro_batch < 1:
        raise BadInput(f"micro_batch is {micro_batch}", hint="samples at once at most, from 1 up; None for no cap")
    if (samples is None) != (take is None) or (samples is not None and samples < 1):
        raise BadInput(
            f"samples is {samples}, split is {take}", hint="give both: the number of samples, and how to cut them"
        )


def _weigh(pieces: list[Any], sizes: tuple[int, ...], mean_over: str | Callable[[Any], float]) -> tuple[float, ...]:
    if mean_over == "sum":
        return (1.0,) * len(pieces)
    if callable(mean_over):
        return split.shares([float(mean_over(piece)) for piece in pieces])
    if mean_over == "samples":
        return split.shares(sizes)
    return split.shares([batches.tokens(piece, shifted=mean_over == "next_tokens") for piece in pieces])


def _setup(model: Any, optimizer: Any, batch: Any, *, is_half: bool) -> Setup:
    weights = next((p for p in model.parameters() if p.is_floating_point()), None)
    is_half = is_half or torch.is_autocast_enabled() or (weights is not None and weights.element_size() < 4)
    is_checkpointed = any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    return Setup(is_half, is_checkpointed, longest(batch), type(optimizer).__name__)


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}" + (f" of shape {tuple(shape)}" if shape is not None else "")
