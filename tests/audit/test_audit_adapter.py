from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from outlast.audit import audit_lora_peft_dir
from outlast.audit.adapter import module_of
from outlast.audit.config import settings_of
from outlast.audit.stored import narrow, tensors_in
from outlast.errors import BadInput
from tests.audit.adapters import PREFIX, config, write_adapter

_RANDOM = np.random.default_rng(0)
LAYER = "model.layers.0.self_attn.q_proj"


def _pair(outputs: int = 10, inputs: int = 12, r: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return _RANDOM.standard_normal((outputs, r)), _RANDOM.standard_normal((r, inputs))


def _retyped(folder: Path, rename: dict[str, str]) -> Path:
    tensors = load_file(folder / "adapter_model.safetensors")
    for old, new in rename.items():
        tensors = {key.replace(old, new): value for key, value in tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    "rename",
    [
        {},
        {".lora_A.weight": ".lora_A.default.weight", ".lora_B.weight": ".lora_B.default.weight"},
        {PREFIX: ""},
        {PREFIX: "module.base_model.model."},
        {PREFIX: "base_model.model._orig_mod."},
        {"self_attn.": "self_attn._fsdp_wrapped_module."},
    ],
)
def test_every_form_of_key_is_the_same_layer(tmp_path: Path, rename: dict[str, str]) -> None:
    folder = _retyped(write_adapter(tmp_path / "a", {LAYER: _pair()}), rename)
    (layer,) = audit_lora_peft_dir(folder).layers
    assert (layer.name, layer.kind, layer.depth, layer.r, layer.scale) == (LAYER, "attention", 0, 4, 2.0)


def test_module_names_lose_wrappers_wherever_they_stand() -> None:
    assert module_of("base_model.model.bert._orig_mod.encoder.base_layer") == "bert.encoder"


def test_shards_are_one_adapter(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", {LAYER: _pair(), LAYER.replace("q_", "v_"): _pair()})
    whole = audit_lora_peft_dir(folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    places = {}
    for number, (key, value) in enumerate(tensors.items()):
        places[key] = f"adapter_model-{number:05}.safetensors"
        save_file({key: value}, folder / places[key])
    index = folder / "adapter_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert audit_lora_peft_dir(folder).layers == whole.layers
    index.write_text(json.dumps({"weight_map": dict.fromkeys(places, "../../etc/passwd")}))
    with pytest.raises(BadInput, match="leads out"):
        audit_lora_peft_dir(folder)


def test_what_is_trained_beside_the_factors_is_counted_and_said(tmp_path: Path) -> None:
    rest = {
        f"{PREFIX}classifier.weight": torch.zeros(2, 8),
        f"{PREFIX}{LAYER}.lora_magnitude_vector": torch.ones(10),
        f"{PREFIX}{LAYER}.lora_B.bias": torch.ones(10),
    }
    folder = write_adapter(tmp_path / "a", {LAYER: _pair()}, rest=rest, settings=config(use_dora=True, lora_bias=True))
    found = audit_lora_peft_dir(folder)
    assert found.rest_bytes == 4 * (16 + 10 + 10)
    assert found.bytes == found.rest_bytes + 8 * 4 * 22
    assert any("DoRA" in note for note in found.notes)
    assert any("biases of B" in note for note in found.notes)


def test_an_initialisation_that_changes_the_base_is_said(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", {LAYER: _pair()}, settings=config(init_lora_weights="pissa_niter_4"))
    assert any("pissa" in note for note in audit_lora_peft_dir(folder).notes)


def test_a_convolution_is_read_as_the_matrix_that_it_is(tmp_path: Path) -> None:
    a, b = _RANDOM.standard_normal((4, 3, 5, 5)), _RANDOM.standard_normal((8, 4, 1, 1))
    folder = write_adapter(tmp_path / "a", {"conv": (b, a)})
    (layer,) = audit_lora_peft_dir(folder).layers
    dense = np.einsum("or,rikl->oikl", b[:, :, 0, 0], a).reshape(8, -1) * 2
    assert layer.delta_sigma_max == pytest.approx(np.linalg.norm(dense, 2), rel=1e-12)


def _edited(folder: Path, change: Any) -> Path:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


_A, _B = f"{PREFIX}{LAYER}.lora_A.weight", f"{PREFIX}{LAYER}.lora_B.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(_A), "B without A"),
        (lambda t: t.pop(_B), "A without B"),
        (lambda t: t.update({_B: torch.ones(10, 3)}), r"A is \[4, 12\], B is \[10, 3\]"),
        (lambda t: t.update({_A: torch.ones(48)}), "expected a matrix"),
        (lambda t: t.update({_A: torch.full((4, 12), torch.nan)}), "not finite"),
        (lambda t: t.update({_A: torch.full((4, 12), torch.inf)}), "not finite"),
        (lambda t: t.update({_A: torch.ones(2, 12), _B: torch.ones(10, 2)}), "rank 2, its adapter_config.json says 4"),
        (lambda t: (t.clear(), t.update({"x.ia3_l": torch.ones(3)})), "IA3"),
        (lambda t: (t.clear(), t.update({"prompt_embeddings": torch.ones(3)})), "prompt tuning"),
        (lambda t: (t.clear(), t.update({"x.weight": torch.ones(3)})), "none of them LoRA's"),
    ],
)
def test_weights_that_are_no_lora_are_named(tmp_path: Path, change: Any, said: str) -> None:
    folder = _edited(write_adapter(tmp_path / "a", {LAYER: _pair()}), change)
    with pytest.raises(BadInput, match=said):
        audit_lora_peft_dir(folder)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "PROMPT_TUNING"}, "PROMPT_TUNING"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"peft_type": None}, "no peft_type"),
        ({"r": 0}, "the rank r is 0"),
        ({"r": "8"}, "the rank r is '8'"),
        ({"r": True}, "the rank r is True"),
        ({"lora_alpha": None}, "lora_alpha is None"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"rank_pattern": [1]}, "rank_pattern"),
        ({"rank_pattern": {"q": -1}}, "the rank q is -1"),
        ({"alpha_pattern": {"(": 3}}, "regular expression"),
        ({"use_qalora": True}, "QA-LoRA"),
    ],
)
def test_configurations_that_are_no_loras_are_named(more: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        settings_of(config(**more))


def test_missing_and_cut_files_are_named(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", {LAYER: _pair()})
    with pytest.raises(BadInput, match="there is no "):
        audit_lora_peft_dir(tmp_path / "b")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no adapter in"):
        audit_lora_peft_dir(tmp_path / "empty")
    weights = folder / "adapter_model.safetensors"
    data = weights.read_bytes()
    for cut in (0, 5, 100, len(data) - 1):
        weights.write_bytes(data[:cut])
        with pytest.raises(BadInput, match="not a whole safetensors file"):
            audit_lora_peft_dir(folder)
    weights.write_bytes(data)
    for text in ("", "[]", "{"):
        (folder / "adapter_config.json").write_text(text)
        with pytest.raises(BadInput, match="adapter_config.json"):
            audit_lora_peft_dir(folder)
    (folder / "adapter_config.json").unlink()
    with pytest.raises(BadInput, match="alpha is not"):
        audit_lora_peft_dir(folder)
    (folder / "adapter_config.json").write_text(json.dumps(config()))
    weights.unlink()
    with pytest.raises(BadInput, match="but no adapter_model.safetensors"):
        audit_lora_peft_dir(folder)


def test_a_header_that_points_outside_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    for offsets, shape in (([0, 1 << 40], [1 << 38]), ([-8, 8], [4]), ([0, 8], [3]), ([0, 8], [-2, -1])):
        header = json.dumps({"t": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
        file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
        with pytest.raises(BadInput, match="not a whole safetensors file"):
            tensors_in(file)


class _Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return (_go_off, ("/tmp", "never"))


def _go_off(*_: str) -> None:
    raise AssertionError("code in a pickle was run")


def test_a_pickle_is_read_as_weights_only_and_its_code_is_not_run(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", {LAYER: _pair()}, dtype="BF16")
    whole = audit_lora_peft_dir(folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(tensors, folder / "adapter_model.bin")
    assert audit_lora_peft_dir(folder).layers == whole.layers
    torch.save({**tensors, "x": _Bomb()}, folder / "adapter_model.bin")
    with pytest.raises(BadInput, match="nothing in it was run"):
        audit_lora_peft_dir(folder)
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(BadInput, match="nothing in it was run"):
        audit_lora_peft_dir(folder)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_numbers_are_stored_as_torch_rounds_them(tmp_path: Path, dtype: str) -> None:
    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    values = _RANDOM.standard_normal(5000) * 10.0 ** _RANDOM.integers(-7, 4, 5000)
    expected = (
        torch.tensor(values).to(torch.float32 if dtype == "BF16" else torch.float64).to(kinds[dtype]).contiguous()
    )
    save_file({"t": expected}, tmp_path / "t.safetensors")
    found = tensors_in(tmp_path / "t.safetensors")["t"]
    assert found.raw() == narrow(values, dtype)
    assert np.array_equal(found.array(), expected.to(torch.float64).numpy())


def test_a_number_too_large_for_its_kind_is_not_stored_as_infinity() -> None:
    with pytest.raises(BadInput, match="does not fit"):
        narrow(np.array([1e6]), "F16")


def test_adapters_in_one_file_are_told_apart_by_name(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", {LAYER: _pair()})
    one = load_file(folder / "adapter_model.safetensors")
    both = {
        key.replace(".weight", f".{name}.weight"): value * k
        for k, name in ((1, "x"), (2, "y"))
        for key, value in one.items()
    }
    save_file(both, folder / "adapter_model.safetensors")
    with pytest.raises(BadInput, match="holds the adapters x, y"):
        audit_lora_peft_dir(folder)
    with pytest.raises(BadInput, match="no adapter 'z'"):
        audit_lora_peft_dir(folder, adapter="z")
    (x,), (y,) = (audit_lora_peft_dir(folder, adapter=name).layers for name in "xy")
    assert x.delta_sigma_max is not None
    assert y.delta_sigma_max == pytest.approx(4 * x.delta_sigma_max, rel=1e-12)
