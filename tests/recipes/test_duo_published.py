"""Published weights: the same network, computed here a second time from their names; whole, or refused."""

from __future__ import annotations

import json
import math
import socket

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from duo import published
from safetensors.torch import save_file

from outlast.errors import BadInput

V, D, N, H, C, L = 23, 16, 2, 4, 8, 12


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """A small published network, by its own names."""
    shapes = {"vocab_embed.embedding": (V, D), "rotary_emb.inv_freq": (D // H // 2,)}
    shapes |= {"sigma_map.mlp.0.weight": (C, 256), "sigma_map.mlp.0.bias": (C,)}
    shapes |= {"sigma_map.mlp.2.weight": (C, C), "sigma_map.mlp.2.bias": (C,)}
    for n in range(N):
        block = {
            "norm1.weight": (D,), "attn_qkv.weight": (3 * D, D), "attn_out.weight": (D, D), "norm2.weight": (D,),
            "mlp.0.weight": (4 * D, D), "mlp.0.bias": (4 * D,), "mlp.2.weight": (D, 4 * D), "mlp.2.bias": (D,),
            "adaLN_modulation.weight": (6 * D, C), "adaLN_modulation.bias": (6 * D,),
        }  # fmt: skip
        shapes |= {f"blocks.{n}.{name}": shape for name, shape in block.items()}
    shapes |= {"output_layer.norm_final.weight": (D,), "output_layer.linear.weight": (V, D)}
    shapes |= {"output_layer.linear.bias": (V,), "output_layer.adaLN_modulation.weight": (2 * D, C)}
    shapes |= {"output_layer.adaLN_modulation.bias": (2 * D,)}
    made = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(shape, generator=made) for name, shape in shapes.items()}


def logits(w: dict[str, torch.Tensor], z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """The network, straight from its description (upstream.md, section 1) and these names."""

    def norm(x, name):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * w[name]

    def turned(x):
        angle = torch.arange(x.shape[-2])[:, None] * 10_000 ** (-2 * torch.arange(D // H // 2) / (D // H))
        a, b = x[..., : D // H // 2], x[..., D // H // 2 :]
        return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1)

    angle = sigma[:, None] * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    told = torch.cat((angle.cos(), angle.sin()), -1) @ w["sigma_map.mlp.0.weight"].T + w["sigma_map.mlp.0.bias"]
    told = F.silu(F.silu(told) @ w["sigma_map.mlp.2.weight"].T + w["sigma_map.mlp.2.bias"])
    x = w["vocab_embed.embedding"][z]
    for n in range(N):
        at = f"blocks.{n}."
        moves = told @ w[at + "adaLN_modulation.weight"].T + w[at + "adaLN_modulation.bias"]
        shift1, scale1, gate1, shift2, scale2, gate2 = moves[:, None].split(D, -1)
        qkv = (norm(x, at + "norm1.weight") * (1 + scale1) + shift1) @ w[at + "attn_qkv.weight"].T
        q, k, v = (part.unflatten(-1, (H, D // H)).transpose(1, 2) for part in qkv.split(D, -1))
        seen = (turned(q) @ turned(k).mT / (D // H) ** 0.5).softmax(-1) @ v
        x = x + gate1 * (seen.transpose(1, 2).flatten(2) @ w[at + "attn_out.weight"].T)
        y = norm(x, at + "norm2.weight") * (1 + scale2) + shift2
        y = F.gelu(y @ w[at + "mlp.0.weight"].T + w[at + "mlp.0.bias"], approximate="tanh")
        x = x + gate2 * (y @ w[at + "mlp.2.weight"].T + w[at + "mlp.2.bias"])
    moves = told @ w["output_layer.adaLN_modulation.weight"].T + w["output_layer.adaLN_modulation.bias"]
    shift, scale = moves[:, None].split(D, -1)
    x = norm(x, "output_layer.norm_final.weight") * (1 + scale) + shift
    return x @ w["output_layer.linear.weight"].T + w["output_layer.linear.bias"]


def folder(path, tensors=None, prefix="backbone.", config=None):
    path.mkdir(exist_ok=True)
    tensors = weights() if tensors is None else tensors
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"n_heads": H, "model_length": L} if config is None else config))
    return path


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.backbone.", "_orig_mod.backbone."])
def test_loaded_it_computes_what_the_published_network_does(tmp_path, prefix) -> None:
    network = published.load(folder(tmp_path / "hub", prefix=prefix)).eval()
    z, sigma = torch.randint(V, (3, L), generator=torch.Generator().manual_seed(1)), torch.tensor([0.01, 0.7, 6.9])
    assert (network.vocab, network.length, len(network.blocks)) == (V, L, N)
    with torch.no_grad():
        torch.testing.assert_close(network(z, sigma), logits(weights(), z, sigma), atol=2e-5, rtol=1e-4)


def test_in_parts_with_an_index_it_is_the_same_and_other_files_are_left(tmp_path) -> None:
    path, tensors = folder(tmp_path / "hub"), weights()
    (path / "model.safetensors").unlink()
    names = sorted(tensors)
    where = {name: f"model-0000{1 + (i > 9)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: tensors[name] for name in names if where[name] == file}, path / file)
    save_file({"something.else": torch.ones(1)}, path / "adapter.safetensors")
    (path / published.INDEX).write_text(json.dumps({"weight_map": where}))
    network = published.load(path)
    assert torch.equal(network.embedding.weight, tensors["vocab_embed.embedding"])
    (path / published.INDEX).write_text(json.dumps({"weight_map": ["model.safetensors"]}))
    with pytest.raises(BadInput, match="no weight_map"):
        published.load(path)
    (path / published.INDEX).write_text(json.dumps({"weight_map": where}))
    (path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadInput, match="model-00002-of-00002.safetensors is missing"):
        published.load(path)


def test_a_longer_text_can_be_asked_for(tmp_path) -> None:
    assert published.load(folder(tmp_path / "hub"), length=99).length == 99


def without(name):
    return {each: tensor for each, tensor in weights().items() if each != name}


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (without("blocks.1.mlp.2.bias"), "missing: blocks.1.narrow.bias"),
        (without("vocab_embed.embedding"), "has no embedding.weight"),
        (weights() | {"blocks.0.cross.weight": torch.ones(2)}, "backbone.blocks.0.cross.weight not known"),
        (weights() | {"output_layer.linear.bias": torch.ones(V + 1)}, r"output.bias \(24,\) for \(23,\)"),
        ({"bert.embeddings.weight": torch.ones(3, 3)}, "not known"),
        ({name.replace("blocks.1", "blocks.7"): each for name, each in weights().items()}, "missing between 0 and 7"),
        ({}, "no tensors"),
    ],
)
def test_another_network_is_refused_whole(tmp_path, tensors, says) -> None:
    with pytest.raises(BadInput, match=says):
        published.load(folder(tmp_path / "hub", tensors))


def test_two_tensors_for_one_place_are_refused() -> None:
    tensor = torch.ones(2)
    with pytest.raises(BadInput, match="not known"):
        published.translate({"vocab_embed.embedding": tensor, "backbone.vocab_embed.embedding": tensor}, where="x")


def test_heads_that_nobody_tells_are_not_guessed(tmp_path) -> None:
    with pytest.raises(BadInput, match="does not tell its heads"):
        published.load(folder(tmp_path / "hub", config={"model_length": L}))


def test_a_file_cut_short_is_refused(tmp_path) -> None:
    path = folder(tmp_path / "hub")
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        published.load(path)


def test_a_configuration_that_is_none_is_refused(tmp_path) -> None:
    path = folder(tmp_path / "hub")
    (path / "config.json").write_text("{")
    with pytest.raises(BadInput, match="is not JSON"):
        published.load(path)


def test_pickled_weights_are_not_opened(tmp_path) -> None:
    path = folder(tmp_path / "hub")
    torch.save(weights(), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="no \\*.safetensors"):
        published.load(path)


CODE = """
import pathlib, torch, transformers
pathlib.Path({ran!r}).touch()
class Config(transformers.PretrainedConfig):
    model_type = "told"
class Network(transformers.PreTrainedModel):
    config_class = Config
    def __init__(self, config):
        super().__init__(config)
        self.backbone = torch.nn.ParameterDict()
        raise RuntimeError("needs flash_attn")
"""


def test_a_repositorys_code_runs_only_where_that_is_allowed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    path, ran = folder(tmp_path / "hub"), tmp_path / "ran"
    told = {"AutoConfig": "code.Config", "AutoModelForMaskedLM": "code.Network"}
    config = {"n_heads": H, "model_length": L, "model_type": "told", "auto_map": told}
    (path / "config.json").write_text(json.dumps(config))
    (path / "code.py").write_text(CODE.format(ran=str(ran)))
    published.load(path)
    assert not ran.exists()
    with pytest.raises(BadInput, match="the code of .* failed: RuntimeError: needs flash_attn"):
        published.load(path, allow_remote_code=True)
    assert ran.exists()


def test_what_is_no_folder_and_no_name_is_refused_without_a_network(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(socket, "socket", None)
    with pytest.raises(BadInput, match="no folder, and no model of the hub"):
        published.load(tmp_path / "not" / "here")


def test_a_model_of_the_hub_that_cannot_be_fetched_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="cannot be fetched from the hub"):
        published.load("outlast/there-is-no-such-model")
