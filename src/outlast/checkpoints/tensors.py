"""The safetensors format, written straight from the tensors' memory into a reserved file.

The format is public: 8-byte little-endian length, a JSON header padded to 8, then the tensors, widest dtype first.
The bytes are those that the safetensors library writes for the same tensors; tests compare them.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping
from typing import Any

from outlast.checkpoints.reserve import ReservedFile

Plain = tuple[str, list[int], memoryview]
"""A tensor as safetensors dtype, shape and bytes."""
_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "int16": "I16",
    "uint16": "U16",
    "float16": "F16",
    "bfloat16": "BF16",
    "int32": "I32",
    "uint32": "U32",
    "float32": "F32",
    "complex64": "C64",
    "float64": "F64",
    "int64": "I64",
    "uint64": "U64",
}
"""torch's names and safetensors', narrowest first, of equal width in the library's own order."""
_RANK = {name: rank for rank, name in enumerate(_DTYPES.values())}


def dtype_name(dtype: str) -> str | None:
    """Safetensors' name for a dtype given as torch's (``float32``) or its own (``F32``); None when it has none."""
    name = dtype.removeprefix("torch.")
    return name if name in _RANK else _DTYPES.get(name)


def memory_at(address: int, length: int) -> memoryview:
    """The bytes at an address; the caller keeps the tensor alive."""
    return memoryview((ctypes.c_char * length).from_address(address)).cast("B") if length else memoryview(b"")


def write(file: ReservedFile, tensors: Mapping[str, Plain], metadata: Mapping[str, str] | None = None) -> None:
    """Write one safetensors file.

    Raises:
        OSError: when the volume is full or failing.
    """
    shapes = {name: (dtype, shape, len(data)) for name, (dtype, shape, data) in tensors.items()}
    _write(file, shapes, metadata, lambda name: file.write(tensors[name][2]))


def write_torch(file: ReservedFile, tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write torch tensors, one at a time: of those on a device, no more than one is held in main memory.

    Raises:
        TypeError: for a dtype that safetensors does not have.
        OSError: when the volume is full or failing.
    """
    shapes = {}
    for name, tensor in tensors.items():
        dtype = dtype_name(str(tensor.dtype))
        if dtype is None:
            raise TypeError(f"{name} has dtype {tensor.dtype}, which safetensors does not have")
        shapes[name] = (dtype, list(tensor.shape), tensor.numel() * tensor.element_size())

    def write_one(name: str) -> None:
        here = tensors[name].detach().cpu().contiguous()
        file.write(memory_at(here.data_ptr(), shapes[name][2]))

    _write(file, shapes, metadata, write_one)


def _write(
    file: ReservedFile,
    shapes: Mapping[str, tuple[str, list[int], int]],
    metadata: Mapping[str, str] | None,
    write_one: Callable[[str], object],
) -> None:
    order = sorted(shapes, key=lambda name: (-_RANK[shapes[name][0]], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        dtype, shape, length = shapes[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + length]}
        offset += length
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in order:
        write_one(name)
