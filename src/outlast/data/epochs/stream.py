"""The iterable form of rows, for loaders that take no other. Needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from outlast.data.epochs.epoch import SharedEpoch
from outlast.data.epochs.loader import Ordered, place_of, share
from outlast.data.epochs.order import Walk


class Stream(IterableDataset[Any]):  # type: ignore[misc]
    """Rows one by one, in the epoch's order: ``DataLoader(stream, batch_size=B, num_workers=N)``.

    Each worker gives the rows of every N-th batch, so that the batches and their order do not depend on N; therefore
    it must know the batch size. Shuffled, each epoch has its order: call `set_epoch`, as `outlast.Run`, Trainer and
    Lightning do.

    Args:
        data: `Rows` or `Blocks`.
        batch_size: the DataLoader's.
        rank: which part is ours; None takes torch.distributed's or torchrun's. Where the framework deals out the rows
            of an iterable itself (Trainer, Accelerate), ``rank=0, world=1``.
        world: how many parts; None likewise.
    """

    def __init__(self, data: Ordered, batch_size: int, *, rank: int | None = None, world: int | None = None) -> None:
        self.data, self.batch_size = data, batch_size
        self.rank, self.world = place_of(rank, world)
        self._epoch = SharedEpoch()

    def set_epoch(self, number: int) -> None:
        """The epoch whose order the next iteration has."""
        self._epoch.set(number)

    def __len__(self) -> int:
        rows, whole = self.data.order.rows, self.data.order.rows // (self.batch_size * self.world)
        last = share(rows, 0, self.batch_size, self.rank, self.world, False)
        return whole * self.batch_size + sum(stop - start for start, stop in last)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        rows, step = self.data.order.rows, self.batch_size * self.world
        walk = Walk(replace(self.data.order, epoch=self._epoch.number))
        starts = range(self.rank * self.batch_size, rows // step * step, step)
        places = [(start, start + self.batch_size) for start in starts[first::every]]
        if len(starts) % every == first:
            places += share(rows, 0, self.batch_size, self.rank, self.world, False)
        for start, stop in places:
            yield from self.data.take(walk.between(start, stop).tolist())
