"""From a model and a GPU to what a candidate needs: `predict` in the form that the search asks in."""

from __future__ import annotations

from collections.abc import Callable

from outlast.budget.fit import Candidate, Estimate
from outlast.budget.gpus import Gpu
from outlast.budget.memory import predict
from outlast.budget.subject import Subject
from outlast.budget.weights import Weights, failed
from outlast.errors import OutlastError


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
            raise failed(subject, error) from error
        buckets = weights.trained_bytes if candidate.world > 1 else 0
        return Estimate(
            said.needed_bytes + buckets, said.batch_seconds, said.optimizer_seconds, said.parts.optimizer, said
        )

    return estimate
