"""This process's place in torch.distributed."""

from __future__ import annotations

import sys
from typing import Any


class Ranks:
    """This process's place in torch.distributed; one process when that is not in use."""

    def __init__(self) -> None:
        module = sys.modules.get("torch.distributed")
        self._dist: Any = module if module and module.is_available() and module.is_initialized() else None
        self.rank = int(self._dist.get_rank()) if self._dist else 0
        self.world = int(self._dist.get_world_size()) if self._dist else 1

    @property
    def is_first(self) -> bool:
        """True on the rank that decides."""
        return self.rank == 0

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        box = [value]
        self._dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in their order, on every rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        self._dist.all_gather_object(values, value)
        return values
