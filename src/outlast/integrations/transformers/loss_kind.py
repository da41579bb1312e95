"""What a Trainer's loss is a mean of. Nothing declares it, so it is asked: two samples, alone and together.

The Trainer divides a loss by the tokens of the whole accumulated batch (``num_items_in_batch``) where the model lets
it: then losses of pieces add up. Not every model that takes the count uses it; and a mean may be over samples, over
labels, or over labels without the first of each sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from outlast.checkpoints import state
from outlast.train import batches, split
from outlast.train.out_of_memory import is_out_of_memory, let_go

SUM, SAMPLES, TOKENS, NEXT_TOKENS = "sum", "samples", "tokens", "next_tokens"
_FAR = 0.1
"""A loss of two samples that no kind explains to this part of it is none of them, as those that compare samples are."""
_CLEARLY = 4.0
"""A kind is taken for certain when all that predict something else are so many times further off."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What two samples say."""

    kind: str
    """A kind, or ``none``: no kind gives the loss of the two together."""
    is_certain: bool
    """False when another kind gives the same for these two: it does so for all samples that are alike, no others."""


def decide(alone: tuple[float, float], together: float, weights: Mapping[str, tuple[float, float]]) -> Answer | None:
    """The kind of a loss, if two samples tell.

    Args:
        alone: the loss of each.
        together: the loss of both as one batch.
        weights: for each kind what the two count for; the likeliest first.

    Returns:
        What they say; None when the losses do not tell one kind from another.
    """
    said = {kind: a * alone[0] + b * alone[1] for kind, (a, b) in weights.items()}
    off = {kind: abs(value - together) for kind, value in said.items()}
    if not off or any(value != value for value in off.values()):
        return None
    best = min(off, key=lambda kind: off[kind])
    size = max(abs(together), 1e-12)
    if off[best] > _FAR * size:
        return Answer("none", True)
    alike = [kind for kind in weights if math.dist(weights[kind], weights[best]) < 1e-9]
    others = [off[kind] for kind in off if kind not in alike]
    if all(other > _CLEARLY * off[best] + 1e-6 * size for other in others):
        return Answer(alike[0], len(alike) == 1)
    return None


def ask(trainer: Any, model: Any, inputs: Any, samples: int, items: Any) -> Answer | None:
    """Compute the losses of two samples of a batch and decide. Leaves no trace in random state or model."""
    first, second = _pair(inputs, samples)
    plain = trainer.accelerator.unwrap_model(model)
    generators, was_training = state.take_generators(), plain.training
    plain.eval()  # no masks, and no batch statistics of a single sample
    try:
        found = []
        for rows in (slice(first, first + 1), slice(second, second + 1), slice(first, second + 1, second - first)):
            with torch.no_grad(), trainer.compute_loss_context_manager():
                part = trainer._prepare_inputs(batches.rows(inputs, rows, samples))
                found.append(float(trainer.compute_loss(plain, part, num_items_in_batch=items)))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        caught = error
    else:
        weights = _weights(trainer, model, inputs, samples, (first, second), items)
        return decide((found[0], found[1]), found[2], weights)
    finally:
        plain.train(was_training)
        state.put_generators(generators)
    let_go(caught)  # two samples are too many even for this: nothing was learned
    return None


def likeliest(trainer: Any, model: Any, inputs: Any, items: Any) -> str:
    """The kind by what the Trainer itself goes by; for where the samples do not tell."""
    if items is not None:
        return SUM
    if not has_token_labels(inputs):
        return SAMPLES
    return NEXT_TOKENS if inputs["labels"].ndim > 1 and _shifts_labels(trainer, model) else TOKENS


def shares(kind: str, pieces: list[Any], sizes: tuple[int, ...]) -> tuple[float, ...]:
    """What the loss of each piece counts for in that of the batch."""
    if kind == SUM:
        return (1.0,) * len(pieces)
    if kind == SAMPLES:
        return split.shares(sizes)
    return split.shares([batches.tokens(piece, shifted=kind == NEXT_TOKENS) for piece in pieces])


def has_token_labels(batch: Any) -> bool:
    """True when a batch has labels of which some may not count."""
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    return isinstance(labels, torch.Tensor) and not labels.is_floating_point() and labels.ndim > 0


def _weights(
    trainer: Any, model: Any, inputs: Any, samples: int, pair: tuple[int, int], items: Any
) -> dict[str, tuple[float, float]]:
    two = [batches.rows(inputs, slice(one, one + 1), samples) for one in pair]
    kinds = [SAMPLES]
    if has_token_labels(inputs):
        # One label a sample: a mean over labels that count is a mean over samples where all do.
        kinds = [likeliest(trainer, model, inputs, None)]
        kinds += [kind for kind in (TOKENS, NEXT_TOKENS, SAMPLES) if kind not in kinds and inputs["labels"].ndim > 1]
    kinds.insert(0 if items is not None else len(kinds), SUM)
    found = {}
    for kind in kinds:
        first, second = shares(kind, two, (1, 1))
        found[kind] = (first, second)
    return found


def _pair(inputs: Any, samples: int) -> tuple[int, int]:
    """The samples that tell most: with the most labels that count, and the fewest, but some."""
    if not has_token_labels(inputs):
        return 0, samples - 1
    labels = inputs["labels"]
    counts = (labels[..., 1:] if labels.ndim > 1 else labels).ne(-100).reshape(samples, -1).sum(1).tolist()
    usable = [number for number in range(samples) if counts[number]] or list(range(samples))
    most = max(usable, key=lambda number: counts[number])
    rest = [number for number in usable if number != most] or [number for number in range(samples) if number != most]
    least = min(rest, key=lambda number: counts[number])
    return min(most, least), max(most, least)


def _shifts_labels(trainer: Any, model: Any) -> bool:
    known = getattr(trainer, "_loss_shifts_labels", None)
    if known is not None:
        return bool(known)
    plain = trainer.accelerator.unwrap_model(model)  # Transformers 4
    plain = plain.get_base_model() if hasattr(plain, "get_base_model") else plain
    return type(plain).__name__.endswith(("ForCausalLM", "LMHeadModel"))
