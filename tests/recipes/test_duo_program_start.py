"""What the weights are at the start: published ones, whole and of the right sizes, or random ones, which is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from safetensors.torch import save_file

from duo import settings, start, training
from duo.settings import Model, Settings
from outlast.errors import BadInput

CONFIGS = Path(__file__).resolve().parents[2] / "recipes/duo/configs"
TINY = Model("toy", 16, 2, 2, 8, 8, 0.0, "auto")


def asked(backbone: str, path: Path | None) -> Settings:
    words = ["data=offline", "model=toy", f"algo.backbone={backbone}"]
    words += [f"eval.checkpoint_path={path}"] if path else []
    with initialize_config_dir(str(CONFIGS), version_base=None):
        values = OmegaConf.to_container(compose("config", words), resolve=True)
    return replace(settings.read(values), model=TINY)  # type: ignore[arg-type]


def publish(folder: Path, model: Model, vocab: int) -> torch.nn.Module:
    """The network as its owners publish it: their names, by turning the table of names round."""
    network = training.network(model, vocab)
    torch.nn.init.normal_(network.output.weight)
    theirs = {}
    for name, tensor in network.state_dict().items():
        theirs["backbone." + published_name(name)] = tensor.clone()
    folder.mkdir()
    save_file(theirs, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"n_heads": model.n_heads, "model_length": model.length}))
    return network


THEIRS = (
    ("embedding.weight", "vocab_embed.embedding"),
    ("noise.widen.", "sigma_map.mlp.0."),
    ("noise.mix.", "sigma_map.mlp.2."),
    (".qkv.", ".attn_qkv."),
    (".out.", ".attn_out."),
    (".widen.", ".mlp.0."),
    (".narrow.", ".mlp.2."),
    (".modulation.", ".adaLN_modulation."),
)
LAST = {"norm": "norm_final", "modulation": "adaLN_modulation", "output": "linear"}


def published_name(ours: str) -> str:
    first, _, rest = ours.partition(".")
    if first in LAST:
        return f"output_layer.{LAST[first]}.{rest}"
    return next((ours.replace(mine, theirs) for mine, theirs in THEIRS if mine in ours), ours)


def test_random_weights_of_hf_dit_are_said_and_follow_from_the_seed() -> None:
    said: list[str] = []
    one, other = (start.network(asked("hf_dit", None), 20, said.append) for _ in range(2))
    assert "the same architecture from random weights" in said[0]
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_published_weights_are_the_start_of_a_training(tmp_path: Path) -> None:
    theirs, said = publish(tmp_path / "hub", TINY, 20), list[str]()
    ours = start.network(asked("hf_dit", tmp_path / "hub"), 20, said.append)
    assert "the published weights of" in said[0]
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_published_weights_of_other_sizes_are_refused_with_the_keys_to_give(tmp_path: Path) -> None:
    publish(tmp_path / "hub", replace(TINY, hidden_size=24), 20)
    with pytest.raises(BadInput, match="hidden_size 24 .here 16.") as caught:
        start.network(asked("hf_dit", tmp_path / "hub"), 20, print)
    assert "model.hidden_size=24" in caught.value.hint


def test_published_weights_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    publish(tmp_path / "hub", TINY, 20)
    with pytest.raises(BadInput, match="knows 20 tokens, and the tokenizer has 50"):
        start.network(asked("hf_dit", tmp_path / "hub"), 50, print)


def test_a_name_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no folder, and no model of the hub"):
        start.network(asked("hf_dit", tmp_path / "gone"), 20, print)
