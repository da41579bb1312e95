"""Autocast and scaler by what the device does well; a run that goes on in another precision says so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import events
from tests.train.test_own_loop import Training

import outlast
from outlast.budget import GPUS, gpu_named
from outlast.errors import BadInput
from outlast.train import Precision
from outlast.train.precision import NAMES, Device, Verdict, decide, look

T4 = Device("cuda", "Tesla T4", (7, 5), None)
V100 = Device("cuda", "Tesla V100", (7, 0), None)
P100 = Device("cuda", "Tesla P100", (6, 0), None)
GTX1080 = Device("cuda", "GTX 1080", (6, 1), None)
K80 = Device("cuda", "Tesla K80", (3, 7), None)
A100 = Device("cuda", "NVIDIA A100", (8, 0), None)
B200 = Device("cuda", "NVIDIA B200", (10, 0), None)
MI250 = Device("cuda", "AMD Instinct MI250", None, True)
NEW_CPU, OLD_CPU, ANY_CPU = (Device("cpu", "this CPU", None, known) for known in (True, False, None))
MPS = Device("mps", "mps", None, None)
ALL = [T4, V100, P100, GTX1080, K80, A100, B200, MI250, NEW_CPU, OLD_CPU, ANY_CPU, MPS]


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (T4, "fp16"), (V100, "fp16"), (P100, "fp16"), (GTX1080, "fp32"), (K80, "fp32"), (A100, "bf16"), (B200, "bf16"),
        (MI250, "bf16"), (NEW_CPU, "bf16"), (OLD_CPU, "fp32"), (ANY_CPU, "fp32"), (MPS, "fp32"),
    ],
)  # fmt: skip
def test_it_is_what_the_device_does_best(device: Device, name: str) -> None:
    verdict = decide(device)
    assert (verdict.name, verdict.doubt) == (name, None)
    assert device.name in verdict.why


@pytest.mark.parametrize("gpu", [gpu.name for gpu in GPUS])
def test_it_is_what_the_table_of_gpus_says(gpu: str) -> None:
    row = gpu_named(gpu)
    assert decide(Device("cuda", gpu, row.capability, None)).name == row.half


def test_a_t4_is_said_to_emulate_bf16() -> None:
    assert decide(T4).why == "Tesla T4 (Turing, 7.5) is best at fp16; bf16 is emulated, and slow"
    asked = decide(T4, "bf16")
    assert asked.name == "bf16"
    assert asked.doubt == "Tesla T4 (Turing, 7.5) is best at fp16; bf16 is emulated, and slow, and bf16 was asked for"


@given(st.sampled_from(ALL), st.sampled_from(NAMES))
def test_what_is_asked_for_is_given_and_doubted_only_when_it_is_not_done_well(device: Device, wanted: str) -> None:
    verdict, best = decide(device, wanted), decide(device)
    assert verdict.name == (best.name if wanted == "auto" else wanted)
    assert verdict.why
    if wanted in ("auto", "fp32", best.name):
        assert verdict.doubt is None


@pytest.mark.parametrize("wanted", ["fp8", "", "BF16", "mixed"])
def test_a_precision_that_there_is_not_is_an_error(wanted: str) -> None:
    with pytest.raises(BadInput, match="precision is") as caught:
        decide(A100, wanted)
    assert "bf16" in caught.value.hint


@pytest.mark.parametrize("device", ["cuda:99", "tpu9", 3.5])
def test_a_device_that_there_is_not_is_an_error(device: Any) -> None:
    with pytest.raises(BadInput, match="no device"):
        look(device)


def test_this_machine_is_looked_at() -> None:
    found = look()
    assert found.kind == ("cuda" if torch.cuda.is_available() else "cpu")
    assert look("cpu").native_bf16 in (True, False)


@pytest.mark.parametrize(
    ("wanted", "dtype", "scales"),
    [("fp32", torch.float32, False), ("bf16", torch.bfloat16, False), ("fp16", torch.float16, True)],
)
def test_autocast_computes_in_it_and_only_fp16_has_a_scaler(wanted: str, dtype: Any, scales: bool) -> None:
    precision = Precision.for_device("cpu", wanted)
    layer = torch.nn.Linear(2, 2)
    with precision.autocast():
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer(torch.ones(1, 2)).dtype == torch.float32
    assert layer.weight.dtype == torch.float32
    assert (precision.scaler is not None) == scales
    assert str(precision).startswith(wanted)


def test_weights_in_fp16_cannot_be_scaled_and_are_refused() -> None:
    with pytest.raises(BadInput, match="float16: their gradients cannot be scaled"):
        Precision.for_model(torch.nn.Linear(2, 2).half(), "fp16")
    assert Precision.for_model(torch.nn.Linear(2, 2).bfloat16(), "bf16").scaler is None


# In a Run


def on_cpu(device: Device, wanted: str = "auto") -> Precision:
    """The precision that is right for a device, computed on this CPU."""
    return Precision(decide(device, wanted), "cpu")


class Steps(Training):
    """The same training, by `run.step` alone."""

    seen: list[Any]

    def step(self, batch: list[torch.Tensor]) -> None:
        self.seen = getattr(self, "seen", [])

        def loss_fn(part: list[torch.Tensor]) -> torch.Tensor:
            found = self.model(part[0])
            self.seen.append(found.dtype)
            return (found - part[0]).float().pow(2).mean()

        loss = self.run.step(batch, loss_fn, clip_norm=1.0)
        self.losses[self.run.steps_done] = loss.item().hex()
        self.rates[self.run.steps_done] = self.schedule.get_last_lr()[0]


@pytest.mark.parametrize(("device", "dtype"), [(T4, torch.float16), (A100, torch.bfloat16), (K80, torch.float32)])
def test_a_step_is_computed_in_the_precision_of_the_run(tmp_path: Path, device: Device, dtype: Any) -> None:
    training = Steps(tmp_path, precision=on_cpu(device)).go(total=2)
    assert set(training.seen) == {dtype}
    assert ("scaler" in training.run._parts) == (dtype == torch.float16)


@pytest.mark.parametrize("device", [T4, A100])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path, device: Device) -> None:
    straight = Steps(tmp_path / "straight", precision=on_cpu(device)).go(total=13)
    losses: dict[int, str] = {}
    for seed, die_after in ((1, 7), (2, 3), (3, None)):
        life = Steps(tmp_path / "killed", precision=on_cpu(device), seed=seed).go(total=13, die_after=die_after)
        losses |= life.losses
    assert losses == straight.losses and len(losses) == 13
    assert life.weights() == straight.weights()


def test_the_scale_is_put_back(tmp_path: Path) -> None:
    first = Steps(tmp_path, precision=on_cpu(T4))
    assert first.run.precision is not None and first.run.precision.scaler is not None
    first.run.precision.scaler.load_state_dict(
        {"scale": 128.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 5}
    )
    first.go(total=3)
    second = Steps(tmp_path, precision=on_cpu(T4))
    assert second.run.precision is not None and second.run.precision.scaler is not None
    assert second.run.precision.scaler.state_dict()["scale"] == 128.0
    assert second.run.precision.scaler.state_dict()["_growth_tracker"] == 8


def test_a_name_is_enough(tmp_path: Path) -> None:
    training = Steps(tmp_path, precision="bf16").go(total=1)
    assert set(training.seen) == {torch.bfloat16}
    (said,) = events(training.run.vault, "precision")
    assert (said.get("name"), said.get("why"), said.get("has_scaler")) == ("bf16", "asked for", False)


@pytest.mark.parametrize("precision", ["fp8", torch.bfloat16, 16])
def test_what_is_no_precision_is_refused(tmp_path: Path, precision: Any) -> None:
    with pytest.raises(BadInput, match="precision is"):
        outlast.Run(tmp_path, model=torch.nn.Linear(2, 2), precision=precision)


def test_without_a_precision_nothing_is_done_and_nothing_said(tmp_path: Path) -> None:
    training = Steps(tmp_path).go(total=3)
    assert set(training.seen) == {torch.float32}
    assert training.run.precision is None
    again = Steps(tmp_path)
    assert events(training.run.vault, "precision", "precision_changed") == []
    assert events(again.run.vault, "precision", "precision_changed") == []


def test_the_advice_when_a_sample_does_not_fit_knows_of_our_autocast(tmp_path: Path) -> None:
    from outlast.errors import DoesNotFit

    def loss_fn(part: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for number, (precision, is_advised) in enumerate([(None, True), ("bf16", False)]):
        training = Steps(tmp_path / str(number), precision=precision)
        with pytest.raises(DoesNotFit) as caught:
            training.run.step([torch.ones(1, 6)], loss_fn)
        assert ("bf16 where it is not on yet" in caught.value.hint) == is_advised


# Resumed in another precision


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (T4, A100, ("fp16", "bf16", "NVIDIA A100")),
        (A100, T4, ("bf16", "fp16", "Tesla T4")),
        (T4, None, ("fp16", None, "this Run was given no precision")),
        (None, A100, (None, "bf16", "NVIDIA A100")),
    ],
)
def test_a_run_that_goes_on_in_another_precision_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, before: Device | None, after: Device | None, words: Any
) -> None:
    scaler = torch.amp.GradScaler("cpu") if (before, after) == (T4, None) else None
    Steps(tmp_path, precision=before and on_cpu(before)).go(total=3)
    with caplog.at_level(logging.WARNING, "outlast"):
        second = Steps(tmp_path, precision=after and on_cpu(after), scaler=scaler).go(total=5)
    assert list(second.losses) == [4, 5]
    (said,) = events(second.run.vault, "precision_changed")
    assert (said.get("before"), said.get("now")) == words[:2]
    assert words[2] in said.get("why")
    assert any("its losses will differ a little" in record.getMessage() for record in caplog.records)


def test_the_same_precision_again_is_not_a_change(tmp_path: Path) -> None:
    Steps(tmp_path, precision=on_cpu(T4)).go(total=3)
    second = Steps(tmp_path, precision=on_cpu(V100)).go(total=5)
    assert events(second.run.vault, "precision_changed") == []


def test_a_scaler_of_ones_own_that_is_left_out_is_still_refused(tmp_path: Path) -> None:
    Steps(tmp_path, scaler=torch.amp.GradScaler("cpu")).go(total=3)
    with pytest.raises(BadInput, match="the checkpoint holds"):
        Steps(tmp_path)


def test_a_doubtful_choice_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "outlast"):
        Steps(tmp_path, precision=on_cpu(T4, "bf16"))
    levels = [record.levelno for record in caplog.records if "precision" in record.getMessage()]
    assert levels == [logging.WARNING]


def test_a_verdict_is_plain_data() -> None:
    assert decide(A100) == Verdict("bf16", "NVIDIA A100 (Ampere, 8.0) is best at bf16")
