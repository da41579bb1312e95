"""What a prediction says, and what it refuses. Its truth is in test_memory_truth.py."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import small_models
import torch
from torch import nn

from outlast.budget import Gpu, gpu_named, measure, predict
from outlast.errors import BadInput

MIB = 1 << 20
gpt2 = partial(predict, *small_models.MODELS["gpt2"])


def test_importing_the_room_does_not_import_torch() -> None:
    code = "import sys, outlast.budget; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_prediction_cannot_be_changed_and_its_parts_add_up() -> None:
    found = gpt2(gpu="T4", precision="fp16")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.fits = False  # type: ignore[misc]
    assert not hasattr(found, "__dict__")
    assert sum(dataclasses.astuple(found.parts)) == found.peak_allocated_bytes


def test_the_peak_is_named_with_what_it_makes() -> None:
    found = gpt2(gpu="T4")
    assert found.phase == "backward 2"
    assert found.operation == "aten._log_softmax_backward_data -> f32[192, 500]"


def test_a_gpu_adds_its_context_and_has_a_margin() -> None:
    found, gpu = gpt2(gpu="T4"), gpu_named("T4")
    assert found.needed_bytes == found.peak_reserved_bytes + gpu.context_bytes
    assert found.margin_bytes == gpu.memory_bytes - found.needed_bytes
    assert found.fits is True


def test_a_gpu_that_is_too_small_is_said_to_be() -> None:
    small = Gpu("small", 420 * MIB, (7, 5), "fp16", 400 * MIB, "made up")
    found = gpt2(gpu=small)
    assert found.fits is False
    assert found.margin_bytes is not None and found.margin_bytes < 0


def test_without_a_gpu_nothing_is_said_about_fitting() -> None:
    found = gpt2()
    assert (found.gpu, found.context_bytes, found.capacity_bytes, found.fits, found.margin_bytes) == (None,) * 5


def test_accumulation_has_gradients_there_during_forward() -> None:
    plain, accumulated, more = (gpt2(accumulation=count) for count in (1, 2, 16))
    assert accumulated.parts.gradients > plain.parts.gradients
    assert accumulated.peak_allocated_bytes > plain.peak_allocated_bytes
    assert more.peak_allocated_bytes == accumulated.peak_allocated_bytes


@pytest.mark.parametrize(
    ("optimizer", "bytes_a_weight"), [("adamw", 8), ("adamw-8bit", 2), ("sgd", 0), ("adafactor", 0)]
)
def test_an_optimizers_state_is_as_large_as_it_is(optimizer: str, bytes_a_weight: int) -> None:
    def model() -> nn.Module:
        return nn.Linear(1024, 1024, bias=False)

    found = predict(
        model, lambda: torch.zeros(2, 1024), loss_fn=lambda m, b: m(b).sum(), optimizer=optimizer, gpu="A100-40"
    )
    weights = 1024 * 1024
    assert bytes_a_weight * weights <= found.parts.optimizer <= (bytes_a_weight + 0.05) * weights


def test_foreach_adamw_peaks_in_its_own_step_where_activations_are_few() -> None:
    def found(optimizer: str) -> tuple[str, int]:
        said = predict(
            lambda: nn.Linear(1024, 1024, bias=False),
            lambda: torch.zeros(2, 1024),
            loss_fn=lambda m, b: m(b).sum(),
            optimizer=optimizer,
            gpu="A100-40",
        )
        return said.phase, said.peak_allocated_bytes

    assert found("adamw-foreach")[0].startswith("optimizer")
    assert found("adamw-foreach")[1] - found("adamw")[1] > 3.9 * MIB  # one more copy of the weights


def test_padding_costs_a_decoder_its_flash_attention() -> None:
    model, batch = small_models.MODELS["llama"]

    def padded(columns: int) -> Callable[[], dict[str, torch.Tensor]]:
        def make() -> dict[str, torch.Tensor]:
            mask = torch.ones(small_models.BATCH, small_models.LENGTH, dtype=torch.long)
            mask[0, :columns] = 0
            return {**batch(), "attention_mask": mask}

        return make

    full, some = (predict(model, padded(columns), gpu="A100-40", precision="bf16") for columns in (0, 5))
    assert some.peak_allocated_bytes > full.peak_allocated_bytes
    assert predict(model, padded(5)).counted_bytes == measure(model, padded(5)).counted_bytes


def test_a_model_moved_to_half_precision_while_it_is_made_is_half_as_large() -> None:
    model, batch = small_models.MODELS["gpt2"]
    whole, half = gpt2(), predict(lambda: model().to(torch.bfloat16), batch)
    assert abs(half.parts.parameters / whole.parts.parameters - 0.5) < 0.02


def test_a_loss_that_counts_what_is_true_is_given_the_most_there_can_be() -> None:
    def loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        out = model(batch)
        return out[batch[:, 0] > 0].sum()

    found = predict(lambda: nn.Linear(8, 8), lambda: torch.zeros(4, 8), loss_fn=loss)
    assert found.counted_bytes > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"gpu": "Voodoo2"}, "no GPU"),
        ({"precision": "fp4"}, "no precision"),
        ({"optimizer": "adam-9000"}, "no optimizer"),
        ({"accumulation": 0}, "accumulation"),
    ],
)
def test_what_is_not_known_is_refused_with_what_is(arguments: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        gpt2(**arguments)


def test_a_model_without_a_switch_for_checkpointing_is_refused() -> None:
    with pytest.raises(BadInput, match="no switch"):
        predict(lambda: nn.Linear(2, 2), lambda: torch.zeros(2, 2), checkpointing=True)


def test_a_batch_without_labels_is_refused() -> None:
    with pytest.raises(BadInput, match="no loss"):
        predict(small_models.gpt2, lambda: {"input_ids": torch.ones(2, 8, dtype=torch.long)})


def test_a_prediction_leaves_the_random_state_and_later_training_alone() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    gpt2(gpu="T4")
    assert torch.equal(torch.get_rng_state(), before)
    layer = nn.Linear(4, 4)
    layer(torch.ones(2, 4)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.sum() == 32
