"""Tensors of a model or an optimizer on their way into a checkpoint's files. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from outlast.checkpoints import Stage, reserved_file
from outlast.checkpoints.tensors import write_torch


def write_file(stage: Stage, name: str, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write one safetensors file of a checkpoint into its reservation."""
    with reserved_file(stage, stage.path / name, bytes_of(tensors)) as file:
        write_torch(file, tensors, metadata)


def bytes_of(value: Any) -> int:
    """Bytes of the tensors in nested data."""
    if hasattr(value, "untyped_storage"):
        return int(value.numel() * value.element_size())
    if isinstance(value, Mapping):
        return sum(map(bytes_of, value.values()))
    return sum(map(bytes_of, value)) if isinstance(value, list | tuple) else 0


def without_aliases(weights: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Tensors to store, and for each tied one the name that holds its bytes."""
    first: dict[tuple[Any, ...], str] = {}
    kept: dict[str, Any] = {}
    aliases: dict[str, str] = {}
    for name, tensor in weights.items():
        if not hasattr(tensor, "untyped_storage"):
            continue
        key = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and key in first:
            aliases[name] = first[key]
        else:
            first[key] = name
            kept[name] = tensor
    return kept, aliases
