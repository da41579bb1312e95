from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from outlast.audit import audit_lora_peft_dir, base_norms
from outlast.errors import BadInput
from tests.audit.adapters import config, write_adapter

_RANDOM = np.random.default_rng(7)


def _adapter(folder: Path, shapes: dict[str, tuple[int, int]]) -> Path:
    layers = {
        name: (_RANDOM.standard_normal((outputs, 4)), _RANDOM.standard_normal((4, inputs)))
        for name, (outputs, inputs) in shapes.items()
    }
    return write_adapter(folder, layers)


def _base(folder: Path, tensors: dict[str, torch.Tensor], **configuration: object) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(configuration))
    return folder


def _norm(tensor: torch.Tensor) -> float:
    return float(np.linalg.norm(tensor.to(torch.float64).numpy().reshape(tensor.shape[0], -1), 2))


def _matrix(rows: int, columns: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(_RANDOM.standard_normal((rows, columns))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_udr_is_the_updates_norm_over_the_bases(tmp_path: Path, dtype: torch.dtype) -> None:
    adapter = _adapter(tmp_path / "a", {"model.layers.0.q_proj": (420, 500)})
    weight = _matrix(420, 500, dtype)
    base = _base(tmp_path / "b", {"model.layers.0.q_proj.weight": weight})
    (layer,) = audit_lora_peft_dir(adapter, str(base), tmp_path / "cache").layers
    assert layer.base_sigma_max == pytest.approx(_norm(weight), rel=1e-6)
    assert layer.base_fro_norm == pytest.approx(float(weight.to(torch.float64).norm()), rel=1e-9)
    assert layer.delta_sigma_max is not None and layer.sdi is not None
    assert layer.udr == pytest.approx(layer.delta_sigma_max / _norm(weight), rel=1e-6)
    assert layer.sdi == pytest.approx(np.log10(layer.udr + 1e-12), abs=1e-9)


def test_a_transposed_conv1d_and_a_convolution_are_matrices_too(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "a", {"transformer.h.0.attn.c_attn": (96, 32)})
    weight = _matrix(32, 96)
    base = _base(tmp_path / "b", {"h.0.attn.c_attn.weight": weight})
    (layer,) = audit_lora_peft_dir(adapter, str(base), tmp_path / "cache").layers
    assert layer.base_sigma_max == pytest.approx(_norm(weight), rel=1e-6)


@pytest.mark.parametrize("prefix", ["", "bert.", "model.bert."])
def test_the_base_may_have_another_prefix_than_the_tasks_model(tmp_path: Path, prefix: str) -> None:
    adapter = _adapter(tmp_path / "a", {"bert.encoder.layer.0.attention.self.query": (20, 30)})
    weight = _matrix(20, 30)
    tensors = {f"{prefix}encoder.layer.0.attention.self.query.weight": weight, "x.query.weight": _matrix(2, 2)}
    (layer,) = audit_lora_peft_dir(adapter, str(_base(tmp_path / "b", tensors)), tmp_path / "cache").layers
    assert layer.base_sigma_max == pytest.approx(_norm(weight), rel=1e-6)


def test_parts_of_a_fused_matrix_and_wholes_of_parts_are_found(tmp_path: Path) -> None:
    split = _adapter(
        tmp_path / "split",
        {
            "l.q_proj": (32, 24),
            "l.k_proj": (8, 24),
            "l.v_proj": (8, 24),
            "l.gate_proj": (40, 24),
            "l.up_proj": (40, 24),
        },
    )
    qkv, gate_up = _matrix(48, 24), _matrix(80, 24)
    fused_base = _base(tmp_path / "f", {"l.qkv_proj.weight": qkv, "l.gate_up_proj.weight": gate_up})
    found = {one.name: one.base_sigma_max for one in audit_lora_peft_dir(split, str(fused_base), tmp_path / "c").layers}
    parts = {"q": qkv[:32], "k": qkv[32:40], "v": qkv[40:], "gate": gate_up[:40], "up": gate_up[40:]}
    assert found == {f"l.{name}_proj": pytest.approx(_norm(part), rel=1e-6) for name, part in parts.items()}
    fused = _adapter(tmp_path / "fused", {"l.qkv_proj": (48, 24)})
    tensors = {f"l.{name}_proj.weight": parts[name].contiguous() for name in "qkv"}
    (layer,) = audit_lora_peft_dir(fused, str(_base(tmp_path / "s", tensors)), tmp_path / "c").layers
    assert layer.base_sigma_max == pytest.approx(_norm(qkv), rel=1e-6)


def test_a_tied_output_layer_is_its_embedding(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "a", {"lm_head": (60, 24)})
    weight = _matrix(60, 24)
    base = _base(tmp_path / "b", {"model.embed_tokens.weight": weight})
    (layer,) = audit_lora_peft_dir(adapter, str(base), tmp_path / "cache").layers
    assert layer.base_sigma_max == pytest.approx(_norm(weight), rel=1e-6)


def test_a_layer_that_the_base_lacks_has_no_udr_and_is_said(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "a", {"l.q_proj": (20, 30), "l.other": (20, 30)})
    base = _base(tmp_path / "b", {"l.q_proj.weight": _matrix(20, 30)})
    found = audit_lora_peft_dir(adapter, str(base), tmp_path / "cache")
    assert [layer.udr is None for layer in found.layers] == [True, False]
    assert "no norm of the base for l.other: no matrix of its name" in found.notes


@pytest.mark.parametrize("is_known", [False, True])
def test_another_base_is_named_by_the_shape_that_does_not_fit(tmp_path: Path, is_known: bool) -> None:
    base = _base(tmp_path / "b", {"l.q_proj.weight": _matrix(20, 30)})
    if is_known:
        audit_lora_peft_dir(_adapter(tmp_path / "fits", {"l.q_proj": (20, 30)}), str(base), tmp_path / "cache")
    adapter = _adapter(tmp_path / "a", {"l.q_proj": (20, 31)})
    with pytest.raises(BadInput, match="l.q_proj is 20 x 30 in .*its update is 20 x 31"):
        audit_lora_peft_dir(adapter, str(base), tmp_path / "cache")


def test_a_quantised_base_is_refused_with_the_reason(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "a", {"l.q_proj": (20, 30)})
    said = _base(tmp_path / "said", {"l.q_proj.weight": _matrix(20, 30)}, quantization_config={"quant_method": "gptq"})
    with pytest.raises(BadInput, match="quantised .gptq."):
        audit_lora_peft_dir(adapter, str(said), tmp_path / "cache")
    packed = _base(tmp_path / "packed", {"l.q_proj.weight": torch.zeros(20, 30, dtype=torch.int8)})
    with pytest.raises(BadInput, match="stored as I8"):
        audit_lora_peft_dir(adapter, str(packed), tmp_path / "cache")


def test_a_base_that_is_nowhere_or_has_no_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = _adapter(tmp_path / "a", {"l.q_proj": (20, 30)})
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(BadInput, match="no safetensors weights"):
        audit_lora_peft_dir(adapter, str(tmp_path / "empty"), tmp_path / "cache")
    with pytest.raises(BadInput, match="no model on the hub can have that name"):
        audit_lora_peft_dir(adapter, "../nowhere/at/all", tmp_path / "cache")


def test_a_cut_or_altered_cache_file_is_made_again(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "a", {"l.q_proj": (20, 30)})
    base = _base(tmp_path / "b", {"l.q_proj.weight": _matrix(20, 30)})
    whole = audit_lora_peft_dir(adapter, str(base), tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*.json")
    text = file.read_text()
    for damaged in (text[:-20], "", "null", text.replace('"rows": 20', '"rows": 21'), '{"check": []}'):
        file.write_text(damaged)
        assert audit_lora_peft_dir(adapter, str(base), tmp_path / "cache").layers == whole.layers
        assert file.read_text() == text


def test_weights_that_changed_have_norms_of_their_own(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "a", {"l.q_proj": (20, 30)})
    weight = _matrix(20, 30)
    base = _base(tmp_path / "b", {"l.q_proj.weight": weight})
    (before,) = audit_lora_peft_dir(adapter, str(base), tmp_path / "cache").layers
    save_file({"l.q_proj.weight": weight * 2}, base / "model.safetensors")
    (after,) = audit_lora_peft_dir(adapter, str(base), tmp_path / "cache").layers
    assert before.base_sigma_max is not None
    assert after.base_sigma_max == pytest.approx(2 * before.base_sigma_max, rel=1e-9)


def test_layers_that_were_done_before_an_interruption_are_kept(tmp_path: Path) -> None:
    shapes = {f"l{i}.q_proj": (20, 30) for i in range(4)}
    adapter = _adapter(tmp_path / "a", shapes)
    base = _base(tmp_path / "b", {f"{name}.weight": _matrix(*shape) for name, shape in shapes.items()})

    class Interrupted(Exception):
        pass

    def stop_at_third(done: int, total: int, what: str) -> None:
        if done == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        audit_lora_peft_dir(adapter, str(base), tmp_path / "cache", tell=stop_at_third)
    told: list[str] = []
    audit_lora_peft_dir(adapter, str(base), tmp_path / "cache", tell=lambda done, total, what: told.append(what))
    assert told == ["l2.q_proj", "l3.q_proj", ""]


def test_the_cache_is_where_gradience_is_told_to_have_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRADIENCE_CACHE_DIR", str(tmp_path / "g"))
    assert base_norms.default_cache() == tmp_path / "g/base_norms"
    monkeypatch.delenv("GRADIENCE_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert base_norms.default_cache() == tmp_path / "x/outlast/base_norms"


_WATCH = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from outlast.audit import audit_lora_peft_dir
audit_lora_peft_dir(sys.argv[1], sys.argv[2], sys.argv[3])
print(sum(name.startswith(sys.argv[4]) and name.endswith(".safetensors") for name in opened))
print("torch" in sys.modules)
"""


def test_a_second_call_opens_no_weight_file_of_the_base_and_nothing_needs_torch(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "a", {"l.q_proj": (20, 30)})
    base = _base(tmp_path / "b", {"l.q_proj.weight": _matrix(20, 30)})
    command = [sys.executable, "-c", _WATCH, str(adapter), str(base), str(tmp_path / "cache"), str(base)]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert int(first.split()[0]) > 0
    assert second.split() == ["0", "False"]


def test_a_model_in_the_hubs_cache_is_found_and_its_norms_outlive_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    adapter = _adapter(tmp_path / "a", {"l.q_proj": (20, 30)})
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub/models--org--model"
    for folder in ("blobs", f"snapshots/{commit}", "refs"):
        (repo / folder).mkdir(parents=True)
    (repo / "refs/main").write_text(commit)
    save_file({"l.q_proj.weight": _matrix(20, 30)}, repo / "blobs/beef")
    link = repo / f"snapshots/{commit}/model.safetensors"
    link.symlink_to(os.path.relpath(repo / "blobs/beef", link.parent))
    (layer,) = audit_lora_peft_dir(adapter, "org/model", tmp_path / "cache").layers
    assert layer.udr is not None
    (repo / "blobs/beef").unlink()
    link.unlink()
    assert audit_lora_peft_dir(adapter, "org/model", tmp_path / "cache").layers == (layer,)
    assert audit_lora_peft_dir(adapter, "org/model", tmp_path / "cache", revision=commit).layers == (layer,)


def test_another_base_than_the_adapter_names_is_said(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    layers = {"l.q_proj": (random.standard_normal((20, 4)), random.standard_normal((4, 30)))}
    adapter = write_adapter(tmp_path / "a", layers, settings=config(base_model_name_or_path="org/other"))
    base = _base(tmp_path / "b", {"l.q_proj.weight": _matrix(20, 30)})
    found = audit_lora_peft_dir(adapter, str(base), tmp_path / "cache")
    assert any("names org/other" in note for note in found.notes)
