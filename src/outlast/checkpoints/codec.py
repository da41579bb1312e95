"""The light form of an optimizer's state, and its expansion. Needs torch.

Kept exactly: steps, other numbers, parameter groups, and all of one-dimensional parameters. The second moment is kept
as its row and column means (rank one, as in Adafactor, Shazeer and Stern 2018, section 3: V = R C / mean(R)). Of the
first moment the signs are kept, a bit each, and the mean size of each 64 in a row (as in 1-bit Adam, Tang and others
2021): its direction is most of what a resumed run strays by without it. `benchmarks/light.py` measures that. Where an
optimizer has no second moment to bound it by, the first one starts at zero: a number that never had a gradient must not
be pushed by its neighbours' size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from outlast.checkpoints import tree
from outlast.errors import SealError

SIDECAR = "outlast-light.safetensors"
"""File beside the weights that makes a checkpoint without an optimizer resumable."""
_FIRST = frozenset({"exp_avg", "momentum_buffer"})
_BOUNDS = {"exp_avg": "exp_avg_sq"}
_BLOCK = 64
_CHUNK = 1 << 18
_GATHER = 0x0102040810204080
"""Times eight bytes of 0 or 1, read as one little-endian number: its top byte has their bits, the first one lowest."""
_PER_PARAMETER = 620
"""Header and encoded description of one parameter's state (measured: 614 to 628)."""
_SECOND = frozenset({"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"})


