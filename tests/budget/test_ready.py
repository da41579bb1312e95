"""The lines that users copy: they are Python, and their words are those of what is installed."""

from __future__ import annotations

import ast
from itertools import product

import pytest

from outlast.budget import Candidate
from outlast.budget.ready import checkpointing_name, lightning_lines, loop_lines, model_lines, trainer_lines

ALL = [
    Candidate(4, 4, 2, precision, checkpointing, optimizer, 512)
    for precision, checkpointing, optimizer in product(
        ("fp32", "fp16", "bf16"), (False, True), ("adamw", "adamw-8bit", "adafactor")
    )
]


@pytest.mark.parametrize(
    ("version", "word"),
    [
        ("4.57.1", "gradient"),
        ("5.19.0", "gradient"),
        ("5.20.0", "activation"),
        ("5.23.0", "activation"),
        (None, "activation"),
    ],
)
def test_activation_checkpointing_has_the_word_of_the_version(version: str | None, word: str) -> None:
    assert checkpointing_name(version) == f"{word}_checkpointing"


@pytest.mark.parametrize("candidate", ALL, ids=str)
def test_training_arguments_take_the_lines_as_they_are(candidate: Candidate) -> None:
    from transformers import TrainingArguments, __version__

    (call,) = ast.parse("\n".join(trainer_lines(candidate, __version__))).body
    assert isinstance(call, ast.Expr) and isinstance(call.value, ast.Call)
    given = {word.arg: ast.literal_eval(word.value) for word in call.value.keywords}
    assert set(given) <= set(TrainingArguments.__dataclass_fields__)
    assert given["per_device_train_batch_size"] * given["gradient_accumulation_steps"] == 16


@pytest.mark.parametrize("candidate", ALL, ids=str)
def test_the_other_lines_are_python(candidate: Candidate) -> None:
    ast.parse("\n".join(loop_lines(candidate)))
    for line in lightning_lines(candidate):
        ast.parse(line.removeprefix("return "))
    assert f"micro_batch={candidate.micro_batch}" in "\n".join(loop_lines(candidate))
    assert ("GradScaler" in "\n".join(loop_lines(candidate))) is (candidate.precision == "fp16")


def test_a_model_is_loaded_in_the_type_that_was_reckoned_with() -> None:
    assert model_lines("AutoModel", "fp32", None) == ["model = AutoModel.from_pretrained(NAME, dtype=torch.float32)"]
    adapted = model_lines("AutoModel", "bf16", 16, ("all-linear",))
    assert adapted[1] == "model = peft.get_peft_model(model, peft.LoraConfig(r=16, target_modules='all-linear'))"


def test_a_loop_runs_as_it_is_printed(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from torch.utils.data import DataLoader
    from transformers import BertConfig, BertForSequenceClassification

    import outlast

    monkeypatch.chdir(str(tmp_path))
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    data = [{"input_ids": torch.ones(8, dtype=torch.long), "labels": torch.tensor(0)} for _ in range(16)]
    names = {
        "torch": torch, "outlast": outlast, "DataLoader": DataLoader, "data": data, "epochs": 2, "lr": 1e-3,
        "model": BertForSequenceClassification(config),
    }  # fmt: skip
    code = "\n".join(loop_lines(Candidate(2, 4, 1, "fp32", True, "adamw", 8)))
    exec(code, names)
    assert names["run"].steps_done == 4  # type: ignore[attr-defined]
