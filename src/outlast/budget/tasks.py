"""What a model is trained for: which class of Transformers, and what a batch of it looks like. Makes tensors lazily."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from outlast.errors import BadInput

_TOKEN = 5
"""The token that batches are made of: not one of the padding tokens that models have (0 to 3)."""


@dataclass(frozen=True, slots=True)
class Task:
    """One way to train a model."""

    auto: str
    """Transformers' class that makes the model."""
    heads: tuple[str, ...]
    """Ends of ``architectures`` that mean this task."""
    labels: Callable[[Any, int, int], Mapping[str, Any]]
    """From the config, samples and length: the labels."""
    is_text: bool = True
    """Samples are token numbers; else images."""


def _one_each(config: Any, samples: int, length: int) -> Mapping[str, Any]:
    import torch

    return {"labels": torch.zeros(samples, dtype=torch.long)}


def _each_token(config: Any, samples: int, length: int) -> Mapping[str, Any]:
    import torch

    return {"labels": torch.zeros(samples, length, dtype=torch.long)}


def _span(config: Any, samples: int, length: int) -> Mapping[str, Any]:
    import torch

    return {f"{end}_positions": torch.zeros(samples, dtype=torch.long) for end in ("start", "end")}


TASKS: Mapping[str, Task] = {
    "causal-lm": Task("AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel"), _each_token),
    "seq2seq-lm": Task("AutoModelForSeq2SeqLM", ("ForConditionalGeneration",), _each_token),
    "sequence-classification": Task(
        "AutoModelForSequenceClassification", ("ForSequenceClassification", "ForMaskedLM", "ForPreTraining"), _one_each
    ),
    "masked-lm": Task("AutoModelForMaskedLM", (), _each_token),
    "token-classification": Task("AutoModelForTokenClassification", ("ForTokenClassification",), _each_token),
    "question-answering": Task("AutoModelForQuestionAnswering", ("ForQuestionAnswering",), _span),
    "image-classification": Task(
        "AutoModelForImageClassification", ("ForImageClassification",), _one_each, is_text=False
    ),
}
"""By name. ``auto`` takes an encoder that was trained on masked words for a classifier: most are tuned to that."""


def task_of(config: Any, asked: str) -> str:
    """The name of the task: the one asked for, or for ``auto`` the one that the config's architecture is for.

    Raises:
        BadInput: for a task that is not known, or an architecture that says none.
    """
    known = ", ".join(TASKS)
    if asked != "auto":
        if asked not in TASKS:
            raise BadInput(f"no task called {asked!r}", hint=f"known: auto, {known}")
        return asked
    head = (getattr(config, "architectures", None) or [""])[0]
    for name, task in TASKS.items():
        if head.endswith(task.heads or ("-",)):
            return name
    raise BadInput(f"what is to be trained? The config's architecture is {head or 'not given'}", hint=f"--task {known}")


def batch_of(config: Any, task: str, samples: int, length: int, *, padded: bool) -> dict[str, Any]:
    """A batch as a collator would make it; ``padded``: the last sample is half as long as the others."""
    import torch

    row = TASKS[task]
    if not row.is_text:
        side = getattr(config, "image_size", None) or 224
        high, wide = side if isinstance(side, list | tuple) else (side, side)
        pixels = torch.zeros(samples, getattr(config, "num_channels", 3), high, wide)
        return {"pixel_values": pixels, **row.labels(config, samples, length)}
    words = torch.full((samples, length), min(_TOKEN, config.vocab_size - 1), dtype=torch.long)
    mask = torch.ones_like(words)
    if padded and length > 1:
        mask[-1, length // 2 :] = 0
    return {"input_ids": words, "attention_mask": mask, **row.labels(config, samples, length)}
