"""From a model and a GPU to what a candidate needs: `predict` in the form that the search asks in. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from outlast.budget.fit import Candidate, Estimate
from outlast.budget.gpus import Gpu
from outlast.budget.memory import predict
from outlast.budget.subject import Subject
from outlast.errors import BadInput, OutlastError


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's parameters, without their values."""

    shapes: tuple[tuple[tuple[int, ...], int, bool], ...]
    """Of each parameter: shape, bytes of a number, whether it is trained."""
    can_checkpoint: bool
    """It has a switch for activation checkpointing."""

    @property
    def count(self) -> int:
        """Numbers in all."""
        return sum(_numel(shape) for shape, _, _ in self.shapes)

    @property
    def trained(self) -> int:
        """Numbers that are trained."""
        return sum(_numel(shape) for shape, _, is_trained in self.shapes if is_trained)

    @property
    def trained_bytes(self) -> int:
        """Of the trained weights; their gradients take the same."""
        return sum(_numel(shape) * size for shape, size, is_trained in self.shapes if is_trained)


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def weights_of(subject: Subject) -> Weights:
    """The model is made on tensors without data, and looked at.

    Raises:
        BadInput: when its code fails.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    from outlast.budget.steps import conversions_replace_parameters

    try:
        with FakeTensorMode(allow_non_fake_inputs=True), conversions_replace_parameters():
            model = subject.model_fn()
    except OutlastError:
        raise
    except Exception as error:
        raise _failed(subject, error) from error
    own = hasattr(model, "activation_checkpointing_enable") or hasattr(model, "gradient_checkpointing_enable")
    return Weights(
        tuple((tuple(one.shape), one.element_size(), one.requires_grad) for one in model.parameters()),
        subject.checkpointing is not None or (own and getattr(model, "supports_gradient_checkpointing", True)),
    )


def estimator(subject: Subject, gpu: Gpu, weights: Weights) -> Callable[[Candidate], Estimate]:
    """What a candidate of this model needs on this GPU.

    With several devices, DistributedDataParallel's buckets are added: a copy of the gradients (torch's ``reducer.cpp``;
    ``gradient_as_bucket_view`` is off by default).
    """

    def estimate(candidate: Candidate) -> Estimate:
        try:
            said = predict(
                subject.model_fn,
                lambda: subject.batch(candidate.micro_batch, candidate.length),
                gpu=gpu,
                precision=candidate.precision,
                optimizer=candidate.optimizer,
                checkpointing=(subject.checkpointing or True) if candidate.checkpointing else False,
                loss_fn=subject.loss_fn,
                accumulation=candidate.accumulation,
            )
        except OutlastError:
            raise
        except Exception as error:
            raise _failed(subject, error) from error
        buckets = weights.trained_bytes if candidate.world > 1 else 0
        return Estimate(said.needed_bytes + buckets, said.batch_seconds, said.optimizer_seconds, said)

    return estimate


def _failed(subject: Subject, error: Exception) -> BadInput:
    return BadInput(
        f"the code of {subject.name} failed on tensors without data: {type(error).__name__}: {error}",
        hint="does one step of it run on the CPU? If so, docs/memory-prediction.md says what is not known",
    )
