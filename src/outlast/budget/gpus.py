"""GPUs that people rent or are given: memory, generation, what stays outside of torch's count. A new one is a row."""

from __future__ import annotations

from dataclasses import dataclass

from outlast.errors import BadInput

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One model of GPU."""

    name: str
    """As in ``--gpu``."""
    memory_bytes: int
    """What the driver reports as total, with ECC where that is the default."""
    capability: tuple[int, int]
    """CUDA compute capability."""
    half: str
    """Half precision that it is good at: ``fp16`` (needs a loss scaler) or ``bf16``."""
    context_bytes: int
    """CUDA context and loaded kernels with lazy loading, after a training step; differs by driver by a third or so."""
    source: str
    """Where the figures are from."""

    @property
    def blas_workspace_bytes(self) -> int:
        """What torch takes for one cuBLAS handle and stream (``CUDABlas.cpp``: 2 x 4096 + 8 x 16 KiB; sm90 32 MiB)."""
        return 32 * MIB if self.capability[0] == 9 else (2 * 4096 + 8 * 16) * 1024


_TOTAL = "total: nvidia-smi of that card"
_CONTEXT = "context: estimate by generation (research/memory.md: 250 to 1,400 MiB), not measured by us"


def _row(name: str, total_mib: int, capability: tuple[int, int], half: str, context_mib: int) -> Gpu:
    return Gpu(name, total_mib * MIB, capability, half, context_mib * MIB, f"{_TOTAL}; {_CONTEXT}")


GPUS: tuple[Gpu, ...] = (
    _row("P100", 16_280, (6, 0), "fp16", 350),
    _row("V100", 16_160, (7, 0), "fp16", 450),
    _row("V100-32", 32_510, (7, 0), "fp16", 450),
    _row("T4", 15_095, (7, 5), "fp16", 400),
    _row("RTX2080TI", 11_019, (7, 5), "fp16", 400),
    _row("RTX3060", 12_053, (8, 6), "bf16", 400),
    _row("RTX3090", 24_268, (8, 6), "bf16", 450),
    _row("A10", 22_731, (8, 6), "bf16", 450),
    _row("A40", 45_634, (8, 6), "bf16", 450),
    _row("A6000", 48_685, (8, 6), "bf16", 450),
    _row("A100-40", 40_442, (8, 0), "bf16", 500),
    _row("A100-80", 81_154, (8, 0), "bf16", 500),
    _row("L4", 22_698, (8, 9), "bf16", 450),
    _row("L40S", 45_589, (8, 9), "bf16", 500),
    _row("RTX4090", 24_217, (8, 9), "bf16", 500),
    _row("H100", 81_079, (9, 0), "bf16", 600),
    _row("H200", 143_167, (9, 0), "bf16", 600),
)


def gpu_named(name: str) -> Gpu:
    """The row of a GPU; letters' case, spaces and dashes do not matter.

    Raises:
        BadInput: when there is none.
    """
    wanted = _plain(name)
    for gpu in GPUS:
        if _plain(gpu.name) == wanted:
            return gpu
    raise BadInput(
        f"no GPU called {name!r} in Outlast's table",
        hint="known: " + ", ".join(gpu.name for gpu in GPUS),
    )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
