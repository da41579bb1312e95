"""Adapters inside checkpoints that Outlast sealed: full and light, the Trainer's and a loop's of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from outlast import Run
from outlast.audit import audit_lora_peft_dir, truncate
from outlast.checkpoints import Seal, Vault
from outlast.checkpoints import seal as seals
from outlast.errors import BadInput, SealError
from tests.audit.adapters import config, write_adapter

LAYER = "model.layers.0.self_attn.q_proj"


def _sealed(vault: Path, step: int) -> Path:
    random = np.random.default_rng(step)
    folder = write_adapter(
        vault / f"checkpoint-{step}", {LAYER: (random.standard_normal((10, 4)), random.standard_normal((4, 12)))}
    )
    (folder / "optimizer.pt").write_bytes(b"moments")
    files = seals.measure(folder)
    light = tuple(name for name in files if name != "optimizer.pt")
    kinds = {"full": tuple(files), "light": light}
    seals.write(folder, Seal(step, "transformers", files, kinds, created=float(step)))
    return folder


def test_the_newest_sealed_checkpoint_of_a_run_is_audited_with_its_step(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        _sealed(tmp_path / "run/checkpoints", step)
    found = audit_lora_peft_dir(tmp_path / "run")
    assert (found.step, found.sealed_beside) == (100, 3)
    assert found.layers == audit_lora_peft_dir(tmp_path / "run/checkpoints/checkpoint-100").layers


def test_a_light_checkpoint_has_its_adapter_still(tmp_path: Path) -> None:
    folder = _sealed(tmp_path, 5)
    whole = audit_lora_peft_dir(folder)
    Vault(tmp_path).lighten("checkpoint-5", "a test")
    assert not (folder / "optimizer.pt").exists()
    assert audit_lora_peft_dir(folder).layers == whole.layers


def test_an_adapter_that_is_not_as_it_was_sealed_is_not_audited(tmp_path: Path) -> None:
    folder = _sealed(tmp_path, 5)
    text = (folder / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(text.replace("8", "9"))
    with pytest.raises(SealError, match="adapter_config.json is not what checkpoint-5 was sealed with"):
        audit_lora_peft_dir(folder)


class _Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(12, 10), torch.nn.Linear(10, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def test_the_lora_of_a_loop_of_ones_own_is_found_among_the_models_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = get_peft_model(_Net(), LoraConfig(r=4, lora_alpha=8, target_modules=["first"], modules_to_save=["second"]))
    optimizer = torch.optim.AdamW(one for one in model.parameters() if one.requires_grad)
    run = Run(tmp_path / "run", model=model, optimizer=optimizer)

    def loss(batch: Any) -> torch.Tensor:
        return model(batch[0]).square().mean()

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 12)), batch_size=4)
    for batch in run.steps(loader):
        run.step(batch, loss)
    run.checkpoint()
    found = audit_lora_peft_dir(tmp_path / "run")
    (layer,) = found.layers
    assert (layer.name, layer.r, layer.scale, layer.delta_sigma_max) == ("first", 4, None, None)
    update = model.base_model.model.first.get_delta_weight("default").detach().double().numpy()
    assert layer.sigmas[0] * 2 == pytest.approx(np.linalg.norm(update, 2), rel=1e-5)
    assert layer.stable_rank is not None
    assert any("alpha" in note for note in found.notes)
    assert found.rest_bytes == 4 * (10 * 2 + 2)
    with pytest.raises(BadInput, match="smaller one cannot be written"):
        truncate(tmp_path / "run", 2, tmp_path / "out")


def test_a_models_weights_beside_a_configuration_become_an_adapter_of_pefts(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = get_peft_model(_Net(), LoraConfig(r=4, lora_alpha=8, target_modules=["first"], modules_to_save=["second"]))
    torch.nn.init.normal_(model.base_model.model.first.lora_B["default"].weight)
    model.save_pretrained(tmp_path / "saved")
    folder = tmp_path / "checkpoint-7"
    folder.mkdir()
    from safetensors.torch import load_file, save_file

    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config(r=4, lora_alpha=8, target_modules=["first"])))
    files = seals.measure(folder)
    seals.write(folder, Seal(7, "outlast", files, {"weights": tuple(files)}))
    truncate(folder, 4, tmp_path / "out")
    saved, made = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("saved", "out"))
    assert set(saved) == set(made)
    assert all(torch.equal(saved[key], made[key]) for key in saved)


def test_checkpoints_without_a_seal_are_to_be_named(tmp_path: Path) -> None:
    for step in (1, 2):
        pair = (np.ones((10, 4)), np.ones((4, 12)))
        write_adapter(tmp_path / f"out/checkpoint-{step}", {LAYER: pair})
    with pytest.raises(BadInput, match="2 checkpoints with an adapter, none of them sealed"):
        audit_lora_peft_dir(tmp_path / "out")
    assert audit_lora_peft_dir(tmp_path / "out/checkpoint-2").step is None
