"""Adapters made for tests, as PEFT lays them out; and the figures of one by dense, slow, textbook means."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

PREFIX = "base_model.model."
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def config(**more: Any) -> dict[str, Any]:
    return {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], **more}


def write_adapter(
    folder: Path,
    layers: dict[str, tuple[Any, Any]],
    *,
    dtype: str = "F64",
    settings: dict[str, Any] | None = None,
    rest: dict[str, Any] | None = None,
) -> Path:
    """An adapter of layers given as name -> (B, A)."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(rest or {})
    for name, (b, a) in layers.items():
        tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.tensor(a).to(DTYPES[dtype]).contiguous()
        tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.tensor(b).to(DTYPES[dtype]).contiguous()
    save_file(tensors, folder / "adapter_model.safetensors")
    document = config() if settings is None else settings
    (folder / "adapter_config.json").write_text(json.dumps(document))
    return folder


def stored(matrix: Any, dtype: str) -> Any:
    """A matrix as it comes back from a file, in float64."""
    return torch.tensor(matrix).to(DTYPES[dtype]).to(torch.float64).numpy()


def dense_figures(b: Any, a: Any, scale: float) -> dict[str, float | None]:
    """From the update itself, formed in extended precision and rounded once."""
    delta = (b.astype(np.longdouble) @ a.astype(np.longdouble) * np.longdouble(scale)).astype(np.float64)
    sigmas = np.linalg.svd(delta, compute_uv=False)[: a.shape[0]]
    largest, fro = float(sigmas[0]), float(np.linalg.norm(delta))
    if not largest:
        return {"delta_sigma_max": 0.0, "delta_fro_norm": 0.0, "stable_rank": None, "effective_rank": None}
    shares = sigmas / sigmas.sum()
    entropy = -sum(float(s) * math.log(float(s)) for s in shares if s > 0)
    return {
        "delta_sigma_max": largest,
        "delta_fro_norm": fro,
        "stable_rank": (fro / largest) ** 2,
        "effective_rank": math.exp(entropy),
        "utilization": (fro / largest) ** 2 / a.shape[0],
    }


def shares_of_energy(b: Any, a: Any) -> Any:
    """Cumulated shares of the energy, by dense SVD."""
    squares = np.linalg.svd(b @ a, compute_uv=False)[: a.shape[0]] ** 2
    return np.cumsum(squares) / squares.sum()
