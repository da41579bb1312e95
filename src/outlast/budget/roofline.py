"""How long operations take on a GPU, at best: for ranking ways to train, not for an ETA. Needs torch.

Each operation takes the longest of its arithmetic at the GPU's peak, its bytes at the memory's speed, and its launch
(Williams, Waterman and Patterson 2009, "Roofline"). Over seven published throughputs the mean error was 39 %, with the
right order in all but one pair (research/memory.md, section 4).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from outlast.budget.gpus import Gpu

LAUNCH = 1e-5
"""Seconds that one operation takes at least: eager torch spends about 10 microseconds of the CPU's time on each."""
_HALVES = (torch.float16, torch.bfloat16)


class Roofline:
    """Adds up the operations that it is told of, by phase.

    Args:
        single_flops: float32 operations a second.
        half_flops: the same in half precision.
        bandwidth: bytes a second.
    """

    def __init__(self, single_flops: float, half_flops: float, bandwidth: float) -> None:
        self._single_flops, self._half_flops, self._bandwidth = single_flops, half_flops, bandwidth
        self.seconds: dict[str, float] = {}
        """By phase."""

    @classmethod
    def of(cls, gpu: Gpu) -> Roofline | None:
        """For this GPU; None when its speed is not known."""
        if gpu.single_flops is None or gpu.half_flops is None or gpu.bandwidth is None:
            return None
        return cls(gpu.single_flops, gpu.half_flops, gpu.bandwidth)

    def __call__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any, phase: str) -> None:
        """An operation was computed; one that only looks at the same bytes, or asks about them, takes nothing.

        The first step is not counted: there the optimizer makes its state.
        """
        if func.is_view or func.namespace == "prim" or phase.endswith(" 1"):
            return  # prim: a question about a tensor, such as where it is
        tensors = [leaf for leaf in tree_iter((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        count = flop_registry.get(func._overloadpacket)
        flops = count(*args, **kwargs, out_val=result) if count is not None else 0
        peak = self._half_flops if tensors and tensors[0].dtype in _HALVES else self._single_flops
        self.seconds[phase] = self.seconds.get(phase, 0.0) + max(flops / peak, moved / self._bandwidth, LAUNCH)
