"""One adapter drawn by hypothesis, audited, and compared with dense SVD; torture runs it in full."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from outlast.audit import audit_lora_peft_dir
from tests.audit.adapters import config, dense_figures, shares_of_energy, stored, write_adapter

adapters = st.fixed_dictionaries(
    {
        "r": st.integers(1, 128),
        "outputs": st.integers(1, 160),
        "inputs": st.integers(1, 160),
        "alpha": st.sampled_from([1, 8, 16, 0.5]),
        "rslora": st.booleans(),
        "dtype": st.sampled_from(["F64", "F64", "F32", "F16", "BF16"]),
        "shape_of_b": st.sampled_from(["plain", "zero", "low rank", "nearly singular", "decaying", "tiny", "a column"]),
        "shape_of_a": st.sampled_from(["plain", "nearly singular", "decaying"]),
        "seed": st.integers(0, 2**32 - 1),
    }
)


def _factor(rows: int, columns: int, kind: str, random: np.random.Generator) -> np.ndarray:
    plain = random.standard_normal((rows, columns))
    match kind:
        case "zero":
            return np.zeros_like(plain)
        case "low rank":
            return random.standard_normal((rows, 1)) @ random.standard_normal((1, columns))
        case "nearly singular":
            return np.repeat(plain[:, :1], columns, 1) + 1e-6 * plain
        case "decaying":
            return plain * 2.0 ** -np.arange(columns)
        case "tiny":
            return plain * 1e-4
        case "a column":
            plain[:, 1:] = 0
    return plain


def compare(case: dict[str, object]) -> None:
    random = np.random.default_rng(case["seed"])  # type: ignore[arg-type]
    r, dtype = int(case["r"]), str(case["dtype"])  # type: ignore[call-overload]
    b = stored(_factor(int(case["outputs"]), r, str(case["shape_of_b"]), random), dtype)  # type: ignore[call-overload]
    a = stored(_factor(int(case["inputs"]), r, str(case["shape_of_a"]), random).T, dtype)  # type: ignore[call-overload]
    alpha = float(case["alpha"])  # type: ignore[arg-type]
    scale = alpha / np.sqrt(r) if case["rslora"] else alpha / r
    with tempfile.TemporaryDirectory() as folder:
        settings = config(r=r, lora_alpha=case["alpha"], use_rslora=case["rslora"])
        path = write_adapter(Path(folder), {"model.layers.3.self_attn.q_proj": (b, a)}, dtype=dtype, settings=settings)
        (layer,) = audit_lora_peft_dir(path).layers
    expected = dense_figures(b, a, scale)
    for figure, value in expected.items():
        assert getattr(layer, figure) == (None if value is None else pytest.approx(value, rel=1e-9, abs=0)), figure
    if expected["stable_rank"] is None:
        assert (layer.energy_rank_90, layer.energy_rank_95, layer.energy_rank_99) == (0, 0, 0)
        return
    reached = shares_of_energy(b, a)
    for share, found in ((0.9, layer.energy_rank_90), (0.95, layer.energy_rank_95), (0.99, layer.energy_rank_99)):
        # The least rank that is enough; a share that is equal but for rounding may fall on either side.
        assert reached[found - 1] >= share - 1e-9
        assert found == 1 or reached[found - 2] < share + 1e-9
