"""The GPU of this machine, as a row of the table. Asks the driver; needs no torch."""

from __future__ import annotations

from collections.abc import Callable

from outlast.budget.gpus import Gpu, gpu_like
from outlast.host import GpuQuestion, Gpus

_PATIENCE = 10.0


def _ask() -> Gpus:
    return GpuQuestion().answer(_PATIENCE)


def gpu_here(ask: Callable[[], Gpus] = _ask) -> Gpu | None:
    """The smallest GPU of this machine, which has to hold what every one does; None where there is none, or no answer.

    Args:
        ask: what asks the driver; for tests.
    """
    found = [
        (gpu.total_bytes, gpu.name, gpu.capability)
        for gpu in ask().gpus or ()
        if gpu.capability is not None and gpu.total_bytes is not None
    ]
    if not found:
        return None
    total, name, capability = min(found)
    return gpu_like(name, capability, total)
