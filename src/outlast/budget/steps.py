"""Runs training steps under a recorder. Needs torch."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes

from outlast.budget.replay import Trace
from outlast.budget.trace import Recorder, map_tensors
from outlast.budget.values import Values


def record(
    model_fn: Callable[[], torch.nn.Module],
    batch_fn: Callable[[], Any],
    loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor],
    optimizer_fn: Callable[[Any], torch.optim.Optimizer],
    *,
    fake: bool,
    recorder: Recorder,
    around: Callable[[], AbstractContextManager[Any]] = nullcontext,
    prepare: Callable[[torch.nn.Module], None] = lambda model: None,
    steps: int = 2,
    accumulation: int = 1,
) -> Trace:
    """Build a model, train it for some steps, and say what that took.

    Args:
        model_fn: makes the model; called with fake tensors when ``fake``.
        batch_fn: makes one batch.
        loss_fn: from the model and a batch to the loss.
        optimizer_fn: from the trainable parameters to the optimizer.
        fake: on shapes without data.
        recorder: what records.
        around: made anew around each forward pass (autocast).
        prepare: what is done to the model once built (activation checkpointing).
        steps: optimizer steps; from the second on the optimizer has its state.
        accumulation: batches before an optimizer step.
    """
    gc.collect()
    with ExitStack() as stack:
        stack.enter_context(_no_collector())
        mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else None
        if mode is not None:
            stack.enter_context(mode)
            recorder.values = Values()
            stack.enter_context(_conversions_replace_parameters())
        stack.enter_context(recorder)
        model = model_fn()
        model.train()
        prepare(model)
        gc.collect()
        stack.enter_context(_transformers_reads_masks())
        recorder.start()
        for tensor in [*model.parameters(), *model.buffers()]:
            recorder.register(tensor, "parameters")
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = optimizer_fn(trained)
        for step in range(1, steps + 1):
            # Before the last step one batch is enough: it makes the gradients from which the optimizer makes its state.
            for _ in range(accumulation if step == steps else 1):
                recorder.phase = f"forward {step}"
                batch = _real(batch_fn, recorder, mode)
                with around():
                    loss = loss_fn(model, batch)
                recorder.phase = f"backward {step}"
                (loss / accumulation if accumulation > 1 else loss).backward()
                del loss, batch
                for parameter in trained:
                    if parameter.grad is not None:
                        recorder.register(parameter.grad, "gradients")
            recorder.phase = f"optimizer {step}"
            optimizer.step()
            for state in optimizer.state.values():
                for value in state.values():
                    if isinstance(value, torch.Tensor):
                        recorder.register(value, "optimizer")
            optimizer.zero_grad(set_to_none=True)
        return recorder.finish()


def built(model_fn: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """The model on tensors without data."""
    gc.collect()
    recorder = Recorder()
    recorder.values = Values()
    with _no_collector(), FakeTensorMode(allow_non_fake_inputs=True), _conversions_replace_parameters(), recorder:
        return model_fn()


def _real(batch_fn: Callable[[], Any], recorder: Recorder, mode: FakeTensorMode | None) -> Any:
    """One batch, made of real tensors whatever is traced (a collator looks at its data), then without its data."""
    with _disable_current_modes():
        batch = batch_fn()
    if mode is not None:
        real, values = batch, recorder.values

        def without_data(tensor: torch.Tensor) -> torch.Tensor:
            fake = mode.from_tensor(tensor)
            if values is not None:
                values.learn(fake, tensor)
            return fake

        batch = map_tensors(without_data, dict(real) if isinstance(real, Mapping) else real)
    map_tensors(lambda tensor: recorder.register(tensor, None), batch)
    return batch


@contextmanager
def _transformers_reads_masks() -> Iterator[None]:
    """Transformers builds every mask in full when it meets fake tensors; a real run looks whether one is needed."""
    module = sys.modules.get("transformers.utils.import_utils")
    before = getattr(module, "is_fake_tensor", None)
    if before is None:
        yield
        return
    module.is_fake_tensor = lambda tensor: False  # type: ignore[union-attr]
    try:
        yield
    finally:
        module.is_fake_tensor = before  # type: ignore[union-attr]


@contextmanager
def _conversions_replace_parameters() -> Iterator[None]:
    """``Module.to`` swaps the insides of parameters, which fake tensors refuse: it gives new parameters instead."""
    moved: dict[tuple[Any, int], tuple[Any, Any]] = {}  # the old one is held, so that no other gets its id

    def new(parameter: Any, fn: Any) -> Any:
        known = moved.get((fn, id(parameter)))  # tied weights stay tied
        if known is None:
            with torch.no_grad():
                made = torch.nn.Parameter(fn(parameter), requires_grad=parameter.requires_grad)
            known = moved[(fn, id(parameter))] = (parameter, made)
        return known[1]

    def apply(self: Any, fn: Any, recurse: bool = True) -> Any:
        for child in self.children() if recurse else ():
            child._apply(fn)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                self._parameters[name] = new(parameter, fn)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = fn(buffer)
        return self

    before = torch.nn.Module._apply
    torch.nn.Module._apply = apply
    try:
        yield
    finally:
        torch.nn.Module._apply = before
        moved.clear()


class _no_collector:  # noqa: N801
    """Cycles are freed when Python's collector happens to run; without it a trace is the same every time.

    Nor does it run within an operation on tensors without data: torch 2.13 crashed now and then in its cache of such
    operations while it could, and was not seen to since.
    """

    def __enter__(self) -> None:
        self._on = gc.isenabled()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        if self._on:
            gc.enable()
