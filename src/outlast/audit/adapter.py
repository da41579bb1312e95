"""A LoRA adapter as it lies on disk: its pairs of factors, what each is scaled by, and what else it trained.

Every form of key that PEFT writes is read: with and without the adapter's name, with the prefixes of wrappers, of
linear layers, embeddings and convolutions. Factors are loaded when they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outlast.audit.config import LoraSettings, settings_of
from outlast.audit.places import WEIGHTS, Place, find
from outlast.audit.stored import Stored, read_json, tensors_in
from outlast.errors import BadInput

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.(?P<part>weight|bias)")
_EMBEDDING = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?")
_OTHER = re.compile(r".+\.(?:lora_magnitude_vector|modules_to_save)(?:\.(?P<adapter>[^.]+))?(?:\.(?:weight|bias))?")
_WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:_fsdp_wrapped_module|_orig_mod|_checkpoint_wrapped_module|base_layer)\.")
_PREFIX = re.compile(r"^(?:model\.|module\.)*base_model\.model\.")
_PEFT = "base_model.model."
_INSIDE = re.compile(
    r"\.modules_to_save\.[^.]+|(?<=\.lora_magnitude_vector)\.[^.]+\.weight$|(?<=\.lora_B)\.[^.]+(?=\.bias$)"
)
"""What stands in a model's names and not in those of a saved adapter."""
_FOREIGN = {
    "lora_E": "AdaLoRA, whose singular values are stored apart",
    "lora_down": "the form of kohya's scripts, not PEFT's",
    "ia3_l": "IA3",
    "prompt_embeddings": "prompt tuning",
    "hada_w1_a": "LoHa",
    "lokr_w1": "LoKr",
    "vera_lambda_b": "VeRA",
}
"""What a tensor's name gives away of adapters that are none of ours."""


@dataclass(frozen=True, slots=True)
class Factors:
    """A layer's two factors: its update is scale x B A."""

    name: str
    """The layer's name in the base model."""
    key: str
    """What the names of both in the file begin with."""
    a: Stored
    """r x inputs; of a convolution r x inputs x sides."""
    b: Stored
    """outputs x r; of a convolution outputs x r x 1 x 1."""
    r: int
    """Rank as it is stored."""
    alpha: float | None
    """None where there is no configuration."""
    scale: float | None
    """None where there is no configuration."""
    is_embedding: bool
    """Of an embedding: the base's matrix is the update's, transposed."""

    @property
    def inputs(self) -> int:
        """Columns of the update; of a convolution all of a window's."""
        return self.a.count // self.r

    @property
    def outputs(self) -> int:
        """Rows of the update."""
        return self.b.count // self.r

    @property
    def parameters(self) -> int:
        """Numbers in both factors."""
        return self.a.count + self.b.count

    def load(self) -> tuple[Any, Any]:
        """B (outputs x r) and A (r x inputs) in float64.

        Raises:
            BadInput: when a number in it is not finite.
        """
        b, a = self.b.array().reshape(self.outputs, self.r), self.a.array().reshape(self.r, self.inputs)
        for side, array in (("B", b), ("A", a)):
            # A sum is finite only if all are, but for an overflow that 2^60 terms of a float32 cannot make.
            if not (abs(array).max(initial=0.0) < float("inf")):
                raise BadInput(
                    f"{side} of {self.name} holds numbers that are not finite",
                    hint="the training diverged: audit an earlier checkpoint",
                )
        return b, a


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter."""

    place: Place
    """Its files."""
    settings: LoraSettings | None
    """Its configuration; None where a sealed checkpoint holds weights without one."""
    factors: tuple[Factors, ...]
    """Its layers, in the order of their names."""
    rest: Mapping[str, Stored]
    """What else it trained: magnitudes, whole modules, biases; by the names in the file."""
    skipped: tuple[str, ...]
    """Layers that are left out, and why."""
    notes: tuple[str, ...]
    """What the reader of figures should know."""

    @property
    def bytes(self) -> int:
        """Of its tensors."""
        return sum(one.a.length + one.b.length for one in self.factors) + self.rest_bytes

    @property
    def rest_bytes(self) -> int:
        """Of what it trained beside the factors."""
        return sum(one.length for one in self.rest.values())


def read(path: Path, name: str | None = None) -> Adapter:
    """Find an adapter and read its names, shapes and configuration; no weights yet.

    Args:
        path: what `places.find` takes.
        name: which adapter, where there are several.

    Raises:
        BadInput: when there is no LoRA adapter, or its parts do not fit each other.
    """
    place = find(path, name)
    settings = settings_of(read_json(place.config, "PEFT's configuration")) if place.config else None
    tensors: dict[str, Stored] = {}
    for file in place.files:
        tensors |= tensors_in(file)
    mine = _adapter_in(tensors, name, place)
    pairs, rest = _pairs(tensors, mine, is_whole_model=_is_whole_model(place))
    found = [_factors(key, sides, settings) for key, sides in sorted(pairs.items())]
    factors = tuple(one for one in found if isinstance(one, Factors))
    skipped = tuple(one for one in found if isinstance(one, str))
    if not factors and not skipped:
        raise _no_lora(tensors, place)
    notes = [*(settings.notes if settings else ("there is no adapter_config.json: alpha, and so norms, are unknown",))]
    if place.others:
        notes.append(f"more adapters lie below: {', '.join(place.others)} (--adapter NAME)")
    if rest:
        notes.append(f"{len(rest)} tensors beside A and B are kept, and left out of the figures")
    return Adapter(place, settings, factors, rest, skipped, tuple(notes))


def module_of(key: str) -> str:
    """The name in the base model of what a key begins with."""
    return _PREFIX.sub("", _WRAPPERS.sub("", f"{key}.")).removesuffix(".")


def _is_whole_model(place: Place) -> bool:
    return not all(file.name.startswith(WEIGHTS) for file in place.files)


def _adapter_in(tensors: Mapping[str, Stored], wanted: str | None, place: Place) -> str | None:
    """The adapter's name inside the keys; None where keys have none."""
    names = sorted({str(match["adapter"]) for key in tensors if (match := _match(key)) and match["adapter"]})
    if wanted is not None and wanted not in (*names, place.folder.name, *([] if names else ["default"])):
        known = ", ".join(names or ["default", *place.others])
        raise BadInput(f"{place.folder} holds no adapter {wanted!r}", hint=f"it holds: {known}")
    for name in (wanted, "default"):
        if name in names:
            return name
    if len(names) > 1:
        raise BadInput(f"{place.folder} holds the adapters {', '.join(names)}", hint=f"--adapter {names[0]}")
    return names[0] if names else None


