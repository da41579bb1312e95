"""Bytes of the kinds of checkpoint beside real files, and how far a resume strays on real steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_models
import torch
from hypothesis import given
from hypothesis import strategies as st

import outlast
from outlast.budget import Subject, Wishes, subject_named
from outlast.budget.kinds import kinds_of
from outlast.budget.straying import measure_straying
from outlast.budget.weights import Parameter, Weights, weights_of
from outlast.checkpoints import codec
from outlast.errors import BadInput

MODEL, BATCH = small_models.MODELS["llama"]
LLAMA = Subject(MODEL, lambda samples: BATCH(), name="llama")


@given(st.lists(st.integers(1, 70), min_size=0, max_size=3), st.sampled_from([torch.float32, torch.bfloat16]))
def test_the_bytes_of_a_light_form_are_those_that_the_codec_makes(shape: list[int], dtype: torch.dtype) -> None:
    slots = {name: torch.zeros(shape, dtype=dtype) for name in ("exp_avg", "exp_avg_sq")}
    light = codec.to_light({"state": {0: slots}, "param_groups": []})
    assert light is not None
    tensors, _ = codec.pack(light)
    made = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert made == codec.light_bytes(shape, dtype.itemsize)


def test_the_kinds_are_as_large_as_real_checkpoints(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MODEL()
    optimizer = torch.optim.AdamW(model.parameters())
    model(**BATCH()).loss.backward()
    optimizer.step()
    run = outlast.Run(tmp_path, model=model, optimizer=optimizer, every=1)
    sealed = run.checkpoint(now=True)
    assert sealed is not None
    sizes = {path.name: path.stat().st_size for path in sealed.path.iterdir()}
    light = sizes["model.safetensors"] + sizes[codec.SIDECAR]
    full, slim, bare = kinds_of(weights_of(LLAMA))
    assert bare.bytes == pytest.approx(
        sizes["model.safetensors"], rel=0.03
    )  # headers are large beside so small tensors
    assert slim.bytes == pytest.approx(light, rel=0.1)
    assert full.bytes == pytest.approx(light + sizes["optimizer.safetensors"], rel=0.05)


def test_frozen_weights_are_not_counted_where_they_are_not_saved() -> None:
    weights = Weights((Parameter((1000, 1000), 2, False), Parameter((100, 8), 4, True)), True)
    (adapter, *_), (whole, *_) = kinds_of(weights, trained_only=True), kinds_of(weights)
    assert whole.bytes - adapter.bytes == 2_000_000


def test_a_small_model_is_trained_itself_and_only_a_full_resume_is_exact(tmp_path: Path) -> None:
    MODEL().config.save_pretrained(tmp_path)
    subject = subject_named(str(tmp_path), Wishes(task="causal-lm"))
    found = measure_straying(subject, weights_of(subject))
    assert found.model == f"{tmp_path.name} itself"
    assert found.by_kind["full"] == 0.0  # bit for bit
    assert found.by_kind["light"] > 0 and found.by_kind["weights"] > 0


def test_code_of_ones_own_is_trained_on_its_own_batches_and_leaves_the_random_state() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = measure_straying(LLAMA, weights_of(LLAMA))
    assert found.model == "llama itself" and found.by_kind["full"] == 0.0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_large_one_is_scaled_down_and_that_is_said() -> None:
    subject = subject_named("llama-3.2-1b", Wishes(rank=8))
    found = measure_straying(subject, Weights((Parameter((1 << 30,), 4, True),), True))
    assert "scaled down" in found.model and "llama" in found.model
    assert found.by_kind["full"] == 0.0 < found.by_kind["light"]


def test_code_of_ones_own_that_is_large_is_not_trained() -> None:
    with pytest.raises(BadInput, match="more than the 8,000,000"):
        measure_straying(LLAMA, Weights((Parameter((1 << 30,), 4, True),), True))
