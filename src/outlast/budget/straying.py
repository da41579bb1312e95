"""How far the loss strays after resuming from each kind of checkpoint, on a few real CPU steps. Needs torch.

The user's own model where it is small; else, for a Transformers config, one of the same architecture that is scaled
down, which is said. Text is the Python library's own sources as bytes: there on every machine, and something to learn.
"""

from __future__ import annotations

import copy
import random
import statistics
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from outlast.budget.subject import Subject
from outlast.budget.tasks import TASKS, batch_of
from outlast.budget.weights import Weights, failed
from outlast.checkpoints import codec, state
from outlast.errors import BadInput

AFFORDABLE = 8_000_000
"""Most parameters that are trained here for it: about 50 ms a step on one core."""
BEFORE, AFTER, SAMPLES, LENGTH = 100, 20, 8, 64
RATE = 1e-3
_SMALL = {
    "num_hidden_layers": 2, "n_layer": 2, "num_layers": 2, "num_decoder_layers": 2, "n_layers": 2,
    "hidden_size": 128, "n_embd": 128, "d_model": 128, "dim": 128, "hidden_dim": 512,
    "intermediate_size": 512, "d_ff": 512, "n_inner": 512, "head_dim": 32, "d_kv": 32,
    "num_attention_heads": 4, "n_head": 4, "num_heads": 4, "n_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 512, "max_position_embeddings": 128, "n_positions": 128, "image_size": 64,
}  # fmt: skip
"""A scaled-down model: these values of a config, where it has them and they are larger."""


@dataclass(frozen=True, slots=True)
class Strayed:
    """What resuming costs."""

    model: str
    """Which model it was measured on."""
    steps: int
    """Steps after the resume that the figures are means over."""
    by_kind: Mapping[str, float]
    """Kind of checkpoint, and the mean of \\|loss - uninterrupted loss\\| of the same batches."""


def measure_straying(subject: Subject, weights: Weights) -> Strayed:
    """Train a little, resume in each way, and compare with what was not interrupted.

    Raises:
        BadInput: when the model is too large to be trained here, and is not one that can be scaled down.
    """
    import torch

    if weights.count <= AFFORDABLE:
        small, name = subject, f"{subject.name} itself"
    elif subject.config is not None:
        small, count = _scaled(subject)
        name = f"a {subject.config.model_type} of {count:,} parameters: {subject.name} scaled down"
    else:
        raise BadInput(
            f"{subject.name} has {weights.count:,} parameters: more than the {AFFORDABLE:,} that are trained here",
            hint="name a smaller one of the same kind with --checkpoints",
        )
    with _left_alone(torch):
        try:
            losses = _losses(small)
        except Exception as error:
            raise failed(small, error) from error
    plain = losses.pop("uninterrupted")
    strayed = {
        kind: statistics.fmean(abs(a - b) for a, b in zip(found, plain, strict=True)) for kind, found in losses.items()
    }
    return Strayed(name, AFTER, strayed)


def _losses(small: Subject) -> dict[str, list[float]]:
    """Of the same steps, by what they were resumed from."""
    run = _Run(small)
    run.train(0, BEFORE)
    kept = run.state()
    found = {"uninterrupted": run.train(BEFORE, BEFORE + AFTER)}
    return {**found, **{kind: run.resumed(kept, kind) for kind in ("full", "light", "weights")}}


@contextmanager
def _left_alone(torch: Any) -> Iterator[None]:
    """The random generators are afterwards as they were, and figures do not depend on them."""
    before, threads = state.take_generators(), torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # threads cost small models more than they give, and the figures are the same everywhere
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        state.put_generators(before)


