"""A batch as it comes from a loader: how many samples it holds, and some of them. Knows tensors by their shape alone.

The first dimension of every tensor is the batch's. Tensors are looked for in mappings (dict, BatchEncoding),
dataclasses, named tuples, and in a list or tuple at the top (what DataLoader's default collate makes); a list further
in that holds one entry a sample is cut as a list. Numbers, texts and tensors without dimensions go to every piece.
Whatever leaves room for doubt is refused: a wrong cut would be a wrong gradient.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from outlast.errors import BadInput

_SHARED = (type(None), bool, int, float, complex, str, bytes)
_HINT = (
    "say how to cut it: run.step(batch, loss_fn, samples=N, split=lambda batch, start, stop: ...), where split returns "
    "samples start to stop as a batch that loss_fn takes"
)


@dataclass(frozen=True, slots=True)
class Measure:
    """The size of a batch."""

    samples: int
    """Samples that it holds."""
    width: float
    """Elements of one sample in all its tensors."""


def measure(batch: Any, at_most: int | None = None) -> Measure:
    """How many samples a batch holds, and how large they are.

    Args:
        batch: as the loader gave it.
        at_most: the loader's batch size; a list of uncollated samples is told from a collated one by it. None: unknown.

    Raises:
        BadInput: when it has no common first dimension, or it is not clear what that is.
    """
    found = dict(_anchors("batch", batch, top=True))
    samples = {int(tensor.shape[0]) for tensor in found.values() if tensor.ndim}
    if len(samples) != 1:
        shapes = ", ".join(f"{path} {tuple(tensor.shape)}" for path, tensor in list(found.items())[:8])
        what = f"its tensors do not share a first dimension: {shapes}" if found else f"{_name(batch)} holds no tensor"
        raise BadInput(f"this batch cannot be split: {what}", hint=_HINT)
    count = samples.pop()
    if at_most is not None and count > at_most:
        what = f"its tensors have {count} rows, the loader's batches have {at_most} samples"
        raise BadInput(f"this batch cannot be split: {what}", hint=_HINT)
    elements = sum(tensor.numel() if hasattr(tensor, "numel") else tensor.size for tensor in found.values())
    return Measure(count, elements / max(count, 1))


def cut(batch: Any, start: int, stop: int, samples: int) -> Any:
    """Samples ``start`` to ``stop`` of a batch, as a batch of the same form; tensors are views.

    Raises:
        BadInput: when a part of it is neither one entry a sample nor the same for all.
    """
    return rows(batch, slice(start, stop), samples)


def rows(batch: Any, part: slice, samples: int) -> Any:
    """The samples of a slice, which may have a step; see `cut`."""
    return _cut("batch", batch, part, samples, top=True)


def tokens(batch: Any, *, shifted: bool) -> float:
    """Labels of a batch that count: those that are not -100.

    Args:
        batch: a mapping or an object with ``labels``.
        shifted: the first of each sequence does not count, since the model predicts the next token.

    Raises:
        BadInput: when there are no labels to count.
    """
    get: Callable[[str], Any] = batch.get if isinstance(batch, Mapping) else lambda name: getattr(batch, name, None)
    ready, labels = get("shift_labels"), get("labels")
    labels = labels if ready is None else ready
    if not _is_tensor(labels):
        raise BadInput(f"no labels to count in {_name(batch)}", hint="mean_over=lambda batch: (tokens that count)")
    counted: Any = labels[..., 1:] if shifted and ready is None else labels
    is_counted: Any = counted != -100
    return float(is_counted.sum())


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "ndim") and not isinstance(value, type)


def _fields(value: Any) -> dict[Any, Any] | None:
    """The parts of a value that is a record; None when it is none."""
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        # torch's PackedSequence has one too, but its first dimension is not the batch's.
        return None if type(value).__name__ == "PackedSequence" else dict(zip(value._fields, value, strict=True))
    return None


def _anchors(path: str, value: Any, *, top: bool = False) -> Iterator[tuple[str, Any]]:
    """Tensors whose first dimension is surely the batch's, or everybody's."""
    if _is_tensor(value):
        if not getattr(value, "is_nested", False):
            yield path, value
        return
    parts = _fields(value)
    if parts is None and top and type(value) in (list, tuple):
        parts = dict(enumerate(value))
    for name, part in (parts or {}).items():
        yield from _anchors(f"{path}.{name}", part)


def _cut(path: str, value: Any, part: slice, samples: int, *, top: bool = False) -> Any:
    if _is_tensor(value):
        return _cut_tensor(path, value, part, samples)
    parts = _fields(value)
    if parts is not None:
        cut = {name: _cut(f"{path}.{name}", one, part, samples) for name, one in parts.items()}
        return _rebuilt(value, cut)
    if type(value) in (list, tuple):
        return type(value)(_cut_list(path, value, part, samples, top=top))
    if isinstance(value, _SHARED) or type(value).__module__ == "torch":  # dtype, device
        return value
    raise BadInput(f"this batch cannot be split: {path} is a {_name(value)}", hint=_HINT)


def _cut_tensor(path: str, value: Any, part: slice, samples: int) -> Any:
    if value.ndim == 0:
        return value
    if value.shape[0] != samples or getattr(value, "is_nested", False):
        raise BadInput(
            f"this batch cannot be split: {path} is {tuple(value.shape)}, not one of {samples} samples", hint=_HINT
        )
    return value[part]


def _cut_list(path: str, value: Any, part: slice, samples: int, *, top: bool) -> list[Any]:
    """A list is a record of tensors of the whole batch, or has one entry a sample; if it could be both, neither."""
    is_record = all(isinstance(one, type(None)) or _is_whole(one, samples) for one in value) and len(value) > 0
    is_list = len(value) == samples and not top
    if is_record and is_list and samples > 1:
        raise BadInput(
            f"this batch cannot be split: {path} has {samples} entries, each with {samples} rows", hint=_HINT
        )
    if is_list:
        return list(value[part])
    if is_record or top or not value or all(isinstance(one, _SHARED) for one in value):
        return [_cut(f"{path}.{number}", one, part, samples) for number, one in enumerate(value)]
    raise BadInput(f"this batch cannot be split: {path} has {len(value)} entries, not {samples}", hint=_HINT)


def _is_whole(value: Any, samples: int) -> bool:
    return _is_tensor(value) and value.ndim > 0 and value.shape[0] == samples


def _rebuilt(value: Any, parts: dict[Any, Any]) -> Any:
    if type(value) is dict:
        return parts
    if isinstance(value, tuple):
        return type(value)(*parts.values())
    new = copy.copy(value)
    put: Callable[[Any, Any], None] = (
        new.__setitem__ if isinstance(value, Mapping) else lambda name, one: object.__setattr__(new, name, one)
    )
    for name, one in parts.items():
        put(name, one)
    return new


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
