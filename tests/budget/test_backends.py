"""Which implementation of attention, as a table of what each takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.budget import (
    FLASH_PACKAGES,
    GPUS,
    Attention,
    AttentionChoice,
    Package,
    choose_backend,
    gpu_named,
    kernel_for,
    unfit,
)
from outlast.doctor import machine

PLAIN = Attention(
    dtype="bfloat16", dimensions=4, head=64, value_head=64, masked=False, causal=False, square=True, grouped=False,
    needs_grad=True,
)  # fmt: skip
FLASH_3, FLASH_2 = FLASH_PACKAGES
HAS_2 = {"flash_attention_2": Package("2.8.3", None)}
HAS_BOTH = {"flash_attention_3": Package("3.0.0", None), **HAS_2}
BROKEN = "flash-attn 2.8.3 cannot be imported: ImportError: undefined symbol: _ZN3c104impl"
P100, V100, T4, A10, A100, L4, H100, B200, RTX5090 = (
    (6, 0), (7, 0), (7, 5), (8, 6), (8, 0), (8, 9), (9, 0), (10, 0), (12, 0)
)  # fmt: skip

calls = st.builds(
    Attention,
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    dimensions=st.just(4),
    head=st.sampled_from([6, 8, 64, 80, 128, 192, 200, 224, 256, 320]),
    value_head=st.sampled_from([64, 128]),
    masked=st.booleans(),
    causal=st.booleans(),
    square=st.just(True),
    grouped=st.booleans(),
    needs_grad=st.booleans(),
    drops=st.booleans(),
)
capabilities = st.sampled_from([None, *sorted({gpu.capability for gpu in GPUS}), B200, RTX5090])
packages = st.dictionaries(
    st.sampled_from([row.name for row in FLASH_PACKAGES]),
    st.builds(Package, st.sampled_from([None, "1.0.9", "2.3.2", "2.8.3", "3.0.0b1"]), st.sampled_from([None, BROKEN])),
)
supports = st.none() | st.frozensets(st.sampled_from(["flash_attention_3", "flash_attention_2", "sdpa", "eager"]))


def chosen(capability: tuple[int, int] | None, has: dict[str, Package], **change: Any) -> AttentionChoice:
    return choose_backend(replace(PLAIN, **change), capability, has)


@pytest.mark.parametrize(
    ("capability", "has", "change", "name"),
    [
        (A100, HAS_2, {}, "flash_attention_2"),
        (H100, HAS_2, {}, "flash_attention_2"),
        (H100, HAS_BOTH, {}, "flash_attention_3"),
        (A100, HAS_BOTH, {}, "flash_attention_2"),
        (H100, HAS_BOTH, {"drops": True}, "flash_attention_2"),
        (H100, HAS_BOTH, {"head": 68, "value_head": 68}, "flash_attention_2"),
        (A100, {}, {}, "sdpa"),
        (None, HAS_BOTH, {}, "sdpa"),
        (T4, HAS_2, {"dtype": "float16"}, "sdpa"),
        (A100, HAS_2, {"dtype": "float32"}, "sdpa"),
        (A100, HAS_2, {"masked": True}, "sdpa"),
        (A100, HAS_2, {"head": 320, "value_head": 320}, "sdpa"),
        (A100, HAS_2, {"value_head": 128}, "sdpa"),
        (A10, HAS_2, {"head": 256, "value_head": 256}, "flash_attention_2"),
        (A10, HAS_2, {"head": 256, "value_head": 256, "drops": True}, "sdpa"),
        (A10, HAS_2, {"head": 256, "value_head": 256, "drops": True, "needs_grad": False}, "flash_attention_2"),
        (A100, HAS_2, {"head": 256, "value_head": 256, "drops": True}, "flash_attention_2"),
        (A100, {"flash_attention_2": Package("2.3.2", None)}, {}, "sdpa"),
        (A100, {"flash_attention_2": Package("2.10.0.post1+cu128torch2.9", None)}, {}, "flash_attention_2"),
        (A100, {"flash_attention_2": Package("2.8.3", BROKEN)}, {}, "sdpa"),
        (A100, {"flash_attention_2": Package(None, None)}, {}, "sdpa"),
    ],
)
def test_the_best_that_can_compute_it_is_taken(
    capability: tuple[int, int] | None, has: dict[str, Package], change: dict[str, Any], name: str
) -> None:
    assert chosen(capability, has, **change).name == name


@pytest.mark.parametrize(
    ("capability", "has", "change", "reason"),
    [
        (A100, {}, {}, "flash-attn is not installed"),
        (A100, {"flash_attention_2": Package("2.8.3", BROKEN)}, {}, BROKEN),
        (A100, {"flash_attention_2": Package("2.3.2", None)}, {}, "flash-attn 2.3.2 is older than 2.3.3"),
        (T4, HAS_2, {"dtype": "float16"}, "it needs compute capability 8.0 or more, this GPU has 7.5"),
        (None, HAS_2, {}, "it needs a CUDA GPU"),
        (A100, HAS_2, {"dtype": "float32"}, "it takes float16 and bfloat16, not float32"),
        (A100, HAS_2, {"masked": True}, "it takes no mask but the causal one"),
    ],
)
def test_it_says_why_flash_attention_is_not_taken(
    capability: tuple[int, int] | None, has: dict[str, Package], change: dict[str, Any], reason: str
) -> None:
    choice = chosen(capability, has, **change)
    assert dict(choice.tried)["flash_attention_2"] == reason
    assert f"not flash_attention_2: {reason}" in str(choice)


def test_bf16_on_a_t4_is_said_to_be_matmul_and_softmax() -> None:
    choice = chosen(T4, {})
    assert (choice.name, choice.kernel) == ("sdpa", "math")
    assert "the whole matrix of weights in memory" in choice.why


def test_a_model_class_that_takes_no_sdpa_gets_eager() -> None:
    choice = choose_backend(PLAIN, A100, HAS_2, supported={"eager"})
    assert choice.name == "eager"
    assert dict(choice.tried)["sdpa"] == "the model's class does not take it"


def test_a_torch_without_sdpa_gets_eager() -> None:
    choice = choose_backend(PLAIN, None, {}, has_sdpa=False)
    assert (choice.name, choice.tried[-1]) == ("eager", ("sdpa", "this torch is older than 2.0"))


def test_padding_that_the_caller_strips_is_no_obstacle() -> None:
    padded = replace(PLAIN, masked=True)
    assert choose_backend(padded, A100, HAS_2, unpads=True).name == "flash_attention_2"
    assert choose_backend(padded, A100, {}, unpads=True).kernel == "efficient"


@given(calls, capabilities, packages, supports)
def test_what_is_chosen_can_compute_the_call(
    call: Attention, capability: tuple[int, int] | None, has: dict[str, Package], supported: frozenset[str] | None
) -> None:
    choice = choose_backend(call, capability, has, supported=supported)
    rows = {row.name: row for row in FLASH_PACKAGES}
    if choice.name in rows:
        assert unfit(rows[choice.name], call, capability) is None
        assert has[choice.name].problem is None and has[choice.name].version is not None
    assert supported is None or choice.name == "eager" or choice.name in supported
    order = [*rows, "sdpa", "eager"]
    assert [name for name, _ in choice.tried] == order[: order.index(choice.name)]
    assert all(reason for _, reason in choice.tried)


@given(calls, capabilities)
def test_a_prediction_and_the_choice_have_the_same_kernel(call: Attention, capability: tuple[int, int] | None) -> None:
    choice = choose_backend(call, capability, {})
    assert choice.kernel == (kernel_for(call, capability) if capability else None)


@given(calls, capabilities)
def test_where_the_package_is_taken_a_prediction_computes_with_the_same_algorithm(
    call: Attention, capability: tuple[int, int] | None
) -> None:
    # torch's flash kernel is FlashAttention 2: it keeps the same tensors for backward. The one place where torch does
    # without it is a head of 193 to 224 in training on a small chip, where a prediction is then too high.
    choice = choose_backend(call, capability, HAS_2)
    if choice.name == "flash_attention_2" and capability is not None:
        is_exception = 192 < call.head <= 224 and call.needs_grad and capability in (A10, L4, RTX5090)
        assert kernel_for(call, capability) == (
            "efficient" if is_exception and not call.grouped else "math" if is_exception else "flash"
        )


def test_doctor_says_the_same_of_the_least_gpu() -> None:
    assert FLASH_2.capability == machine._FLASH_NEEDS


@pytest.mark.parametrize("gpu", [gpu.name for gpu in GPUS])
def test_a_gpu_of_the_table_takes_the_package_from_ampere_on(gpu: str) -> None:
    capability = gpu_named(gpu).capability
    assert (chosen(capability, HAS_2, dtype="float16").name == "flash_attention_2") == (capability >= (8, 0))
