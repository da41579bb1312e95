"""While a guarded save is on, the frameworks' own writers write into its reservation.

`torch.save` and safetensors are replaced only for paths inside the stage; everything else goes where it went before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from outlast.checkpoints import Stage, reserved_file
from outlast.checkpoints.tensors import Plain, dtype_name, memory_at, write

_ACTIVE: list[Stage] = []


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


def _staged_serialize(original: Callable[..., Any]) -> Callable[..., Any]:
    def serialize_file(tensors: Mapping[str, Any], filename: Any, metadata: dict[str, str] | None = None) -> Any:
        stage = stage_of(filename)
        plain = _plain(tensors) if stage else None
        if stage is None or plain is None:
            return original(tensors, filename, metadata=metadata)
        size = sum(len(data) for _, _, data in plain.values())
        with reserved_file(stage, Path(filename), size) as file:
            write(file, plain, metadata)
        return None

    return serialize_file


def _plain(tensors: Mapping[str, Any]) -> dict[str, Plain] | None:
    """Name to dtype, shape and bytes; None when a dtype is not known, so that the library writes it."""
    found = {}
    for name, spec in tensors.items():
        dtype, shape, data = _parts(spec)
        if dtype is None:
            return None
        found[name] = (dtype, shape, data)
    return found


def _parts(spec: Any) -> tuple[str | None, list[int], memoryview]:
    """Dtype, shape and bytes from what safetensors hands to its writer: a TensorSpec since 0.8, a dict before."""
    if isinstance(spec, Mapping):
        return dtype_name(str(spec["dtype"])), list(spec["shape"]), memoryview(spec["data"]).cast("B")
    return dtype_name(str(spec.dtype)), list(spec.shape), memory_at(spec.data_ptr, spec.data_len)
