"""Attention, three ways: the same numbers, the same gradients."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.train.fake_flash import COMPUTES, MISSING_LIBRARY, installed

from outlast.budget import predict
from outlast.errors import BadInput
from outlast.train.attention import attention

ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-6}


@pytest.fixture(scope="module")
def flash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with installed(tmp_path_factory.mktemp("site"), COMPUTES):
        import flash_attn  # type: ignore[import-not-found]

        yield flash_attn


def made(
    queries: int = 7, keys: int = 7, *, heads: int = 4, key_heads: int = 4, dtype: Any = torch.float64, seed: int = 0
) -> list[torch.Tensor]:
    chance = torch.Generator().manual_seed(seed)
    shapes = [(2, heads, queries, 8), (2, key_heads, keys, 8), (2, key_heads, keys, 8)]
    return [torch.randn(shape, dtype=dtype, generator=chance).requires_grad_() for shape in shapes]


def outcome(given: list[torch.Tensor], using: str | None, **options: Any) -> list[torch.Tensor]:
    """The result and the gradients of query, key and value."""
    found = attention(*given, using=using, **options)
    weights = torch.randn(found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(9))
    return [found, *torch.autograd.grad((found * weights).sum(), given)]


def same(one: list[torch.Tensor], other: list[torch.Tensor], dtype: Any) -> bool:
    return all(
        a.dtype == b.dtype and torch.allclose(a, b, rtol=ROUNDING[dtype], atol=ROUNDING[dtype])
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("using", ["flash_attention_2", "sdpa", None])
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ({}, {}),
        ({}, {"causal": True}),
        ({"queries": 3}, {}),
        ({"queries": 3}, {"causal": True}),
        ({"queries": 1}, {"causal": True}),
        ({}, {"scale": 0.3}),
        ({"key_heads": 2}, {}),
        ({"key_heads": 1}, {"causal": True}),
    ],
)
def test_each_way_computes_what_matmul_and_softmax_do(
    flash: Any, dtype: Any, using: str | None, sizes: dict[str, int], options: dict[str, Any]
) -> None:
    tensors = made(**sizes, dtype=dtype)
    assert same(outcome(tensors, using, **options), outcome(tensors, "eager", **options), dtype)


@given(
    queries=st.integers(1, 6), more=st.integers(0, 4), causal=st.booleans(), seed=st.integers(0, 9),
    form=st.sampled_from(["keys", "whole", "added"]),
)  # fmt: skip
def test_sdpa_and_matmul_agree_on_any_mask(queries: int, more: int, causal: bool, seed: int, form: str) -> None:
    tensors = made(queries, queries + more, seed=seed)
    chance = torch.Generator().manual_seed(seed)
    shape = (2, 1, 1, queries + more) if form == "keys" else (2, 4, queries, queries + more)
    mask = torch.rand(shape, generator=chance) > 0.4
    if form == "added":
        mask = torch.where(mask, torch.randn(shape, generator=chance), -math.inf)
    options = {"mask": mask, "causal": causal}
    whole, plain = outcome(tensors, "sdpa", **options), outcome(tensors, "eager", **options)
    assert all(torch.isfinite(one).all() for one in whole + plain)
    assert same(whole, plain, torch.float64)


def test_a_query_that_sees_no_key_gets_zeros() -> None:
    mask = torch.ones(7, 7, dtype=torch.bool)
    mask[2] = False
    for using in ("sdpa", "eager"):
        assert outcome(made(), using, mask=mask)[0][:, :, 2].abs().max() == 0


def test_matmul_and_softmax_is_what_the_formula_says() -> None:
    query, key, value = (tensor.detach() for tensor in made(2, 3, heads=1, key_heads=1))
    for row in range(2):
        scores = [float(query[0, 0, row] @ key[0, 0, column]) / math.sqrt(8) for column in range(3)]
        parts = [math.exp(score) for score in scores]
        expected = sum(part * value[0, 0, column] for column, part in enumerate(parts)) / sum(parts)
        assert torch.allclose(attention(query, key, value, using="eager")[0, 0, row], expected, atol=1e-12)


@pytest.mark.parametrize("using", ["flash_attention_2", "sdpa", "eager"])
def test_dropout_drops_weights_and_keeps_the_mean(flash: Any, using: str) -> None:
    query, key, value = (torch.ones(8, 4, 32, 8, dtype=torch.float64) for _ in range(3))
    torch.manual_seed(3)
    found = attention(query, key, value, dropout=0.5, using=using)
    assert found.std() > 0.05
    assert found.mean().item() == pytest.approx(1.0, abs=0.03)
    torch.manual_seed(3)
    assert torch.equal(found, attention(query, key, value, dropout=0.5, using=using))


def test_under_autocast_the_package_is_given_halves(flash: Any) -> None:
    tensors = made(dtype=torch.float32)
    del flash.CALLS[:]
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(*tensors, using="flash_attention_2")
        other = attention(*tensors, using="sdpa")
        plain = attention(*tensors, using="eager")
    assert found.dtype == other.dtype == plain.dtype == torch.bfloat16
    assert flash.CALLS[0][1] == "torch.bfloat16"
    assert torch.allclose(found.float(), plain.float(), atol=0.05)


def test_the_package_gets_its_own_layout_and_is_told_to_be_deterministic(flash: Any) -> None:
    del flash.CALLS[:]
    attention(*made(3, 5), causal=True, dropout=0.25, using="flash_attention_2")
    torch.use_deterministic_algorithms(True)
    try:
        attention(*made(3, 5), using="flash_attention_2")
    finally:
        torch.use_deterministic_algorithms(False)
    assert flash.CALLS == [
        ((2, 3, 4, 8), "torch.float64", 0.25, True, False),
        ((2, 3, 4, 8), "torch.float64", 0.0, False, True),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": torch.zeros(2, 4, 8)}, "not four dimensions"),
        ({"key": torch.zeros(2, 4, 7, 16)}, "do not belong together"),
        ({"value": torch.zeros(2, 4, 6, 8)}, "do not belong together"),
        ({"key": torch.zeros(2, 3, 7, 8), "value": torch.zeros(2, 3, 7, 8)}, "3 heads of keys"),
        ({"query": torch.zeros(2, 4, 9, 8), "causal": True}, "more queries than keys"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"using": "kernels-community/flash-attn2"}, "no implementation called"),
        ({"using": "flash_attention_2", "mask": torch.ones(7, 7, dtype=torch.bool)}, "flash_attention_2 has no mask"),
        ({"using": "flash_attention_3", "dropout": 0.1}, "flash_attention_3 has no dropout"),
        ({"using": "flash_attention_3"}, "flash_attn_interface cannot be imported"),
    ],
)
def test_what_cannot_be_computed_is_an_error_with_a_hint(change: dict[str, Any], words: str) -> None:
    plain = {"query": torch.zeros(2, 4, 7, 8), "key": torch.zeros(2, 4, 7, 8), "value": torch.zeros(2, 4, 7, 8)}
    with pytest.raises(BadInput, match=words) as caught:
        attention(**plain | change)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_broken_package_that_is_named_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    held = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "flash_attn"}
    try:
        with installed(tmp_path, MISSING_LIBRARY), pytest.raises(BadInput, match=r"libcudart\.so"):
            attention(*made(), using="flash_attention_2")
        assert "flash_attn" not in sys.modules
    finally:
        sys.modules.update(held)


class Block(torch.nn.Module):
    """One layer of attention, and a loss."""

    def __init__(self, using: str | None) -> None:
        super().__init__()
        self.using = using
        self.inner = torch.nn.Linear(128, 384)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        parts = self.inner(numbers).view(2, 512, 3, 2, 64).permute(2, 0, 3, 1, 4)
        found = attention(*parts, causal=True, using=self.using)
        return found.float().pow(2).mean()


def peak(using: str | None, gpu: str, precision: str) -> int:
    said = predict(
        lambda: Block(using), lambda: torch.randn(2, 512, 128), gpu=gpu, precision=precision,
        loss_fn=lambda model, batch: model(batch), optimizer="sgd",
    )  # fmt: skip
    return said.peak_allocated_bytes


@pytest.mark.parametrize(("gpu", "precision"), [("A100-40", "bf16"), ("T4", "fp16")])
def test_a_prediction_follows_the_choice(gpu: str, precision: str) -> None:
    weights = 2 * 2 * 512 * 512 * 4
    assert peak(None, gpu, precision) == peak("sdpa", gpu, precision)
    assert peak("eager", gpu, precision) > peak("sdpa", gpu, precision) + weights
