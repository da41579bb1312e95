"""What an operation costs at a GPU's best."""

from __future__ import annotations

import pytest
import torch

from outlast.budget.roofline import LAUNCH, Roofline


def seconds(func: object, *args: object, result: object) -> float:
    roofline = Roofline(single_flops=1e12, half_flops=8e12, bandwidth=1e11)
    roofline(func, args, {}, result, "step 2")
    return sum(roofline.seconds.values())


def test_asking_where_a_tensor_is_takes_nothing_however_large_it_is() -> None:
    large = torch.empty(1 << 20, 1024, device="meta")
    assert seconds(torch.ops.prim.device.default, large, result=large.device) == 0


def test_a_view_takes_nothing_and_an_addition_its_bytes() -> None:
    one = torch.empty(1 << 16, 1024, device="meta")
    assert seconds(torch.ops.aten.t.default, one, result=one.t()) == 0
    assert seconds(torch.ops.aten.add.Tensor, one, one, result=one) == pytest.approx(3 * 4 * (1 << 26) / 1e11)


def test_the_smallest_operation_takes_its_launch_and_the_first_step_is_not_counted() -> None:
    one = torch.empty(2, device="meta")
    assert seconds(torch.ops.aten.add.Tensor, one, one, result=one) == LAUNCH
    roofline = Roofline(1e12, 8e12, 1e11)
    roofline(torch.ops.aten.add.Tensor, (one, one), {}, one, "step 1")
    assert roofline.seconds == {}
