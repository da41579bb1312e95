"""What a model saves, counted from its configuration on the meta device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from outlast.budget.counting import count
from outlast.errors import BadInput

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
         "tie_word_embeddings": False}  # fmt: skip


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    return tmp_path


def test_everything_is_counted_as_the_model_itself_counts(llama: Path) -> None:
    from transformers import AutoConfig, LlamaForCausalLM

    model = LlamaForCausalLM(AutoConfig.from_pretrained(llama))
    found = count(llama)
    assert found["trained"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["tensors"] == len(list(model.parameters()))
    assert found["weights_bytes"] == 4 * found["trained"]
    assert count(llama / "config.json", dtype="bf16")["weights_bytes"] == 2 * found["trained"]


def test_an_adapter_is_rank_times_inputs_and_outputs_of_each_named_layer(llama: Path) -> None:
    found = count(llama, rank=8, targets=["q_proj", "v_proj"])
    assert found["trained"] == 2 * (8 * (64 + 64) + 8 * (64 + 32))
    assert found["tensors"] == 8


def test_without_names_every_linear_layer_but_the_head_gets_one(llama: Path) -> None:
    widths = [(64, 64), (64, 32), (64, 32), (64, 64), (64, 128), (64, 128), (128, 64)]
    assert count(llama, rank=4)["trained"] == 2 * sum(4 * (a + b) for a, b in widths)


def test_a_tied_head_is_counted_once(tmp_path: Path) -> None:
    config = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2,
              "vocab_size": 100, "n_positions": 16}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    from transformers import AutoConfig, GPT2LMHeadModel

    model = GPT2LMHeadModel(AutoConfig.from_pretrained(tmp_path))
    assert count(tmp_path)["trained"] == sum(parameter.numel() for parameter in model.parameters())
    assert count(tmp_path, rank=2, targets=["c_attn"])["trained"] == 2 * (32 + 96)


def test_what_cannot_be_counted_is_bad_input(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no linear layer"):
        count(llama, rank=8, targets=["nope"])
    with pytest.raises(BadInput, match="no type"):
        count(llama, dtype="fp4")
    with pytest.raises(BadInput, match="is no configuration"):
        count(tmp_path / "none")
    (llama / "config.json").write_text('{"model_type": "nobodys"}')
    with pytest.raises(BadInput, match="is no configuration that Transformers builds"):
        count(llama)
