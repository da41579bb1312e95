"""CUDA's habits on fake CPU tensors: what is kept for backward is what a GPU keeps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.optim import adam

from outlast.budget import emulate, gpu_named
from outlast.budget.trace import Recorder

T4, A100 = gpu_named("T4"), gpu_named("A100-40")


@contextmanager
def on_fake_cuda(gpu: emulate.Gpu = A100) -> Iterator[Recorder]:
    recorder = Recorder()
    with emulate.cuda_habits(gpu), FakeTensorMode(), recorder:
        recorder.start()
        yield recorder


def ops(run: Callable[[], object], gpu: emulate.Gpu = A100, half: torch.dtype | None = None) -> list[str]:
    """Names of the operations that made something, with what they made."""
    with on_fake_cuda(gpu) as recorder, torch.autocast("cpu", dtype=half or torch.bfloat16, enabled=half is not None):
        run()
    return [event.op.removeprefix("aten.") for event in recorder.finish().events if event.born]


def some(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, requires_grad=True)


def test_dropout_keeps_a_mask_of_a_byte_an_element() -> None:
    assert "native_dropout -> bool[4, 4]" in ops(lambda: F.dropout(some(4, 4), 0.1))


def test_dropout_that_drops_nothing_makes_nothing() -> None:
    assert not [op for op in ops(lambda: F.dropout(some(4, 4), 0.0)) if "dropout" in op]


def test_softmax_goes_from_half_to_float_without_a_copy_of_its_input() -> None:
    made = ops(lambda: F.softmax(some(4, 4, dtype=torch.float16), -1, dtype=torch.float32))
    assert [op for op in made if "f32" in op] == ["_softmax -> f32[4, 4]"]


def test_autocast_runs_a_layer_norm_in_float() -> None:
    x, weight = (4, 8), (8,)
    made = ops(
        lambda: F.layer_norm(some(*x, dtype=torch.float16), weight, some(*weight), some(*weight)), half=torch.float16
    )
    assert "native_layer_norm -> f32[4, 8]" in made


def test_autocast_gives_a_softmax_of_halves_in_float() -> None:
    made = ops(lambda: F.softmax(some(4, 4, dtype=torch.float16), -1), half=torch.float16)
    assert "_softmax -> f32[4, 4]" in made


def test_autocast_casts_a_weight_once_for_all_its_uses() -> None:
    def twice() -> None:
        weight = some(8, 8)
        F.linear(F.linear(some(4, 8), weight), weight)

    assert ops(twice, half=torch.bfloat16).count("_to_copy -> bf16[8, 8]") == 1


@pytest.mark.parametrize(
    ("gpu", "dtype", "kernel"),
    [
        (A100, torch.bfloat16, "_scaled_dot_product_flash_attention"),
        (A100, torch.float32, "_scaled_dot_product_efficient_attention"),
        (T4, torch.float16, "_scaled_dot_product_efficient_attention"),
        (T4, torch.bfloat16, "_softmax"),
    ],
)
def test_attention_takes_the_kernel_of_the_gpu(gpu: emulate.Gpu, dtype: torch.dtype, kernel: str) -> None:
    made = ops(lambda: F.scaled_dot_product_attention(*(some(2, 4, 16, 32, dtype=dtype) for _ in range(3))), gpu)
    assert any(op.startswith(kernel) or (kernel == "_softmax" and "softmax" in op) for op in made), made


def test_a_head_that_flash_cannot_take_is_padded_to_one_that_it_can() -> None:
    tensors = [(2, 4, 16, 12)] * 3
    made = ops(lambda: F.scaled_dot_product_attention(*(some(*shape, dtype=torch.bfloat16) for shape in tensors)))
    assert "_scaled_dot_product_flash_attention -> bf16[2, 4, 16, 16]" in made


def test_a_mask_of_truths_becomes_a_bias_of_the_querys_type() -> None:
    def masked() -> None:
        mask = torch.ones(2, 1, 16, 16, dtype=torch.bool)
        F.scaled_dot_product_attention(*(some(2, 4, 16, 32, dtype=torch.float16) for _ in range(3)), attn_mask=mask)

    assert "zeros_like -> f16[2, 1, 16, 16]" in ops(masked, T4)


def test_afterwards_torch_is_as_it_was() -> None:
    def values() -> list[torch.Tensor]:
        torch.manual_seed(0)
        x = torch.randn(2, 2, 8, 8)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return [F.dropout(x, 0.5), F.softmax(x.bfloat16(), -1), F.scaled_dot_product_attention(x, x, x)]

    before, choice = values(), adam._default_to_fused_or_foreach
    with pytest.raises(RuntimeError, match="stopped"), emulate.cuda_habits(A100):
        assert adam._default_to_fused_or_foreach is not choice
        raise RuntimeError("stopped")
    assert adam._default_to_fused_or_foreach is choice
    assert all(torch.equal(old, new) and old.dtype == new.dtype for old, new in zip(before, values(), strict=True))


def test_cublas_takes_a_workspace_in_each_thread_once() -> None:
    scratch = emulate.CudaScratch(T4)
    calls = [("mm", "forward 1"), ("bmm", "forward 1"), ("mm", "backward 1"), ("mm", "forward 2"), ("add", "forward 2")]
    taken = [list(scratch(op, (), phase)) for op, phase in calls]
    assert [len(found) for found in taken] == [1, 0, 1, 0, 0]
    assert all(stays for found in taken for _, _, stays in found)


def test_autocasts_list_is_that_of_the_header_that_torch_ships() -> None:
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    if not header.exists():
        pytest.skip("this torch ships no such header")
    macro = re.search(r"#define AT_FORALL_FP32\(_\)(.*?)\n\n", header.read_text().replace("\\\n", "\n ") + "\n\n", re.S)
    assert macro is not None
    names = [
        ".".join(found).rstrip(".") for found in re.findall(r"_\((\w+)(?:, (\w+))?\)", macro[1].split("#define")[0])
    ]
    assert set(names) - set(emulate._TO_FLOAT.split()) == set()
    assert len(names) > 50
