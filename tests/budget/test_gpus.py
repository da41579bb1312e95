"""The table of GPUs: names as people write them, figures that can be."""

from __future__ import annotations

import pytest

from outlast.budget import GPUS, Gpu, gpu_named
from outlast.errors import BadInput

MIB = 1 << 20


@pytest.mark.parametrize("written", ["A100-40", "a100-40", "A100 40", "a10040"])
def test_a_gpu_is_found_however_its_name_is_written(written: str) -> None:
    assert gpu_named(written).name == "A100-40"


def test_an_unknown_gpu_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="RTX4090"):
        gpu_named("Voodoo2")


def test_no_two_rows_answer_to_the_same_name() -> None:
    assert len({"".join(filter(str.isalnum, gpu.name.casefold())) for gpu in GPUS}) == len(GPUS)


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)
def test_every_row_can_be(gpu: Gpu) -> None:
    assert 8_000 * MIB < gpu.memory_bytes < 200_000 * MIB
    assert 250 * MIB <= gpu.context_bytes <= 1_400 * MIB  # research/memory.md
    assert gpu.half == ("bf16" if gpu.capability >= (8, 0) else "fp16")
    assert "total" in gpu.source and "context" in gpu.source


def test_cublas_takes_more_on_hopper() -> None:
    assert gpu_named("T4").blas_workspace_bytes == 8_519_680  # what torch.cuda.memory_stats shows after one matmul
    assert gpu_named("H100").blas_workspace_bytes == 32 * MIB
