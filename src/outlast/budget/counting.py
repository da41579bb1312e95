"""Counting what a save holds from a Transformers configuration, without weights. Needs torch and transformers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from outlast.budget.sizes import DTYPES
from outlast.checkpoints import codec
from outlast.errors import BadInput

_HINT = "a folder with a config.json, or that file, as save_pretrained leaves it"


def count(path: Path, *, rank: int | None = None, targets: Sequence[str] = (), dtype: str = "fp32") -> dict[str, int]:
    """What a training of this model saves, all of it or its LoRA adapter.

    Args:
        path: a Transformers configuration, or a folder that holds one. Nothing is downloaded.
        rank: of the adapter; None trains and saves everything.
        targets: names of the linear layers that get one; none takes all but the head, as ``all-linear`` does.
        dtype: the type that what is trained is held in.

    Returns:
        ``trained``, ``trained_bytes``, ``weights_bytes``, ``tensors``, ``sidecar_bytes``.

    Raises:
        BadInput: when torch or transformers is missing, it is no configuration, or no layer has one of the names.
    """
    if dtype not in DTYPES:
        raise BadInput(f"no type called {dtype!r}", hint="known: " + ", ".join(DTYPES))
    model = _on_meta(path)
    shapes = [tuple(p.shape) for p in model.parameters()] if rank is None else list(_adapter(model, rank, targets))
    if not shapes:
        raise BadInput(f"no linear layer of {path} is called {', '.join(targets)}", hint="as in LoRA's target_modules")
    numbers = sum(math.prod(shape) for shape in shapes)
    size = numbers * DTYPES[dtype]
    return {
        "trained": numbers,
        "trained_bytes": size,
        "weights_bytes": size,
        "tensors": len(shapes),
        "sidecar_bytes": codec.sidecar_bytes_of(shapes),
    }


def _on_meta(path: Path) -> Any:
    try:
        import torch
        import transformers
    except ImportError as error:
        raise BadInput(
            f"--model needs torch and transformers here: {error}", hint="or give --params 8B --trainable 40M"
        ) from None
    folder = path.parent if path.name == "config.json" else path
    if not (folder / "config.json").is_file():
        raise BadInput(f"{path} is no configuration", hint=_HINT)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        name = next(iter(config.architectures or ()), "")
        with torch.device("meta"):
            return getattr(transformers, name, transformers.AutoModelForCausalLM)._from_config(config)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is no configuration that Transformers builds: {error}", hint=_HINT) from None


def _adapter(model: Any, rank: int, targets: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Shapes of LoRA's two matrices for each layer (Hu and others 2021): rank x inputs, and outputs x rank."""
    head = model.get_output_embeddings()
    for name, layer in model.named_modules():
        is_linear = type(layer).__name__ in ("Linear", "Conv1D")
        if not is_linear or (layer is head if not targets else not _is_named(name, targets)):
            continue
        weight: Any = layer.weight
        # GPT-2's Conv1D holds its weight the other way round.
        outputs, inputs = weight.shape if type(layer).__name__ == "Linear" else reversed(weight.shape)
        yield rank, inputs
        yield outputs, rank


def _is_named(name: str, targets: Sequence[str]) -> bool:
    return any(re.fullmatch(rf"(.*\.)?{re.escape(target)}", name) for target in targets)
