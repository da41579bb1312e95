"""The model that is to fit, from what a user names. Transformers is imported where a config is read, torch later."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outlast.budget.shapes import SHAPES, shape_named
from outlast.budget.tasks import TASKS, batch_of, task_of
from outlast.errors import BadInput

if TYPE_CHECKING:
    import torch

WEIGHTS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Types that weights are held in, and torch's names for them."""
_LONGEST_USUAL = 512


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be trained. A function of one's own, named as ``module:function``, may return one."""

    model_fn: Callable[[], torch.nn.Module]
    """Makes the model, on the CPU, in the type that its weights are trained in."""
    batch_fn: Callable[..., Any]
    """``batch_fn(samples)`` or ``batch_fn(samples, length)`` makes one batch."""
    loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None
    """From the model and a batch to the loss; None: ``model(**batch).loss``."""
    checkpointing: Callable[[torch.nn.Module], None] | None = None
    """Switches activation checkpointing on; None: Transformers' own switch, where the model has one."""
    name: str = "the model"
    """What to call it."""
    length: int | None = None
    """Tokens of a sequence; None where samples have no length that could be changed."""
    config: Any = None
    """Transformers' config; None for a model of one's own."""
    task: str | None = None
    """A name of `TASKS`; None for a model of one's own."""
    weights: str | None = None
    """Type that the weights are in: ``fp32``, ``fp16`` or ``bf16``; None for a model of one's own."""
    rank: int | None = None
    """Of the LoRA updates; None: all weights are trained, or as a model of one's own has it."""

    def batch(self, samples: int, length: int | None) -> Any:
        """One batch."""
        return self.batch_fn(samples) if length is None else self.batch_fn(samples, length)


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a named model is to be trained."""

    task: str = "auto"
    """``auto`` or a name of `TASKS`."""
    length: int | None = None
    """Tokens of a sequence; None: 512, or what the model can."""
    rank: int | None = None
    """Of LoRA updates; None trains all weights."""
    targets: tuple[str, ...] = ()
    """Modules that LoRA adapts; empty: as peft does."""
    weights: str | None = None
    """Type of the weights; None: fp32, and with LoRA the half precision that is trained in."""
    precision: str = "fp32"
    """Of forward and backward."""
    is_padded: bool = True
    """Batches hold sequences of different lengths."""


def subject_named(model: str, wishes: Wishes) -> Subject:
    """What a user means by a name.

    Args:
        model: a folder or file with a Transformers config, a name of `SHAPES`, ``module:function`` or
            ``file.py:function`` of one's own, or a repository of the hub.
        wishes: how it is to be trained.

    Raises:
        BadInput: when there is no such model, or it cannot be trained so.
    """
    place, _, function = model.rpartition(":")
    if place and function.isidentifier():
        return _own(place, function, wishes)
    weights = _weights(wishes)
    config = _config(model)
    task = task_of(config, wishes.task)
    length = _length(config, wishes.length) if TASKS[task].is_text else None
    if length is None and wishes.length is not None:
        raise BadInput(f"images have no length, and --length is {wishes.length}", hint="leave it out")
    if getattr(config, "pad_token_id", 0) is None:
        config.pad_token_id = 0  # a classifier over a decoder looks for it

    def make() -> Any:
        import torch
        import transformers

        transformers.logging.set_verbosity_error()
        kind = getattr(transformers, TASKS[task].auto)
        made = kind.from_config(config, dtype=getattr(torch, WEIGHTS[weights]))
        if wishes.rank is None:
            return made
        from outlast.budget.lora import with_lora

        return with_lora(made, wishes.rank, wishes.targets)

    def batch(samples: int, tokens: int = 0) -> Any:
        return batch_of(config, task, samples, tokens, padded=wishes.is_padded)

    return Subject(
        make, batch, name=Path(model).name or model, length=length, config=config, task=task, weights=weights,
        rank=wishes.rank,
    )  # fmt: skip


def _weights(wishes: Wishes) -> str:
    if wishes.rank is not None and wishes.rank < 1:
        raise BadInput(f"a LoRA of rank {wishes.rank}", hint="1 or more; 8 and 16 are usual")
    found = wishes.weights or ("fp32" if wishes.rank is None else wishes.precision)
    if found not in WEIGHTS:
        raise BadInput(f"no type of weights called {found!r}", hint="known: " + ", ".join(WEIGHTS))
    if found == "fp16" and wishes.rank is None:
        raise BadInput(
            "weights in fp16 cannot be trained: torch's loss scaler refuses their gradients",
            hint="--weights fp32 (fp16 is then the precision of forward and backward), or --lora 16",
        )
    return found


# Transformers' configs


def _config(model: str) -> Any:
    try:
        import torch  # noqa: F401
        from transformers import AutoConfig, logging
    except ImportError as error:
        raise BadInput(
            f"{model} needs torch and Transformers, and this Python has not both ({error})",
            hint="run outlast with the Python that trains: pip install torch transformers",
        ) from None
    logging.set_verbosity_error()
    shape = shape_named(model)
    if shape is not None:
        return AutoConfig.for_model(shape.kind, **shape.config, architectures=[shape.head])
    path = Path(model).expanduser()
    is_here = path.exists()
    try:
        return AutoConfig.from_pretrained(str(path.parent if path.is_file() else path) if is_here else model)
    except Exception as error:  # what Transformers raises for a config differs by what is wrong with it
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(
            f"no config could be read for {model}: {reason}",
            hint="name a folder that has a config.json"
            if is_here
            else "a folder with a config.json, module:function, or one of: " + ", ".join(row.name for row in SHAPES),
        ) from None


def _length(config: Any, asked: int | None) -> int:
    longest = getattr(config, "max_position_embeddings", None)
    most = int(longest) if isinstance(longest, int) and longest > 0 else None
    found = asked if asked is not None else min(_LONGEST_USUAL, most or _LONGEST_USUAL)
    if found < 1 or (most is not None and found > most):
        raise BadInput(f"a length of {found} tokens", hint=f"from 1 to {most or 'what the model can'}")
    return found


# Code of one's own


def _own(place: str, function: str, wishes: Wishes) -> Subject:
    if wishes.rank is not None or wishes.weights is not None or wishes.task != "auto":
        raise BadInput(
            f"{place}:{function} makes its own model", hint="leave --task, --lora and --weights out: do that in there"
        )
    try:
        made = getattr(_module(place), function)()
    except Exception as error:
        raise BadInput(
            f"{place}:{function} raised {type(error).__name__}: {error}",
            hint="it is called without arguments, and returns (model_fn, batch_fn) or (model_fn, batch_fn, loss_fn)",
        ) from error
    parts: Sequence[Any] = made if isinstance(made, tuple) else ()
    if isinstance(made, Subject):
        found = made
    elif 2 <= len(parts) <= 3 and all(map(callable, parts)):
        found = replace(Subject(*parts), name=f"{Path(place).name}:{function}")
    else:
        raise BadInput(
            f"{place}:{function} returned {type(made).__name__}",
            hint="return (model_fn, batch_fn) or (model_fn, batch_fn, loss_fn), or an outlast.budget.Subject",
        )
    return _with_length(found, wishes.length)


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(Path(place).stem, Path(place).expanduser())
    if spec is None or spec.loader is None:
        raise BadInput(f"{place} is no Python file", hint="file.py:function")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def _with_length(found: Subject, asked: int | None) -> Subject:
    takes = len(inspect.signature(found.batch_fn).parameters)
    if takes < 2 and asked is not None:
        raise BadInput(
            "--length was given, and the batch function takes none",
            hint="def batch_fn(samples, length), or no --length",
        )
    return replace(
        found, length=asked if asked is not None else (found.length or _LONGEST_USUAL) if takes > 1 else None
    )
