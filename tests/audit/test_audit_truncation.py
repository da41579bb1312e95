from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from outlast.audit import audit_lora_peft_dir, truncate
from outlast.errors import BadInput
from tests.audit.adapters import PREFIX, config, write_adapter

LAYER = "model.layers.0.self_attn.q_proj"


def _update(folder: Path, name: str = LAYER) -> np.ndarray:
    tensors = load_file(folder / "adapter_model.safetensors")
    (layer,) = [one for one in audit_lora_peft_dir(folder).layers if one.name == name]
    a, b = (tensors[f"{PREFIX}{name}.lora_{side}.weight"].to(torch.float64).numpy() for side in "AB")
    assert layer.scale is not None
    return layer.scale * b @ a


@settings(max_examples=40)
@given(
    r=st.integers(1, 24),
    rank=st.integers(1, 24),
    outputs=st.integers(2, 30),
    inputs=st.integers(2, 30),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_error_is_that_of_the_discarded_singular_values(
    tmp_path_factory: pytest.TempPathFactory, r: int, rank: int, outputs: int, inputs: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("adapter")
    random = np.random.default_rng(seed)
    pair = random.standard_normal((outputs, r)), random.standard_normal((r, inputs))
    before = write_adapter(folder / "a", {LAYER: pair}, settings=config(r=r, lora_alpha=16))
    made = truncate(before, rank, folder / "b")
    sigmas = np.linalg.svd(_update(before), compute_uv=False)
    lost, whole = np.linalg.norm(sigmas[min(rank, r) :]), np.linalg.norm(sigmas)
    measured = np.linalg.norm(_update(before) - _update(folder / "b")) / whole
    assert measured == pytest.approx(lost / whole, rel=1e-9, abs=1e-13)
    assert made.cuts[0].error == pytest.approx(lost / whole, rel=1e-9, abs=1e-13)
    assert made.cuts[0].stored_error == pytest.approx(measured, rel=1e-9, abs=1e-13)
    (layer,) = audit_lora_peft_dir(folder / "b").layers
    assert layer.r == min(r, rank)


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_rounding_to_the_stored_kind_is_in_the_measured_error(tmp_path: Path, dtype: str) -> None:
    random = np.random.default_rng(1)
    pair = random.standard_normal((40, 8)), random.standard_normal((8, 50))
    before = write_adapter(tmp_path / "a", {LAYER: pair}, dtype=dtype, settings=config(r=8))
    (cut,) = truncate(before, 4, tmp_path / "b").cuts
    measured = np.linalg.norm(_update(before) - _update(tmp_path / "b")) / np.linalg.norm(_update(before))
    assert cut.stored_error == pytest.approx(measured, rel=1e-6)
    assert cut.error is not None and cut.error <= cut.stored_error * (1 + 1e-9)
    kinds = {tensor.dtype for tensor in load_file(tmp_path / "b/adapter_model.safetensors").values()}
    assert len(kinds) == 1


def test_balanced_factors_share_the_norm(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    before = write_adapter(
        tmp_path / "a", {LAYER: (1e3 * random.standard_normal((20, 4)), 1e-3 * random.standard_normal((4, 30)))}
    )
    truncate(before, 2, tmp_path / "b")
    tensors = load_file(tmp_path / "b/adapter_model.safetensors")
    norms = [float(torch.linalg.matrix_norm(tensor)) for tensor in tensors.values()]
    assert norms[0] == pytest.approx(norms[1], rel=1e-9)


def test_per_layer_ranks_and_what_is_beside_the_factors_are_written(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    layers = {
        f"model.layers.{i}.self_attn.q_proj": (
            random.standard_normal((20, 1 + 4 * i)) @ random.standard_normal((1 + 4 * i, 8)),
            random.standard_normal((8, 30)),
        )
        for i in range(2)
    }
    head = torch.ones(3, 20)
    before = write_adapter(tmp_path / "a", layers, settings=config(r=8), rest={f"{PREFIX}score.weight": head})
    made = truncate(before, "per-layer", tmp_path / "b")
    ranks = {cut.name: cut.rank for cut in made.cuts}
    assert ranks["model.layers.0.self_attn.q_proj"] == 2
    assert {layer.name: layer.r for layer in audit_lora_peft_dir(tmp_path / "b").layers} == ranks
    assert torch.equal(load_file(tmp_path / "b/adapter_model.safetensors")[f"{PREFIX}score.weight"], head)
    sizes = [
        sum(t.nbytes for t in load_file(f / "adapter_model.safetensors").values()) for f in (before, tmp_path / "b")
    ]
    assert [made.bytes_before, made.bytes_after] == sizes
    assert json.loads((tmp_path / "b/adapter_config.json").read_text())["target_modules"] == ["q_proj"]


def test_a_layer_that_was_not_trained_stays_zero(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    before = write_adapter(tmp_path / "a", {LAYER: (np.zeros((20, 4)), random.standard_normal((4, 30)))})
    (cut,) = truncate(before, 2, tmp_path / "b").cuts
    assert (cut.error, cut.stored_error) == (None, None)
    assert not _update(tmp_path / "b").any()


def test_nothing_that_is_there_is_overwritten_and_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    before = write_adapter(tmp_path / "a", {LAYER: (random.standard_normal((20, 4)), random.standard_normal((4, 30)))})
    with pytest.raises(BadInput, match="is there already"):
        truncate(before, 2, before)
    for rank, said in ((0, "the rank is 0"), ("best", "no suggestion 'best'")):
        with pytest.raises(BadInput, match=said):
            truncate(before, rank, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