def _match(key: str) -> re.Match[str] | None:
    return _FACTOR.fullmatch(key) or _EMBEDDING.fullmatch(key)


def _pairs(
    tensors: Mapping[str, Stored], adapter: str | None, *, is_whole_model: bool
) -> tuple[dict[str, dict[str, Stored]], dict[str, Stored]]:
    """A and B of each layer by what their names begin with, and the other trained tensors.

    Of a whole model's weights only what is marked as an adapter's is trained; what an adapter's file holds all is.
    """
    pairs: dict[str, dict[str, Stored]] = {}
    rest: dict[str, Stored] = {}
    for key, tensor in tensors.items():
        match = _match(key)
        if match is None:
            other = _OTHER.fullmatch(key)
            if not is_whole_model or (other is not None and other["adapter"] in (adapter, "weight", None)):
                rest[key] = tensor
        elif match["adapter"] != adapter:
            continue
        elif match.re is _FACTOR and match["part"] == "bias":
            rest[key] = tensor
        else:
            kind = "lora_embedding_" if match.re is _EMBEDDING else "lora_"
            pairs.setdefault(f"{match['module']}.{kind}", {})[match["side"]] = tensor
    return pairs, rest


def _factors(key: str, sides: Mapping[str, Stored], settings: LoraSettings | None) -> Factors | str:
    """A layer's factors, or why it is left out."""
    is_embedding = key.endswith(".lora_embedding_")
    stem = key.rpartition(".lora_")[0]
    name = module_of(stem)
    missing = {"A", "B"} - set(sides)
    if missing:
        raise BadInput(
            f"{name} has {'A' if 'A' in sides else 'B'} without {missing.pop()}",
            hint="a shard is missing, or the save did not finish: copy or save the adapter again",
        )
    a, b = sides["A"], sides["B"]
    for side, one in (("A", a), ("B", b)):
        if not one.is_float:
            return f"{name}: {side} is stored as {one.dtype}, which is not read"
        if len(one.shape) < 2 or 0 in one.shape:
            raise BadInput(
                f"{side} of {name} has shape {list(one.shape)}, expected a matrix",
                hint="sharded weights were saved without being gathered (DeepSpeed, FSDP): save them again",
            )
    declared = settings.of(name) if settings else None
    r = a.shape[0]
    if declared and (settings.document.get("target_parameters") if settings else None) and r != declared[0]:
        return f"{name}: {r} rows of A for rank {declared[0]}: a parameter of several experts is left out"
    if len(b.shape) > 2 and b.shape[1] != r:
        return f"{name}: a convolution in groups is left out"
    if b.shape[1] != r or set(b.shape[2:]) - {1}:
        raise BadInput(
            f"the factors of {name} do not fit: A is {list(a.shape)}, B is {list(b.shape)}",
            hint="expected A of r x inputs and B of outputs x r: are they from two adapters?",
        )
    if declared and declared[0] != r:
        raise BadInput(
            f"{name} has rank {r}, its adapter_config.json says {declared[0]}",
            hint="weights and configuration are from two adapters: PEFT would not load them either",
        )
    alpha = declared[1] if declared else None
    scale = settings.scale(alpha, r) if settings and alpha is not None else None
    return Factors(name, stem, a, b, r, alpha, scale, is_embedding)


def _no_lora(tensors: Mapping[str, Stored], place: Place) -> BadInput:
    for mark, what in _FOREIGN.items():
        if any(mark in key for key in tensors):
            return BadInput(
                f"{place.folder} holds no LoRA factors: it is {what}",
                hint="outlast audit reads LoRA, rsLoRA and DoRA adapters that PEFT writes",
            )
    return BadInput(
        f"{place.folder} holds {len(tensors)} tensors, none of them LoRA's",
        hint="expected names with .lora_A. and .lora_B., as PEFT's save_pretrained writes them",
    )


def as_saved(adapter: Adapter) -> Adapter:
    """The same adapter with the names that PEFT's own save gives, where a whole model's weights hold it."""
    if not _is_whole_model(adapter.place):
        return adapter
    return replace(
        adapter,
        factors=tuple(replace(one, key=f"{_PEFT}{one.name}") for one in adapter.factors),
        rest={f"{_PEFT}{module_of(_INSIDE.sub('', key))}": tensor for key, tensor in adapter.rest.items()},
    )
