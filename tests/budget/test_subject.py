"""What a user names: a folder, a well-known name, code of one's own, and what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig

from outlast.budget import Subject, Wishes, gpu_named, predict, subject_named
from outlast.budget.lora import Adapted
from outlast.budget.shapes import SHAPES
from outlast.budget.weights import Weights, weights_of
from outlast.errors import BadInput

SMALL = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 100, "hidden_size": 32,
    "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}  # fmt: skip
OWN = """
import torch
def parts():
    def loss_fn(model, batch):
        return model(batch).sum()
    return (lambda: torch.nn.Linear(8, 8), lambda samples: torch.zeros(samples, 8), loss_fn)
def with_length():
    return (lambda: torch.nn.Linear(8, 8), lambda samples, length: torch.zeros(samples, length, 8))
def wrong():
    return 3
def broken():
    raise RuntimeError("no such table")
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SMALL))
    return tmp_path


def test_a_folder_and_its_file_are_the_same_model(small: Path) -> None:
    one, other = subject_named(str(small), Wishes()), subject_named(str(small / "config.json"), Wishes())
    assert one.task == other.task == "causal-lm"
    assert weights_of(one) == weights_of(other)
    assert one.length == 128  # no more than its positions


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_well_known_name_is_a_config_with_a_task(shape: object) -> None:
    found = subject_named(shape.name, Wishes())  # type: ignore[attr-defined]
    assert found.config.model_type == shape.kind  # type: ignore[attr-defined]
    assert found.task is not None
    assert isinstance(AutoConfig.for_model(found.config.model_type), type(found.config))


@pytest.mark.parametrize(
    ("name", "millions"),
    [("bert-base", 109.5), ("gpt2", 124.4), ("llama-2-7b", 6738.4), ("llama-3.1-8b", 8030.3), ("llama-3.2-1b", 1235.8),
     ("qwen2.5-0.5b", 494.0), ("t5-base", 222.9)],
)  # fmt: skip
def test_a_well_known_model_has_the_parameters_that_it_is_known_for(name: str, millions: float) -> None:
    assert weights_of(subject_named(name, Wishes())).count / 1e6 == pytest.approx(millions, abs=0.06)


def test_all_is_trained_in_float32_unless_adapters_are(small: Path) -> None:
    whole = weights_of(subject_named(str(small), Wishes(precision="bf16")))
    adapted = weights_of(subject_named(str(small), Wishes(precision="bf16", rank=4)))
    assert whole.trained == whole.count and {one.size for one in whole.parameters} == {4}
    assert {one.size for one in adapted.parameters if not one.is_trained} == {2}
    assert {one.size for one in adapted.parameters if one.is_trained} == {4}
    assert adapted.trained == 2 * (32 * 4 + 4 * 32 + 32 * 4 + 4 * 16)  # queries and values of two layers


def test_targets_are_what_they_are_said_to_be(small: Path) -> None:
    def adapted(*targets: str) -> int:
        model = subject_named(str(small), Wishes(rank=2, targets=targets)).model_fn()
        return sum(isinstance(module, Adapted) for module in model.modules())

    assert adapted() == 4 and adapted("o_proj") == 2
    assert adapted("all-linear") == 14  # seven a layer; the output layer is none of them
    with pytest.raises(BadInput, match="no modules nowhere"):
        adapted("nowhere")


def test_a_classifiers_head_is_trained_beside_adapters() -> None:
    found = weights_of(subject_named("bert-base", Wishes(rank=8)))
    assert found.trained == 12 * 2 * 2 * 8 * 768 + 2 * 768 + 2


def test_padding_is_in_the_batch_unless_it_is_said_not_to_be(small: Path) -> None:
    padded = subject_named(str(small), Wishes(length=16)).batch(4, 16)["attention_mask"]
    plain = subject_named(str(small), Wishes(length=16, is_padded=False)).batch(4, 16)["attention_mask"]
    assert padded.sum() == 4 * 16 - 8 and plain.all()


@pytest.mark.parametrize(
    ("kind", "task"),
    [("distilbert", "token-classification"), ("distilbert", "question-answering"), ("distilbert", "masked-lm"),
     ("gpt2", "sequence-classification"), ("t5", "seq2seq-lm"), ("vit", "image-classification")],
)  # fmt: skip
def test_every_task_is_predicted(kind: str, task: str, tmp_path: Path) -> None:
    few = {"n_layers": 1, "n_layer": 1, "num_layers": 1, "num_hidden_layers": 1, "decoder_start_token_id": 0}
    AutoConfig.for_model(kind, **few).save_pretrained(tmp_path)
    found = subject_named(str(tmp_path), Wishes(task=task, length=None if kind == "vit" else 8))
    assert weights_of(found).can_checkpoint
    assert predict(found.model_fn, lambda: found.batch(2, found.length), gpu=gpu_named("T4")).fits is True


def test_code_of_ones_own_makes_model_and_batch(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    found = subject_named(f"{file}:parts", Wishes())
    assert (found.name, found.length, found.loss_fn is None) == ("mine.py:parts", None, False)
    assert weights_of(found) == Weights(weights_of(found).parameters, can_checkpoint=False)
    assert subject_named(f"{file}:with_length", Wishes(length=9)).batch(2, 9).shape == (2, 9, 8)


def test_a_module_on_the_path_is_found_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "outlast_fit_mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert isinstance(subject_named("outlast_fit_mine:parts", Wishes()), Subject)


@pytest.mark.parametrize(
    ("function", "wishes", "says"),
    [("wrong", Wishes(), "returned int"), ("broken", Wishes(), "RuntimeError: no such table"),
     ("nothing", Wishes(), "AttributeError"), ("parts", Wishes(length=8), "takes none"),
     ("parts", Wishes(rank=8), "makes its own model")],
)  # fmt: skip
def test_what_code_of_ones_own_does_wrong_is_said(tmp_path: Path, function: str, wishes: Wishes, says: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    with pytest.raises(BadInput, match=says):
        subject_named(f"{file}:{function}", wishes)


@pytest.mark.parametrize(
    ("wishes", "says"),
    [(Wishes(length=4096), "4096 tokens"), (Wishes(task="chess"), "no task"), (Wishes(weights="fp16"), "cannot be"),
     (Wishes(weights="fp4"), "no type"), (Wishes(rank=0), "rank 0")],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(small: Path, wishes: Wishes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        subject_named(str(small), wishes)


def test_a_folder_without_a_config_and_one_that_says_no_task_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no config could be read"):
        subject_named(str(tmp_path), Wishes())
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, "architectures": ["LlamaModel"]}))
    with pytest.raises(BadInput, match="what is to be trained"):
        subject_named(str(tmp_path), Wishes())


def test_a_model_that_no_hub_gives_is_an_error_with_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BadInput, match="llama-3.1-8b"):
        subject_named("nobody/nothing", Wishes())
