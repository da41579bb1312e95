"""What torch's allocator holds of each GPU, asked of a torch that this process has imported already."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outlast.host.gpus import GpuMemory


@dataclass(frozen=True, slots=True)
class TorchMemory:
    """The caching allocator's figures for one device (torch.cuda.memory_stats)."""

    device: int
    """As torch counts, after CUDA_VISIBLE_DEVICES."""
    uuid: str | None
    """``GPU-...``; None where torch does not tell."""
    allocated_bytes: int
    """In tensors now."""
    peak_bytes: int
    """Most that was in tensors so far."""
    reserved_bytes: int
    """Taken from the driver: tensors, and what is cached for later ones."""


def torch_memory(torch: Any = None) -> tuple[TorchMemory, ...]:
    """What torch holds; nothing where it is not imported, has no GPU, or has not used one yet.

    Args:
        torch: the module; None takes it if this process has imported it. It is never imported here.
    """
    torch = torch or sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    # Asking an idle torch would make it start CUDA, which takes hundreds of megabytes of the GPU.
    if cuda is None or not hasattr(cuda, "is_initialized") or not cuda.is_initialized():
        return ()
    return tuple(_device(cuda, number) for number in range(cuda.device_count()))


def _device(cuda: Any, number: int) -> TorchMemory:
    uuid = getattr(cuda.get_device_properties(number), "uuid", None)
    return TorchMemory(
        number,
        None if uuid is None else f"GPU-{str(uuid).removeprefix('GPU-')}",
        cuda.memory_allocated(number),
        cuda.max_memory_allocated(number),
        cuda.memory_reserved(number),
    )


def of_gpu(gpu: GpuMemory, held: Sequence[TorchMemory], environment: Mapping[str, str]) -> TorchMemory | None:
    """Which of torch's devices a GPU is; None when it is none of them."""
    if gpu.uuid and any(one.uuid for one in held):
        return next((one for one in held if one.uuid == gpu.uuid), None)
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        place = gpu.index
    else:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        mine = [at for at, name in enumerate(names) if name == str(gpu.index) or (gpu.uuid or "-").startswith(name)]
        place = mine[0] if mine else -1
    return next((one for one in held if one.device == place), None)
