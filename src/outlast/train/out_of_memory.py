"""Which errors mean that the memory was too small, and how to let go of what they hold. Needs torch."""

from __future__ import annotations

import gc
import re
import traceback
from collections.abc import Iterator

import torch

TEXT = re.compile(
    r"(CUDA|HIP|XPU|NPU|MPS backend) out of memory"
    r"|(CUDA|HIP) error: out of memory"
    r"|(CUBLAS|CUDNN|HIPBLAS|CUSOLVER|CUSPARSE|CUFFT|NCCL)_STATUS_(ALLOC_FAILED|NOT_INITIALIZED)"
    r"|DefaultCPUAllocator: (can't allocate|not enough) memory"
)
"""What torch and its libraries say. A cuBLAS or cuDNN handle that cannot be made wanted memory for its workspace."""
_TYPES = tuple(
    kind
    for owner, name in ((torch, "OutOfMemoryError"), (torch.cuda, "OutOfMemoryError"))
    if isinstance(kind := getattr(owner, name, None), type)
)
"""Since torch 2.5, and before."""


def is_out_of_memory(error: BaseException) -> bool:
    """True when less work at once may cure it; an illegal access, or Python's own MemoryError, is something else."""
    return isinstance(error, _TYPES) or (isinstance(error, RuntimeError) and TEXT.search(str(error)) is not None)


def was_in(error: BaseException, function: str) -> bool:
    """True when a function of this name was running as it was raised."""
    return any(frame.f_code.co_name == function for frame, _ in traceback.walk_tb(error.__traceback__))


def let_go(error: BaseException, around: BaseException | None = None) -> None:
    """Drop every tensor that an error's frames hold, and give cached memory back to the device.

    Call it when the ``except`` block has been left: inside it the interpreter holds the frames itself.

    Args:
        error: what was caught; it keeps its text.
        around: an error that was being handled before; it and what it came from keep their frames.
    """
    for link in _chain(error, around):
        traceback.clear_frames(link.__traceback__)
        link.__traceback__ = None
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif hasattr(torch, "mps") and torch.backends.mps.is_available():
        torch.mps.empty_cache()
    elif hasattr(torch, "xpu") and torch.xpu.is_available():
        torch.xpu.empty_cache()


def _chain(error: BaseException, around: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or link is around or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        waiting += [link.__cause__, link.__context__]
