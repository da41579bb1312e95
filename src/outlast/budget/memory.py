"""Peak memory of a training step, from the model's own code: no GPU, no weights, no training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from outlast.budget.gpus import Gpu, gpu_named
from outlast.budget.replay import Trace, alive_at, counted_peak, replay
from outlast.errors import BadInput

if TYPE_CHECKING:
    import torch

    from outlast.budget.roofline import Roofline

PRECISIONS = {"fp32": None, "fp16": "float16", "bf16": "bfloat16"}
"""Name of a precision and the type that autocast takes; the weights keep the type that the model gives them."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the memory at the peak is used for; bytes, rounded as the allocator rounds."""

    parameters: int
    """Weights and buffers."""
    gradients: int
    """Gradients that are there at the peak: early in backward few are."""
    optimizer: int
    """The optimizer's state."""
    activations: int
    """What is kept for backward, the batch, and what is being computed."""
    workspace: int
    """cuBLAS workspaces and scratch within kernels."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one training step needs."""

    gpu: str | None
    """For which GPU; None for CPU tensors."""
    peak_allocated_bytes: int
    """``torch.cuda.max_memory_allocated()``: most bytes in use at once, rounded to blocks."""
    peak_reserved_bytes: int
    """``torch.cuda.max_memory_reserved()`` with room to spare: most bytes held from the driver."""
    counted_bytes: int
    """Most bytes in use at once, not rounded."""
    context_bytes: int | None
    """CUDA context and kernels, outside of torch's count; None for CPU tensors."""
    capacity_bytes: int | None
    """The GPU's memory; None for CPU tensors."""
    parts: Parts
    """The memory at the peak, by use."""
    phase: str
    """When the peak is: ``forward 2``, ``backward 2``, ``optimizer 2`` (the second step: state is there)."""
    operation: str
    """What is computed at the peak, with what it makes."""
    fits: bool | None
    """Whether the steps run on this GPU, giving back free segments if need be; None for CPU tensors."""
    emptied: int
    """How often free segments have to be given back to make it fit, over the steps: each time costs speed."""
    batch_seconds: float | None = None
    """Forward and backward of one batch by a roofline, to rank candidates by: no ETA. None where speed is not known."""
    optimizer_seconds: float | None = None
    """One move of the optimizer, likewise."""

    @property
    def needed_bytes(self) -> int:
        """With room to spare: reserved and context; what nvidia-smi would show."""
        return self.peak_reserved_bytes + (self.context_bytes or 0)

    @property
    def margin_bytes(self) -> int | None:
        """What would be left of the GPU; negative when fragments or more have to give way; None for CPU tensors."""
        return None if self.capacity_bytes is None else self.capacity_bytes - self.needed_bytes


def predict(
    model_fn: Callable[[], torch.nn.Module],
    batch_fn: Callable[[], Any],
    *,
    gpu: str | Gpu | None = None,
    precision: str = "fp32",
    optimizer: str | Callable[[Any], torch.optim.Optimizer] = "adamw",
    checkpointing: bool | Callable[[torch.nn.Module], None] = False,
    loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None,
    accumulation: int = 1,
) -> Prediction:
    """Train two steps on tensors without data, and see what a GPU's allocator would make of it.

    The functions are called with fake tensors on ``cpu``. They must make what they use: a model or batch that was made
    before is no use here. Meanwhile torch is changed for the whole process, so nothing else may train.

    Args:
        model_fn: makes the model, on the CPU, in the type that its weights are trained in.
        batch_fn: makes one batch of tensors, of the size and length in question.
        gpu: a name of `outlast.budget.GPUS`, or a row of one's own; None for CPU tensors.
        precision: ``fp32``, or ``fp16`` or ``bf16`` by autocast.
        optimizer: a name of `outlast.budget.optimizers`, or what makes one from the trainable parameters.
        checkpointing: recompute activations; True for a Transformers model, or what switches it on in another.
        loss_fn: from the model and a batch to the loss; None: ``model(**batch).loss``.
        accumulation: batches before an optimizer step; with two or more, gradients are there during forward.

    Returns:
        Bytes at the peak, what they are used for, and whether the GPU has them.

    Raises:
        BadInput: when an argument is not known, or what the model does depends on data that are not there.
    """
    row = gpu_named(gpu) if isinstance(gpu, str) else gpu
    if accumulation < 1:
        raise BadInput(f"accumulation is {accumulation}", hint="give the number of batches before a step: 1 or more")
    watch = _roofline(row)
    trace = _traced(
        model_fn, batch_fn, row, precision, optimizer, checkpointing, loss_fn, accumulation, fake=True, watch=watch
    )
    said = _judge(trace, row)
    if watch is None:
        return said
    second = {phase.removesuffix(" 2"): seconds for phase, seconds in watch.seconds.items() if phase.endswith(" 2")}
    batch = (second.get("forward", 0.0) + second.get("backward", 0.0)) / min(accumulation, 2)
    return replace(said, batch_seconds=batch, optimizer_seconds=second.get("optimizer", 0.0))


