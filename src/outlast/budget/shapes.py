"""Well-known models by name: their Transformers config, so that no download is needed. A new one is a row.

The figures are those of each model's public ``config.json`` on the Hugging Face hub, as far as they bear on memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """A well-known model."""

    name: str
    """As in ``outlast fit NAME``."""
    kind: str
    """Transformers' ``model_type``."""
    head: str
    """``architectures`` of its config: what it was trained as."""
    config: Mapping[str, Any]
    """Values that differ from the defaults of its kind."""
    source: str
    """Repository on the hub whose config.json has them."""


def _llama(
    vocabulary: int, hidden: int, inner: int, layers: int, heads: int, groups: int, **more: Any
) -> dict[str, Any]:
    return {
        "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": groups, **more,
    }  # fmt: skip


def _encoder(layers: int, hidden: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads,
        "intermediate_size": 4 * hidden, **more,
    }  # fmt: skip


def _gpt2(layers: int, hidden: int, heads: int) -> dict[str, Any]:
    return {"n_layer": layers, "n_embd": hidden, "n_head": heads}


_LLAMA3 = {"max_position_embeddings": 131_072, "head_dim": 128}
_CAUSAL = "LlamaForCausalLM"
_ROBERTA = {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1}

SHAPES: tuple[Shape, ...] = (
    Shape("bert-base", "bert", "BertForMaskedLM", _encoder(12, 768, 12), "google-bert/bert-base-uncased"),
    Shape("bert-large", "bert", "BertForMaskedLM", _encoder(24, 1024, 16), "google-bert/bert-large-uncased"),
    Shape(
        "roberta-base", "roberta", "RobertaForMaskedLM", _encoder(12, 768, 12, **_ROBERTA), "FacebookAI/roberta-base"
    ),
    Shape(
        "roberta-large", "roberta", "RobertaForMaskedLM", _encoder(24, 1024, 16, **_ROBERTA), "FacebookAI/roberta-large"
    ),
    Shape("distilbert-base", "distilbert", "DistilBertForMaskedLM", {}, "distilbert/distilbert-base-uncased"),
    Shape("gpt2", "gpt2", "GPT2LMHeadModel", _gpt2(12, 768, 12), "openai-community/gpt2"),
    Shape("gpt2-medium", "gpt2", "GPT2LMHeadModel", _gpt2(24, 1024, 16), "openai-community/gpt2-medium"),
    Shape("gpt2-large", "gpt2", "GPT2LMHeadModel", _gpt2(36, 1280, 20), "openai-community/gpt2-large"),
    Shape("gpt2-xl", "gpt2", "GPT2LMHeadModel", _gpt2(48, 1600, 25), "openai-community/gpt2-xl"),
    Shape(
        "tinyllama-1.1b", "llama", _CAUSAL, _llama(32_000, 2048, 5632, 22, 32, 4), "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
    ),
    Shape("llama-2-7b", "llama", _CAUSAL, _llama(32_000, 4096, 11_008, 32, 32, 32, max_position_embeddings=4096),
          "meta-llama/Llama-2-7b-hf"),
    Shape("llama-3.1-8b", "llama", _CAUSAL, _llama(128_256, 4096, 14_336, 32, 32, 8, **_LLAMA3),
          "meta-llama/Llama-3.1-8B"),
    Shape("llama-3.2-1b", "llama", _CAUSAL,
          _llama(128_256, 2048, 8192, 16, 32, 8, tie_word_embeddings=True, **{**_LLAMA3, "head_dim": 64}),
          "meta-llama/Llama-3.2-1B"),
    Shape("llama-3.2-3b", "llama", _CAUSAL,
          _llama(128_256, 3072, 8192, 28, 24, 8, tie_word_embeddings=True, **_LLAMA3), "meta-llama/Llama-3.2-3B"),
    Shape("mistral-7b", "mistral", "MistralForCausalLM",
          _llama(32_000, 4096, 14_336, 32, 32, 8, max_position_embeddings=32_768, sliding_window=4096),
          "mistralai/Mistral-7B-v0.1"),
    Shape("qwen2.5-0.5b", "qwen2", "Qwen2ForCausalLM",
          _llama(151_936, 896, 4864, 24, 14, 2, tie_word_embeddings=True, max_position_embeddings=32_768),
          "Qwen/Qwen2.5-0.5B"),
    Shape("qwen2.5-7b", "qwen2", "Qwen2ForCausalLM",
          _llama(152_064, 3584, 18_944, 28, 28, 4, max_position_embeddings=131_072), "Qwen/Qwen2.5-7B"),
    Shape("t5-base", "t5", "T5ForConditionalGeneration",
          {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "decoder_start_token_id": 0},
          "google-t5/t5-base"),
    Shape("vit-base", "vit", "ViTForImageClassification", {}, "google/vit-base-patch16-224"),
)  # fmt: skip


def shape_named(name: str) -> Shape | None:
    """The row of this name, letters' case apart; None when there is none."""
    return next((shape for shape in SHAPES if shape.name == name.casefold()), None)
