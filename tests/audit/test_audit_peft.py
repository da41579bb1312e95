"""Adapters that PEFT itself made and trained, of models made from a config: no layer missed, no update that differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from outlast.audit import audit_lora_peft_dir, truncate
from outlast.audit.adapter import read
from outlast.errors import BadInput

# PEFT's own: deprecated names of Transformers', embeddings that are saved, rsLoRA with patterns.
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]
VOCABULARY = 50
_SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def _bert() -> Any:
    return BertForSequenceClassification(
        BertConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=VOCABULARY
        )
    )


def _gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=VOCABULARY, **_SPECIAL))


def _llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=64,
            vocab_size=VOCABULARY,
            **_SPECIAL,
        )
    )


def _t5() -> Any:
    return T5ForConditionalGeneration(
        T5Config(
            d_model=32, d_kv=8, num_layers=2, num_heads=4, d_ff=64, vocab_size=VOCABULARY, decoder_start_token_id=0
        )
    )


CASES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "bert": (_bert, {"target_modules": ["query", "value", "word_embeddings"], "modules_to_save": ["classifier"]}),
    "bert with patterns": (
        _bert,
        {
            "target_modules": ["query", "dense"],
            "rank_pattern": {"query": 3, "layer.1.output.dense": 5},
            "alpha_pattern": {"query": 20},
        },
    ),
    "gpt2": (_gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "gpt2 dora": (_gpt2, {"target_modules": ["c_attn"], "fan_in_fan_out": True, "use_dora": True}),
    "llama rslora": (
        _llama,
        {"target_modules": "all-linear", "use_rslora": True, "rank_pattern": {"^model.layers.0.self_attn.q_proj": 2}},
    ),
    "llama head": (_llama, {"target_modules": ["q_proj", "lm_head", "embed_tokens"]}),
    "llama bias": (_llama, {"target_modules": ["q_proj"], "lora_bias": True}),
    "t5": (_t5, {"target_modules": ["q", "v", "wi", "wo"]}),
}


def _batch(model: Any) -> dict[str, torch.Tensor]:
    words = torch.randint(3, VOCABULARY, (4, 9))
    labels = torch.randint(0, 2, (4,)) if type(model).__name__.startswith("Bert") else words
    return {"input_ids": words, "labels": labels}


def _trained(make: Callable[[], Any], settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    model = get_peft_model(make(), LoraConfig(r=6, lora_alpha=12, **settings))
    batch = _batch(model.get_base_model())
    trained = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(5):
        model(**batch).loss.backward()
        trained.step()
        trained.zero_grad()
    return model.eval()


def _saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def _updates(model: Any, adapter: str = "default") -> dict[str, Any]:
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight(adapter).detach().double().numpy()
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer) and adapter in {**module.lora_A, **module.lora_embedding_A}
    }


@pytest.mark.parametrize("case", CASES)
def test_every_layer_of_pefts_is_found_with_pefts_own_update(case: str, tmp_path: Path) -> None:
    model = _trained(*CASES[case])
    folder = _saved(model, tmp_path / "adapter")
    expected = _updates(model)
    factors = {one.name: one for one in read(folder).factors}
    assert set(factors) == set(expected) and factors
    for layer in audit_lora_peft_dir(folder).layers:
        b, a = factors[layer.name].load()
        update = expected[layer.name]
        ours = layer.scale * (b @ a)
        ours = ours if ours.shape == update.shape and not factors[layer.name].is_embedding else ours.T
        if case.startswith("gpt2"):
            ours = layer.scale * (b @ a).T  # Conv1D's weight lies transposed
        assert ours == pytest.approx(update, rel=1e-5, abs=1e-7)
        assert layer.delta_sigma_max == pytest.approx(np.linalg.norm(update, 2), rel=1e-5)


@pytest.mark.parametrize("case", ["bert with patterns", "gpt2", "llama rslora", "t5", "bert"])
def test_a_truncated_adapter_loads_in_peft_and_its_updates_are_the_best_of_their_rank(
    case: str, tmp_path: Path
) -> None:
    make, settings = CASES[case]
    model = _trained(make, settings)
    folder = _saved(model, tmp_path / "adapter")
    truncate(folder, 2, tmp_path / "smaller")
    torch.manual_seed(0)
    loaded = PeftModel.from_pretrained(make(), tmp_path / "smaller")
    before, after = _updates(model), _updates(loaded)
    assert set(before) == set(after)
    for name, update in before.items():
        sigmas = np.linalg.svd(update, compute_uv=False)
        lost = np.linalg.norm(update - after[name])
        assert lost == pytest.approx(np.linalg.norm(sigmas[2:]), rel=1e-3, abs=1e-6)


def test_an_untruncated_copy_gives_the_same_logits(tmp_path: Path) -> None:
    model = _trained(_llama, {"target_modules": "all-linear"})
    folder = _saved(model, tmp_path / "adapter")
    truncate(folder, 6, tmp_path / "copy")
    torch.manual_seed(0)
    loaded = PeftModel.from_pretrained(_llama(), tmp_path / "copy").eval()
    words = torch.randint(3, VOCABULARY, (4, 9))
    with torch.no_grad():
        assert torch.equal(model(words).logits, loaded(words).logits)


def test_logits_change_by_no_more_than_the_first_value_that_was_left_out(tmp_path: Path) -> None:
    model = _trained(_llama, {"target_modules": ["lm_head"]})
    folder = _saved(model, tmp_path / "adapter")
    (layer,) = audit_lora_peft_dir(folder).layers
    truncate(folder, 3, tmp_path / "smaller")
    torch.manual_seed(0)
    loaded = PeftModel.from_pretrained(_llama(), tmp_path / "smaller").eval()
    words = torch.randint(3, VOCABULARY, (4, 9))
    with torch.no_grad():
        change = (model(words).logits - loaded(words).logits).norm(dim=-1)
        hidden = model(words, output_hidden_states=True).hidden_states[-1].norm(dim=-1)
    assert float(change.max()) > 0
    assert bool((change <= layer.sigmas[3] * hidden * (1 + 1e-4) + 1e-5).all())


def test_several_adapters_of_one_model_are_audited_by_name(tmp_path: Path) -> None:
    model = _trained(_t5, {"target_modules": ["q", "v"]})
    model.add_adapter("second", LoraConfig(r=3, target_modules=["wo"]))
    folder = _saved(model, tmp_path / "adapters")
    first, second = audit_lora_peft_dir(folder), audit_lora_peft_dir(folder, adapter="second")
    assert {one.name for one in first.layers} == set(_updates(model))
    assert {one.name for one in second.layers} == set(_updates(model, "second"))
    assert any("second" in note for note in first.notes)
    assert second.suggestions == ()
    assert "every update is zero: nothing has been trained yet" in second.notes
    with pytest.raises(BadInput, match="third"):
        audit_lora_peft_dir(folder, adapter="third")


def test_a_suggested_configuration_makes_an_adapter_of_these_ranks(tmp_path: Path) -> None:
    model = _trained(_llama, {"target_modules": "all-linear"})
    found = audit_lora_peft_dir(_saved(model, tmp_path / "adapter"))
    one = next(one for one in found.suggestions if one.name == "per-layer")
    pattern = one.pattern
    smaller = get_peft_model(
        _llama(),
        LoraConfig(
            r=pattern.r,
            lora_alpha=pattern.lora_alpha,
            rank_pattern=dict(pattern.rank_pattern),
            alpha_pattern=dict(pattern.alpha_pattern),
            target_modules="all-linear",
        ),
    )
    made = audit_lora_peft_dir(_saved(smaller, tmp_path / "smaller"))
    assert {layer.name: layer.r for layer in made.layers} == one.ranks
    assert {layer.scale for layer in made.layers} == {2.0}
    assert made.bytes == one.adapter_bytes


@pytest.mark.parametrize(
    "other",
    [
        IA3Config(target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"]),
        PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    ],
)
def test_what_is_no_lora_is_said(other: Any, tmp_path: Path) -> None:
    folder = _saved(get_peft_model(_llama(), other), tmp_path / "adapter")
    with pytest.raises(BadInput, match="expected a LoRA adapter, this is an adapter of type"):
        audit_lora_peft_dir(folder)