def _roofline(gpu: Gpu | None) -> Roofline | None:
    from outlast.budget.roofline import Roofline

    return Roofline.of(gpu) if gpu is not None else None


def measure(
    model_fn: Callable[[], torch.nn.Module],
    batch_fn: Callable[[], Any],
    *,
    precision: str = "fp32",
    optimizer: str | Callable[[Any], torch.optim.Optimizer] = "adamw",
    checkpointing: bool | Callable[[torch.nn.Module], None] = False,
    loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None,
    accumulation: int = 1,
) -> Prediction:
    """The same on real CPU tensors: two steps are computed, what they take is counted. Arguments as of `predict`."""
    return _judge(
        _traced(model_fn, batch_fn, None, precision, optimizer, checkpointing, loss_fn, accumulation, fake=False), None
    )


def _traced(
    model_fn: Callable[[], torch.nn.Module],
    batch_fn: Callable[[], Any],
    gpu: Gpu | None,
    precision: str,
    optimizer: str | Callable[[Any], torch.optim.Optimizer],
    checkpointing: bool | Callable[[torch.nn.Module], None],
    loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor] | None,
    accumulation: int,
    *,
    fake: bool,
    watch: Roofline | None = None,
) -> Trace:
    import torch
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    from outlast.budget import emulate, steps
    from outlast.budget.optimizers import OPTIMIZERS
    from outlast.budget.trace import Recorder, no_scratch

    if precision not in PRECISIONS:
        raise BadInput(f"no precision called {precision!r}", hint="known: " + ", ".join(PRECISIONS))
    if isinstance(optimizer, str) and optimizer not in OPTIMIZERS:
        raise BadInput(f"no optimizer called {optimizer!r}", hint="known: " + ", ".join(OPTIMIZERS))
    half = PRECISIONS[precision]
    dtype = getattr(torch, half) if half else torch.bfloat16
    with ExitStack() as stack:
        if gpu is not None:
            stack.enter_context(emulate.cuda_habits(gpu))
        try:
            return steps.record(
                model_fn,
                batch_fn,
                loss_fn or _own_loss,
                OPTIMIZERS[optimizer] if isinstance(optimizer, str) else optimizer,
                fake=fake,
                recorder=Recorder(emulate.CudaScratch(gpu) if gpu else no_scratch, watch),
                around=partial(torch.autocast, "cpu", dtype=dtype, enabled=half is not None),
                prepare=_checkpointing(checkpointing),
                accumulation=min(accumulation, 2),  # a third batch finds what the second found
            )
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise BadInput(
                f"the model's code asks for data that a prediction does not have: {error}",
                hint="give a loss_fn that leaves that part out, or measure one step on the GPU",
            ) from error


def _own_loss(model: torch.nn.Module, batch: Any) -> Any:
    result = model(**batch)
    loss = result.get("loss") if isinstance(result, dict) else getattr(result, "loss", None)
    if loss is None:
        raise BadInput("the model returned no loss", hint="put labels into the batch, or give a loss_fn")
    return loss


def _checkpointing(wanted: bool | Callable[[torch.nn.Module], None]) -> Callable[[torch.nn.Module], None]:
    if callable(wanted):
        return wanted
    return _switch_on if wanted else lambda model: None


def _switch_on(model: torch.nn.Module) -> None:
    """Transformers' own switch, which got a new name in its version 5."""
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable()
    elif hasattr(model, "gradient_checkpointing_enable"):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        raise BadInput(
            f"{type(model).__name__} has no switch for activation checkpointing",
            hint="give checkpointing a function that switches it on in the model",
        )
    if hasattr(model, "enable_input_require_grads") and not all(p.requires_grad for p in model.parameters()):
        model.enable_input_require_grads()  # else nothing is kept below the first trained weight, as peft does too


def _judge(trace: Trace, gpu: Gpu | None) -> Prediction:
    free = replay(trace.events)
    if free.peak_at is None:
        raise BadInput("the step took no memory at all", hint="model_fn must make the model anew, with its parameters")
    parts = alive_at(trace, free.peak_at)
    capacity = gpu.memory_bytes - gpu.context_bytes if gpu else None
    held = replay(trace.events, capacity) if capacity is not None else None
    peak = trace.events[free.peak_at]
    return Prediction(
        gpu=gpu.name if gpu else None,
        peak_allocated_bytes=free.peak_allocated_bytes,
        peak_reserved_bytes=free.peak_reserved_bytes,
        counted_bytes=counted_peak(trace.events),
        context_bytes=gpu.context_bytes if gpu else None,
        capacity_bytes=gpu.memory_bytes if gpu else None,
        parts=Parts(**{name: parts.get(name, 0) for name in Parts.__dataclass_fields__}),
        phase=peak.phase,
        operation=peak.op,
        fits=held.failed_at is None if held else None,
        emptied=held.emptied if held else 0,
    )
