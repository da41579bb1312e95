"""The base model's weights on disk: which matrix belongs to a layer of an adapter. Reads names and shapes, no weights.

Fused matrices (``qkv_proj``) are cut where an adapter knows their parts, and joined where it knows the whole. A matrix
may lie transposed (GPT-2's Conv1D): its norms are the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from outlast.audit.adapter import Factors, module_of
from outlast.audit.stored import Stored, read_json, shards_of, tensors_in
from outlast.errors import BadInput

INDEX, SINGLE, CONFIG = "model.safetensors.index.json", "model.safetensors", "config.json"
FUSED: Mapping[str, tuple[str, ...]] = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "Wqkv": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""Matrices that hold several below each other. Adding a model's names is adding a row."""
_TIED = ("embed_tokens", "wte", "word_embeddings", "shared", "embeddings")
"""What an output layer that is not stored shares its weights with."""
_OUTPUTS = frozenset({"lm_head", "embed_out", "output_embeddings"})
_READ_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where a base model is, and what makes it this one."""

    name: str
    """Folder or hub id, as the user gave it."""
    revision: str | None
    """Commit on the hub; None for a folder."""
    digest: str
    """Of all that tells this copy from another: of a folder its weight files' names, lengths and times."""
    folder: Path | None
    """Where its files are; None when they are not here."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """The base's matrix of one layer."""

    parts: tuple[tuple[Stored, int, int], ...]
    """Tensors, and of each the first row and the number of rows."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, as it lies; of a convolution a window's numbers are the columns."""
        rows = sum(count for _, _, count in self.parts)
        first = self.parts[0][0]
        return rows, first.count // first.shape[0]

    def load(self) -> Any:
        """Its numbers in float32 (float64 where stored so), read part by part: nothing else of its size is held.

        Raises:
            BadInput: when a number in it is not finite.
        """
        wide = self.parts[0][0].dtype == "F64"
        found: Any = np.empty(self.shape, np.float64 if wide else np.float32)
        place = 0
        for tensor, first, count in self.parts:
            step = max(1, _READ_BYTES // max(1, tensor.length // tensor.shape[0]))
            for begin in range(first, first + count, step):
                rows = min(step, first + count - begin)
                found[place : place + rows] = tensor.rows(begin, rows).reshape(rows, -1)
                if not np.isfinite(found[place : place + rows]).all():
                    raise BadInput(f"{tensor.file} holds numbers that are not finite", hint="download or copy it again")
                place += rows
        return found


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a model's folder.

    Raises:
        BadInput: when there are none, one is missing, or the model is quantised.
    """
    _must_be_plain(folder)
    if (folder / INDEX).is_file():
        return tuple(sorted(set(shards_of(folder / INDEX).values())))
    if (folder / SINGLE).is_file():
        return (folder / SINGLE,)
    found = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    if not found:
        pickles = any(folder.glob("*.bin"))
        raise BadInput(
            f"{folder} has no safetensors weights" + (", only pickles" if pickles else ""),
            hint="save the model with save_pretrained: norms are read from safetensors files",
        )
    return tuple(found)


def _must_be_plain(folder: Path) -> None:
    if not (folder / CONFIG).is_file():
        return
    quantised = read_json(folder / CONFIG, "a model's configuration").get("quantization_config")
    if isinstance(quantised, dict):
        method = quantised.get("quant_method") or "a quantised form"
        raise BadInput(
            f"{folder} is quantised ({method}): the norms of its weights are not those of its stored numbers",
            hint="name the model that it was made from (--base), which the adapter's UDR is meant against",
        )


def identity(files: Sequence[Path]) -> str:
    """A digest of what tells weight files from others, without opening them.

    A file of the hub's cache is a link to a name that is its content's digest; of others it is length and time.
    """
    facts = []
    for path in files:
        info = os.stat(path)
        if path.is_symlink():
            facts.append([path.name, info.st_size, path.readlink().name])
        else:
            facts.append([path.name, info.st_size, info.st_mtime_ns])
    return blake3(json.dumps(facts).encode()).hexdigest()


class Weights:
    """The tensors of a model's folder by name.

    Args:
        folder: the model's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tensors = {name: one for file in weight_files(folder) for name, one in tensors_in(file).items()}
        self._by_module: dict[str, list[str]] = {}
        for name in self._tensors:
            if name.endswith(".weight") or "." not in name:
                self._by_module.setdefault(module_of(name.removesuffix(".weight")), []).append(name)
        self._by_end: dict[str, list[str]] = {}
        for module in self._by_module:
            self._by_end.setdefault(module.rpartition(".")[2], []).append(module)

    def matrix(self, layer: Factors) -> Matrix | str:
        """A layer's matrix, or why there is none.

        Raises:
            BadInput: when it is quantised, or has another shape than the layer's update.
        """
        found = self._whole(layer.name) or self._part(layer) or self._joined(layer.name) or self._tied(layer)
        if found is None:
            return "no matrix of its name"
        tensor = found.parts[0][0]
        if not tensor.is_float:
            raise BadInput(
                f"{layer.name} is stored as {tensor.dtype} in {self._folder}: a quantised model",
                hint="name the model that it was made from (--base)",
            )
        must_fit(layer, found.shape, str(self._folder))
        return found

    def _whole(self, module: str) -> Matrix | None:
        tensor = self._find(module)
        return Matrix(((tensor, 0, tensor.shape[0]),)) if tensor else None

    def _find(self, module: str) -> Stored | None:
        """By its name; else by the one name of which it is the end, or which is the end of it.

        A task's model has a prefix (``bert.``) that the base's own files may lack, and the other way round.
        """
        names = self._by_module.get(module)
        if names is None:
            near = [
                other
                for other in self._by_end.get(module.rpartition(".")[2], ())
                if module.endswith(f".{other}") or other.endswith(f".{module}")
            ]
            names = self._by_module[near[0]] if len(near) == 1 else None
        tensor = self._tensors[names[0]] if names and len(names) == 1 else None
        return tensor if tensor is not None and len(tensor.shape) >= 2 and tensor.count else None

    def _part(self, layer: Factors) -> Matrix | None:
        """Some rows of a fused matrix: q before k before v, k and v of one height; equal parts of the others."""
        parent, _, own = layer.name.rpartition(".")
        for fused, names in FUSED.items():
            tensor = self._find(f"{parent}.{fused}") if own in names else None
            if tensor is None:
                continue
            rows, place = tensor.shape[0], names.index(own)
            # From the end, since only the first part may have another height than the rest.
            first = 0 if place == 0 else rows - (len(names) - place) * layer.outputs
            if first >= 0 and first + layer.outputs <= rows:
                return Matrix(((tensor, first, layer.outputs),))
        return None

    def _joined(self, module: str) -> Matrix | None:
        parent, _, own = module.rpartition(".")
        parts = [self._find(f"{parent}.{name}") for name in FUSED.get(own, ())]
        known = [part for part in parts if part is not None]
        return Matrix(tuple((part, 0, part.shape[0]) for part in known)) if known and len(known) == len(parts) else None

    def _tied(self, layer: Factors) -> Matrix | None:
        if layer.name.rpartition(".")[2] not in _OUTPUTS:
            return None
        for name in _TIED:
            for module in self._by_end.get(name, ()):
                found = self._whole(module)
                if found is not None and sorted(found.shape) == sorted((layer.outputs, layer.inputs)):
                    return found
        return None


def must_fit(layer: Factors, shape: tuple[int, int], where: str) -> None:
    """An update is added to a matrix of its own shape, or of its transpose's.

    Raises:
        BadInput: when it is another: this is another base.
    """
    if sorted(shape) != sorted((layer.outputs, layer.inputs)):
        raise BadInput(
            f"{layer.name} is {shape[0]} x {shape[1]} in {where}, its update is {layer.outputs} x {layer.inputs}",
            hint="the adapter was trained on another base: name that one with --base",
        )
