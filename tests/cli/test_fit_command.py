"""`outlast fit`: what a user sees, on the real predictor. Seeds/002's table is among it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from outlast import cli

SMALL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 32,
    "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}  # fmt: skip
MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    return tmp_path


def fit(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    torch.set_num_threads(1)
    try:
        code = cli.main(["fit", *map(str, words)])
    except SystemExit as end:
        assert isinstance(end.code, int)
        code = end.code
    said = capsys.readouterr()
    return code, said.out, said.err


def found(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    code, out, err = fit(capsys, *words, "--json")
    assert code == 0, err
    return dict(json.loads(out))


def row(document: dict[str, Any], micro_batch: int, optimizer: str = "adamw") -> dict[str, Any]:
    tried: Sequence[dict[str, Any]] = document["tried"]
    return next(
        one
        for one in tried
        if (one["micro_batch"], one["optimizer"], one["checkpointing"]) == (micro_batch, optimizer, False)
    )


BERT = ("bert-base", "--gpu", "T4", "--batch", 16, "--length", 512, "--no-padding")


def test_seed_twos_table_is_predicted_and_its_own_batch_fits_whole(capsys: pytest.CaptureFixture[str]) -> None:
    half = found(capsys, *BERT)
    chosen = half["chosen"]
    assert (chosen["micro_batch"], chosen["accumulation"], chosen["precision"]) == (16, 1, "fp16")
    assert not chosen["checkpointing"] and chosen["optimizer"] == "adamw" and chosen["effective_batch"] == 16
    # docs/memory-prediction.md: 5,176 and 4,086 MiB. The smaller micro-batch is the slower one.
    assert chosen["needed_bytes"] / MIB == pytest.approx(5_176, rel=0.01)
    assert row(half, 8)["needed_bytes"] / MIB == pytest.approx(4_086, rel=0.01)
    assert row(half, 8)["relative_time"] > 1 and row(half, 8)["why"] == "smaller micro-batches"


def test_an_answer_has_the_choice_the_others_and_lines_to_copy(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = fit(capsys, small, "--gpu", "A10", "--batch", 4, "--length", 16)
    assert code == 0
    assert "batch 4 = 4 x 1, bf16, adamw" in out and "to spare beside the margin" in out
    assert "the peak is in " in out and "chosen" in out and "computes the forward twice" in out
    assert "per_device_train_batch_size=4," in out and "bf16=True," in out
    assert 'precision="bf16-mixed"' in out and "run.step(batch, loss_of, micro_batch=4)" in out
    assert "AutoModelForCausalLM.from_pretrained(NAME, dtype=torch.float32)" in out


def test_presets_devices_and_checkpoints_are_in_the_answer(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (small, "--gpu", "T4", "--batch", 32, "--length", 16, "--world", 2)
    document = found(capsys, *words, "--preset", "ultra-low", "--checkpoints")
    chosen = document["chosen"]
    assert (chosen["micro_batch"], chosen["accumulation"], chosen["world"]) == (4, 4, 2)
    assert document["parts"]["DDP's buckets"] == document["parameters"] * 4
    assert document["checkpoints"]["light"] < document["checkpoints"]["full"]
    assert document["strays"]["full"] == 0.0 < document["strays"]["light"] and "itself" in document["strays_of"]


def test_what_does_not_fit_says_what_is_short_and_what_would_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = fit(capsys, "gpt2", "--gpu", "T4", "--batch", 1, "--length", 8, "--margin", "14.7GB", "--json")
    assert code == 1
    assert "gpt2 does not fit a T4" in err and "too much" in err
    assert "a margin below" in json.loads(out)["hint"] and "--lora 16" in json.loads(out)["hint"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--gpu", "Voodoo2", "--batch", 4), "no GPU called"),
        (("--gpu", "T4", "--batch", 4, "--precision", "bf16"), "no bf16 arithmetic"),
        (("--gpu", "T4", "--batch", 4, "--precision", "fp4"), "no precision"),
        (("--gpu", "T4", "--batch", 5, "--world", 2), "cannot be shared evenly"),
        (("--gpu", "T4", "--batch", 0), "a batch of 0"),
        (("--gpu", "T4", "--batch", 4, "--optimizer", "magic"), "no optimizer"),
        (("--gpu", "T4", "--batch", 4, "--preset", "magic"), "no preset"),
        (("--gpu", "T4", "--batch", 4, "--margin", "100%"), "leaves nothing"),
        (("--gpu", "T4", "--batch", 4, "--margin", "5"), "of what"),
        (("--gpu", "T4", "--batch", 4, "--margin", "much"), "expected a size"),
        (("--gpu", "T4"), "Missing option '--batch'"),
    ],
)
def test_bad_input_is_two_lines_and_exit_code_two(
    small: Path, capsys: pytest.CaptureFixture[str], words: tuple[object, ...], says: str
) -> None:
    code, _, err = fit(capsys, small, *words)
    assert code == 2 and says in err and "Traceback" not in err
