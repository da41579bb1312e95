"""Asking the NVIDIA driver what GPUs there are, for the checks before a run."""

from __future__ import annotations

from pathlib import Path

from outlast.doctor.facts import Driver, Gpu
from outlast.host import GpuQuestion


class DriverQuestion:
    """A question under way: begun at once, answered later, so that other looks go on meanwhile.

    Args:
        root: root of the file system; for tests.
        library: name or path of NVML; None for the driver's own.
    """

    def __init__(self, root: Path = Path("/"), library: str | None = None) -> None:
        self._question = GpuQuestion(root, library) if library else GpuQuestion(root)

    def answer(self, seconds: float) -> Driver:
        """What the driver said, or that it did not within so many seconds."""
        found = self._question.answer(seconds)
        if found.gpus is None:
            return Driver(None, problem=found.problem)
        gpus = tuple(
            Gpu(gpu.name, gpu.capability, gpu.total_bytes)
            for gpu in found.gpus
            if gpu.capability and gpu.total_bytes is not None
        )
        return Driver(gpus, found.driver)
