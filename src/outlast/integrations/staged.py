"""While a guarded save is on, the frameworks' own writers write into its reservation.

`torch.save` and safetensors are replaced only for paths inside the stage; everything else goes where it went before.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from outlast.checkpoints import ReservedFile, Stage

_ACTIVE: list[Stage] = []
_DTYPES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "int16": "I16",
    "uint16": "U16",
    "int32": "I32",
    "uint32": "U32",
    "int64": "I64",
    "uint64": "U64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}
_WIDTH = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2,
          "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8, "C64": 8}  # fmt: skip


def stage_of(path: str | Path) -> Stage | None:
    """The guarded save that a path belongs to, if one is on."""
    for stage in _ACTIVE:
        if stage.path in Path(path).parents:
            return stage
    return None


def is_on() -> bool:
    """True while a guarded save is on in this process."""
    return bool(_ACTIVE)


@contextmanager
def staging(stage: Stage) -> Iterator[None]:
    """Route safetensors and torch.save into a stage's reservation for the length of a save."""
    import safetensors.torch

    from outlast.integrations import torch_save

    torch_save.install(sys.modules["torch.serialization"])
    original = safetensors.torch.serialize_file
    _ACTIVE.append(stage)
    safetensors.torch.serialize_file = _staged_serialize(original)
    try:
        yield
    finally:
        safetensors.torch.serialize_file = original
        _ACTIVE.remove(stage)


@contextmanager
def reserved_file(stage: Stage, path: Path, size: int | None) -> Iterator[ReservedFile]:
    """A file of the stage, written into a claimed reservation; the first OSError is kept for the diagnosis."""
    part = path.with_name(f".{path.name}.part")
    file = None
    try:
        if stage.reservation:
            stage.reservation.claim(part, size)
        file = ReservedFile(part)
        try:
            yield file
        finally:
            file.close()
        part.rename(path)
    except Exception as error:
        stage.error = stage.error or (file and file.error) or (error if isinstance(error, OSError) else None)
        # Among several ranks an exception here would leave the others in a barrier: it is raised when all are through.
        if stage.error is None or not stage.holds_errors:
            raise


def _staged_serialize(original: Callable[..., Any]) -> Callable[..., Any]:
    def serialize_file(tensors: Mapping[str, Any], filename: Any, metadata: dict[str, str] | None = None) -> Any:
        stage = stage_of(filename)
        plain = _plain(tensors) if stage else None
        if stage is None or plain is None:
            return original(tensors, filename, metadata=metadata)
        size = sum(len(data) for _, _, data in plain.values())
        with reserved_file(stage, Path(filename), size) as file:
            write_safetensors(file, plain, metadata)
        return None

    return serialize_file


def _plain(tensors: Mapping[str, Any]) -> dict[str, tuple[str, list[int], memoryview]] | None:
    """Name to dtype, shape and bytes; None when a dtype or form is not known, so that the library writes it."""
    found = {}
    for name, spec in tensors.items():
        kind, shape, data = _parts(spec)
        dtype = kind if kind in _WIDTH else _DTYPES.get(kind)
        if dtype is None:
            return None
        found[name] = (dtype, shape, data)
    return found


def _parts(spec: Any) -> tuple[str, list[int], memoryview]:
    """Dtype, shape and bytes from what safetensors hands to its writer: a TensorSpec since 0.8, a dict before."""
    if isinstance(spec, Mapping):
        return str(spec["dtype"]).removeprefix("torch."), list(spec["shape"]), memoryview(spec["data"]).cast("B")
    buffer = (ctypes.c_char * spec.data_len).from_address(spec.data_ptr) if spec.data_len else b""
    return str(spec.dtype).removeprefix("torch."), list(spec.shape), memoryview(buffer).cast("B")


def write_safetensors(
    file: ReservedFile, tensors: Mapping[str, tuple[str, list[int], memoryview]], metadata: Mapping[str, str] | None
) -> None:
    """Write the safetensors format: 8-byte length, JSON header padded to 8, then the tensors, widest dtype first.

    The bytes are those that the safetensors library writes for the same tensors (checked in its tests).
    """
    order = sorted(tensors, key=lambda name: (-_WIDTH[tensors[name][0]], name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in order:
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little"))
    file.write(text)
    for name in order:
        file.write(tensors[name][2])
