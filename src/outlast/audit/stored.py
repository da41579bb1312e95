"""Tensors on disk, read one at a time into numpy: safetensors, bf16 included, without torch.

The format is public: 8-byte little-endian length, a JSON header, then the tensors' bytes. numpy has no bf16, and a
bf16 number is the upper half of a float32: its bytes are widened. ``.bin`` is a pickle: it is read only by torch, and
only with ``weights_only``, which runs no code.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outlast.errors import BadInput

_HEADER_LIMIT = 100 << 20  # safetensors' own
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Kinds of number that weights have, and how their bytes are read."""
_WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
"""Bytes of a number; what is not listed has one or less."""
_PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt"})


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file."""

    file: Path
    """Where it is."""
    dtype: str
    """Kind of number, as safetensors calls it."""
    shape: tuple[int, ...]
    """Its sides."""
    offset: int
    """Its first byte in the file."""
    length: int
    """Bytes."""
    held: Any = None
    """Its numbers, where the file had to be read as a whole (a pickle); None otherwise."""

    @property
    def is_float(self) -> bool:
        """It holds weights, and not packed or quantised ones."""
        return self.dtype in FLOATS

    @property
    def width(self) -> int:
        """Bytes of one number."""
        return _WIDTHS.get(self.dtype, 1)

    @property
    def count(self) -> int:
        """Numbers."""
        return math.prod(self.shape)

    def raw(self) -> bytes:
        """Its bytes as they are stored.

        Raises:
            BadInput: when the file has been cut since.
        """
        if self.held is not None:
            return bytes(self.held.tobytes())
        with self.file.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.length)
        if len(data) != self.length:
            raise BadInput(f"{self.file} was cut while it was read", hint="is it being written? try again")
        return data

    def rows(self, first: int, count: int) -> Any:
        """Some rows of a matrix, float64 where stored so, else float32: every stored kind fits in it exactly."""
        if self.held is not None:
            return widen(self.held[first : first + count], self.dtype)
        per_row = self.length // self.shape[0] if self.shape and self.shape[0] else 0
        with self.file.open("rb") as file:
            file.seek(self.offset + first * per_row)
            flat = np.fromfile(file, FLOATS[self.dtype], count * per_row // self.width)
        if flat.size * self.width != count * per_row:
            raise BadInput(f"{self.file} was cut while it was read", hint="is it being written? try again")
        return widen(flat.reshape(count, *self.shape[1:]), self.dtype)

    def array(self) -> Any:
        """All of it in float64."""
        if self.held is not None:
            return widen(self.held, self.dtype).astype(np.float64)
        flat = np.frombuffer(self.raw(), FLOATS[self.dtype])
        return widen(flat, self.dtype).astype(np.float64).reshape(self.shape)


def widen(array: Any, dtype: str) -> Any:
    """Stored numbers as float32 or float64, exactly."""
    if dtype == "BF16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.float32) if dtype == "F16" else array


def narrow(array: Any, dtype: str) -> bytes:
    """Numbers as they are stored in a kind, rounded to the nearest, ties to even.

    Raises:
        BadInput: when a number is too large for that kind.
    """
    with np.errstate(over="ignore"):  # found below
        if dtype == "BF16":
            bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
            stored = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
                "<u2"
            )
        else:
            stored = np.ascontiguousarray(array, FLOATS[dtype])
        if not np.isfinite(widen(stored, dtype)).all():
            raise BadInput(f"a number does not fit in {dtype}", hint="convert the adapter to float32 first")
    return bytes(stored.tobytes())


def tensors_in(file: Path) -> dict[str, Stored]:
    """The tensors of a file by name; of a safetensors file only the header is read.

    Raises:
        BadInput: when the file is not whole, or is a pickle that cannot be read without running it.
    """
    if file.suffix in _PICKLES:
        return _unpickled(file)
    try:
        return _header(file)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise BadInput(f"{file} is not a whole safetensors file: {error}", hint="copy or save it again") from None


def _header(file: Path) -> dict[str, Stored]:
    total = file.stat().st_size
    with file.open("rb") as opened:
        (size,) = struct.unpack("<Q", opened.read(8))
        if size > min(_HEADER_LIMIT, total - 8):
            raise ValueError(f"its header of {size} bytes does not fit in {total}")
        header: Mapping[str, Any] = json.loads(opened.read(size))
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        one = Stored(file, str(entry["dtype"]), tuple(map(int, entry["shape"])), 8 + size + first, last - first)
        if not 0 <= first <= last <= total - 8 - size:
            raise ValueError(f"{name} lies outside the file: it was cut, or its copy did not finish")
        if min(one.shape, default=0) < 0 or (one.is_float and one.count * one.width != one.length):
            raise ValueError(f"{name} has {one.length} bytes, which is not {one.shape} of {one.dtype}")
        found[name] = one
    return found


def _unpickled(file: Path) -> dict[str, Stored]:
    """What torch reads with ``weights_only``, from a flat dictionary or Lightning's ``state_dict``."""
    try:
        import torch
    except ImportError:
        raise BadInput(
            f"{file.name} is a pickle, and there is no torch here to read it without running it",
            hint="save the adapter as safetensors (save_pretrained does), or run this where torch is",
        ) from None
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises UnpicklingError, RuntimeError, EOFError, KeyError and more
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise BadInput(
            f"{file} is not read: it holds more than weights, or is not whole ({type(error).__name__}: {reason})",
            hint="nothing in it was run. Save the adapter as safetensors where it was trained",
        ) from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    return {
        str(name): _held(file, tensor)
        for name, tensor in (state.items() if isinstance(state, dict) else ())
        if isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided
    }


def _held(file: Path, tensor: Any) -> Stored:
    import torch

    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    dtype = names.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))
    plain = tensor.detach().contiguous()
    held = (
        (plain.view(torch.int16).numpy().view(np.uint16) if dtype == "BF16" else plain.numpy())
        if dtype in FLOATS
        else None
    )
    return Stored(file, dtype, tuple(tensor.shape), 0, tensor.numel() * tensor.element_size(), held)


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object of somebody else's.

    Raises:
        BadInput: when it is not one.
    """
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_HEADER_LIMIT))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not readable as {what}: {error}", hint="copy or save it again") from None
    if not isinstance(document, dict):
        raise BadInput(f"{path} holds no JSON object", hint=f"expected {what}")
    return document


def shards_of(index: Path) -> dict[str, Path]:
    """From each tensor's name to its file, as an index of shards says.

    Raises:
        BadInput: when the index is not one, leads out of its folder, or a shard is missing.
    """
    table = read_json(index, "an index of shards").get("weight_map")
    if not isinstance(table, dict) or not table:
        raise BadInput(f"{index} has no weight_map", hint="expected what save_pretrained writes beside shards")
    for name in {str(value) for value in table.values()}:
        if name != Path(name).name or name in ("", ".", ".."):
            raise BadInput(f"{index} names {name!r}, which leads out of its folder", hint="do not use this model")
        if not (index.parent / name).is_file():
            raise BadInput(f"the shard {name} of {index} is missing", hint="copy or download it again")
    return {str(name): index.parent / str(value) for name, value in table.items()}