def _scaled(subject: Subject) -> tuple[Subject, int]:
    config = copy.deepcopy(subject.config)
    for name, value in _SMALL.items():
        now = getattr(config, name, None)
        if isinstance(now, int) and now > value:
            setattr(config, name, value)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    row = TASKS[subject.task or ""]

    def make() -> Any:
        import transformers

        from outlast.budget.lora import with_lora

        made = getattr(transformers, row.auto).from_config(config)
        return made if subject.rank is None else with_lora(made, min(subject.rank, 8))

    found = replace(subject, model_fn=make, config=config)
    return found, sum(parameter.numel() for parameter in make().parameters())


class _Run:
    """A model in training; its batches are a function of the step."""

    def __init__(self, small: Subject) -> None:
        import torch

        self._subject = small
        self.model = small.model_fn()
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0  # what strays is then the resume, not the noise
        self._batch = (
            None if small.config is None else _text(small) if TASKS[small.task or ""].is_text else _images(small)
        )
        self.optimizer = self._fresh()

    def _fresh(self) -> Any:
        import torch

        return torch.optim.AdamW((p for p in self.model.parameters() if p.requires_grad), lr=RATE)

    def state(self) -> tuple[Any, Any]:
        return copy.deepcopy(self.model.state_dict()), copy.deepcopy(self.optimizer.state_dict())

    def train(self, start: int, end: int) -> list[float]:
        import torch

        losses = []
        for step in range(start, end):
            torch.manual_seed(step)
            batch = self._batch(step) if self._batch else self._subject.batch(SAMPLES, self._subject.length)
            own = self._subject.loss_fn
            loss = own(self.model, batch) if own else self.model(**batch).loss
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return losses

    def resumed(self, kept: tuple[Any, Any], kind: str) -> list[float]:
        weights, moments = kept
        self.model.load_state_dict(weights)
        self.optimizer = self._fresh()
        light = codec.to_light(moments) if kind == "light" else None
        if kind == "full":
            self.optimizer.load_state_dict(moments)
        elif light is not None:
            self.optimizer.load_state_dict(codec.from_light(light))
        return self.train(BEFORE, BEFORE + AFTER)


@lru_cache(maxsize=1)
def _library() -> tuple[bytes, ...]:
    """The sources of the Python library, the largest first."""
    files = sorted(
        Path(sysconfig.get_paths()["stdlib"]).glob("*.py"), key=lambda path: (-path.stat().st_size, path.name)
    )
    return tuple(path.read_bytes() for path in files[:16])


def _images(subject: Subject) -> Callable[[int], dict[str, Any]]:
    """Noise, brighter for one class than for the other."""
    import torch

    def batch(step: int) -> dict[str, Any]:
        found = batch_of(subject.config, subject.task or "", SAMPLES, 0, padded=False)
        classes = torch.randint(0, 2, (SAMPLES,))
        noise = torch.randn_like(found["pixel_values"]) + classes.view(-1, 1, 1, 1)
        return {**found, "pixel_values": noise, "labels": classes}

    return batch


def _text(subject: Subject) -> Callable[[int], dict[str, Any]]:
    """Passages of the library; a classifier tells from which half of the files they are, words are to be told again."""
    import torch

    length = min(LENGTH, subject.length or LENGTH)
    words = subject.config.vocab_size

    def batch(step: int) -> dict[str, Any]:
        order = random.Random(step)
        picked = [order.randrange(len(_library())) for _ in range(SAMPLES)]
        rows = []
        for number in picked:
            text = _library()[number]
            at = order.randrange(len(text) - length)
            rows.append([5 + value % (words - 5) for value in text[at : at + length]])
        ids = torch.tensor(rows)
        classes = torch.tensor([number % 2 for number in picked])
        task = subject.task
        labels: dict[str, Any] = {"labels": ids}
        if task == "sequence-classification":
            labels = {"labels": classes}
        elif task == "token-classification":
            labels = {"labels": ids % 2}
        elif task == "question-answering":
            labels = {"start_positions": ids[:, 0] % length, "end_positions": ids[:, 1] % length}
        return {"input_ids": ids, **labels}

    return batch
