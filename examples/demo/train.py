"""Trains a small GPT on the Python library's own sources with the Transformers Trainer. Knows nothing of Outlast.

Usage: train.py OUTPUT_DIR [--steps N] [--save-every N]
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import Trainer, TrainingArguments

LENGTH = 96
WIDTH = 128
LAYERS = 5
HEADS = 4


class Block(nn.Module):
    """Causal attention and an MLP, each after a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_mlp = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH), nn.Dropout(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, width) to the same."""
        batch, length, _ = x.shape
        heads = self.queries_keys_values(self.before_attention(x)).view(batch, length, 3, HEADS, WIDTH // HEADS)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        x = x + self.mix(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.mlp(self.before_mlp(x))


class SmallGPT(nn.Module):
    """A byte-level GPT of about 1.1 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256, bias=False)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Logits (batch, length, 256), and the mean next-byte loss in nats when labels are given."""
        x = self.tokens(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        if labels is None:
            return {"logits": logits}
        return {
            "loss": functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()),
            "logits": logits,
        }


class Sources(torch.utils.data.Dataset):
    """Windows of LENGTH bytes of the Python installation's library."""

    def __init__(self) -> None:
        files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:80]
        text = b"".join(path.read_bytes() for path in files)
        self.data = torch.frombuffer(bytearray(text), dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.data) // LENGTH

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        window = self.data[index * LENGTH : (index + 1) * LENGTH].long()
        return {"input_ids": window, "labels": window}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=20)
    options = parser.parse_args()
    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=options.output,
        max_steps=options.steps,
        save_steps=options.save_every,
        save_total_limit=3,
        per_device_train_batch_size=16,
        learning_rate=2e-3,
        warmup_steps=20,
        logging_steps=10,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(model=SmallGPT(), args=arguments, train_dataset=Sources()).train()


if __name__ == "__main__":
    main()
