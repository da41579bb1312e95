"""The light form of an optimizer's state, and its expansion."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from outlast.checkpoints import codec
from outlast.errors import SealError

Make = Callable[[Any], torch.optim.Optimizer]
KNOWN: dict[str, Make] = {
    "Adam": lambda p: torch.optim.Adam(p, lr=0.1),
    "Adam with amsgrad": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD with momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.1),
    "RMSprop with momentum": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9),
}
UNKNOWN: dict[str, Make] = {
    "RMSprop, centered": lambda p: torch.optim.RMSprop(p, lr=0.1, centered=True),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.1),
}


def model(dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1)).to(dtype)


def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer, times: int = 3) -> None:
    for number in range(times):
        torch.manual_seed(number)
        inputs = torch.randn(8, 6, dtype=next(net.parameters()).dtype)
        optimizer.zero_grad()
        net(inputs).pow(2).mean().backward()
        optimizer.step()


def trained(make: Make, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    net = model(dtype)
    optimizer = make(net.parameters())
    step(net, optimizer)
    return net, optimizer


def through_a_file(tmp_path: Path, doc: dict[str, Any]) -> dict[str, Any]:
    tensors, metadata = codec.pack(doc)
    save_file(tensors, tmp_path / codec.SIDECAR, metadata)
    return codec.unpack(tmp_path / codec.SIDECAR)


def expanded(tmp_path: Path, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    light = codec.to_light(optimizer.state_dict())
    assert light is not None
    return codec.from_light(through_a_file(tmp_path, {"optimizer": light})["optimizer"])


@pytest.mark.parametrize("make", KNOWN.values(), ids=KNOWN)
def test_the_expanded_state_is_taken_by_its_optimizer_and_training_goes_on(tmp_path: Path, make: Make) -> None:
    net, optimizer = trained(make)
    other = make(net.parameters())
    other.load_state_dict(expanded(tmp_path, optimizer))
    before = [parameter.clone() for parameter in net.parameters()]
    step(net, other, 1)
    assert all(torch.isfinite(parameter).all() for parameter in net.parameters())
    assert not all(map(torch.equal, before, net.parameters()))


@pytest.mark.parametrize("make", KNOWN.values(), ids=KNOWN)
def test_steps_and_settings_are_exactly_those_of_the_full_state(tmp_path: Path, make: Make) -> None:
    _, optimizer = trained(make)
    full, back = optimizer.state_dict(), expanded(tmp_path, optimizer)
    assert back["param_groups"] == full["param_groups"]
    assert back["state"].keys() == full["state"].keys()
    for index, slots in full["state"].items():
        assert back["state"][index].keys() == slots.keys()
        for name, value in slots.items():
            if isinstance(value, torch.Tensor):
                assert back["state"][index][name].shape == value.shape
                assert back["state"][index][name].dtype == value.dtype
        if "step" in slots:
            assert back["state"][index]["step"] == slots["step"]


def test_the_second_moment_has_the_rows_and_columns_of_the_full_one(tmp_path: Path) -> None:
    _, optimizer = trained(KNOWN["AdamW"])
    back = expanded(tmp_path, optimizer)["state"]
    for index, slots in optimizer.state_dict()["state"].items():
        second, guess = slots["exp_avg_sq"], back[index]["exp_avg_sq"]
        torch.testing.assert_close(guess.mean(0), second.mean(0))
        if second.dim() == 2:
            torch.testing.assert_close(guess.mean(1), second.mean(1))
        else:
            assert torch.equal(guess, second), "of a vector it is kept whole"


@settings(max_examples=50)
@given(
    rows=st.lists(st.floats(0, 1e3, width=32), min_size=1, max_size=5),
    columns=st.lists(st.floats(0, 1e3, width=32), min_size=1, max_size=5),
)
def test_a_second_moment_of_rank_one_comes_back_itself(rows: list[float], columns: list[float]) -> None:
    second = torch.outer(torch.tensor(rows), torch.tensor(columns)).reshape(len(rows), 1, len(columns))
    state = {"state": {0: {"exp_avg_sq": second}}, "param_groups": []}
    light = codec.to_light(state)
    assert light is not None
    torch.testing.assert_close(codec.from_light(light)["state"][0]["exp_avg_sq"], second, rtol=1e-4, atol=1e-30)


def test_a_state_in_half_precision_comes_back_in_it(tmp_path: Path) -> None:
    _, optimizer = trained(KNOWN["AdamW"], torch.bfloat16)
    assert {slots["exp_avg_sq"].dtype for slots in expanded(tmp_path, optimizer)["state"].values()} == {torch.bfloat16}


def test_the_light_form_is_a_small_part_of_the_full_one() -> None:
    parameter = torch.nn.Parameter(torch.zeros(300, 200))
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW([parameter])
    optimizer.step()
    light = codec.to_light(optimizer.state_dict())
    assert light is not None
    tensors, _ = codec.pack(light)
    assert sum(tensor.nbytes for tensor in tensors.values()) <= codec.sidecar_bytes(300 * 200) + 4 * 501


def test_taking_the_light_form_leaves_the_optimizer_as_it_was() -> None:
    _, optimizer = trained(KNOWN["AdamW"])
    before = copy.deepcopy(optimizer.state_dict())
    codec.to_light(optimizer.state_dict())
    torch.testing.assert_close(optimizer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_a_state_whose_meaning_is_not_known_has_no_light_form(make: Make) -> None:
    assert codec.to_light(trained(make)[1].state_dict()) is None


@pytest.mark.parametrize(
    "state",
    [
        {"state": {}, "param_groups": [], "more": 1},
        {"anything": 1},
        {"state": {0: [torch.zeros(3)]}, "param_groups": []},
        {"state": {0: {"exp_avg": torch.zeros(3, dtype=torch.uint8)}}, "param_groups": []},
        {"state": {0: {"exp_avg_sq": torch.zeros(3).to_sparse()}}, "param_groups": []},
    ],
    ids=["more keys", "other keys", "no names", "8 bits", "sparse"],
)
def test_a_state_of_another_form_has_no_light_form(state: dict[str, Any]) -> None:
    assert codec.to_light(state) is None


def test_an_optimizer_before_its_first_step_has_an_empty_light_form(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW(model().parameters(), lr=0.5)
    assert expanded(tmp_path, optimizer) == optimizer.state_dict()


@pytest.mark.parametrize("damage", ["cut", "no such file", "not ours"])
def test_a_sidecar_that_cannot_be_read_is_a_seal_error(tmp_path: Path, damage: str) -> None:
    path = tmp_path / codec.SIDECAR
    if damage != "no such file":
        save_file({"a": torch.ones(3)}, path, {"outlast": '{"a": {"!": "tensor", "name": "a"}}'})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    if damage == "not ours":
        save_file({"a": torch.ones(3)}, path)
    with pytest.raises(SealError, match="cannot be read"):
        codec.unpack(path)


@settings(max_examples=50)
@given(count=st.integers(1, 700), seed=st.integers(0, 100))
def test_the_first_moment_keeps_its_signs_and_the_mean_size_of_each_block(count: int, seed: int) -> None:
    first = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) * 1e-9
    state = {"state": {0: {"exp_avg": first, "exp_avg_sq": torch.ones_like(first)}}, "param_groups": []}
    light = codec.to_light(state)
    assert light is not None
    back = codec.from_light(light)["state"][0]["exp_avg"]
    assert torch.equal(back >= 0, first >= 0) and back.shape == first.shape
    whole = first.numel() // 64 * 64
    sizes = [one.reshape(-1)[:whole].abs().view(-1, 64).mean(1) for one in (back, first)]
    torch.testing.assert_close(*sizes, rtol=0.01, atol=0)


def test_a_number_that_never_had_a_gradient_is_not_moved_by_its_neighbours() -> None:
    first, second = torch.zeros(100, 64), torch.zeros(100, 64)
    first[:10, :40], second[:10, :40] = 1e-3, 1e-8
    first[0, 0] = float("nan")
    light = codec.to_light({"state": {0: {"exp_avg": first, "exp_avg_sq": second}}, "param_groups": []})
    assert light is not None
    back = codec.from_light(light)["state"][0]
    assert not back["exp_avg"][10:].any() and not back["exp_avg"][:, 40:].any()
    assert (back["exp_avg"].abs() <= back["exp_avg_sq"].sqrt() * 1.0001).all()


def test_a_momentum_without_a_second_moment_to_bound_it_starts_at_zero(tmp_path: Path) -> None:
    _, optimizer = trained(KNOWN["SGD with momentum"])
    back = expanded(tmp_path, optimizer)["state"]
    buffers = [slots["momentum_buffer"] for slots in back.values() if slots["momentum_buffer"].dim() > 1]
    assert buffers and not any(buffer.any() for buffer in buffers)


def test_the_light_form_of_a_large_state_takes_what_was_predicted(tmp_path: Path) -> None:
    moments = {"exp_avg": torch.randn(1000, 640), "exp_avg_sq": torch.rand(1000, 640), "step": torch.tensor(3.0)}
    light = codec.to_light({"state": {0: moments}, "param_groups": []})
    assert light is not None
    through_a_file(tmp_path, light)
    size = (tmp_path / codec.SIDECAR).stat().st_size
    assert 640_000 // 8 < size <= codec.sidecar_bytes(640_000)
