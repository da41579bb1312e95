"""The Trainer's last step of a session: looked at after each step, left once it is sealed."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from outlast.guard.stop import Stop
from outlast.integrations.transformers.guard import Guard, deadline_of, trainer_of
from outlast.train.cleanup import Cleanup
from outlast.train.leaving import Leaving


@dataclass(slots=True)
class _Training:
    """What is kept for one Trainer that trains."""

    leaving: Leaving
    cleanup: Cleanup
    stop: Stop | None = None
    """Asked for at this step; None to go on."""


_NOW: weakref.WeakKeyDictionary[Any, _Training] = weakref.WeakKeyDictionary()


@contextmanager
def looked_after(trainer: Any, guard: Guard, save_bytes: Callable[[], int]) -> Iterator[None]:
    """For the length of `Trainer.train`."""
    leaving = Leaving(guard.vault.journal, deadline=deadline_of(trainer), save_bytes=save_bytes)
    _NOW[trainer] = _Training(leaving, Cleanup(guard.vault.journal.write))
    leaving.begin()
    try:
        yield
    except RuntimeError as error:
        _leave_after_broken_fetch(trainer, guard, error)
        raise
    finally:
        leaving.end()
        del _NOW[trainer]


def _leave_after_broken_fetch(trainer: Any, guard: Guard, error: RuntimeError) -> None:
    """A signal to the group ended the workers too: between two steps, so the last one can still be saved.

    Not in the middle of an accumulation: random numbers have been drawn then that belong to the next step.
    """
    training, step = _NOW[trainer], trainer.state.global_step
    stop = training.leaving.after_broken_fetch(error)
    if stop is None or not step or trainer.args.gradient_accumulation_steps > 1:
        return
    training.stop = stop
    if not any(c.kind and c.name == f"checkpoint-{step}" for c in guard.vault.checkpoints()):
        trainer._save_checkpoint(trainer.model, trial=None)
    trainer.control = trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)


@contextmanager
def timed_save(trainer: Any) -> Iterator[None]:
    """For the length of a save: what it takes decides when the last one must begin."""
    training = _NOW.get(trainer)
    if training is None:
        yield
        return
    with training.leaving.saving():
        yield


def on_step_end(original: Callable[..., Any]) -> Callable[..., Any]:
    """`CallbackHandler.on_step_end`, and then the question whether this step was the last one that fits."""

    @functools.wraps(original)
    def on_step_end(self: Any, args: Any, state: Any, control: Any, *rest: Any, **kwargs: Any) -> Any:
        control = original(self, args, state, control, *rest, **kwargs)
        trainer = trainer_of(self)
        training = _NOW.get(trainer) if trainer is not None else None
        if training is None or control.should_training_stop or state.global_step >= state.max_steps:
            return control
        training.cleanup.after_step(state.global_step)
        training.leaving.total_steps = state.max_steps
        training.stop = training.leaving.after_step(state.global_step)
        control.should_save |= training.stop is not None
        return control

    return on_step_end


def leave_if_asked(trainer: Any) -> None:
    """After a save and all callbacks: the place to leave from.

    Raises:
        Stopped: when this step was the last one.
    """
    training = _NOW.get(trainer)
    if training is not None and training.stop is not None:
        training.leaving.leave(training.stop, trainer.state.global_step)
