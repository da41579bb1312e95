"""GPUs that people rent or are given: memory, generation, what stays outside of torch's count. A new one is a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    single_flops: float | None = None
    """Float32 operations a second, without tensor cores (torch's default); None when not known."""
    half_flops: float | None = None
    """The same in half precision, summed up in float32, dense; None when not known."""
    bandwidth: float | None = None
    """Bytes a second between the chip and its memory; None when not known."""

    @property
    def blas_workspace_bytes(self) -> int:
        """What torch takes for one cuBLAS handle and stream (``CUDABlas.cpp``: 2 x 4096 + 8 x 16 KiB; sm90 32 MiB)."""
        return 32 * MIB if self.capability[0] == 9 else (2 * 4096 + 8 * 16) * 1024


_SMI = "total: nvidia-smi of that card"
_TORCH = "total: the smallest that torch's out-of-memory messages name for that card (GitHub, {}); drivers differ"
_CONTEXT = "context: estimate by generation (research/memory.md: 250 to 1,400 MiB), not measured by us"
_SPEED = "speed: NVIDIA's datasheet or white paper of that card, dense"


def _row(
    name: str,
    total_mib: int,
    capability: tuple[int, int],
    context_mib: int,
    speed: tuple[float, float, float],
    seen: str = "",
) -> Gpu:
    """``speed``: float32 and half-precision TFLOP/s, GB/s. ``seen``: GiB as torch's messages have it."""
    half = "bf16" if capability >= (8, 0) else "fp16"
    source = f"{_TORCH.format(seen) if seen else _SMI}; {_CONTEXT}; {_SPEED}"
    single, halves, bandwidth = speed
    return Gpu(
        name, total_mib * MIB, capability, half, context_mib * MIB, source,
        single_flops=single * 1e12, half_flops=halves * 1e12, bandwidth=bandwidth * 1e9,
    )  # fmt: skip


# A P100 has no tensor cores, and torch sums halves up in float32 there: half precision saves memory, not operations.
GPUS: tuple[Gpu, ...] = (
    _row("P100", 16_280, (6, 0), 350, (9.3, 9.3, 732)),
    _row("V100", 16_151, (7, 0), 450, (14.0, 112, 900), "15.77 GiB"),
    _row("V100-32", 32_501, (7, 0), 450, (14.0, 112, 900), "31.74 GiB"),
    _row("T4", 14_909, (7, 5), 400, (8.1, 65, 320), "14.56 to 14.75 GiB"),
    _row("RTX2080TI", 11_019, (7, 5), 400, (13.4, 53.8, 616)),
    _row("RTX3060", 12_053, (8, 6), 400, (12.7, 25.5, 360)),
    _row("RTX3090", 24_268, (8, 6), 450, (35.6, 71, 936)),
    _row("A10", 22_568, (8, 6), 450, (31.2, 125, 600), "22.04 to 22.20 GiB"),
    _row("A40", 45_403, (8, 6), 450, (37.4, 150, 696), "44.34 GiB"),
    _row("A6000", 48_685, (8, 6), 450, (38.7, 155, 768)),
    _row("A100-40", 40_325, (8, 0), 500, (19.5, 312, 1555), "39.38 to 39.56 GiB"),
    _row("A100-80", 81_039, (8, 0), 500, (19.5, 312, 1935), "79.14 to 79.25 GiB"),
    _row("L4", 22_558, (8, 9), 450, (30.3, 121, 300), "22.03 GiB"),
    _row("L40S", 45_465, (8, 9), 500, (91.6, 362, 864), "44.40 to 44.53 GiB"),
    _row("RTX4090", 24_207, (8, 9), 500, (82.6, 165, 1008), "23.64 GiB"),
    _row("H100", 81_039, (9, 0), 600, (67, 989, 3350), "79.14 to 79.19 GiB"),
    _row("H200", 143_073, (9, 0), 600, (67, 989, 4800), "139.72 GiB"),
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


def gpu_like(name: str, capability: tuple[int, int], memory_bytes: int) -> Gpu:
    """A row for a GPU that is here: its own memory, and of the most similar row what its driver does not say.

    Args:
        name: as the driver calls it.
        capability: CUDA compute capability.
        memory_bytes: as the driver counts it, which is a little more than CUDA gives.
    """

    def distance(row: Gpu) -> tuple[bool, int, int]:
        (major, minor), (own_major, own_minor) = row.capability, capability
        is_named = _plain(row.name.split("-")[0]) in _plain(name)
        return (
            not is_named,
            abs((major * 10 + minor) - (own_major * 10 + own_minor)),
            abs(row.memory_bytes - memory_bytes),
        )

    like = min(GPUS, key=distance)
    return replace(
        like,
        name=name,
        memory_bytes=min(memory_bytes, like.memory_bytes)
        if abs(memory_bytes / like.memory_bytes - 1) < 0.05
        else memory_bytes,
        capability=capability,
        half="bf16" if capability >= (8, 0) else "fp16",
        source=f"total: its driver; all else: {like.name} of the table",
    )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())
