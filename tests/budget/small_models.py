"""Small models of the families that people train, a hand-made LoRA, and one batch for each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

BATCH, LENGTH, WORDS = 4, 48, 500


def bert() -> nn.Module:
    return BertForSequenceClassification(
        BertConfig(vocab_size=WORDS, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=256)
    )


def gpt2() -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=WORDS, n_embd=64, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
    )


def llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=WORDS,
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    )


def vit() -> nn.Module:
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            image_size=64,
            patch_size=8,
            num_labels=5,
        )
    )


def t5() -> nn.Module:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=WORDS, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, decoder_start_token_id=0)
    )


def words() -> dict[str, torch.Tensor]:
    ids = torch.ones(BATCH, LENGTH, dtype=torch.long)
    return {"input_ids": ids, "labels": ids}


def texts() -> dict[str, torch.Tensor]:
    ids = torch.ones(BATCH, LENGTH, dtype=torch.long)
    return {"input_ids": ids, "labels": torch.zeros(BATCH, dtype=torch.long)}


def images() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.zeros(BATCH, 3, 64, 64), "labels": torch.zeros(BATCH, dtype=torch.long)}


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Any]]]] = {
    "bert": (bert, texts),
    "gpt2": (gpt2, words),
    "llama": (llama, words),
    "vit": (vit, images),
    "t5": (t5, words),
}


class Lora(nn.Module):
    """A frozen linear layer and a trained update of low rank."""

    def __init__(self, inner: nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner
        self.down = nn.Parameter(torch.randn(rank, inner.in_features) / math.sqrt(inner.in_features))
        self.up = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + nn.functional.linear(nn.functional.linear(x, self.down), self.up)


def with_lora(model: nn.Module, rank: int = 8) -> nn.Module:
    """Freeze the model and put a trained update beside the queries and values."""
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name in ("q_proj", "v_proj", "query", "value"):
            inner = getattr(module, name, None)
            if isinstance(inner, nn.Linear):
                setattr(module, name, Lora(inner, rank))
    return model
