"""What PEFT's ``adapter_config.json`` says of each layer: its rank, its alpha, and so the scale of its update. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outlast.errors import BadInput

_NOT_UPDATES = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that change the base too: B A is then not what training changed in the published base."""
_VARIANTS = {
    "use_qalora": "QA-LoRA: A stands for groups of inputs",
    "use_bdlora": "BD-LoRA: A or B is block-diagonal",
    "kasa_config": "KaSA: singular values stand between A and B",
    "velora_config": "VeLoRA",
    "arrow_config": "Arrow routes between adapters",
}
"""Settings under which the update of a layer is not scale x B A."""
_UNSUPPORTED_HINT = "outlast audit reads LoRA, rsLoRA and DoRA adapters that PEFT writes"


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What an adapter's configuration says."""

    r: int
    """Rank of layers that no pattern names."""
    alpha: float
    """lora_alpha of layers that no pattern names."""
    rank_pattern: Mapping[str, int]
    """Ranks of the layers that a regular expression names."""
    alpha_pattern: Mapping[str, float]
    """lora_alpha of the layers that a regular expression names."""
    is_rslora: bool
    """The scale is alpha / sqrt(r), not alpha / r (rsLoRA, Kalajdzievski 2023)."""
    is_dora: bool
    """Magnitudes are trained beside A and B (DoRA, Liu and others 2024)."""
    base: str | None
    """The base model that it names."""
    revision: str | None
    """The base model's revision that it names."""
    notes: tuple[str, ...]
    """What the reader of figures should know."""
    document: Mapping[str, Any]
    """The whole configuration, for a smaller adapter to copy."""

    def of(self, module: str) -> tuple[int, float]:
        """Rank and alpha of a layer, as PEFT looks them up: the first pattern that is the end of the name.

        Args:
            module: the layer's name in the base model.
        """
        return (
            self.rank_pattern.get(_first_match(self.rank_pattern, module), self.r),
            self.alpha_pattern.get(_first_match(self.alpha_pattern, module), self.alpha),
        )

    def scale(self, alpha: float, r: int) -> float:
        """What B A is multiplied by."""
        return alpha / math.sqrt(r) if self.is_rslora else alpha / r


def settings_of(document: Mapping[str, Any]) -> LoraSettings:
    """Read a configuration.

    Raises:
        BadInput: when it is not a LoRA's, or a number in it is none.
    """
    kind = str(document.get("peft_type") or "").upper()
    if kind != "LORA":
        said = f"an adapter of type {kind}" if kind else "no adapter_config.json of PEFT: it has no peft_type"
        raise BadInput(f"expected a LoRA adapter, this is {said}", hint=_UNSUPPORTED_HINT)
    for key, why in _VARIANTS.items():
        if document.get(key):
            raise BadInput(f"{key} is set ({why}): the update is not scale x B A", hint=_UNSUPPORTED_HINT)
    ranks = {str(k): _rank(k, v) for k, v in _pattern(document, "rank_pattern").items()}
    alphas = {str(k): _number(k, v) for k, v in _pattern(document, "alpha_pattern").items()}
    for key in (*ranks, *alphas):
        try:
            re.compile(key)
        except re.error as error:
            raise BadInput(
                f"the pattern {key!r} is no regular expression: {error}", hint="PEFT would fail too"
            ) from None
    return LoraSettings(
        _rank("r", document.get("r")),
        _number("lora_alpha", document.get("lora_alpha")),
        ranks,
        alphas,
        bool(document.get("use_rslora")),
        bool(document.get("use_dora")),
        str(document["base_model_name_or_path"]) if document.get("base_model_name_or_path") else None,
        str(document["revision"]) if document.get("revision") else None,
        tuple(_notes(document)),
        document,
    )


def _first_match(pattern: Mapping[str, Any], module: str) -> str:
    return next((key for key in pattern if re.match(rf"(.*\.)?({key})$", module)), module)


def _pattern(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise BadInput(f"{key} is {value!r}", hint="expected an object of patterns and numbers")
    return value


def _rank(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"the rank {name} is {value!r}", hint="expected a whole number of at least 1")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadInput(f"{name} is {value!r}", hint="expected a number")
    return float(value)


def _notes(document: Mapping[str, Any]) -> list[str]:
    notes = []
    if document.get("use_dora"):
        notes.append("DoRA: its magnitudes are left out; figures are those of scale x B A")
    start = document.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_NOT_UPDATES):
        notes.append(f"initialised by {start}, which changes the base: B A is not only what training changed")
    if document.get("lora_bias"):
        notes.append("lora_bias: the biases of B are left out")
    if document.get("bias") not in (None, "none"):
        notes.append(f"bias={document['bias']}: the trained biases are left out")
    return notes
