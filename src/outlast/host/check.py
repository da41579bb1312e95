"""Main memory and GPUs: what there is, who holds it, and whether that is good to start with."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from outlast.host.cgroups import GroupMemory, groups_of
from outlast.host.gpus import GpuMemory, GpuProcess, GpuQuestion, Gpus, amd_gpus
from outlast.host.memory import (
    HostMemory,
    MemoryLimit,
    ProcessMemory,
    host_memory,
    largest_processes,
    tightest,
    tree_memory,
)
from outlast.host.torch_memory import TorchMemory, of_gpu, torch_memory

_DRIVER_SECONDS = 5.0
_SHOWN_PROCESSES = 5


class Light(Enum):
    """A traffic light for a part that is in use."""

    GREEN = "green"
    """Under half."""
    YELLOW = "yellow"
    """Half to four fifths."""
    RED = "red"
    """Over four fifths."""


def light(fraction: float | None) -> Light | None:
    """The light for a part of the whole (0 to 1): green under 50 %, red over 80 %; None for what is unknown."""
    if fraction is None:
        return None
    return Light.GREEN if fraction < 0.5 else Light.YELLOW if fraction <= 0.8 else Light.RED


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU, and whose its memory is. What is unknown is None."""

    gpu: GpuMemory
    """As its driver tells."""
    torch: TorchMemory | None
    """What torch holds of it in this process; None when nothing, or in another process."""
    others_bytes: int | None
    """What other processes hold, and the driver itself."""
    others: tuple[GpuProcess, ...]
    """The other processes, where the driver names them."""
    doubt: str
    """What is not certain about ``others_bytes``, or why it is None; empty when nothing is."""
    needed_bytes: int | None
    """In use at the peak so far: torch's cache does not count, its peak does."""

    @property
    def fraction(self) -> float | None:
        """Needed, as a part of all."""
        total = self.gpu.total_bytes
        return None if self.needed_bytes is None or not total else self.needed_bytes / total

    @property
    def light(self) -> Light | None:
        """Of ``fraction``."""
        return light(self.fraction)

    @property
    def idle_bytes(self) -> int | None:
        """What torch holds and does not use now: its cache, and what is too fragmented to be used."""
        return None if self.torch is None else self.torch.reserved_bytes - self.torch.allocated_bytes


@dataclass(frozen=True, slots=True)
class MemoryCheck:
    """All readings of one moment. What cannot be read is None."""

    tree: tuple[ProcessMemory, ...]
    """The process that was asked about, and all below it; empty when none was."""
    largest: tuple[ProcessMemory, ...]
    """The largest processes that can be seen; empty when one was asked about."""
    limit: MemoryLimit | None
    """What is used up first."""
    groups: tuple[GroupMemory, ...]
    """Memory groups, own first."""
    host: HostMemory
    """The machine."""
    gpus: tuple[GpuUse, ...] | None
    """Each GPU; None when the driver did not say."""
    gpu_problem: str | None
    """Why it did not say."""

    @property
    def light(self) -> Light | None:
        """Of main memory."""
        return light(self.limit.fraction) if self.limit else None


def gpus_here(seconds: float = _DRIVER_SECONDS, *, root: Path = Path("/")) -> Gpus:
    """What the drivers of this machine's GPUs say within so many seconds; AMD's where NVIDIA has none."""
    found = GpuQuestion(root).answer(seconds)
    return found if found.gpus or found.problem else Gpus(amd_gpus(root=root))


def check(
    pid: int | None = None,
    *,
    root: Path = Path("/"),
    gpus: Callable[[], Gpus] = gpus_here,
    held: Callable[[], tuple[TorchMemory, ...]] = torch_memory,
    environment: Mapping[str, str] | None = None,
) -> MemoryCheck:
    """Read everything once.

    Args:
        pid: the process to ask about; None for the group that we are in ourselves, and its largest processes.
        root: folder that holds ``proc`` and ``sys``; for tests.
        gpus: asks the drivers.
        held: asks torch, if this process has it.
        environment: variables; None takes those of the process.
    """
    values = os.environ if environment is None else environment
    proc = root / "proc"
    groups, host = groups_of("self" if pid is None else pid, root=root), host_memory(root=root)
    tree = [] if pid is None else tree_memory(pid, proc=proc)
    found, mine = gpus(), held() if pid in (None, os.getpid()) else ()
    ours = {one.pid for one in tree}
    uses = [gpu_use(gpu, of_gpu(gpu, mine, values), ours) for gpu in found.gpus or ()]
    return MemoryCheck(
        tree=tuple(tree),
        largest=tuple(largest_processes(_SHOWN_PROCESSES, proc=proc)) if pid is None else (),
        limit=tightest(groups, host),
        groups=tuple(groups),
        host=host,
        gpus=None if found.gpus is None else tuple(uses),
        gpu_problem=found.problem,
    )


def gpu_use(gpu: GpuMemory, torch: TorchMemory | None, ours: set[int]) -> GpuUse:
    """Whose a GPU's memory is.

    Args:
        gpu: what the driver says.
        torch: what torch holds in this process.
        ours: process ids that are not others.
    """
    others = tuple(one for one in gpu.processes or () if one.pid not in ours)
    own = [one.used_bytes for one in gpu.processes or () if one.pid in ours]
    reserved = torch.reserved_bytes if torch else 0
    others_bytes, doubt = _others(gpu.used_bytes, own, reserved)
    needed = gpu.used_bytes
    if needed is not None and torch:
        needed = max(0, needed - torch.reserved_bytes) + torch.peak_bytes
    if reserved and not own:
        # The driver does not know us by our own number, so it cannot be told which of these is us.
        others = ()
    return GpuUse(gpu, torch, others_bytes, others, doubt, needed)


def _others(used: int | None, own: Sequence[int | None], reserved: int) -> tuple[int | None, str]:
    if used is None:
        return None, "the driver does not say what is in use"
    known = [size for size in own if size is not None]
    if len(known) < len(own):
        return None, "the driver does not say what each process holds"
    if known or not reserved:
        return max(0, used - sum(known)), ""
    return max(0, used - reserved), "with what CUDA itself takes for this process: the driver does not see its number"