def to_light(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """The light form of an optimizer's ``state_dict()``.

    Args:
        state: ``{"state": {index: {key: tensor or number}}, "param_groups": [...]}`` as torch.optim gives it.

    Returns:
        Nested plain data with small tensors; None when the optimizer keeps tensors whose meaning is not known
        (8-bit states, Shampoo ...): such a state has no light form.
    """
    if not can_be_light(state):
        return None
    slim = {
        index: {key: _slim(key, value, _bound_of(key, slots)) for key, value in slots.items()}
        for index, slots in state["state"].items()
    }
    return {"state": slim, "param_groups": state["param_groups"]}


def can_be_light(state: Mapping[str, Any]) -> bool:
    """True when the meaning of every tensor in an optimizer's ``state_dict()`` is known. Reads no values."""
    if set(state) != {"state", "param_groups"}:
        return False
    return all(
        isinstance(slots, Mapping) and all(_is_known(key, value) for key, value in slots.items())
        for slots in state["state"].values()
    )


def _is_known(key: str, value: Any) -> bool:
    import torch

    if not isinstance(value, torch.Tensor) or value.numel() <= 1:
        return True
    is_plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout is torch.strided
    return is_plain and value.is_floating_point() and key in _FIRST | _SECOND


def _bound_of(key: str, slots: Mapping[str, Any]) -> str | None:
    """The second moment that bounds a first one; None where there is none."""
    return _BOUNDS[key] if key in _BOUNDS and _BOUNDS[key] in slots else None


def _slim(key: str, value: Any, bound: str | None) -> dict[str, Any]:
    import torch

    if not isinstance(value, torch.Tensor) or value.numel() <= 1:
        return {"as": "is", "value": value}
    shape, dtype = tuple(value.shape), str(value.dtype).removeprefix("torch.")
    if value.dim() < 2:
        return {"as": "is", "value": value.detach().cpu()}
    if key in _FIRST and bound is None:
        return {"as": "zero", "shape": shape, "dtype": dtype}
    if key in _FIRST:
        signs, sizes = _signs(value.detach().reshape(-1))
        return {"as": "signs", "shape": shape, "dtype": dtype, "signs": signs, "sizes": sizes, "bound": bound}
    flat = value.detach().float().reshape(shape[0], -1)
    return {"as": "factors", "shape": shape, "dtype": dtype, "rows": flat.mean(1).cpu(), "columns": flat.mean(0).cpu()}


def _signs(flat: Any) -> tuple[Any, Any]:
    """Signs, eight to a byte, and the mean size of each block, in bfloat16: moments are smaller than float16 reaches.

    A part at a time, so that what is in between stays in the cache: 80 ms for 90 million numbers on one core.
    """
    import torch

    signs, sizes = [], []
    for part in flat.split(_CHUNK):
        rest = -len(part) % _BLOCK
        whole = torch.nn.functional.pad(part.float(), (0, rest)) if rest else part.float()
        blocks = whole.view(-1, _BLOCK)
        is_up = (blocks >= 0).view(-1).view(torch.int64)
        signs.append(((is_up * _GATHER) >> 56).to(torch.uint8).cpu())
        sizes.append(blocks.abs().mean(1).bfloat16().cpu())
    return torch.cat(signs), torch.cat(sizes)


def sidecar_bytes(parameters: int) -> int:
    """About what the light form of an optimizer's state takes, bytes, for so many trained numbers."""
    return parameters * 3 // 16


def light_bytes(shape: Sequence[int], size: int) -> int:
    """Bytes of the tensors in the light form of one parameter's AdamW moments.

    Args:
        shape: of the parameter.
        size: bytes of one number of its moments.
    """
    count = math.prod(shape)
    if len(shape) < 2 or count <= 1:
        return 2 * count * size
    blocks = -(-count // _BLOCK)
    signs, sizes, means = blocks * _BLOCK // 8, 2 * blocks, 4 * (shape[0] + count // shape[0])
    return signs + sizes + means


def sidecar_bytes_of(shapes: Iterable[Sequence[int]]) -> int:
    """What the light form takes in every save, exactly enough for small models, as AdamW keeps moments in float32.

    Args:
        shapes: of each trained parameter.
    """
    return sum(light_bytes(shape, 4) + _PER_PARAMETER for shape in shapes)


def from_light(light: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's ``state_dict()`` expanded from its light form."""
    state = {index: _expanded_slots(slots) for index, slots in light["state"].items()}
    return {"state": state, "param_groups": light["param_groups"]}


def _expanded_slots(slots: Mapping[str, Any]) -> dict[str, Any]:
    """One parameter's state. A first moment is at most the root of its second one: Adam steps by their quotient.

    The mean size of a block is too much for those of its numbers that had small gradients, or none.
    """
    found = {key: _expanded(part) for key, part in slots.items()}
    for key, part in slots.items():
        if part["as"] == "signs":
            most = found[part["bound"]].float().sqrt()
            found[key] = found[key].float().nan_to_num().clamp(-most, most).to(found[key].dtype)
    return found


def _expanded(part: Mapping[str, Any]) -> Any:
    import torch

    if part["as"] == "is":
        return part["value"]
    dtype = getattr(torch, part["dtype"])
    if part["as"] == "zero":
        return torch.zeros(part["shape"], dtype=dtype)
    if part["as"] == "signs":
        bits = (part["signs"].view(-1, 1) >> torch.arange(8, dtype=torch.uint8)) & 1
        values = (bits.view(-1, _BLOCK).float() * 2 - 1) * part["sizes"].float().view(-1, 1)
        return values.view(-1)[: math.prod(part["shape"])].to(dtype).reshape(part["shape"])
    rows, columns = part["rows"], part["columns"]
    mean = rows.mean()
    if mean <= 0:
        return torch.zeros(part["shape"], dtype=dtype)
    return torch.outer(rows / mean, columns).to(dtype).reshape(part["shape"])


def pack(doc: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Nested data as safetensors tensors and metadata.

    Raises:
        BadInput: for something that has no safe form on disk.
    """
    tensors, metadata = pack_views(doc)
    # safetensors' own writer refuses views: each tensor gets its own contiguous bytes.
    return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}, metadata


def pack_views(doc: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """As `pack`, but with the tensors themselves, not copies: for our own writer, before the next step.

    Raises:
        BadInput: for something that has no safe form on disk.
    """
    encoded, tensors = tree.encode(doc)
    return tensors, {"outlast": json.dumps(encoded)}


def unpack(path: Path) -> dict[str, Any]:
    """Nested data from a file that `pack` filled.

    Raises:
        SealError: when it is not such a file.
    """
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            found = tree.decode(json.loads((file.metadata() or {})["outlast"]), tensors)
    except Exception as error:
        raise SealError(f"{path} cannot be read: {error}", hint="resume from another checkpoint") from error
    return dict(found)
