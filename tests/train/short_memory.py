"""Memory that is short, for tests: a layer that raises what CUDA's allocator raises, and what is still held."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.58 GiB"


class Short(torch.nn.Module):
    """Passes its input on; raises when more samples come than fit.

    Args:
        room: called at each forward: the most samples that fit.
        where: ``forward``, or ``backward``, when the gradients of later layers are there already.
        error: what is raised.
    """

    def __init__(
        self,
        room: Callable[[], int],
        where: str = "forward",
        error: Callable[[], BaseException] = lambda: torch.OutOfMemoryError(MESSAGE),
    ) -> None:
        super().__init__()
        self.room, self.where, self.error = room, where, error
        self.seen: list[int] = []
        """Samples of each forward."""
        self.failed = 0
        """Times that memory ran out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        if len(x) <= self.room():
            return x
        if self.where == "forward":
            self.fail()
        x = x + 0
        x.register_hook(lambda gradient: self.fail())
        return x

    def fail(self, *_: Any) -> None:
        self.failed += 1
        raise self.error()


@contextmanager
def quick_collections() -> Iterator[None]:
    """Each time that memory runs out garbage is collected; what the imports left need not be looked at every time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def tensors_of(shape: tuple[int, ...]) -> int:
    """Living tensors of a shape."""
    gc.collect()
    found = 0
    for thing in gc.get_objects():
        # isinstance asks an object for its class, and torch has some that warn when asked anything.
        found += issubclass(type(thing), torch.Tensor) and tuple(thing.shape) == shape
    return found
