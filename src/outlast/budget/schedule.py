"""At which steps a run saves, and how many steps it has. Pure."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from outlast.errors import BadInput

_EVERY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?|s|sec|seconds?|min|minutes?|h|hours?)?\s*", re.IGNORECASE)
_LEAST, _MOST = 1e-9, 1e20
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, slots=True)
class Every:
    """How often it saves."""

    amount: float
    """So many of the unit; steps below 1 are a part of the whole run, as in ``save_steps=0.1``."""
    unit: str = "steps"
    """``steps``, ``epochs`` or ``seconds``."""

    @classmethod
    def parse(cls, text: str) -> Every:
        """From ``1000``, ``0.1``, ``2 epochs``, ``30min``.

        Raises:
            BadInput: when the text is none of these.
        """
        match = _EVERY.fullmatch(text)
        if match is None or not _LEAST <= float(match[1]) <= _MOST:
            raise BadInput(f"cannot save every {text[:80]!r}", hint="for example 1000, 0.1, 1epoch or 30min")
        unit = (match[2] or "steps").lower()
        if unit.startswith("epoch"):
            return cls(float(match[1]), "epochs")
        if unit.startswith("step"):
            return cls(float(match[1]))
        return cls(float(match[1]) * _SECONDS[unit[0]], "seconds")

    def steps(self, total: int, per_epoch: int | None, seconds_per_step: float | None) -> int:
        """The same in steps, at least 1.

        Args:
            total: steps of the run.
            per_epoch: steps of an epoch; None when unknown.
            seconds_per_step: None when unknown.

        Raises:
            BadInput: when what it takes to know that is not known.
        """
        if self.unit == "steps":
            # transformers trainer_callback.py, compute_steps: a part is rounded up.
            return max(1, math.ceil(total * self.amount) if self.amount < 1 else int(self.amount))
        if self.unit == "epochs":
            if not per_epoch:
                raise BadInput("it saves by epochs, and how long one is is not known", hint="give --steps-per-epoch")
            return max(1, round(self.amount * per_epoch))
        if not seconds_per_step:
            raise BadInput("it saves by the clock, and a step's time is not known", hint="give --seconds-per-step")
        return max(1, round(self.amount / seconds_per_step))


def save_steps(total: int, every: int, *, at_end: bool, start: int = 0) -> tuple[int, ...]:
    """Steps at which a run saves.

    Args:
        total: its last step.
        every: the interval.
        at_end: whether the last step is saved too, as a Trainer does.
        start: the step that it goes on from.
    """
    steps = list(range((start // every + 1) * every, total + 1, every))
    if at_end and total > start and (not steps or steps[-1] != total):
        steps.append(total)
    return tuple(steps)


def steps_per_epoch(samples: int, batch: int, accumulation: int = 1, devices: int = 1) -> int:
    """Optimizer steps of an epoch, as the Trainer counts them (set_initial_training_values): both round up."""
    batches = -(-samples // (batch * devices))
    return max(1, -(-batches // accumulation))
