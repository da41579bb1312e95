"""Which kernel attention takes, as a table of torch's rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outlast.budget.attention import Attention, kernel_for

PLAIN = Attention(
    dtype="float16",
    dimensions=4,
    head=64,
    value_head=64,
    masked=False,
    causal=False,
    square=True,
    grouped=False,
    needs_grad=True,
)
P100, V100, T4, A10, A100, H100 = (6, 0), (7, 0), (7, 5), (8, 6), (8, 0), (9, 0)


@pytest.mark.parametrize(
    ("change", "capability", "kernel"),
    [
        ({}, A100, "flash"),
        ({}, H100, "flash"),
        ({}, T4, "efficient"),
        ({}, P100, "efficient"),
        ({"dtype": "float32"}, A100, "efficient"),
        ({"dtype": "float32"}, V100, "efficient"),
        ({"dtype": "bfloat16"}, T4, "math"),
        ({"dtype": "float64"}, A100, "math"),
        ({"masked": True}, A100, "efficient"),
        ({"head": 320, "value_head": 320}, A100, "efficient"),
        ({"head": 200, "value_head": 200}, A10, "efficient"),
        ({"head": 200, "value_head": 200, "needs_grad": False}, A10, "flash"),
        ({"head": 200, "value_head": 200}, A100, "flash"),
        ({"causal": True, "square": False}, A100, "efficient"),
        ({"grouped": True}, A100, "flash"),
        ({"grouped": True}, T4, "math"),
        ({"dimensions": 3}, A100, "math"),
        ({"head": 6, "value_head": 6}, T4, "math"),
    ],
)
def test_the_kernel_is_the_one_that_torch_would_take(
    change: dict[str, object], capability: tuple[int, int], kernel: str
) -> None:
    assert kernel_for(replace(PLAIN, **change), capability) == kernel  # type: ignore[arg-type]
