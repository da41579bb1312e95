"""The GPU of this machine, as a row of the table. Asks the driver; needs no torch."""

from __future__ import annotations

from collections.abc import Callable

from outlast.budget.gpus import Gpu, gpu_like
from outlast.doctor import DriverQuestion
from outlast.doctor.facts import Driver

_PATIENCE = 10.0


def _ask() -> Driver:
    return DriverQuestion().answer(_PATIENCE)


def gpu_here(ask: Callable[[], Driver] = _ask) -> Gpu | None:
    """The smallest GPU of this machine, which has to hold what every one does; None where there is none, or no answer.

    Args:
        ask: what asks the driver; for tests.
    """
    found = ask().gpus
    if not found:
        return None
    smallest = min(found, key=lambda gpu: gpu.memory_bytes)
    return gpu_like(smallest.name, smallest.capability, smallest.memory_bytes)
