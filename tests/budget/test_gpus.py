"""The table of GPUs: names as people write them, figures that can be."""

from __future__ import annotations

import pytest

from outlast.budget import GPUS, Gpu, gpu_like, gpu_named
from outlast.budget.here import gpu_here
from outlast.errors import BadInput
from outlast.host import GpuMemory, Gpus

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
    assert "total" in gpu.source and "context" in gpu.source and "speed" in gpu.source
    assert gpu.single_flops and gpu.half_flops and gpu.bandwidth
    assert 5e12 < gpu.single_flops <= gpu.half_flops < 2e15 and 3e11 <= gpu.bandwidth < 1e13


def test_cublas_takes_more_on_hopper() -> None:
    assert gpu_named("T4").blas_workspace_bytes == 8_519_680  # what torch.cuda.memory_stats shows after one matmul
    assert gpu_named("H100").blas_workspace_bytes == 32 * MIB


def test_a_gpu_that_is_here_gets_the_row_of_its_name_and_no_more_memory_than_cuda_gives() -> None:
    found = gpu_like("Tesla T4", (7, 5), 15_360 * MIB)
    assert (found.name, found.memory_bytes, found.half) == ("Tesla T4", gpu_named("T4").memory_bytes, "fp16")
    assert gpu_like("NVIDIA A100-SXM4-80GB", (8, 0), 81_920 * MIB).memory_bytes == gpu_named("A100-80").memory_bytes
    assert gpu_like("Tesla V100-SXM2-32GB", (7, 0), 32_768 * MIB).memory_bytes == gpu_named("V100-32").memory_bytes


def test_a_gpu_that_no_row_is_about_keeps_its_own_memory() -> None:
    found = gpu_like("NVIDIA RTX 6000 Ada Generation", (8, 9), 49_140 * MIB)
    assert found.memory_bytes == 49_140 * MIB and found.half == "bf16" and found.bandwidth is not None
    assert gpu_like("Tesla K80", (3, 7), 11_441 * MIB).half == "fp16"


def test_of_several_gpus_here_the_smallest_counts() -> None:
    driver = Gpus((_gpu("NVIDIA A10", (8, 6), 23_028), _gpu("Tesla T4", (7, 5), 15_360), _gpu("odd", None, None)))
    found = gpu_here(lambda: driver)
    assert found is not None and found.name == "Tesla T4"


def _gpu(name: str, capability: tuple[int, int] | None, mib: int | None) -> GpuMemory:
    return GpuMemory(0, name, None, capability, mib * MIB if mib else None, None, None)


@pytest.mark.parametrize("driver", [Gpus(), Gpus(None, problem="hangs")])
def test_without_an_answer_there_is_no_gpu(driver: Gpus) -> None:
    assert gpu_here(lambda: driver) is None
